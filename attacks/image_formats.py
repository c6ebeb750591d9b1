"""Image attacks that save in other formats, or again and again: JPEG 2000, AVIF, repeated JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image, features
from torch import Generator, Tensor

from attacks.grids import Card, Grid, image_family
from attacks.image_pixels import with_pillow
from attacks.limits import check_strength
from bench.protocol import Target, UserError

CODECS = {"avif": "libavif", "jpg_2000": "OpenJPEG"}


@dataclass(frozen=True)
class JPEG2000:
    """Compress as JPEG 2000 (lossy wavelets, ITU-T T.800) at a given error.

    OpenJPEG cuts the stream where its own estimate of the error says so.

    Attributes:
        psnr_db: peak signal-to-noise ratio that the encoder aims at, in dB; lower is stronger.
    """

    psnr_db: float = 30.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 10, 60)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, compressed and opened again."""
        _check("jpg_2000", self)
        return with_pillow(content, self._reopened)

    def _reopened(self, picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        # Every level of the transform halves the sides, and none may fall below a pixel.
        levels = max(1, min(6, min(picture.size).bit_length()))
        picture.save(
            buffer,
            "JPEG2000",
            quality_mode="dB",
            quality_layers=[self.psnr_db],
            irreversible=True,
            num_resolutions=levels,
        )
        return Image.open(buffer)


@dataclass(frozen=True)
class AVIF:
    """Compress as AVIF: intra frames of AV1, 4:2:0 chroma.

    Attributes:
        quality: libavif's quality, 0 to 100; lower is stronger.
    """

    quality: int = 50
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 100)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, compressed and opened again."""
        _check("avif", self)
        return with_pillow(content, self._reopened)

    def _reopened(self, picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "AVIF", quality=self.quality, speed=6, max_threads=1)
        return Image.open(buffer)


@dataclass(frozen=True)
class MultipleJPEG:
    """Save as JPEG several times over.

    At one quality and one grid of blocks the error soon stops growing: most of it is made by the first pass.

    Attributes:
        passes: how often.
        quality: libjpeg's quality of each pass.
    """

    passes: int = 4
    quality: int = 80
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, compressed and opened again ``passes`` times."""
        for _ in range(self.passes):
            content = with_pillow(content, self._reopened)
        return content

    def _reopened(self, picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=self.quality)
        return Image.open(buffer)


def lacks(codec: str) -> str | None:
    """What to install when Pillow was built without ``codec``, a key of ``CODECS``; None when it was not."""
    if features.check(codec):
        return None
    return f"expected a Pillow with {CODECS[codec]}, found one built without; install Pillow's ordinary wheel"


def _check(codec: str, attack: JPEG2000 | AVIF) -> None:
    if lack := lacks(codec):
        raise UserError(f"{attack!r}: {lack}")


FAMILIES = (
    image_family(
        "jpeg2000",
        JPEG2000,
        Grid((40.0, 35.0, 30.0, 25.0, 20.0), 2, "dB PSNR"),
        Card("Saves the picture as JPEG 2000, as archives and cinemas do.", "WatermarkLab"),
        standard=(35.0, 25.0),
        missing=lambda: lacks("jpg_2000"),
    ),
    image_family(
        "avif",
        lambda s: AVIF(int(s)),
        Grid((90, 80, 50, 25, 10), 2, "quality"),
        Card("Saves the picture as AVIF, as new phones and browsers do.", "GenPrint"),
        standard=(50, 10),
        missing=lambda: lacks("avif"),
    ),
    image_family(
        "multiple-jpeg",
        lambda s: MultipleJPEG(int(s)),
        Grid((1, 2, 4, 6), 2, "passes at quality 80"),
        Card("Passes the picture on from site to site, each of which saves it as JPEG.", "WatermarkLab"),
        standard=(),
    ),
)
