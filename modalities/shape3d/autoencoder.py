"""Train the embedded generator's autoencoder of fields."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.precision import mixed
from bench.rng import fenced, stream
from modalities.shape3d import data
from modalities.shape3d.grid import GridAutoencoder
from modalities.shape3d.parts import VARIANTS
from modalities.training import Loop, Schedule

SCHEDULE = Schedule(steps=2400, batch=16, rate=2e-3, warmup=50, ema=0.995, weight_decay=1e-3)
NOISE = 0.05
"""Deviation of the noise on latents in training, relative to theirs: about what a denoiser leaves over."""
SHARP = 8.0
"""Logits of being inside are distances, in truncations, times this."""
COLOUR = 2.0
"""Weight of the colours' mean absolute error."""
LOOSE = 1e-3
"""Weight of the latents' mean square, which keeps them near the scale of the noise."""


def train(seed: int, device: torch.device) -> GridAutoencoder:
    """Train, or finish a training that was interrupted; returns the averaged (EMA) network, latents scaled."""
    with fenced(seed):
        model = GridAutoencoder().to(device)
    rows = data.rows_of(("fit", "prompts"))

    def loss(step: int) -> dict[str, Tensor]:
        rng = stream(seed, "3d autoencoder", step)
        drawn = [rows[i] for i in torch.randint(len(rows), (SCHEDULE.batch,), generator=rng).tolist()]
        colours = torch.randint(VARIANTS, (SCHEDULE.batch,), generator=rng).tolist()
        fields = data.fields(drawn, colours).to(device)
        with mixed(device):
            z = model.encoder(fields)
            noise = NOISE * z.detach().std() * torch.randn(z.shape, generator=rng).to(device)
            restored = model.decoder(z + noise)
        return terms(restored.float(), fields, z.float())

    def validate(averaged: nn.Module) -> dict[str, float]:
        fields = data.shipped("reference")[0][::8].to(device)
        with torch.no_grad():
            restored = torch.cat([averaged.decoder(averaged.encoder(part)) for part in fields.split(8)])  # type: ignore[operator]
        return {"held_out_iou": float(grid_iou(restored, fields).mean()), "held_out_psnr": _psnr(restored, fields)}

    Loop("3d_autoencoder", SCHEDULE, model, loss, validate, every=100).run()
    model.eval().requires_grad_(False)
    sample = data.fields(rows[:: max(1, len(rows) // 256)], [0] * len(rows[:: max(1, len(rows) // 256)])).to(device)
    model.deviation.copy_(torch.cat([model.encoder(part) for part in sample.split(8)]).std())
    return model


def terms(restored: Tensor, fields: Tensor, z: Tensor) -> dict[str, Tensor]:
    """Loss of restored fields: distances, most near the surface; which side of it a point is on; colours near it."""
    target, found = fields[:, :1], restored[:, :1]
    near = (target.abs() < 0.5).float()
    distance = ((found.clamp(-1, 1) - target).abs() * (1 + 4 * near)).mean()
    side = (
        F.binary_cross_entropy_with_logits(SHARP * found, (target > 0).float(), reduction="none") * (1 + near)
    ).mean()
    colour = ((restored[:, 1:] - fields[:, 1:]).abs() * near).sum() / (3 * near.sum()).clamp_min(1)
    total = distance + side + COLOUR * colour + LOOSE * z.square().mean()
    return {"loss": total, "distance": distance, "colour": colour, "iou": grid_iou(restored, fields).mean()}


def grid_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (B,) of the cells whose centres lie inside, of fields."""
    one, other = a[:, 0] > 0, b[:, 0] > 0
    shared, joint = ((x).flatten(1).sum(1).float() for x in (one & other, one | other))
    return shared / joint.clamp_min(1)


def _psnr(restored: Tensor, fields: Tensor) -> float:
    """Of colours within a cell or so of the surface, in dB."""
    near = (fields[:, :1].abs() < 0.5).float()
    error = ((restored[:, 1:] - fields[:, 1:]).square() * near).sum() / (3 * near.sum()).clamp_min(1)
    return float(-10 * error.log10())
