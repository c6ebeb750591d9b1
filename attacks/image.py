"""All content attacks on images, with their strength grids, mildest first.

The grids follow the suites named as source where their images are comparable; in pixels (blur, median) they are
scaled down to small images. Content is uint8 (B, 3, H, W) of any size, in and out.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from attacks.image_codec import JPEG, Regeneration, WebP
from attacks.image_colour import Brightness, Contrast, Gamma, Hue
from attacks.image_filter import GaussianBlur, GaussianNoise, MedianFilter, Resize
from attacks.image_geometry import CropResize, Erasing, HorizontalFlip, Rotation, Translation
from bench.protocol import AttackFamily, ContentAttack

__all__ = [
    "FAMILIES",
    "JPEG",
    "Brightness",
    "Contrast",
    "CropResize",
    "Erasing",
    "Gamma",
    "GaussianBlur",
    "GaussianNoise",
    "HorizontalFlip",
    "Hue",
    "MedianFilter",
    "Regeneration",
    "Resize",
    "Rotation",
    "Translation",
    "WebP",
    "regeneration_family",
]

WAVES = "WAVES, arXiv:2401.08573"
STABLE_SIGNATURE = "Stable Signature, arXiv:2303.15435"
VINE = "W-Bench (VINE), arXiv:2410.18775"
WOUAF = "WOUAF, arXiv:2306.04744"
OMNISEAL = "Omni Seal Bench"
WATERMARKLAB = "WatermarkLab"


def _family(
    name: str, make: Callable[[float], ContentAttack], strengths: tuple[float, ...], quick: int, unit: str, source: str
) -> AttackFamily:
    return AttackFamily(name, "image", "content", make, strengths, quick, unit, source)


FAMILIES = (
    _family("jpeg", lambda s: JPEG(int(s)), (90, 80, 50, 25, 10), 2, "quality", VINE),
    _family("webp", lambda s: WebP(int(s)), (90, 80, 50, 25, 10), 2, "quality", WATERMARKLAB),
    _family("gaussian-noise", GaussianNoise, (0.02, 0.05, 0.1, 0.15, 0.2), 1, "std, images in [0, 1]", WOUAF),
    _family("gaussian-blur", GaussianBlur, (0.5, 1.0, 1.5, 2.0, 3.0), 1, "pixels", WOUAF),
    _family("median-filter", lambda s: MedianFilter(int(s)), (3, 5, 7, 9), 0, "pixels", OMNISEAL),
    _family("resize", Resize, (0.75, 0.5, 0.35, 0.25), 1, "scale of the sides", OMNISEAL),
    _family("crop-resize", CropResize, (0.9, 0.75, 0.5, 0.25, 0.1), 1, "share of the area kept", STABLE_SIGNATURE),
    _family("rotation", Rotation, (5.0, 10.0, 20.0, 30.0, 45.0), 1, "degrees", WAVES),
    _family("translation", Translation, (0.02, 0.05, 0.1, 0.2, 0.3), 2, "share of the side", WATERMARKLAB),
    _family("erasing", Erasing, (0.05, 0.1, 0.2, 0.3), 1, "share of the area", WAVES),
    _family("brightness", Brightness, (1.2, 1.5, 2.0, 3.0), 1, "factor", STABLE_SIGNATURE),
    _family("contrast", Contrast, (1.2, 1.5, 2.0, 3.0), 1, "factor", STABLE_SIGNATURE),
    _family("hue", Hue, (0.05, 0.1, 0.2, 0.3, 0.5), 1, "turns", OMNISEAL),
    _family("gamma", Gamma, (1.2, 1.5, 2.0, 3.0), 1, "power", WATERMARKLAB),
    _family("horizontal-flip", lambda _: HorizontalFlip(), (1,), 0, "none", OMNISEAL),
)


def regeneration_family(reconstruct: Callable[[Tensor], Tensor]) -> AttackFamily:
    """Regeneration through an autoencoder that the caller brings.

    Args:
        reconstruct: see :class:`Regeneration`.
    """
    return _family("regeneration", lambda s: Regeneration(int(s), reconstruct), (1, 2, 4), 0, "passes", WAVES)
