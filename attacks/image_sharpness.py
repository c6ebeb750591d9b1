"""Image attacks that average neighbours, or set them apart: mean filter, motion blur, sharpening."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from PIL import ImageFilter
from torch import Generator, Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tvf

from attacks.grids import Card, Grid, image_family
from attacks.image_pixels import to_bytes, to_unit, with_pillow
from attacks.limits import check_strength
from bench.protocol import Target, UserError


@dataclass(frozen=True)
class MeanFilter:
    """Replace each value by the mean of its square neighbourhood; edges continue with their own colour.

    Attributes:
        kernel: side of the neighbourhood in pixels, odd.
    """

    kernel: int = 3
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1)
        if self.kernel % 2 == 0:
            raise UserError(f"{self!r}: the kernel must be odd, found {self.kernel}")

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, filtered."""
        wide = F.pad(to_unit(content), [self.kernel // 2] * 4, mode="replicate")
        return to_bytes(F.avg_pool2d(wide, self.kernel, 1))


@dataclass(frozen=True)
class MotionBlur:
    """Average along a horizontal or vertical line, as a shaken camera does; which of the two is drawn per image.

    Attributes:
        pixels: length of the line, odd.
    """

    pixels: int = 5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1)
        if self.pixels % 2 == 0:
            raise UserError(f"{self!r}: the length must be odd, found {self.pixels}")

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, blurred along one axis."""
        upright = torch.randint(2, (len(content), 1, 1, 1), generator=rng, device=rng.device).to(content.device) == 1
        wide = F.pad(to_unit(content), [self.pixels // 2] * 4, mode="replicate")
        middle = slice(self.pixels // 2, -(self.pixels // 2) or None)
        down = F.avg_pool2d(wide[..., middle], (self.pixels, 1), 1)
        across = F.avg_pool2d(wide[..., middle, :], (1, self.pixels), 1)
        return to_bytes(torch.where(upright, down, across))


@dataclass(frozen=True)
class Sharpness:
    """Move away from a 3 × 3 blurred copy, by torchvision.

    Attributes:
        factor: 1 changes nothing, above 1 sharpens, below 1 blurs.
    """

    factor: float = 2.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, sharpened; the outermost pixels stay."""
        return to_bytes(tvf.adjust_sharpness(to_unit(content), self.factor))


@dataclass(frozen=True)
class UnsharpMask:
    """Add the difference from a Gaussian-blurred copy of radius 2 pixels, as photo editors do, by Pillow.

    Attributes:
        percent: share of the difference that is added.
    """

    percent: int = 150
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, sharpened."""
        mask = ImageFilter.UnsharpMask(radius=2, percent=self.percent, threshold=0)
        return with_pillow(content, lambda picture: picture.filter(mask))


FAMILIES = (
    image_family(
        "mean-filter",
        lambda s: MeanFilter(int(s)),
        Grid((3, 5, 7, 9), 0, "pixels"),
        Card("Averages neighbouring pixels.", "WatermarkLab"),
        standard=(),
    ),
    image_family(
        "motion-blur",
        lambda s: MotionBlur(int(s)),
        Grid((3, 5, 9, 15), 1, "pixels"),
        Card("Blurs along a line, as a photograph from a shaken camera.", "GenPrint"),
        standard=(),
    ),
    image_family(
        "sharpness",
        Sharpness,
        Grid((1.5, 2.0, 5.0, 10.0, 15.0), 1, "factor"),
        Card("Sharpens the picture, as camera software does.", "Omni Seal Bench; WatermarkLab"),
        standard=(2.0, 5.0),
    ),
    image_family(
        "unsharp-mask",
        lambda s: UnsharpMask(int(s)),
        Grid((50, 100, 150, 300, 500), 2, "percent"),
        Card("Sharpens the picture with a photo editor.", "WatermarkLab"),
        standard=(),
    ),
)
