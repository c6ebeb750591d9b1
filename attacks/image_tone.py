"""Image attacks that leave fewer colours, or move them: saturation, grey, palettes, levels, channel shifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from PIL import Image
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as tvf

from attacks.grids import Card, Grid, image_family
from attacks.image_pixels import to_bytes, to_unit, with_pillow
from attacks.limits import check_strength
from bench.protocol import Target


@dataclass(frozen=True)
class Saturation:
    """Scale the distance from grey of the same luma, then clip.

    Attributes:
        factor: above 1 makes colours stronger, below 1 paler, 0 is grey.
    """

    factor: float = 2.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 in stronger colours."""
        return to_bytes(tvf.adjust_saturation(to_unit(content), self.factor))


@dataclass(frozen=True)
class Grayscale:
    """Fade towards grey of the same luma (ITU-R BT.601).

    Attributes:
        share: how far, 1 is grey.
    """

    share: float = 1.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 in paler colours; with share 1 all three channels are equal."""
        x = to_unit(content)
        grey: Tensor = tvf.rgb_to_grayscale(x, num_output_channels=3)
        return to_bytes(x.lerp(grey, self.share))


@dataclass(frozen=True)
class Posterise:
    """Keep few levels per channel, equally spaced from 0 to 255, each value at the nearest one.

    Attributes:
        levels: how many; fewer is stronger.
    """

    levels: int = 8
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 2, 256)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 of at most ``levels`` values per channel."""
        steps = self.levels - 1
        return to_bytes((to_unit(content) * steps).round() / steps)


@dataclass(frozen=True)
class ColourQuantisation:
    """Keep few colours, chosen for each image by median cut, without dithering, as GIF does.

    Heckbert, "Color Image Quantization for Frame Buffer Display", SIGGRAPH 1982, by Pillow.

    Attributes:
        colours: size of the palette; fewer is stronger.
    """

    colours: int = 32
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 2, 256)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 of at most ``colours`` colours each."""
        cut, plain = Image.Quantize.MEDIANCUT, Image.Dither.NONE
        return with_pillow(content, lambda picture: picture.quantize(self.colours, method=cut, dither=plain))


@dataclass(frozen=True)
class ChromaticAberration:
    """Shift red to the left and blue to the right, as a bad lens does; edges continue with their own colour.

    Attributes:
        pixels: shift of each of the two.
    """

    pixels: int = 2
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 with coloured edges."""
        width = content.shape[-1]
        columns = torch.arange(width, device=content.device)
        red, blue = ((columns + by).clamp(0, width - 1) for by in (self.pixels, -self.pixels))
        return torch.stack([content[:, 0][..., red], content[:, 1], content[:, 2][..., blue]], dim=1)


@dataclass(frozen=True)
class Equalise:
    """Fade towards the equalised histogram of each channel, by torchvision.

    Attributes:
        share: how far, 1 is a flat histogram.
    """

    share: float = 1.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 with other tones."""
        return to_bytes(to_unit(content).lerp(to_unit(tvf.equalize(content)), self.share))


@dataclass(frozen=True)
class WhiteBalance:
    """Scale red up and blue down, which warms the picture, then clip.

    Attributes:
        share: what red gains and blue loses; below 0 the picture cools.
    """

    share: float = 0.2
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -1, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 in warmer light."""
        gains = torch.tensor([1 + self.share, 1, 1 - self.share], device=content.device).view(3, 1, 1)
        return to_bytes(to_unit(content) * gains)


FAMILIES = (
    image_family(
        "saturation",
        Saturation,
        Grid((1.5, 2.0, 3.0, 5.0), 1, "factor"),
        Card("Makes the colours stronger, as photo filters do.", "Omni Seal Bench; Stable Signature, arXiv:2303.15435"),
        standard=(2.0, 5.0),
    ),
    image_family(
        "grayscale",
        Grayscale,
        Grid((0.25, 0.5, 0.75, 1.0), 3, "share of the way to grey"),
        Card("Publishes the picture in black and white.", "Video Seal, arXiv:2412.09492"),
        standard=(1.0,),
    ),
    image_family(
        "posterise",
        lambda s: Posterise(int(s)),
        Grid((32, 16, 8, 4, 2), 2, "levels per channel"),
        Card("Leaves few levels of each channel, as a poster has.", "WatermarkLab"),
        standard=(),
    ),
    image_family(
        "colour-quantisation",
        lambda s: ColourQuantisation(int(s)),
        Grid((76, 32, 16, 8, 4), 1, "colours"),
        Card("Saves the picture with a palette, as GIF and PNG-8 do.", "WatermarkLab"),
        standard=(),
    ),
    image_family(
        "chromatic-aberration",
        lambda s: ChromaticAberration(int(s)),
        Grid((1, 2, 4, 8), 1, "pixels"),
        Card("Shifts the colour channels against each other, as a lens does.", "WatermarkLab"),
        standard=(),
    ),
    image_family(
        "equalise",
        Equalise,
        Grid((0.25, 0.5, 0.75, 1.0), 3, "share of the way to a flat histogram"),
        Card("Lets a photo editor correct the tones by itself.", "GenPrint"),
        standard=(),
    ),
    image_family(
        "white-balance",
        WhiteBalance,
        Grid((0.05, 0.1, 0.2, 0.4), 2, "share of red gained, of blue lost"),
        Card("Warms the light of the picture.", "GenPrint"),
        standard=(),
    ),
)
