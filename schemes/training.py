"""The training loop of weight-modulation fingerprints."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.muon import Muon
from bench.precision import mixed
from bench.protocol import Modality
from bench.rng import stream
from schemes.checkpointing import recomputed
from schemes.hardening import Hardening, adapt, harden
from schemes.modulations import energy_per_bit
from schemes.trials import Setting
from schemes.unmarked import unmarked

logger = logging.getLogger("genprint")

START_WEIGHT = 3.0
"""Quality weight of the first step."""


@dataclass(frozen=True, repr=False)
class Recipe:
    """How modulator and reader are trained together, the base decoder frozen.

    The fidelity asked for holds from the first step; a controller sets the weight of the quality terms accordingly.

    Attributes:
        steps: optimiser steps.
        batch: items per step, each with its own random code.
        rate: learning rate of the reader's matrices, under Muon.
        modulator_rate: learning rate of the modulator, under AdamW.
        augment: whether the reader sees distorted content.
        psnr_db: fidelity to the original decoder's output asked for, PSNR.
        perceptual: weight of the modality's perceptual distance beside 20 times the squared error.
        unreleased: weight beside them of the squared distance between what the decoders put out, over the variance of
            what the public one does. It holds what release and observation hide from both errors: the level of a clip,
            the place of a mesh, distances away from its surface. Readers push these as if they were seen.
        null: weight of reading unmarked content as undecided.
        decay: share of the steps, at the end, over which the learning rates fall to 2 %.
        enough: running bit accuracy at which the fall begins before its time, and then makes up the same share of fewer
            steps.
        pool: training latents drawn once.
        hardening: what is done to users' decoders meanwhile; None is the plain recipe.
        pace: share of all learning rates; None is all of them, for a training from nothing.
    """

    steps: int = 10000
    batch: int = 16
    rate: float = 0.02
    modulator_rate: float = 3e-3
    augment: bool = False
    psnr_db: float = 31.0
    perceptual: float = 3.0
    unreleased: float = 2.0
    null: float = 0.1
    decay: float = 0.6
    enough: float = 0.985
    pool: int = 4096
    hardening: Hardening | None = field(default=None, repr=False)
    pace: float | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        """All fields; the last two only where they are set, so that plain recipes are called what they always were."""
        shown = [each.name for each in fields(self) if each.repr or getattr(self, each.name) is not None]
        return f"Recipe({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


@dataclass
class Progress:
    """Running averages that steer the loop, and the log it leaves.

    The quality weight follows the missing fidelity by a proportional-integral rule in decibels. The integral alone
    swings between a tenth and ten times the right weight. Above its start it is ten times slower while 3 dB or more are
    missing: a start far below would wind it up to where the bits never start.
    """

    accuracy: float = 0.5
    psnr_db: float | None = None
    weight: float = START_WEIGHT
    integral: float = math.log(START_WEIGHT)
    log: list[dict[str, float]] = field(default_factory=list)
    before: tuple[int, float] = (0, 0.0)
    """Steps and seconds of an earlier training."""

    @classmethod
    def after(cls, log: Sequence[Mapping[str, float]]) -> Progress:
        """Where a training ended that left this log, whose steps and seconds are counted on."""
        if not log:
            return cls()
        last, rows = log[-1], [dict(row) for row in log]
        before = int(last["step"]), last["seconds"]
        return cls(weight=last["weight"], integral=math.log(last["weight"]), log=rows, before=before)

    def update(self, accuracy: float, psnr_db: float, due_db: float) -> None:
        """Follow one step's measurements and set the quality weight for the next."""
        self.accuracy += 0.02 * (accuracy - self.accuracy)
        self.psnr_db = psnr_db if self.psnr_db is None else self.psnr_db + 0.05 * (psnr_db - self.psnr_db)
        missing = max(-3.0, min(3.0, due_db - self.psnr_db))
        rate = 0.0004 if missing >= 3 and self.integral > math.log(START_WEIGHT) else 0.004
        self.integral = min(max(self.integral + rate * missing, math.log(0.02)), math.log(300.0))
        self.weight = math.exp(self.integral + 0.5 * missing)


