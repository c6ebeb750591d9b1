"""Image attacks on colour, all by torchvision: brightness, contrast, hue, gamma.

All compute in floating point: on uint8 images torchvision wraps around where a factor is an integer (100 × 3 gives 44).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as tvf

from attacks.image_pixels import to_bytes, to_unit
from attacks.limits import check_strength
from bench.protocol import Target


@dataclass(frozen=True)
class Brightness:
    """Multiply all values, then clip.

    Attributes:
        factor: above 1 brightens, below 1 darkens.
    """

    factor: float = 1.5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 in other brightness."""
        return to_bytes(tvf.adjust_brightness(to_unit(content), self.factor))


@dataclass(frozen=True)
class Contrast:
    """Scale the distance from each image's mean grey, then clip.

    Attributes:
        factor: above 1 raises the contrast, below 1 lowers it.
    """

    factor: float = 1.5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 in other contrast."""
        return to_bytes(tvf.adjust_contrast(to_unit(content), self.factor))


@dataclass(frozen=True)
class Hue:
    """Turn the hue, in HSV.

    Attributes:
        turns: share of the full circle, in [-0.5, 0.5]; 1/3 takes red to green.
    """

    turns: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -0.5, 0.5)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 in other hues."""
        return to_bytes(tvf.adjust_hue(to_unit(content), self.turns))


@dataclass(frozen=True)
class Gamma:
    """Raise all values, in [0, 1], to a power.

    Attributes:
        gamma: the power; above 1 darkens the mid-tones, below 1 lifts them.
    """

    gamma: float = 1.5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 with other mid-tones."""
        return to_bytes(tvf.adjust_gamma(to_unit(content), self.gamma))
