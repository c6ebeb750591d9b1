"""The image attack that only asks: random squares, kept when the operator's answer gets less sure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor

from attacks.grids import Card, Grid, image_family
from attacks.limits import check_strength
from attacks.tools import Access
from bench.protocol import Target, UserError

FIRST_SHARE = 0.3
# Andriushchenko et al., section 4: the share of the area is halved after these queries of 10,000.
HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True)
class Square:
    """Upload the picture with squares of colour changed by exactly epsilon, and keep what the answer likes less.

    Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack via random search", ECCV 2020,
    arXiv:1912.00049, algorithms 1 and 2 (L-infinity): vertical stripes first, then squares of shrinking size.

    Attributes:
        epsilon_255: change of a value, in levels of 255; values near black and white move less.
        queries: pictures uploaded per item, the first ones included.
        query: pictures (B, 3, H, W) uint8 to a score each, (B,), that the attack brings down; held by an armed copy.
    """

    epsilon_255: int
    queries: int = 300
    query: Callable[[Tensor], Tensor] | None = field(default=None, repr=False, compare=False)
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 255)

    def armed(self, access: Access, rng: Generator) -> Square:
        """The same attack with the operator's reader to ask."""
        return replace(self, query=access.query)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 of which the operator is less sure.

        Raises:
            UserError: when there is nobody to ask: only a run, which has a scheme, has its reader.
        """
        if self.query is None:
            raise UserError(f"{self!r}: expected the scheme's reader to ask, found none; see `armed`")
        best = self._within(content, self._signs((len(content), 3, 1, content.shape[-1]), rng).to(content.device))
        lowest = self.query(best)
        for index in range(1, self.queries):
            tried = best.clone()
            side = max(1, round(math.sqrt(_share(index, self.queries) * content.shape[-2] * content.shape[-1])))
            self._paint(tried, content, side, rng)
            score = self.query(tried)
            better = score < lowest
            best = torch.where(better.view(-1, 1, 1, 1).to(best.device), tried, best)
            lowest = torch.where(better, score, lowest)
        return best

    def _paint(self, tried: Tensor, content: Tensor, side: int, rng: Generator) -> None:
        """Set a square of each image, at its own place, to the original plus or minus epsilon, channel by channel."""
        height, width = (min(side, full) for full in content.shape[-2:])
        places = torch.rand(len(content), 2, generator=rng, device=rng.device).tolist()
        signs = self._signs((len(content), 3, 1, 1), rng).to(content.device)
        for item, old, sign, (y, x) in zip(tried, content, signs, places, strict=True):
            top, left = int(y * (content.shape[-2] - height + 1)), int(x * (content.shape[-1] - width + 1))
            window = (slice(None), slice(top, top + height), slice(left, left + width))
            item[window] = self._within(old[window], sign)

    def _within(self, content: Tensor, signs: Tensor) -> Tensor:
        return (content.int() + self.epsilon_255 * signs).clamp(0, 255).to(torch.uint8)

    @staticmethod
    def _signs(shape: tuple[int, ...], rng: Generator) -> Tensor:
        return torch.randint(2, shape, generator=rng, device=rng.device) * 2 - 1


def _share(index: int, queries: int) -> float:
    """Share of the area that the square of one query has."""
    halvings = sum(index * 10_000 / queries > at for at in HALVED_AT)
    return FIRST_SHARE * 0.5**halvings


FAMILIES = (
    image_family(
        "square",
        lambda s: Square(int(s)),
        Grid((2, 4, 8, 16), 2, "levels of 255"),
        Card(
            "Uploads the picture 300 times, changed a little, and keeps what is recognised least.",
            "Andriushchenko et al. 2020, arXiv:1912.00049; AudioMarkBench",
            "the operator's reader as a service that tells its score",
        ),
        standard=(),
    ),
)
