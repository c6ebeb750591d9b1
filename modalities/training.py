"""A plain, resumable training loop shared by the embedded generators of all modalities."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.folders import cache_folder
from bench.muon import Muon
from bench.weights import detached_copy


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps.
        batch: items per step.
        rate: peak learning rate of AdamW; linear warm-up, then cosine to 2 % of it.
        muon_rate: peak learning rate of Muon, which then trains all matrices but embeddings and AdamW the rest; 0
            leaves everything to AdamW. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
        warmup: steps of warm-up.
        ema: decay of the weight average that is evaluated and shipped.
        weight_decay: of AdamW.
        clip: largest gradient norm.
    """

    steps: int
    batch: int
    rate: float
    warmup: int = 100
    ema: float = 0.999
    weight_decay: float = 1e-2
    clip: float = 1.0
    muon_rate: float = 0.0

    def factor(self, step: int) -> float:
        """Learning rate at ``step`` relative to the peak."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


@dataclass
class Loop:
    """Train ``model`` on ``loss(step)``; log to CSV; checkpoint so that an interrupted run goes on.

    Attributes:
        name: stage, names the checkpoint and the log.
        schedule: see :class:`Schedule`.
        model: trained in place; ends up holding the averaged weights.
        loss: terms of one step as scalars; ``loss`` is the one that is minimised. All randomness comes from ``step``.
        validate: numbers worth logging, from the averaged model.
        every: steps between validations and checkpoints.
    """

    name: str
    schedule: Schedule
    model: nn.Module
    loss: Callable[[int], dict[str, Tensor]]
    validate: Callable[[nn.Module], dict[str, float]]
    every: int = 300

    def run(self) -> None:
        """Train to the end of the schedule, starting from the newest checkpoint when there is one."""
        folder = cache_folder() / "training"
        folder.mkdir(parents=True, exist_ok=True)
        averaged = detached_copy(self.model).eval().requires_grad_(False)  # deepcopy refuses weight normalisation
        optimisers = self._optimisers()
        peaks = [[group["lr"] for group in optimiser.param_groups] for optimiser in optimisers]
        start, began = self._resume(folder / f"{self.name}.ckpt", averaged, optimisers), time.monotonic()
        sums: dict[str, float] = {}
        for step in range(start, self.schedule.steps):
            for optimiser, rates in zip(optimisers, peaks, strict=True):
                for group, rate in zip(optimiser.param_groups, rates, strict=True):
                    group["lr"] = rate * self.schedule.factor(step)
            terms = self._step(step, averaged, optimisers)
            sums = {key: sums.get(key, 0.0) + float(value) for key, value in terms.items()}
            if (done := step + 1) % self.every == 0 or done == self.schedule.steps:
                count = (done - start) % self.every or min(self.every, done - start)
                row = {key: value / count for key, value in sums.items()} | self.validate(averaged)
                self._log(folder / f"{self.name}.csv", done, row, (time.monotonic() - began) / (done - start))
                self._save(folder / f"{self.name}.ckpt", done, averaged, optimisers)
                sums = {}
        self.model.load_state_dict(averaged.state_dict())

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        embeddings = {id(m.weight) for m in self.model.modules() if isinstance(m, nn.Embedding)}
        trained = [p for p in self.model.parameters() if p.requires_grad]
        muon = [p for p in trained if self.schedule.muon_rate and p.ndim == 2 and id(p) not in embeddings]
        others, decay = [p for p in trained if all(p is not m for m in muon)], self.schedule.weight_decay
        adam = torch.optim.AdamW(others, lr=self.schedule.rate, weight_decay=decay, betas=(0.9, 0.99), fused=True)
        if not muon:
            return [adam]
        return [Muon(muon, lr=self.schedule.muon_rate, weight_decay=decay, momentum=0.9, ns_steps=4), adam]

    def _step(self, step: int, averaged: nn.Module, optimisers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
        self.model.train()
        terms = self.loss(step)
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        terms["loss"].backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.schedule.clip)
        for optimiser in optimisers:
            optimiser.step()
        keep = min(self.schedule.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(averaged.parameters()), list(self.model.parameters()), 1 - keep)
        return {key: value.detach() for key, value in terms.items()}

    def _log(self, path: Path, step: int, row: dict[str, float], seconds: float) -> None:
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(["step", *row])
            writer.writerow([step, *(f"{value:.5g}" for value in row.values())])
        left = (self.schedule.steps - step) * seconds / 60
        shown = " ".join(f"{key} {value:.4g}" for key, value in row.items())
        print(
            f"{self.name} {step}/{self.schedule.steps} {shown} ({seconds:.2f} s/step, {left:.0f} min left)", flush=True
        )

    def _save(self, path: Path, step: int, averaged: nn.Module, optimisers: Sequence[torch.optim.Optimizer]) -> None:
        partial = path.with_suffix(".part")
        state = {
            "step": step,
            "model": self.model.state_dict(),
            "averaged": averaged.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        }
        torch.save(state, partial)
        os.replace(partial, path)

    def _resume(self, path: Path, averaged: nn.Module, optimisers: Sequence[torch.optim.Optimizer]) -> int:
        if not path.is_file():
            return 0
        state = torch.load(path, weights_only=True, map_location="cpu")
        self.model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        return int(state["step"])
