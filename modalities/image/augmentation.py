"""Differentiable random distortions for training readers of images.

The set of WOUAF (Kim et al., CVPR 2024, arXiv:2306.04744) drawn anew at every call; JPEG is straight-through.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import gaussian_blur


def distort(x: Tensor, rng: torch.Generator) -> Tensor:
    """Apply one distortion drawn from the set to images (B, 3, H, W) in [0, 1]; every third call changes nothing."""
    if _uniform(rng, 0, 1) < 1 / 3:
        return x
    pick = int(torch.randint(len(DISTORTIONS), (), generator=rng))
    return DISTORTIONS[pick](x, rng).clamp(0, 1)


def _uniform(rng: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=rng))


def _noise(x: Tensor, rng: torch.Generator) -> Tensor:
    return x + _uniform(rng, 0, 0.1) * torch.randn(x.shape, generator=rng).to(x.device)


def _blur(x: Tensor, rng: torch.Generator) -> Tensor:
    sigma = _uniform(rng, 0.3, 1.5)
    blurred: Tensor = gaussian_blur(x, [2 * math.ceil(2 * sigma) + 1] * 2, [sigma, sigma])
    return blurred


def _brightness(x: Tensor, rng: torch.Generator) -> Tensor:
    return x * _uniform(rng, 0.6, 1.5)


def _contrast(x: Tensor, rng: torch.Generator) -> Tensor:
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * _uniform(rng, 0.6, 1.6)


def _gamma(x: Tensor, rng: torch.Generator) -> Tensor:
    return x.clamp_min(1e-3) ** math.exp(_uniform(rng, -0.5, 0.5))


def _resize(x: Tensor, rng: torch.Generator) -> Tensor:
    size = round(x.shape[-1] * _uniform(rng, 0.5, 1.0))
    small = F.interpolate(x, (size, size), mode="bicubic", antialias=True)
    return F.interpolate(small, x.shape[2:], mode="bicubic")


def _affine(x: Tensor, rng: torch.Generator) -> Tensor:
    """Rotation, zoom and shift together, edges continued."""
    angle, zoom = math.radians(_uniform(rng, -20, 20)), _uniform(rng, 0.75, 1.05)
    shift = [_uniform(rng, -0.15, 0.15) for _ in range(2)]
    cosine, sine = zoom * math.cos(angle), zoom * math.sin(angle)
    theta = torch.tensor([[cosine, -sine, shift[0]], [sine, cosine, shift[1]]], device=x.device)
    grid = F.affine_grid(theta.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _flip(x: Tensor, rng: torch.Generator) -> Tensor:
    return x.flip(3)


def _erase(x: Tensor, rng: torch.Generator) -> Tensor:
    height, width = x.shape[2:]
    h, w = round(height * _uniform(rng, 0.2, 0.5)), round(width * _uniform(rng, 0.2, 0.5))
    top, left = round(_uniform(rng, 0, height - h)), round(_uniform(rng, 0, width - w))
    mask = torch.ones_like(x[:1, :1])
    mask[..., top : top + h, left : left + w] = 0
    return x * mask


def _hue(x: Tensor, rng: torch.Generator) -> Tensor:
    """Rotate colours about the grey axis (Rodrigues), which is a hue shift that is linear in RGB."""
    angle = math.tau * _uniform(rng, -0.2, 0.2)
    cosine, sine = math.cos(angle), math.sin(angle) / math.sqrt(3)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=x.device)
    turn = cosine * torch.eye(3, device=x.device) + (1 - cosine) / 3 + sine * cross
    return torch.einsum("ij,bjhw->bihw", turn, x)


def _jpeg(x: Tensor, rng: torch.Generator) -> Tensor:
    quality = int(_uniform(rng, 30, 95))
    pixels = (x.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    coded = []
    for image in pixels:
        buffer = io.BytesIO()
        Pillow.fromarray(image).save(buffer, "JPEG", quality=quality)
        coded.append(np.asarray(Pillow.open(buffer)))
    after = torch.from_numpy(np.stack(coded)).permute(0, 3, 1, 2).to(x) / 255
    return x + (after - x).detach()


DISTORTIONS: tuple[Callable[[Tensor, torch.Generator], Tensor], ...] = (
    _noise,
    _blur,
    _brightness,
    _contrast,
    _gamma,
    _resize,
    _affine,
    _flip,
    _erase,
    _hue,
    _jpeg,
)
