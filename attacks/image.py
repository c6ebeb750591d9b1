"""All content attacks on images, with their strength grids, mildest first.

The grids follow the suites named as source where their images are comparable; in pixels (blur, median) they are
scaled down to small images. Content is uint8 (B, 3, H, W) of any size, in and out.
"""

from __future__ import annotations

from attacks.grids import Card, Grid, image_family
from attacks.image_codec import JPEG, Regeneration, WebP
from attacks.image_colour import Brightness, Contrast, Gamma, Hue
from attacks.image_filter import GaussianBlur, GaussianNoise, MedianFilter, Resize
from attacks.image_geometry import CropResize, Erasing, HorizontalFlip, Rotation, Translation
from attacks.tools import Tools
from bench.protocol import AttackFamily

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
    "tool_families",
]

WAVES = "WAVES, arXiv:2401.08573"
STABLE_SIGNATURE = "Stable Signature, arXiv:2303.15435"
VINE = "W-Bench (VINE), arXiv:2410.18775"
WOUAF = "WOUAF, arXiv:2306.04744"
OMNISEAL = "Omni Seal Bench"
WATERMARKLAB = "WatermarkLab"


FAMILIES = (
    image_family(
        "jpeg",
        lambda s: JPEG(int(s)),
        Grid((90, 80, 50, 25, 10), 2, "quality"),
        Card("Saves the picture as JPEG, as every web site does on upload.", VINE),
    ),
    image_family(
        "webp",
        lambda s: WebP(int(s)),
        Grid((90, 80, 50, 25, 10), 2, "quality"),
        Card("Saves the picture as lossy WebP, as messengers and web sites do.", WATERMARKLAB),
    ),
    image_family(
        "gaussian-noise",
        GaussianNoise,
        Grid((0.02, 0.05, 0.1, 0.15, 0.2), 1, "std, images in [0, 1]"),
        Card("Adds sensor-like noise to drown a weak signal.", WOUAF),
    ),
    image_family(
        "gaussian-blur",
        GaussianBlur,
        Grid((0.5, 1.0, 1.5, 2.0, 3.0), 1, "pixels"),
        Card("Blurs the picture, which takes what sits in fine detail.", WOUAF),
    ),
    image_family(
        "median-filter",
        lambda s: MedianFilter(int(s)),
        Grid((3, 5, 7, 9), 0, "pixels"),
        Card("Filters noise out with the median, keeping edges.", OMNISEAL),
    ),
    image_family(
        "resize",
        Resize,
        Grid((0.75, 0.5, 0.35, 0.25), 1, "scale of the sides"),
        Card("Publishes a smaller version that is enlarged again.", OMNISEAL),
    ),
    image_family(
        "crop-resize",
        CropResize,
        Grid((0.9, 0.75, 0.5, 0.25, 0.1), 1, "share of the area kept"),
        Card("Cuts a part out and enlarges it to the old size.", STABLE_SIGNATURE),
    ),
    image_family(
        "rotation",
        Rotation,
        Grid((5.0, 10.0, 20.0, 30.0, 45.0), 1, "degrees"),
        Card("Rotates the picture, so that no pixel is where it was.", WAVES),
    ),
    image_family(
        "translation",
        Translation,
        Grid((0.02, 0.05, 0.1, 0.2, 0.3), 2, "share of the side"),
        Card("Shifts the picture inside its frame.", WATERMARKLAB),
    ),
    image_family(
        "erasing",
        Erasing,
        Grid((0.05, 0.1, 0.2, 0.3), 1, "share of the area"),
        Card("Covers a rectangle, such as a logo or a face.", WAVES),
    ),
    image_family(
        "brightness",
        Brightness,
        Grid((1.2, 1.5, 2.0, 3.0), 1, "factor"),
        Card("Brightens the picture until its lights clip.", STABLE_SIGNATURE),
    ),
    image_family(
        "contrast",
        Contrast,
        Grid((1.2, 1.5, 2.0, 3.0), 1, "factor"),
        Card("Raises the contrast until lights and shadows clip.", STABLE_SIGNATURE),
    ),
    image_family(
        "hue",
        Hue,
        Grid((0.05, 0.1, 0.2, 0.3, 0.5), 1, "turns"),
        Card("Changes all colours by turning the hue.", OMNISEAL),
    ),
    image_family(
        "gamma",
        Gamma,
        Grid((1.2, 1.5, 2.0, 3.0), 1, "power"),
        Card("Darkens the mid-tones with a tone curve.", WATERMARKLAB),
    ),
    image_family(
        "horizontal-flip",
        lambda _: HorizontalFlip(),
        Grid((1,), 0, "none"),
        Card("Mirrors the picture, which no viewer notices.", OMNISEAL),
    ),
)


def tool_families(tools: Tools) -> tuple[AttackFamily, ...]:
    """The attacks that need a tool, as far as it is there."""
    reconstruct = tools.reconstruct
    if reconstruct is None:
        return ()
    return (
        image_family(
            "regeneration",
            lambda s: Regeneration(int(s), reconstruct),
            Grid((1, 2, 4), 0, "passes"),
            Card(
                "Encodes and decodes with a public autoencoder that knows no fingerprint.",
                WAVES,
                "an autoencoder, such as the public one of the generator (reconstruct)",
            ),
        ),
    )
