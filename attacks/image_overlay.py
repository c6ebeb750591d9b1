"""Image attacks that put something over the picture, or the picture on something: text, strokes, a collage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from PIL import Image, ImageDraw, ImageFont, features
from torch import Generator, Tensor
from torch.nn import functional as F

from attacks.grids import Card, Grid, image_family
from attacks.image_filter import resized
from attacks.image_pixels import to_bytes, with_pillow
from attacks.limits import check_strength
from bench.protocol import Target, UserError
from bench.rng import child

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class TextOverlay:
    """Write one line of random capitals across the picture, white with a black rim, at a random height.

    Attributes:
        share: size of the letters (their em) as a share of the picture's height.
    """

    share: float = 0.15
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0.02, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 with text on them."""
        if lack := lacks_letters():
            raise UserError(f"{self!r}: {lack}")
        own = iter([child(rng, "text", index) for index in range(len(content))])
        return with_pillow(content, lambda picture: self._written(picture, next(own)))

    def _written(self, picture: Image.Image, rng: Generator) -> Image.Image:
        written = picture.copy()
        size = max(4.0, self.share * picture.height)
        font = ImageFont.load_default(size)
        # Capitals of this font are at least a quarter of an em wide, so these fill the width.
        chosen = torch.randint(len(LETTERS), (math.ceil(4 * picture.width / size),), generator=rng, device=rng.device)
        top = float(torch.rand(1, generator=rng, device=rng.device)) * max(0.0, picture.height - size)
        text, rim = "".join(LETTERS[i] for i in chosen.tolist()), max(1, round(size / 20))
        ImageDraw.Draw(written).text((0, top), text, "white", font, stroke_width=rim, stroke_fill="black")
        return written


def lacks_letters() -> str | None:
    """What to install when Pillow cannot draw letters of any size; None when it can."""
    if features.check("freetype2"):
        return None
    return "expected a Pillow with FreeType, found one built without; install Pillow's ordinary wheel"


@dataclass(frozen=True)
class StrokeOverlay:
    """Scribble straight strokes of random colours over the picture, a fiftieth of the shorter side wide.

    Attributes:
        strokes: how many.
    """

    strokes: int = 10
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 10_000)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 with strokes on them."""
        own = iter([child(rng, "strokes", index) for index in range(len(content))])
        return with_pillow(content, lambda picture: self._drawn(picture, next(own)))

    def _drawn(self, picture: Image.Image, rng: Generator) -> Image.Image:
        drawn, width = picture.copy(), max(1, round(min(picture.size) / 50))
        pen = ImageDraw.Draw(drawn)
        for _ in range(self.strokes):
            ends = torch.rand(2, 2, generator=rng, device=rng.device).cpu() * torch.tensor(picture.size)
            red, green, blue = torch.randint(256, (3,), generator=rng, device=rng.device).tolist()
            pen.line([(x, y) for x, y in ends.tolist()], fill=(red, green, blue), width=width)
        return drawn


@dataclass(frozen=True)
class Collage:
    """Shrink the picture and lay it, at a random place, on a ground of smooth random colours.

    Attributes:
        share: share of the area that the picture still has, in (0, 1]; lower is stronger.
    """

    share: float = 0.5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1e-4, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 inside larger ones that were shrunk to the old size."""
        height, width = content.shape[-2:]
        side = math.sqrt(self.share)
        small = resized(content, [max(1, round(height * side)), max(1, round(width * side))])
        ground = torch.rand(len(content), 3, 4, 4, generator=rng, device=rng.device)
        places = torch.rand(len(content), 2, generator=rng, device=rng.device).tolist()
        laid = to_bytes(F.interpolate(ground, (height, width), mode="bilinear")).to(content.device)
        down, across = height - small.shape[-2], width - small.shape[-1]
        for item, picture, (y, x) in zip(laid, small, places, strict=True):
            top, left = int(y * (down + 1)), int(x * (across + 1))
            item[:, top : top + picture.shape[-2], left : left + picture.shape[-1]] = picture
        return laid


FAMILIES = (
    image_family(
        "text-overlay",
        TextOverlay,
        Grid((0.1, 0.15, 0.2, 0.3), 1, "em, share of the height"),
        Card("Writes over the picture, as memes and stock agencies do.", "Omni Seal Bench; arXiv:2303.15435"),
        standard=(0.15, 0.3),
        missing=lacks_letters,
    ),
    image_family(
        "stroke-overlay",
        lambda s: StrokeOverlay(int(s)),
        Grid((5, 10, 20, 40), 1, "strokes"),
        Card("Scribbles over the picture.", "MarkDiffusion, arXiv:2509.10569"),
        standard=(),
    ),
    image_family(
        "collage",
        Collage,
        Grid((0.9, 0.7, 0.5, 0.2, 0.1), 2, "share of the area"),
        Card("Puts the picture into a larger one.", "Omni Seal Bench"),
        standard=(0.5,),
    ),
)
