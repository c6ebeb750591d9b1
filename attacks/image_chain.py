"""Image attacks in a row, in five grades; each class says what its grades are and whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from attacks.grids import Card, Grid, image_family
from attacks.image_codec import JPEG
from attacks.image_colour import Brightness, Contrast
from attacks.image_filter import GaussianBlur, GaussianNoise
from attacks.image_geometry import CropResize, Erasing, Rotation, Translation
from attacks.image_warp import CentreCrop
from attacks.limits import check_strength
from bench.protocol import ContentAttack, Target
from bench.rng import child

WAVES = "WAVES, arXiv:2401.08573"
WOUAF = "WOUAF, arXiv:2306.04744"
GRADES = (1.0, 2.0, 3.0, 4.0, 5.0)


def chained(content: Tensor, links: Sequence[ContentAttack], rng: Generator) -> Tensor:
    """Images after one attack after the other, each with a stream of its own."""
    for index, link in enumerate(links):
        content = link(content, child(rng, "link", index))
    return content


@dataclass(frozen=True)
class WOUAFChain:
    """All image attacks of WOUAF's evaluation in a row, in its order.

    Kim et al., "WOUAF", CVPR 2024, arXiv:2306.04744. Grades 1 and 5 are the mildest and the strongest of the code's
    own: shift 0.02 to 0.1, rotation 10 to 30 degrees, blur, brightness -0.1 to -0.3, noise 0.05 to 0.2, erasing 0.05 to
    0.2, JPEG 90 to 50; linear in between. What it calls crop pads and cuts, which is a shift. Its blur draws a sigma of
    1 to 3 for kernels of 3 to 7 pixels; a Gaussian cut off there has about the sigma 0.8 to 1.6, which is taken here.

    Attributes:
        grade: 1 to 5.
    """

    grade: float = 3.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 5)

    def links(self) -> tuple[ContentAttack, ...]:
        """The attacks in a row."""
        t = (self.grade - 1) / 4
        moved = (Translation(0.02 + 0.08 * t), Rotation(10 + 20 * t), GaussianBlur(0.8 + 0.8 * t))
        worn = (Brightness(0.9 - 0.2 * t), GaussianNoise(0.05 + 0.15 * t), Erasing(0.05 + 0.15 * t))
        return *moved, *worn, JPEG(round(90 - 40 * t))

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 after all seven."""
        return chained(content, self.links(), rng)


@dataclass(frozen=True)
class GeometricChain:
    """Rotation, crop and erasing of WAVES in a row: grade g has 9 g degrees, keeps 1 - 0.1 g, erases 0.05 g.

    An et al., "WAVES", ICML 2024, arXiv:2401.08573, whose relative strength is g / 5.

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
        return Rotation(9 * g), CropResize(1 - 0.1 * g), Erasing(0.05 * g)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 after all three."""
        return chained(content, self.links(), rng)


@dataclass(frozen=True)
class PhotometricChain:
    """Brightness and contrast of WAVES in a row, each by the factor 1 + 0.2 g at grade g; see :class:`GeometricChain`.

    Attributes:
        grade: 1 to 5.
    """

    grade: float = 3.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 5)

    def links(self) -> tuple[ContentAttack, ...]:
        """The attacks in a row."""
        return Brightness(1 + 0.2 * self.grade), Contrast(1 + 0.2 * self.grade)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 after both."""
        return chained(content, self.links(), rng)


@dataclass(frozen=True)
class DegradationChain:
    """Blur, noise and JPEG of WAVES in a row; see :class:`GeometricChain`.

    Grade g: noise 0.02 g, JPEG of quality 90 - 16 g, and a blur of g / 128 of the shorter side, which is WAVES' sigma
    of 4 g pixels on its pictures of 512.

    Attributes:
        grade: 1 to 5.
    """

    grade: float = 3.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0.1, 5)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 after all three."""
        blur = GaussianBlur(max(0.01, self.grade * min(content.shape[-2:]) / 128))
        return chained(content, (blur, GaussianNoise(0.02 * self.grade), JPEG(round(90 - 16 * self.grade))), rng)


@dataclass(frozen=True)
class CombinedChain:
    """The geometric, photometric and degrading chain of one grade in a row: WAVES' "all"."""

    grade: float = 3.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0.1, 5)

    def links(self) -> tuple[ContentAttack, ...]:
        """The chains in a row."""
        return GeometricChain(self.grade), PhotometricChain(self.grade), DegradationChain(self.grade)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 after all three chains."""
        return chained(content, self.links(), rng)


@dataclass(frozen=True)
class CropBrightnessJPEG:
    """Centre crop, brightness and JPEG in a row, as Stable Signature, Omni Seal Bench and Video Seal have it.

    Attributes:
        keep_ratio: share of the area that the crop keeps, in (0, 1]; lower is stronger.
        factor: of the brightness.
        quality: of the JPEG.
    """

    keep_ratio: float = 0.5
    factor: float = 1.5
    quality: int = 80
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1e-4, 1)

    def links(self) -> tuple[ContentAttack, ...]:
        """The attacks in a row."""
        return CentreCrop(self.keep_ratio), Brightness(self.factor), JPEG(self.quality)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 after all three."""
        return chained(content, self.links(), rng)


FAMILIES = (
    image_family(
        "wouaf-chain",
        WOUAFChain,
        Grid(GRADES, 2, "grade"),
        Card("Shifts, rotates, blurs, darkens, adds noise, covers and compresses, one after the other.", WOUAF),
        standard=(),
    ),
    image_family(
        "geometric-chain",
        GeometricChain,
        Grid(GRADES, 2, "grade"),
        Card("Rotates, crops and covers, one after the other.", WAVES),
        standard=(),
    ),
    image_family(
        "photometric-chain",
        PhotometricChain,
        Grid(GRADES, 2, "grade"),
        Card("Raises brightness and contrast, one after the other.", WAVES),
        standard=(),
    ),
    image_family(
        "degradation-chain",
        DegradationChain,
        Grid(GRADES, 2, "grade"),
        Card("Blurs, adds noise and compresses, one after the other.", WAVES),
        standard=(),
    ),
    image_family(
        "combined-chain",
        CombinedChain,
        Grid(GRADES, 2, "grade"),
        Card("Does everything mild at once, where nothing strong would pass.", WAVES),
        standard=(),
    ),
    image_family(
        "crop-brightness-jpeg",
        CropBrightnessJPEG,
        Grid((0.9, 0.71, 0.5, 0.25), 2, "share of the area kept"),
        Card("Crops, brightens and posts the picture.", "Stable Signature, arXiv:2303.15435; Omni Seal Bench"),
        standard=(0.5,),
    ),
)
