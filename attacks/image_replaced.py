"""Image attacks that keep only parts of the fingerprinted picture: cropout and dropout.

Zhu et al., "HiDDeN", ECCV 2018, arXiv:1807.09937, fill the rest from the unmarked original, which no attacker has.
Here the rest comes from what one can have: the same picture out of a public autoencoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Generator, Tensor

from attacks.grids import Card, Grid, image_family
from attacks.image_noise import uniform
from attacks.image_pixels import to_bytes, to_unit
from attacks.limits import check_strength
from attacks.tools import Tools
from bench.protocol import AttackFamily, Target

HIDDEN = "HiDDeN, arXiv:1807.09937"
NEEDS = "an autoencoder, such as the public one of the generator (reconstruct)"


@dataclass(frozen=True)
class Cropout:
    """Keep one random rectangle; all around it comes from the autoencoder.

    Attributes:
        keep_ratio: share of the area that is kept; lower is stronger.
        reconstruct: see :class:`attacks.tools.Tools`.
    """

    keep_ratio: float
    reconstruct: Callable[[Tensor], Tensor] = field(repr=False, compare=False)
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 of which a rectangle each is the old one."""
        restored = _restored(content, self.reconstruct)
        full = content.shape[-2:]
        height, width = (round(side * math.sqrt(self.keep_ratio)) for side in full)
        places = torch.rand(len(content), 2, generator=rng, device=rng.device).tolist()
        for new, old, (y, x) in zip(restored, content, places, strict=True):
            top, left = int(y * (full[0] - height + 1)), int(x * (full[1] - width + 1))
            window = (slice(None), slice(top, top + height), slice(left, left + width))
            new[window] = old[window]
        return restored


@dataclass(frozen=True)
class Dropout:
    """Keep random pixels; the others come from the autoencoder.

    Attributes:
        keep_ratio: share of the pixels that are kept; lower is stronger.
        reconstruct: see :class:`attacks.tools.Tools`.
    """

    keep_ratio: float
    reconstruct: Callable[[Tensor], Tensor] = field(repr=False, compare=False)
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 of which that share of the pixels is the old one."""
        kept = uniform(content, rng) < self.keep_ratio
        return torch.where(kept, content, _restored(content, self.reconstruct))


@torch.no_grad()
def _restored(content: Tensor, reconstruct: Callable[[Tensor], Tensor]) -> Tensor:
    restored = reconstruct(to_unit(content))
    if restored.shape != content.shape:
        raise ValueError(f"reconstructed images {tuple(restored.shape)}, expected {tuple(content.shape)}")
    return to_bytes(restored.float()).to(content.device)


def tool_families(tools: Tools) -> tuple[AttackFamily, ...]:
    """Both, where there is an autoencoder."""
    reconstruct = tools.reconstruct
    if reconstruct is None:
        return ()
    return (
        image_family(
            "cropout",
            lambda s: Cropout(s, reconstruct),
            Grid((0.9, 0.7, 0.5, 0.3, 0.1), 3, "share of the area kept"),
            Card("Replaces all but a part of the picture by an autoencoder's version.", HIDDEN, NEEDS),
            standard=(),
        ),
        image_family(
            "dropout",
            lambda s: Dropout(s, reconstruct),
            Grid((0.9, 0.7, 0.5, 0.3, 0.1), 3, "share of the pixels kept"),
            Card("Replaces random pixels of the picture by an autoencoder's version.", HIDDEN, NEEDS),
            standard=(),
        ),
    )
