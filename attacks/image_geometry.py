"""Image attacks that move or hide pixels: crop, rotation, translation, erasing, mirror.

What comes into view from outside continues the colour of the nearest edge: black corners would give a reader an
easy cue on photographs, and a large false difference on the white ground of the embedded generator's images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from attacks.image_filter import resized
from attacks.image_pixels import to_bytes, to_unit
from attacks.limits import check_strength
from bench.protocol import Target


@dataclass(frozen=True)
class CropResize:
    """Keep a window of the image's own proportions at a random place, scaled back to full size.

    Attributes:
        keep_ratio: share of the area that is kept, in (0, 1]; lower is stronger.
    """

    keep_ratio: float = 0.5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1e-4, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Windows of images (B, 3, H, W) uint8, in their full size."""
        full = list(content.shape[-2:])
        height, width = (max(1, round(side * math.sqrt(self.keep_ratio))) for side in full)
        places = _places(len(content), (full[0] - height, full[1] - width), rng)
        windows = [item[:, y : y + height, x : x + width] for item, (y, x) in zip(content, places, strict=True)]
        return resized(torch.stack(windows), full)


@dataclass(frozen=True)
class Rotation:
    """Rotate about the centre, bilinear; the size stays, corners are lost.

    Attributes:
        degrees: angle, counter-clockwise.
    """

    degrees: float = 10.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -360, 360)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, rotated."""
        rotation = rotation_matrix(self.degrees).to(content.device)
        height, width = content.shape[-2:]
        sides = torch.tensor([width, height], dtype=torch.float32, device=content.device)
        # Grid coordinates run over [-1, 1] on both axes; a rotation is one in pixels only.
        theta = F.pad(rotation * sides / sides.unsqueeze(1), (0, 1))  # (2, 3)
        grid = F.affine_grid(theta.expand(len(content), 2, 3), list(content.shape), align_corners=False)
        turned = F.grid_sample(to_unit(content), grid, padding_mode="border", align_corners=False)
        return to_bytes(turned)


def rotation_matrix(degrees: float) -> Tensor:
    """The orthogonal (2, 2) matrix that takes output to input positions (x right, y down)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[cos, -sin], [sin, cos]])


@dataclass(frozen=True)
class Translation:
    """Shift by whole pixels along a random diagonal.

    Attributes:
        share: shift as a share of the width, and of the height.
    """

    share: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, shifted."""
        height, width = content.shape[-2:]
        signs = (torch.randint(2, (len(content), 2), generator=rng, device=rng.device) * 2 - 1).tolist()
        moved = [
            item[:, _shifted(height, y * self.share)][:, :, _shifted(width, x * self.share)]
            for item, (y, x) in zip(content, signs, strict=True)
        ]
        return torch.stack(moved)


def _shifted(side: int, share: float) -> Tensor:
    return (torch.arange(side) - round(share * side)).clamp(0, side - 1)


@dataclass(frozen=True)
class Erasing:
    """Blacken one random rectangle of aspect ratio 1:2 to 2:1 relative to the image.

    Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, arXiv:1708.04896; black as in WAVES, arXiv:2401.08573.

    Attributes:
        share: share of the area that is erased.
    """

    share: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 with a black rectangle each."""
        erased = content.clone()
        full = content.shape[-2:]
        stretch = 2 ** (torch.rand(len(content), generator=rng, device=rng.device) - 0.5)  # (B,)
        for item, factor in zip(erased, stretch.tolist(), strict=True):
            # No lower than the share: the width could not make up for it.
            side = min(1.0, max(self.share, math.sqrt(self.share) * factor))
            height = max(1, round(full[0] * side))
            width = min(full[1], round(self.share * full[0] * full[1] / height))
            [(y, x)] = _places(1, (full[0] - height, full[1] - width), rng)
            item[:, y : y + height, x : x + width] = 0
        return erased


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirror left to right; it has no strength."""

    target: ClassVar[Target] = "content"

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, mirrored."""
        return content.flip(-1)


def _places(n: int, room: tuple[int, int], rng: Generator) -> list[list[int]]:
    """Top left corners (y, x) of ``n`` windows, uniform over the free ``room``."""
    at = torch.rand(n, 2, generator=rng, device=rng.device).cpu() * (torch.tensor(room) + 1)
    corners: list[list[int]] = at.long().minimum(torch.tensor(room)).tolist()
    return corners
