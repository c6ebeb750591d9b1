"""What a fit would take, found out by three of its steps."""

from __future__ import annotations

import dataclasses
import resource
import time
from dataclasses import dataclass
from typing import Any

import torch

from bench.protocol import Generator, Modality, UserError
from bench.rng import child, fenced
from schemes import training
from schemes.trials import Setting
from schemes.unmarked import originals

TIMED = 3
"""Steps that are timed, after one that is not."""


@dataclass(frozen=True)
class Rehearsal:
    """What a fit would take.

    Attributes:
        steps: of the optimiser, at most.
        batch: items per step.
        pool: latents drawn once.
        seconds_per_step: mean of three.
        latents_seconds: estimated of drawing the pool and decoding it once.
        peak_bytes: largest memory so far: of the GPU, or of the whole process.
    """

    steps: int
    batch: int
    pool: int
    seconds_per_step: float
    latents_seconds: float
    peak_bytes: int

    @property
    def seconds(self) -> float:
        """Estimated of the whole fit."""
        return self.latents_seconds + self.steps * self.seconds_per_step


def rehearse(scheme: Any, modality: Modality, generator: Generator, rng: torch.Generator) -> Rehearsal:
    """Draw one batch, take one step and three timed ones, and keep nothing.

    Raises:
        UserError: when the scheme is not trained in steps.
    """
    recipe = getattr(scheme, "recipe", None)
    if recipe is None or not hasattr(scheme, "modulation"):
        raise UserError(f"dry run: expected a scheme that is trained in steps, found {type(scheme).__name__}")
    device = next(generator.decoder.parameters()).device
    few = max(2, min(recipe.batch, recipe.pool))
    began = time.perf_counter()
    latents = generator.training_latents(few, child(rng, "latents"))
    unmarked = originals(modality, generator, latents)
    drawn = time.perf_counter() - began
    modulator = scheme.modulation.bind(generator.decoder, scheme.bits, child(rng, "modulator")).to(device)
    with fenced(child(rng, "reader").initial_seed()):
        reader = scheme.reader.build(unmarked, scheme.bits).to(device)
    setting = Setting(modality, generator, (modulator, reader), (latents, unmarked))
    for steps in (1, TIMED):
        began = time.perf_counter()
        short = dataclasses.replace(recipe, steps=steps)
        training.train(setting, short, child(rng, "training", steps))
        step = (time.perf_counter() - began) / steps
    return Rehearsal(recipe.steps, recipe.batch, recipe.pool, step, drawn * recipe.pool / few, _peak(device))


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
