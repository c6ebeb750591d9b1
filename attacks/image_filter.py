"""Image attacks that lose detail: noise, blur, median filter, lower resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from PIL import ImageFilter
from torch import Generator, Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from attacks.image_pixels import to_bytes, to_unit, with_pillow
from attacks.limits import check_strength
from bench.protocol import Target, UserError


@dataclass(frozen=True)
class GaussianNoise:
    """Add white Gaussian noise, then clip and round.

    Several published evaluations add noise of variance where they write deviation, or wrap around below 0.

    Attributes:
        std: standard deviation of the noise, for images in [0, 1].
    """

    std: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 with noise."""
        noise = torch.randn(content.shape, generator=rng, device=rng.device).to(content.device)
        return to_bytes(to_unit(content) + self.std * noise)


@dataclass(frozen=True)
class GaussianBlur:
    """Blur with a Gaussian, cut off at four standard deviations; edges continue with their own colour.

    Attributes:
        sigma: standard deviation of the kernel, in pixels.
    """

    sigma: float = 1.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0.01, 1000)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, blurred."""
        rows, columns = (_blurring(side, self.sigma).to(content.device) for side in content.shape[-2:])
        return (rows @ content.float() @ columns.T).round().clamp(0, 255).to(torch.uint8)


def _blurring(side: int, sigma: float) -> Tensor:
    """The blur along one axis as a matrix (side, side): at these sizes much faster than a convolution."""
    radius = math.ceil(4 * sigma)
    steps = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    places = (torch.arange(side)[:, None] + steps).clamp(0, side - 1)
    return torch.zeros(side, side).scatter_add_(1, places, (kernel / kernel.sum()).repeat(side, 1))


@dataclass(frozen=True)
class MedianFilter:
    """Replace each value by the median of its square neighbourhood, channel by channel.

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
        return with_pillow(content, lambda picture: picture.filter(ImageFilter.MedianFilter(self.kernel)))


@dataclass(frozen=True)
class Resize:
    """Scale down and up again, bicubic with antialiasing, rounding to 8 bits in between.

    Attributes:
        scale: factor of the sides, in (0, 1]; lower is stronger. A side never falls below one pixel.
    """

    scale: float = 0.5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1e-4, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 of less detail."""
        full = list(content.shape[-2:])
        small = [max(1, round(side * self.scale)) for side in full]
        return resized(resized(content, small), full)


def resized(content: Tensor, size: list[int]) -> Tensor:
    """Images scaled to ``size`` (height, width), bicubic with antialiasing."""
    scaled: Tensor = tvf.resize(content, size, InterpolationMode.BICUBIC, antialias=True)
    return scaled.contiguous()
