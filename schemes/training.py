"""The training loop of weight-modulation fingerprints: bits first, quality second."""

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
from bench.rng import child

logger = logging.getLogger("genprint")


@dataclass(frozen=True)
class Recipe:
    """How modulator and reader are trained together, the base decoder frozen.

    The quality weight stays weak until the running bit accuracy passes ``start_quality``, and then moves by a small
    factor per step: up while the accuracy is at ``hold_bits`` or the fidelity is short of its target, down while the
    bits suffer. With the full weight from the first step the bits never start.

    Attributes:
        steps: optimiser steps.
        batch: items per step, each with its own random code.
        rate: learning rate of the reader.
        modulator_rate: learning rate of the modulator.
        augment: whether the reader sees distorted content.
        start_quality: running bit accuracy at which the quality term wakes up.
        hold_bits: running bit accuracy that the controller defends afterwards.
        psnr_db: fidelity to the original decoder's output at which the weight stops growing.
        pool: training latents drawn once.
        block: bits trained at first, and joining whenever the running accuracy passes ``start_quality``. All 32 at once
            drown one another: at 500 steps they stood at 0.55.
    """

    steps: int = 5000
    batch: int = 16
    rate: float = 3e-3
    modulator_rate: float = 1e-3
    augment: bool = False
    start_quality: float = 0.85
    hold_bits: float = 0.98
    psnr_db: float = 33.0
    pool: int = 2048
    block: int = 8


@dataclass
class Progress:
    """Running averages that steer the loop, and the log it leaves.

    Attributes:
        bits: bits to train in the end.
        active: bits in training now.
    """

    bits: int
    active: int
    accuracy: float = 0.5
    psnr_db: float = 0.0
    weight: float = 0.2
    awake: bool = False
    log: list[dict[str, float]] = field(default_factory=list)

    def update(self, recipe: Recipe, accuracy: float, psnr_db: float) -> None:
        """Follow one step's measurements, let the next block of bits join, and move the quality weight."""
        self.accuracy += 0.02 * (accuracy - self.accuracy)
        self.psnr_db = psnr_db if self.psnr_db == 0 else self.psnr_db + 0.02 * (psnr_db - self.psnr_db)
        if self.active < self.bits:
            if self.accuracy > recipe.start_quality:
                known, self.active = self.active, min(self.active + recipe.block, self.bits)
                self.accuracy = 0.5 + (self.accuracy - 0.5) * known / self.active
            return
        self.awake = self.awake or self.accuracy > recipe.start_quality
        if self.awake and self.accuracy > recipe.hold_bits and self.psnr_db < recipe.psnr_db:
            self.weight = min(self.weight * 1.01, 10.0)
        elif self.awake and self.accuracy < recipe.start_quality:
            self.weight = max(self.weight / 1.01, 0.2)
        elif self.awake and self.psnr_db < recipe.psnr_db - 3:
            self.weight = min(self.weight * 1.004, 10.0)


def train(
    modality: Modality, generator: Generator, modulator: Any, reader: nn.Module, recipe: Recipe, rng: torch.Generator
) -> Progress:
    """Train ``modulator`` and ``reader`` in place for ``generator``.

    Returns:
        The log: running bit accuracy, PSNR to the original output and quality weight, every 100 steps.
    """
    device = next(generator.decoder.parameters()).device
    latents = generator.training_latents(recipe.pool, child(rng, "latents"))
    originals = _originals(modality, generator, latents)
    optimiser = _optimiser(modulator, reader, recipe)
    peaks = [group["lr"] for group in optimiser.param_groups]
    bits, began = _bits(reader), time.monotonic()
    progress = Progress(bits, min(recipe.block, bits))
    reader.train()
    for step in range(recipe.steps):
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * _factor(step, recipe.steps)
        rows, codes = _pairs(len(latents), recipe.batch, bits, rng)
        codes = codes.to(device)
        active = progress.active
        codes[:, active:] = 0  # no bit: neither written nor asked for
        with torch.autocast(device.type, torch.bfloat16):
            with modulator.applied(generator.decoder, codes):
                marked = modality.soft_release(generator.decode(generator.decoder, latents[rows].to(device)))
            soft = reader(modality.augment(marked, rng) if recipe.augment else marked)[:, :active]
            original = originals[rows].to(device).float()
            apart = modality.perceptual_loss(original, marked).mean() if progress.awake else marked.new_zeros(())
        error = F.mse_loss(marked, original)
        bit_loss = F.binary_cross_entropy_with_logits(soft, (codes[:, :active] > 0).float())
        loss = bit_loss + progress.weight * (20 * error + apart)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([*reader.parameters(), *modulator.parameters()], 1.0)
        optimiser.step()
        accuracy = float(((soft > 0) == (codes[:, :active] > 0)).float().mean())
        progress.update(recipe, accuracy, -10 * math.log10(max(error.item(), 1e-9)))
        if (step + 1) % 100 == 0:
            _report(progress, step + 1, recipe.steps, time.monotonic() - began)
    reader.eval()
    if progress.active < bits:
        logger.warning(
            "fit: only %d of %d bits were reached in %d steps; train longer", progress.active, bits, recipe.steps
        )
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


@torch.no_grad()
def _originals(modality: Modality, generator: Generator, latents: Tensor) -> Tensor:
    """What the public decoder makes of each latent, once: half precision resolves an 8-bit step eight times."""
    parts = [modality.soft_release(generator.decode(generator.decoder, z)).half().cpu() for z in latents.split(32)]
    return torch.cat(parts)


def _bits(reader: nn.Module) -> int:
    return int([m for m in reader.modules() if isinstance(m, nn.Linear)][-1].out_features)


def _factor(step: int, steps: int) -> float:
    """Warm-up over 100 steps, flat, then cosine over the last 60 %."""
    if step < 100:
        return (step + 1) / 100
    tail = max(0.0, (step / steps - 0.4) / 0.6)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * tail))


def _report(progress: Progress, step: int, steps: int, seconds: float) -> None:
    row = {"step": step, "bits": progress.active, "bit_accuracy": progress.accuracy, "psnr_db": progress.psnr_db}
    row["weight"] = progress.weight
    progress.log.append({key: round(value, 4) for key, value in (row | {"seconds": seconds}).items()})
    logger.info(
        "fit: step %d of %d, %d bits at accuracy %.4f, PSNR %.1f dB, quality weight %.3g",
        *(step, steps, progress.active, progress.accuracy, progress.psnr_db, progress.weight),
        extra={"stage": "fit", "done": step, "total": steps},
    )
