"""Image attacks that add noise of other kinds than Gaussian: impulses, photons, grain, dead pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from attacks.grids import Card, Grid, image_family
from attacks.image_pixels import to_bytes, to_unit
from attacks.limits import check_strength
from bench.protocol import Target


@dataclass(frozen=True)
class SaltAndPepper:
    """Make random pixels white or black, one as likely as the other, all three channels together.

    Attributes:
        share: share of the pixels that are replaced.
    """

    share: float = 0.05
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 with white and black pixels."""
        draws = uniform(content, rng)  # (B, 1, H, W)
        salted = torch.where(draws < self.share / 2, torch.full_like(content, 255), content)
        return salted.masked_fill((draws >= self.share / 2) & (draws < self.share), 0)


@dataclass(frozen=True)
class PixelDropout:
    """Make random pixels black, all three channels together.

    Attributes:
        share: share of the pixels that are lost.
    """

    share: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 with black pixels."""
        return content.masked_fill(uniform(content, rng) < self.share, 0)


@dataclass(frozen=True)
class PoissonNoise:
    """Count photons: each value becomes a Poisson number with the value as its mean.

    Attributes:
        photons: mean count at full white; fewer is stronger. A value v in [0, 1] gets the variance v / photons.
    """

    photons: float = 30.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1e-2, 1e8)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 as a camera in the dark takes them."""
        rate = (to_unit(content) * self.photons).to(rng.device)
        return to_bytes(torch.poisson(rate, generator=rng) / self.photons).to(content.device)


@dataclass(frozen=True)
class Speckle:
    """Multiply every value by 1 plus Gaussian noise, as coherent light and film grain do.

    Attributes:
        std: standard deviation of the factor.
    """

    std: float = 0.2
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 with grain."""
        noise = torch.randn(content.shape, generator=rng, device=rng.device).to(content.device)
        return to_bytes(to_unit(content) * (1 + self.std * noise))


def uniform(content: Tensor, rng: Generator) -> Tensor:
    """One number in [0, 1) for each pixel of images (B, 3, H, W), (B, 1, H, W)."""
    shape = (len(content), 1, *content.shape[-2:])
    return torch.rand(shape, generator=rng, device=rng.device).to(content.device)


FAMILIES = (
    image_family(
        "salt-and-pepper",
        SaltAndPepper,
        Grid((0.01, 0.05, 0.1, 0.2), 1, "share of the pixels"),
        Card("Strews white and black pixels over the picture.", "WatermarkLab"),
        standard=(0.05, 0.1),
    ),
    image_family(
        "pixel-dropout",
        PixelDropout,
        Grid((0.01, 0.05, 0.1, 0.3, 0.5), 2, "share of the pixels"),
        Card("Blackens random pixels, as a damaged file shows them.", "WatermarkLab"),
        standard=(),
    ),
    image_family(
        "poisson-noise",
        PoissonNoise,
        Grid((300.0, 100.0, 30.0, 10.0, 3.0), 2, "photons at white"),
        Card("Adds the shot noise of a photograph taken in the dark.", "WatermarkLab"),
        standard=(),
    ),
    image_family(
        "speckle",
        Speckle,
        Grid((0.05, 0.1, 0.2, 0.4), 2, "std of the factor"),
        Card("Adds grain, as film and laser light do.", "WatermarkLab"),
        standard=(),
    ),
)
