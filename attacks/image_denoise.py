"""Image attacks that take a fingerprint for noise and remove it: bilateral filter, scikit-image's denoisers, BM3D.

Deviations are in units of images in [0, 1]: each denoiser is told how strong the noise is that it should find.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from attacks.grids import Card, Grid, image_family
from attacks.image_pixels import to_bytes, to_unit
from attacks.limits import check_strength
from bench.parallel import in_parallel
from bench.protocol import Target, UserError

REACH = 4


@dataclass(frozen=True)
class BilateralFilter:
    """Average neighbours, up to four pixels away, that are near in place and alike in colour.

    Tomasi and Manduchi, "Bilateral Filtering for Gray and Color Images", ICCV 1998, both weights Gaussian. Not by
    scikit-image: for odd windows it looks its weights of place up in a table of another size.

    Attributes:
        colour_std: difference in colour, the length of (red, green, blue), that still counts as alike.
        pixels: standard deviation of the weight of place.
    """

    colour_std: float = 0.1
    pixels: float = 1.5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1e-3, 10)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, smoothed inside their edges."""
        x = to_unit(content)
        height, width = x.shape[-2:]
        wide = F.pad(x, [REACH] * 4, mode="replicate")
        total, weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
        for down, across in itertools.product(range(2 * REACH + 1), repeat=2):
            other = wide[..., down : down + height, across : across + width]
            place = ((down - REACH) ** 2 + (across - REACH) ** 2) / self.pixels**2
            colour = (other - x).square().sum(1, keepdim=True) / self.colour_std**2  # (B, 1, H, W)
            weight = torch.exp(-(place + colour) / 2)
            total, weights = total + weight * other, weights + weight
        return to_bytes(total / weights)


@dataclass(frozen=True)
class NonLocalMeans:
    """Average pixels whose surroundings look alike, wherever they are.

    Buades, Coll and Morel, "A Non-Local Algorithm for Image Denoising", CVPR 2005, by scikit-image with the settings of
    its authors' later work: patches of 5 pixels, 6 pixels around, filtering strength 0.8 of the deviation.

    Attributes:
        std: standard deviation of the noise that it looks for.
    """

    std: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1e-3, 10)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, denoised."""
        from skimage.restoration import denoise_nl_means

        return each(
            content,
            lambda x: denoise_nl_means(
                x, patch_size=5, patch_distance=6, h=0.8 * self.std, sigma=self.std, fast_mode=True, channel_axis=-1
            ),
        )


@dataclass(frozen=True)
class WaveletDenoise:
    """Shrink the wavelet coefficients of each channel of YCbCr softly, by BayesShrink.

    Chang, Yu and Vetterli, "Adaptive Wavelet Thresholding for Image Denoising and Compression", IEEE TIP 9(9), 2000,
    with Daubechies' shortest wavelet (Haar's), by scikit-image.

    Attributes:
        std: standard deviation of the noise that it looks for.
    """

    std: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1e-3, 10)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, denoised."""
        from skimage.restoration import denoise_wavelet

        return each(
            content, lambda x: denoise_wavelet(x, sigma=self.std, convert2ycbcr=True, channel_axis=-1, wavelet="db1")
        )


@dataclass(frozen=True)
class TotalVariation:
    """Take the nearest picture of small total variation: fewer ripples, the same edges.

    Rudin, Osher and Fatemi, Physica D 60, 1992, by the algorithm of Chambolle, 2004, in scikit-image.

    Attributes:
        weight: what variation costs beside nearness.
    """

    weight: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1e-4, 100)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, flattened between their edges."""
        from skimage.restoration import denoise_tv_chambolle

        return each(content, lambda x: denoise_tv_chambolle(x, weight=self.weight, channel_axis=-1))


@dataclass(frozen=True)
class BM3D:
    """Filter stacks of similar patches together, the strongest classical denoiser.

    Dabov, Foi, Katkovnik and Egiazarian, IEEE TIP 16(8), 2007, by the authors' own package ``bm3d``, which is free for
    non-commercial use only and therefore no dependency of this one.

    Attributes:
        std: standard deviation of the noise that it looks for.
    """

    std: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1e-3, 10)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, denoised."""
        if find_spec("bm3d") is None:
            raise UserError(f"{self!r}: expected the module 'bm3d', found none; install it (non-commercial use only)")
        bm3d = import_module("bm3d")
        return each(content, lambda x: bm3d.bm3d_rgb(x, sigma_psd=self.std))


def each(content: Tensor, change: Callable[[Any], Any]) -> Tensor:
    """Pass each image of a batch through a function of arrays (H, W, 3), float32 in [0, 1], several at once."""
    arrays = [item.permute(1, 2, 0).cpu().numpy() for item in to_unit(content)]
    changed = in_parallel(lambda array: np.asarray(change(array)), arrays)
    return to_bytes(torch.from_numpy(np.stack(changed)).float().permute(0, 3, 1, 2)).contiguous().to(content.device)


LEVELS = (0.02, 0.05, 0.1, 0.2)
FAMILIES = (
    image_family(
        "bilateral-filter",
        BilateralFilter,
        Grid(LEVELS, 2, "difference in colour"),
        Card("Smooths the picture inside its edges, as beauty filters do.", "WaterPrism"),
        standard=(),
    ),
    image_family(
        "non-local-means",
        NonLocalMeans,
        Grid(LEVELS, 2, "std"),
        Card("Denoises the picture with a photo editor.", "WaterPrism"),
        standard=(),
    ),
    image_family(
        "wavelet-denoise",
        WaveletDenoise,
        Grid(LEVELS, 2, "std"),
        Card("Denoises the picture by its wavelets, where many marks sit.", "GenPrint"),
        standard=(),
    ),
    image_family(
        "total-variation",
        TotalVariation,
        Grid((0.02, 0.05, 0.1, 0.2, 0.4), 2, "weight"),
        Card("Flattens the picture between its edges.", "GenPrint"),
        standard=(),
    ),
    replace(
        image_family(
            "bm3d",
            BM3D,
            Grid(LEVELS, 2, "std"),
            Card("Denoises the picture with the strongest classical method.", "Dabov et al., IEEE TIP 2007"),
            standard=(),
        ),
        requires="bm3d",
    ),
)