class Descent:
    """Optimisers that step together, each group of parameters at a share of its learning rate.

    Args:
        optimisers: at their largest learning rates.
        pace: share of all of these.
    """

    def __init__(self, optimisers: Sequence[torch.optim.Optimizer], pace: float) -> None:
        self.optimisers = optimisers
        self.groups = [group for optimiser in optimisers for group in optimiser.param_groups]
        self.peaks = [group["lr"] * pace for group in self.groups]

    def begin(self, share: float) -> None:
        """Start a step without gradients, at this share of the learning rates."""
        for group, peak in zip(self.groups, self.peaks, strict=True):
            group["lr"] = peak * share
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Change all parameters."""
        for optimiser in self.optimisers:
            optimiser.step()


def energy(modulator: Any, decoder: nn.Module) -> float:
    """Relative change of the weights per bit, over eight codes; see :func:`schemes.modulations.energy_per_bit`."""
    codes = torch.randint(2, (8, modulator.bits), generator=stream(0, "energy")) * 2.0 - 1
    return energy_per_bit(modulator, decoder, codes.to(next(decoder.parameters()).device))


def train(setting: Setting, recipe: Recipe, rng: torch.Generator, progress: Progress | None = None) -> Progress:
    """Train modulator and reader in place.

    Args:
        setting: both networks, and the pool they are trained on.
        recipe: how.
        rng: draws items, codes and distortions.
        progress: of an earlier training of these networks, from which the quality weight goes on.

    Returns:
        The log: running bit accuracy, PSNR to the original output and quality weight, every 100 steps.
    """
    modality, generator, hardening = setting.modality, setting.generator, recipe.hardening
    (modulator, reader), (latents, _) = setting.networks, setting.pool
    device = next(generator.decoder.parameters()).device
    descent = Descent(_optimisers(modulator, reader, recipe), 1.0 if recipe.pace is None else recipe.pace)
    began, progress = time.monotonic(), progress or Progress()
    step, steps = 0, recipe.steps
    reader.train()
    while step < steps:
        descent.begin(_factor(step, steps, recipe.decay))
        rows, codes = _pairs(len(latents), recipe.batch, modulator.bits, rng)
        noise = hardening.drawn_noise(progress.accuracy, rng) if hardening else 0.0
        # The hooks of the modulation stay for the backward pass, in which a large decoder runs again.
        with (
            unmarked(setting, rows, noise, rng, fields=recipe.unreleased > 0) as (z, original, public),
            modulator.applied(generator.decoder, codes.to(device)),
            recomputed(generator.decoder),
        ):
            with mixed(device):
                marked = modality.soft_release(fields := generator.decode(generator.decoder, z))
            seen = torch.cat([marked, original[: 1 + len(rows) // 5]])
            seen = modality.augment(seen, rng) if recipe.augment else seen
            bit_loss, accuracy = _bit_loss(reader, seen, codes.to(device), recipe.null)
            error = F.mse_loss(marked, original)
            distortion = 20 * error + recipe.perceptual * _distance(modality, original, marked, recipe)
            (bit_loss + progress.weight * (distortion + recipe.unreleased * _drift(fields, public))).backward()
        if hardening and hardening.on_copies and progress.accuracy >= hardening.start:
            harden(setting, hardening, rng)
        nn.utils.clip_grad_norm_(list(modulator.parameters()), 1.0)
        descent.step()
        progress.update(accuracy, -10 * math.log10(max(error.item(), 1e-9)), recipe.psnr_db)
        step += 1
        steps = _steps(step, steps, progress.accuracy, recipe)
        if step % 100 == 0:
            _report(progress, step, steps, time.monotonic() - began)
    if hardening:
        adapt(setting, hardening.adaptation, rng)
    reader.eval()
    return progress


def _bit_loss(reader: nn.Module, seen: Tensor, codes: Tensor, null: float) -> tuple[Tensor, float]:
    """Cross-entropy of the bits in ``seen``, (B + U, C, ...): B marked items with ±1 ``codes``, then U unmarked ones.

    Marked items are those of :func:`_pairs`. What is read from the first of two less what is read from the second has
    to tell the code as well: there content cancels, so that bits start where one item tells nothing yet.

    Returns:
        The loss, in which an unmarked item counts ``null`` and is right when undecided, and the bit accuracy.
    """
    count = len(codes)
    with mixed(seen.device):
        soft = reader(seen)
    targets = F.pad((codes > 0).float(), (0, 0, 0, len(seen) - count), value=0.5)
    losses = F.binary_cross_entropy_with_logits(soft, targets, reduction="none").mean(1)
    accuracy = float(((soft[:count] > 0) == (codes > 0)).float().mean())
    first, second = soft[:count].chunk(2)
    apart = F.binary_cross_entropy_with_logits(first - second, (codes[: len(first)] > 0).float())
    return losses[:count].mean() + apart + null * losses[count:].mean(), accuracy


def _distance(modality: Modality, original: Tensor, marked: Tensor, recipe: Recipe) -> Tensor:
    """Perceptual distance, on one of each pair: the network that judges it costs as much as the decoder."""
    if not recipe.perceptual:
        return marked.new_zeros(())
    half = (len(marked) + 1) // 2
    with mixed(marked.device):
        return modality.perceptual_loss(original[:half], marked[:half]).mean()


def _drift(fields: Tensor, public: Tensor | None) -> Tensor:
    """Squared distance of fields (2 B, ...) to the public ones (B, ...), twice, over these' variance."""
    if public is None:
        return fields.new_zeros(())
    apart = fields.float() - public.float().repeat(2, *[1] * (public.ndim - 1))
    return apart.square().mean() / public.float().var().clamp_min(1e-12)


