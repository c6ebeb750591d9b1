"""Image attacks that bend, tilt or cut: shear, perspective, elastic waves, crops of other shapes, upside down.

What comes into view from outside continues the colour of the nearest edge, as in :mod:`attacks.image_geometry`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tvf

from attacks.grids import Card, Grid, image_family
from attacks.image_filter import resized
from attacks.image_pixels import to_bytes, to_unit
from attacks.limits import check_strength
from bench.protocol import Target


@dataclass(frozen=True)
class Shear:
    """Move each row along itself, in proportion to its distance from the middle; bilinear.

    Attributes:
        degrees: angle by which upright lines lean.
    """

    degrees: float = 10.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -85, 85)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, leaning."""
        across, down = positions(content)
        middle = (content.shape[-2] - 1) / 2
        return sampled(content, across + math.tan(math.radians(self.degrees)) * (down - middle), down)


@dataclass(frozen=True)
class Perspective:
    """Photograph the picture from the side: each corner moves inwards by a random part of the largest shift.

    As torchvision's ``RandomPerspective``: half the distortion times the side is the largest shift; bilinear.

    Attributes:
        distortion: in [0, 1].
    """

    distortion: float = 0.3
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, seen at an angle each."""
        height, width = content.shape[-2:]
        inward = torch.rand(len(content), 4, 2, generator=rng, device=rng.device).cpu() * self.distortion / 2
        corners = torch.tensor([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], dtype=torch.float32)
        towards = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * torch.tensor([width, height])
        moved = corners + inward * towards  # (B, 4, 2), x and y in pixels
        seen = [_tilted(item, corners, end) for item, end in zip(content, moved, strict=True)]
        return torch.cat(seen)


def _tilted(item: Tensor, corners: Tensor, moved: Tensor) -> Tensor:
    """One image whose ``corners`` (4, 2) have moved; looked up through the homography from moved to original."""
    rows, right = [], []
    for (x, y), (u, v) in zip(moved.double().tolist(), corners.double().tolist(), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    a, b, c, d, e, f, g, h = torch.linalg.solve(torch.tensor(rows).double(), torch.tensor(right).double()).tolist()
    across, down = positions(item[None])
    depth = g * across + h * down + 1
    return sampled(item[None], (a * across + b * down + c) / depth, (d * across + e * down + f) / depth)


@dataclass(frozen=True)
class Elastic:
    """Displace every pixel by a smooth random field; bilinear.

    Simard et al., "Best Practices for Convolutional Neural Networks", ICDAR 2003; the field is white noise blurred by
    a sixteenth of the shorter side, and scaled so that the root mean square of its length is the strength.

    Attributes:
        pixels: root mean square displacement.
    """

    pixels: float = 1.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, rippled."""
        field = self.field(content, rng)
        across, down = positions(content)
        return sampled(content, across + field[:, 0], down + field[:, 1])

    def field(self, content: Tensor, rng: Generator) -> Tensor:
        """Displacements (B, 2, H, W) in pixels, right and down."""
        height, width = content.shape[-2:]
        sigma = max(1.0, min(height, width) / 16)
        margin = math.ceil(3 * sigma)
        shape = (len(content), 2, height + 2 * margin, width + 2 * margin)
        noise = torch.randn(shape, generator=rng, device=rng.device).to(content.device)
        smooth: Tensor = tvf.gaussian_blur(noise, [2 * margin + 1] * 2, [sigma] * 2)
        smooth = smooth[..., margin:-margin, margin:-margin]
        length = smooth.square().sum(1).mean((1, 2)).sqrt().view(-1, 1, 1, 1)
        return self.pixels * smooth / length


@dataclass(frozen=True)
class CentreCrop:
    """Keep the window of the image's own proportions in its middle, scaled back to full size.

    Attributes:
        keep_ratio: share of the area that is kept, in (0, 1]; lower is stronger.
    """

    keep_ratio: float = 0.5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1e-4, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """The middles of images (B, 3, H, W) uint8, in full size."""
        full = list(content.shape[-2:])
        height, width = (max(1, round(side * math.sqrt(self.keep_ratio))) for side in full)
        top, left = (full[0] - height) // 2, (full[1] - width) // 2
        return resized(content[..., top : top + height, left : left + width], full)


