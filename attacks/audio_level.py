"""Audio attacks on the sample values alone: gain, clipping, fewer bits, polarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator

from attacks.limits import check_strength
from bench.protocol import Clips, Target


@dataclass(frozen=True)
class BitDepth:
    """Round to fewer bits, as a file of that depth would hold the clip; no dither.

    Attributes:
        bits: 2 to 16, of full scale whatever the clip's level; lower is stronger.
    """

    bits: int = 8
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 2, 16)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) of at most 2^bits levels."""
        top = 2 ** (self.bits - 1)
        levels = (content.unit() * top).round().clamp(-top, top - 1)
        return Clips.from_unit(levels / top, content.rate_hz)


@dataclass(frozen=True)
class Gain:
    """Make the clip louder or quieter, clipped and rounded to 16 bits.

    Attributes:
        db: change of level in dB; negative is quieter.
    """

    db: float = -6.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -100, 100)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) at another level."""
        return Clips.from_unit(content.unit() * 10 ** (self.db / 20), content.rate_hz)


@dataclass(frozen=True)
class Clipping:
    """Cut off what exceeds a share of the clip's own peak; the level is not restored.

    Attributes:
        threshold: share of the peak (largest magnitude of all channels) where values stop, in (0, 1]; lower is
            stronger.
    """

    threshold: float = 0.5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1e-4, 1)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) with flat tops."""
        x = content.unit()
        limit = self.threshold * x.abs().amax((1, 2), keepdim=True)  # (B, 1, 1)
        return Clips.from_unit(torch.minimum(x.maximum(-limit), limit), content.rate_hz)


@dataclass(frozen=True)
class Polarity:
    """Turn the sign around; it has no strength, and nobody hears it."""

    target: ClassVar[Target] = "content"

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), negated; the lowest value, which has no opposite, becomes the highest."""
        return Clips.from_unit(-content.unit(), content.rate_hz)