def _optimisers(modulator: nn.Module, reader: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the reader's matrices, AdamW for the rest.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024: orthogonalised steps learn the
    directions that natural content drowns as fast as the others.
    """
    matrices = [p for p in reader.parameters() if p.ndim == 2]
    others = [p for p in reader.parameters() if p.ndim != 2]
    groups: list[dict[str, Any]] = [
        {"params": others, "lr": 2e-3},
        {"params": list(modulator.parameters()), "lr": recipe.modulator_rate},
    ]
    return [
        Muon(matrices, lr=recipe.rate, weight_decay=0.02, momentum=0.9, ns_steps=4),
        torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
    ]


def _pairs(pool: int, batch: int, bits: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows of the pool and ±1 codes: each latent twice, under a random code and under its opposite.

    Whatever the content says about a bit then cancels in the reader's gradient, and only the mark's own effect is left.
    """
    half = (batch + 1) // 2
    rows = torch.randint(pool, (half,), generator=rng)
    codes = torch.randint(2, (half, bits), generator=rng) * 2.0 - 1
    return torch.cat([rows, rows]), torch.cat([codes, -codes])


def _steps(step: int, steps: int, accuracy: float, recipe: Recipe) -> int:
    """Steps in all: as asked for, or fewer from the first time that the running accuracy is enough."""
    if steps < recipe.steps or accuracy < recipe.enough:
        return steps
    return min(steps, math.ceil(step / max(1 - recipe.decay, 1e-9)))


def _factor(step: int, steps: int, decay: float) -> float:
    """Warm-up over 50 steps, flat, then a straight fall to 2 %."""
    tail = max(0.0, 1 - (1 - step / steps) / decay)
    return min(1.0, (step + 1) / 50) * (1 - 0.98 * tail)


def _report(progress: Progress, step: int, steps: int, seconds: float) -> None:
    fidelity = progress.psnr_db or 0.0
    counted = {"step": step + progress.before[0], "seconds": seconds + progress.before[1]}
    row = {"step": 0, "bit_accuracy": progress.accuracy, "psnr_db": fidelity, "weight": progress.weight} | counted
    progress.log.append({key: round(value, 4) for key, value in row.items()})
    logger.info(
        "fit: step %d of %d, bit accuracy %.4f, PSNR %.1f dB, quality weight %.3g",
        *(step, steps, progress.accuracy, fidelity, progress.weight),
        extra={"stage": "fit", "done": step, "total": steps},
    )
