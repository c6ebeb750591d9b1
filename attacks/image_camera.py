"""Image attacks through a screen, or through a printer and a camera, in five grades."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from attacks.grids import Card, Grid, image_family
from attacks.image_chain import GRADES, chained
from attacks.image_codec import JPEG
from attacks.image_colour import Contrast, Gamma
from attacks.image_filter import GaussianBlur, GaussianNoise, Resize
from attacks.image_geometry import CropResize
from attacks.image_pixels import to_bytes, to_unit
from attacks.image_tone import WhiteBalance
from attacks.image_warp import Perspective
from attacks.limits import check_strength
from bench.protocol import ContentAttack, Target


@dataclass(frozen=True)
class Screenshot:
    """Show the picture scaled on a screen, take a screenshot, cut the picture out a little askew, and post it.

    Grade g: shown at 1 - 0.1 g of its size, gamma 1 + 0.04 g by the screen's profile, 0.015 g of the area cut off, JPEG
    of quality 98 - 8 g. Own grades: the peers' screenshot attacks give no parameters.

    Attributes:
        grade: 1 to 5.
    """

    grade: float = 3.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 5)

    def links(self) -> tuple[ContentAttack, ...]:
        """The attacks in a row."""
        g = self.grade
        return Resize(1 - 0.1 * g), Gamma(1 + 0.04 * g), CropResize(1 - 0.015 * g), JPEG(round(98 - 8 * g))

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 as they look in the screenshot."""
        return chained(content, self.links(), rng)


@dataclass(frozen=True)
class SideLight:
    """Uneven light: darker towards a random side.

    Attributes:
        share: light that is lost at the darkest edge.
    """

    share: float = 0.2
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 under a lamp at their side."""
        height, width = content.shape[-2:]
        angle = 2 * torch.pi * torch.rand(len(content), 1, 1, 1, generator=rng, device=rng.device).to(content.device)
        across = torch.linspace(-1, 1, width, device=content.device)
        down = torch.linspace(-1, 1, height, device=content.device)[:, None]
        side = angle.cos() * across + angle.sin() * down  # (B, 1, H, W)
        side = (side / side.abs().amax((2, 3), keepdim=True) + 1) / 2
        return to_bytes(to_unit(content) * (1 - self.share * side))


@dataclass(frozen=True)
class PrintCamera:
    """Print the picture and photograph it: paler, warmer, unevenly lit, at an angle, out of focus, noisy, as JPEG.

    The steps of Tancik et al., "StegaStamp", CVPR 2020, arXiv:1904.05343, section 3.3. Grade g: contrast 1 - 0.06 g,
    white balance 0.03 g, light 0.08 g, perspective 0.03 g, blur 0.25 g pixels, noise 0.01 g, JPEG of quality
    95 - 9 g. Own grades; at grade 5 they reach the ranges that StegaStamp trains with.

    Attributes:
        grade: 1 to 5.
    """

    grade: float = 3.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0.1, 5)

    def links(self) -> tuple[ContentAttack, ...]:
        """The attacks in a row."""
        g = self.grade
        paper = (Contrast(1 - 0.06 * g), WhiteBalance(0.03 * g), SideLight(0.08 * g))
        lens = (Perspective(0.03 * g), GaussianBlur(0.25 * g), GaussianNoise(0.01 * g))
        return *paper, *lens, JPEG(round(95 - 9 * g))

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 as the camera sees them."""
        return chained(content, self.links(), rng)


FAMILIES = (
    image_family(
        "screenshot",
        Screenshot,
        Grid(GRADES, 2, "grade"),
        Card("Takes a screenshot of the picture and posts that.", "WaterPrism, grades by GenPrint"),
        standard=(1.0, 3.0),
    ),
    image_family(
        "print-camera",
        PrintCamera,
        Grid(GRADES, 2, "grade"),
        Card("Photographs a print of the picture.", "StegaStamp, arXiv:1904.05343"),
        standard=(),
    ),
    image_family(
        "side-light",
        SideLight,
        Grid((0.1, 0.2, 0.4, 0.8), 1, "share of light lost"),
        Card("Photographs the picture under a lamp at its side.", "GenPrint"),
        standard=(),
    ),
)
