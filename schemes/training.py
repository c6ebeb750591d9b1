"""The training loop of weight-modulation fingerprints: a loud mark first, which then fades."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.protocol import Generator, Modality

logger = logging.getLogger("genprint")


@dataclass(frozen=True)
class Recipe:
    """How modulator and reader are trained together, the base decoder frozen.

    The mark may be loud at first, ``start_db``, and has to fade to ``psnr_db`` over the first ``fade`` of the steps:
    bits are found while they are loud. The quality weight follows whatever fidelity is asked for at each step.

    Attributes:
        steps: optimiser steps.
        batch: items per step, each with its own random code.
        rate: learning rate of the reader.
        modulator_rate: learning rate of the modulator.
        augment: whether the reader sees distorted content.
        start_db: fidelity to the original decoder's output asked for at first, PSNR.
        psnr_db: fidelity asked for in the end.
        fade: share of the steps between the two.
        decay: share of the steps, at the end, over which the learning rates fall to 2 %.
        perceptual: weight of the modality's perceptual distance beside 20 times the squared error.
        pool: training latents drawn once.
    """

    steps: int = 4500
    batch: int = 16
    rate: float = 1e-3
    modulator_rate: float = 3e-3
    augment: bool = False
    start_db: float = 26.0
    psnr_db: float = 30.5
    fade: float = 0.5
    decay: float = 0.6
    perceptual: float = 0.0
    pool: int = 4096


@dataclass
class Progress:
    """Running averages that steer the loop, and the log it leaves."""

    accuracy: float = 0.5
    psnr_db: float = 0.0
    weight: float = 0.2
    log: list[dict[str, float]] = field(default_factory=list)

    def update(self, recipe: Recipe, step: int, accuracy: float, psnr_db: float) -> None:
        """Follow one step's measurements and move the quality weight, by 3 % at most, towards the fidelity due."""
        self.accuracy += 0.02 * (accuracy - self.accuracy)
        self.psnr_db = psnr_db if self.psnr_db == 0 else self.psnr_db + 0.05 * (psnr_db - self.psnr_db)
        faded = min(1.0, step / max(1.0, recipe.fade * recipe.steps))
        missing = recipe.start_db + faded * (recipe.psnr_db - recipe.start_db) - self.psnr_db
        self.weight = min(max(self.weight * math.exp(0.01 * max(-3.0, min(3.0, missing))), 0.02), 100.0)


def originals(modality: Modality, generator: Generator, latents: Tensor) -> Tensor:
    """What the public decoder makes of each latent, observed, (N, C, ...) on the CPU.

    In half precision, which resolves an 8-bit step eight times.
    """
    with torch.no_grad():
        parts = [modality.soft_release(generator.decode(generator.decoder, z)).half().cpu() for z in latents.split(32)]
    return torch.cat(parts)


def train(
    modality: Modality,
    generator: Generator,
    networks: tuple[Any, nn.Module],
    pool: tuple[Tensor, Tensor],
    recipe: Recipe,
    rng: torch.Generator,
) -> Progress:
    """Train modulator and reader, the two ``networks``, in place on a ``pool`` of latents and their originals.

    Returns:
        The log: running bit accuracy, PSNR to the original output and quality weight, every 100 steps.
    """
    (modulator, reader), (latents, unmarked) = networks, pool
    device = next(generator.decoder.parameters()).device
    optimiser = _optimiser(modulator, reader, recipe)
    peaks = [group["lr"] for group in optimiser.param_groups]
    bits, began, progress = modulator.bits, time.monotonic(), Progress()
    reader.train()
    for step in range(recipe.steps):
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * _factor(step, recipe)
        rows, codes = _pairs(len(latents), recipe.batch, bits, rng)
        codes, original = codes.to(device), unmarked[rows].to(device).float()
        with torch.autocast(device.type, torch.bfloat16):
            with modulator.applied(generator.decoder, codes):
                marked = modality.soft_release(generator.decode(generator.decoder, latents[rows].to(device)))
            soft = reader(modality.augment(marked, rng) if recipe.augment else marked)
            apart = modality.perceptual_loss(original, marked).mean() if recipe.perceptual else marked.new_zeros(())
        error = F.mse_loss(marked, original)
        bit_loss = F.binary_cross_entropy_with_logits(soft, (codes > 0).float())
        loss = bit_loss + progress.weight * (20 * error + recipe.perceptual * apart)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([*reader.parameters(), *modulator.parameters()], 1.0)
        optimiser.step()
        accuracy = float(((soft > 0) == (codes > 0)).float().mean())
        progress.update(recipe, step, accuracy, -10 * math.log10(max(error.item(), 1e-9)))
        if (step + 1) % 100 == 0:
            _report(progress, step + 1, recipe.steps, time.monotonic() - began)
    reader.eval()
    return progress


def _optimiser(modulator: nn.Module, reader: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": list(reader.parameters()), "lr": recipe.rate},
        {"params": list(modulator.parameters()), "lr": recipe.modulator_rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)


def _pairs(pool: int, batch: int, bits: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows of the pool and ±1 codes: each latent twice, under a random code and under its opposite.

    Whatever the content says about a bit then cancels in the reader's gradient, and only the mark's own effect is left.
    """
    half = (batch + 1) // 2
    rows = torch.randint(pool, (half,), generator=rng)
    codes = torch.randint(2, (half, bits), generator=rng) * 2.0 - 1
    return torch.cat([rows, rows]), torch.cat([codes, -codes])


def _factor(step: int, recipe: Recipe) -> float:
    """Warm-up over 50 steps, flat, then a cosine."""
    if step < 50:
        return (step + 1) / 50
    tail = max(0.0, 1 - (1 - step / recipe.steps) / recipe.decay)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * tail))


def _report(progress: Progress, step: int, steps: int, seconds: float) -> None:
    row = {"step": step, "bit_accuracy": progress.accuracy, "psnr_db": progress.psnr_db, "weight": progress.weight}
    progress.log.append({key: round(value, 4) for key, value in (row | {"seconds": seconds}).items()})
    logger.info(
        "fit: step %d of %d, bit accuracy %.4f, PSNR %.1f dB, quality weight %.3g",
        *(step, steps, progress.accuracy, progress.psnr_db, progress.weight),
        extra={"stage": "fit", "done": step, "total": steps},
    )