@dataclass(frozen=True)
class RandomResizedCrop:
    """Keep a window of random place and proportions, stretched to full size.

    Szegedy et al., "Going deeper with convolutions", CVPR 2015, arXiv:1409.4842: proportions from 3:4 to 4:3 relative
    to the image, uniform in their logarithm. Here the area is fixed, since it is the strength.

    Attributes:
        keep_ratio: share of the area that is kept, in (0, 1]; lower is stronger.
    """

    keep_ratio: float = 0.5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1e-4, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Windows of images (B, 3, H, W) uint8, in full size."""
        full = list(content.shape[-2:])
        draws = torch.rand(len(content), 3, generator=rng, device=rng.device).tolist()
        windows = []
        for item, (stretch, y, x) in zip(content, draws, strict=True):
            # No higher than the whole: the width could not make up for it, nor the other way round.
            side = math.sqrt(self.keep_ratio) * (4 / 3) ** (stretch - 0.5)
            side = min(1.0, max(self.keep_ratio, side))
            height, width = max(1, round(full[0] * side)), max(1, round(full[1] * self.keep_ratio / side))
            top, left = int(y * (full[0] - height + 1)), int(x * (full[1] - width + 1))
            windows.append(resized(item[None, :, top : top + height, left : left + width], full))
        return torch.cat(windows)


@dataclass(frozen=True)
class VerticalFlip:
    """Turn upside down, mirrored; it has no strength."""

    target: ClassVar[Target] = "content"

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, upside down."""
        return content.flip(-2)


def positions(content: Tensor) -> tuple[Tensor, Tensor]:
    """Columns (1, W) and rows (H, 1) of every pixel, float32."""
    height, width = content.shape[-2:]
    across = torch.arange(width, dtype=torch.float32, device=content.device)
    return across[None], torch.arange(height, dtype=torch.float32, device=content.device)[:, None]


def sampled(content: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Images (B, 3, H, W) uint8 looked up at other positions, bilinear.

    Args:
        content: images.
        across: columns, broadcastable to (B, H, W); those outside show the edge.
        down: rows, likewise.
    """
    batch, _, height, width = content.shape
    shape = (batch, height, width)
    grid = torch.stack([(2 * across + 1).expand(shape) / width - 1, (2 * down + 1).expand(shape) / height - 1], dim=-1)
    return to_bytes(F.grid_sample(to_unit(content), grid.float(), padding_mode="border", align_corners=False))


FAMILIES = (
    image_family(
        "shear",
        Shear,
        Grid((5.0, 10.0, 20.0, 30.0, 45.0), 1, "degrees"),
        Card("Lets the picture lean to one side.", "WatermarkLab"),
        standard=(),
    ),
    image_family(
        "perspective",
        Perspective,
        Grid((0.1, 0.2, 0.3, 0.5, 0.8), 2, "share of half the side"),
        Card("Photographs the picture from the side.", "Omni Seal Bench; Video Seal, arXiv:2412.09492"),
        standard=(0.1, 0.3),
    ),
    image_family(
        "elastic",
        Elastic,
        Grid((0.5, 1.0, 2.0, 4.0), 1, "pixels"),
        Card("Ripples the picture so slightly that no viewer notices.", "Simard et al., ICDAR 2003"),
        standard=(0.5, 1.0),
    ),
    image_family(
        "centre-crop",
        CentreCrop,
        Grid((0.9, 0.75, 0.5, 0.25, 0.1), 1, "share of the area kept"),
        Card("Cuts off the margins and enlarges the rest to the old size.", "Omni Seal Bench"),
        standard=(),
    ),
    image_family(
        "random-resized-crop",
        RandomResizedCrop,
        Grid((0.9, 0.75, 0.5, 0.25, 0.1), 1, "share of the area kept"),
        Card("Cuts a part out and stretches it to the old size.", "WAVES, arXiv:2401.08573"),
        standard=(),
    ),
    image_family(
        "vertical-flip",
        lambda _: VerticalFlip(),
        Grid((1,), 0, "none"),
        Card("Turns the picture upside down.", "WatermarkLab"),
        standard=(),
    ),
)
