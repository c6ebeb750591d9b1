"""Differentiable random distortions of observed grids (B, 4, 32, 32, 32), for training readers of meshes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from modalities.shape3d.voxels import smoothed


def distort(x: Tensor, rng: torch.Generator) -> Tensor:
    """One distortion for the whole batch; none in a third of the calls.

    Args:
        x: observed grids: a truncated signed distance in ±1, and RGB minus one half at the surface.
        rng: decides which and how strong.
    """
    if float(torch.rand((), generator=rng)) < 1 / 3:
        return x
    chosen = DISTORTIONS[int(torch.randint(len(DISTORTIONS), (), generator=rng))]
    return chosen(x, rng)


def _uniform(rng: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=rng))


def _noise(x: Tensor, rng: torch.Generator) -> Tensor:
    """Noise near the surface, as moved vertices make: none where the distance is saturated."""
    near = (1 - x[:, :1].detach().square()).clamp_min(0)
    return x + _uniform(rng, 0.02, 0.2) * near * torch.randn(x.shape, generator=rng).to(x.device)


def _blur(x: Tensor, rng: torch.Generator) -> Tensor:
    """Smoothed in place, as decimated and smoothed meshes are; outside is -1."""
    share = _uniform(rng, 0.3, 1)
    shifted = torch.cat([x[:, :1] + 1, x[:, 1:]], 1)
    soft = smoothed(shifted)
    return x + share * (soft - shifted)


def _level(x: Tensor, rng: torch.Generator) -> Tensor:
    """Thicker or thinner by up to a quarter of a cell."""
    near = 1 - x[:, :1].square()
    return torch.cat([x[:, :1] + _uniform(rng, -0.25, 0.25) * near, x[:, 1:]], 1)


def _grey(x: Tensor, rng: torch.Generator) -> Tensor:
    """Colours lost: geometry alone."""
    keep = torch.ones(4, device=x.device)
    keep[1:] = _uniform(rng, 0, 0.05)
    return x * keep.view(1, 4, 1, 1, 1)


def _paint(x: Tensor, rng: torch.Generator) -> Tensor:
    """Colours scaled and mixed a little."""
    mix = torch.eye(3) + 0.15 * torch.randn(3, 3, generator=rng)
    return torch.cat([x[:, :1], torch.einsum("ij,bjxyz->bixyz", mix.to(x.device), x[:, 1:])], 1)


def _colour_noise(x: Tensor, rng: torch.Generator) -> Tensor:
    seen = (x[:, 1:].detach() != 0).any(1, keepdim=True)
    noise = torch.randn(x[:, 1:].shape, generator=rng).to(x.device)
    return torch.cat([x[:, :1], x[:, 1:] + _uniform(rng, 0.01, 0.1) * seen * noise], 1)


def _affine(x: Tensor, rng: torch.Generator) -> Tensor:
    """Turned by up to 10 degrees around any axis, scaled by up to 5 %, shifted by up to half a cell."""
    skew = torch.randn(3, generator=rng)
    angle = math.radians(_uniform(rng, 0, 10))
    a, b, c = (skew / skew.norm().clamp_min(1e-6) * angle).tolist()
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, -c, b], [c, 0.0, -a], [-b, a, 0.0]]))
    scale = 1 + 0.05 * (2 * torch.rand(3, generator=rng) - 1)
    shift = (2 * torch.rand(3, 1, generator=rng) - 1) / x.shape[2]
    return moved(x, torch.cat([turn * scale, shift], 1))


def _rotation(x: Tensor, rng: torch.Generator) -> Tensor:
    """Turned by any angle around the upright axis."""
    angle = _uniform(rng, 0, 2 * math.pi)
    cosine, sine = math.cos(angle), math.sin(angle)
    # The grid's axes are x, y, z; torch counts places as z, y, x.
    return moved(x, torch.tensor([[cosine, 0.0, sine, 0.0], [0.0, 1.0, 0.0, 0.0], [-sine, 0.0, cosine, 0.0]]))


def moved(x: Tensor, matrix: Tensor) -> Tensor:
    """Grids seen through an affine map (3, 4); outside is -1, without colour."""
    places = F.affine_grid(matrix[None].to(x).expand(len(x), -1, -1), list(x.shape), align_corners=False)
    shifted = torch.cat([x[:, :1] + 1, x[:, 1:]], 1)
    moved = F.grid_sample(shifted, places, padding_mode="zeros", align_corners=False)
    return torch.cat([moved[:, :1] - 1, moved[:, 1:]], 1)


def _crop(x: Tensor, rng: torch.Generator) -> Tensor:
    """Up to a fifth of the cube cut away at one end of one axis."""
    axis, side = 2 + int(torch.randint(3, (), generator=rng)), x.shape[2]
    kept = torch.ones(side, device=x.device)
    kept[: int(side * _uniform(rng, 0.05, 0.2)) + 3] = 0
    kept = kept if float(torch.rand((), generator=rng)) < 0.5 else kept.flip(0)
    shape = [1, 1, 1, 1, 1]
    shape[axis] = side
    mask = kept.view(shape)
    return torch.cat([(x[:, :1] + 1) * mask - 1, x[:, 1:] * mask], 1)


DISTORTIONS: tuple[Callable[[Tensor, torch.Generator], Tensor], ...] = (
    _noise,
    _blur,
    _level,
    _grey,
    _paint,
    _colour_noise,
    _affine,
    _rotation,
    _crop,
)
