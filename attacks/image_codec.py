"""Image attacks that compress and restore: JPEG, WebP, and regeneration through an autoencoder."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from PIL import Image
from torch import Generator, Tensor

from attacks.image_pixels import to_bytes, to_unit, with_pillow
from attacks.limits import check_strength
from bench.protocol import Target


@dataclass(frozen=True)
class JPEG:
    """Compress as baseline JPEG with 4:2:0 chroma, as libjpeg does.

    Attributes:
        quality: libjpeg's quality, 1 to 100; lower is stronger.
    """

    quality: int = 50
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 100)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, compressed and opened again."""
        return with_pillow(content, lambda picture: _reopened(picture, "JPEG", self.quality))


@dataclass(frozen=True)
class WebP:
    """Compress as lossy WebP.

    Attributes:
        quality: libwebp's quality, 0 to 100; lower is stronger.
    """

    quality: int = 50
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 100)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, compressed and opened again."""
        return with_pillow(content, lambda picture: _reopened(picture, "WEBP", self.quality))


def _reopened(picture: Image.Image, form: str, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, form, quality=quality)
    return Image.open(buffer)


@dataclass(frozen=True)
class Regeneration:
    """Encode and decode with an autoencoder that knows nothing of the fingerprint.

    Zhao et al., "Invisible Image Watermarks Are Provably Removable Using Generative AI", NeurIPS 2024,
    arXiv:2306.01953; several passes are the "rinsing" of An et al., "WAVES", ICML 2024, arXiv:2401.08573.

    Attributes:
        passes: how often; each starts from the published (8-bit) images of the last.
        reconstruct: images (B, 3, H, W) float32 in [0, 1] to images of the same shape and range. Noise on the latents,
            where it is wanted, is added in here, and must be the same at every call.
    """

    passes: int
    reconstruct: Callable[[Tensor], Tensor] = field(repr=False, compare=False)
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1)

    @torch.no_grad()
    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, as the autoencoder restores them."""
        for _ in range(self.passes):
            restored = self.reconstruct(to_unit(content))
            if restored.shape != content.shape:
                raise ValueError(f"reconstructed images {tuple(restored.shape)}, expected {tuple(content.shape)}")
            content = to_bytes(restored.float()).to(content.device)
        return content
