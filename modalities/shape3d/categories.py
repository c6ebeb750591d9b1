"""Train the PointNet that tells part categories apart, on real parts."""

from __future__ import annotations

import os

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bench.folders import cache_folder
from bench.rng import fenced, stream
from modalities.shape3d import data
from modalities.shape3d.parts import Part, every_part, largest_categories
from modalities.shape3d.perceptual import POINTS, WEIGHTS, PointNet, oriented_points
from modalities.shape3d.surface import released
from modalities.training import Loop, Schedule

SCHEDULE = Schedule(steps=1500, batch=32, rate=2e-3, warmup=50, ema=0.99, weight_decay=0.05)
DRAWN = 1024
"""Points of each part that batches draw from."""


def truth(parts: list[Part]) -> Tensor:
    """Index of each part's category among the largest; one more for all others."""
    names = largest_categories()
    return torch.tensor([names.index(p.category) if p.category in names else len(names) for p in parts])


def train(seed: int) -> tuple[PointNet, float, int]:
    """Train on every part that is not reference, or finish a training that was interrupted, and write the weights.

    Returns:
        The network, its accuracy on the held-out parts of the largest categories, and how many those are.
    """
    with fenced(seed):
        model = PointNet(len(largest_categories()) + 1)
    rows = data.rows_of(("fit", "prompts"))
    clouds, labels = clouds_of(rows, seed), truth([every_part()[row] for row in rows])

    def loss(step: int) -> dict[str, Tensor]:
        rng = stream(seed, "3d categories", step)
        chosen = torch.randint(len(rows), (SCHEDULE.batch,), generator=rng)
        picked = torch.randint(clouds.shape[2], (POINTS,), generator=rng)
        x = clouds[chosen][:, :, picked].float()
        x = torch.cat([x[:, :3] + 0.01 * torch.randn(x[:, :3].shape, generator=rng), x[:, 3:]], 1)
        logits = model(x)
        error = F.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
        return {"loss": error, "accuracy": (logits.argmax(1) == labels[chosen]).float().mean()}

    def validate(averaged: nn.Module) -> dict[str, float]:
        return {}

    Loop("3d_categories", SCHEDULE, model, loss, validate, every=100).run()
    _settle(model, clouds)
    model.eval().requires_grad_(False)
    WEIGHTS.parent.mkdir(parents=True, exist_ok=True)
    partial = WEIGHTS.with_name(f".{WEIGHTS.name}.part")
    state = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    save_file({key: value.contiguous() for key, value in state.items()}, partial)
    os.replace(partial, WEIGHTS)
    held_out = [row for row in data.rows_of(("reference",)) if every_part()[row].category in largest_categories()]
    guesses = torch.cat([model(part[:, :, :POINTS].float()).argmax(1) for part in clouds_of(held_out, seed).split(64)])
    right = guesses == truth([every_part()[row] for row in held_out])
    return model, float(right.float().mean()), len(held_out)


@torch.no_grad()
def _settle(model: PointNet, clouds: Tensor) -> None:
    """Statistics of batch normalisation for the averaged weights: those that ship belong to the last ones."""
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean
    for part in clouds[:2048, :, :POINTS].split(64):
        model(part.float())


def clouds_of(rows: list[int], seed: int) -> Tensor:
    """Points with normals (N, 6, 1024) of released real parts, half precision, kept in the cache."""
    path = cache_folder() / "3d" / f"clouds-{len(rows)}-{rows[0] if rows else 0}-{seed}.pt"
    if path.is_file():
        kept: Tensor = torch.load(path, weights_only=True)
        return kept
    drawn = []
    for start in range(0, len(rows), 64):
        meshes = [released(one) for one in data.fields(rows[start : start + 64], [0] * len(rows[start : start + 64]))]
        rng = stream(seed, "3d clouds", start)
        drawn.append(torch.cat([oriented_points(meshes, rng) for _ in range(DRAWN // POINTS)], 2).half())
    clouds = torch.cat(drawn).nan_to_num(0.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(clouds, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)
    return clouds
