"""An attack from outside: salt and pepper. It imports nothing of GenPrint.

python -m bench run --modality image --attack examples.outside_attack:SaltAndPepper
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class SaltAndPepper:
    """Set random pixels to black or white.

    The class name heads the tables, the first field is the strength. An attack on a model has ``target = "model"`` and
    ``__call__(decoder, attacker, rng)``; one of several users has ``target = "coalition"``, a field ``users`` and
    ``__call__(decoders, rng)``. Both return a decoder.

    Attributes:
        density: fraction of pixels that are replaced, 0 to 1; higher is stronger.
    """

    density: float = 0.02
    target: ClassVar[str] = "content"

    def __post_init__(self) -> None:
        if not 0 <= self.density <= 1:
            raise ValueError(f"density: expected 0 to 1, found {self.density}")

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Attacked images (B, 3, H, W) uint8; the input is left as it is, and every draw comes from ``rng``."""
        shape = (len(content), 1, *content.shape[2:])
        hit = torch.rand(shape, generator=rng) < self.density
        colour = torch.randint(2, shape, generator=rng, dtype=torch.uint8) * 255
        return torch.where(hit, colour, content)
