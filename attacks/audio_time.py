"""Audio attacks that move things in time or pitch; the clip's length stays."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Generator
from torch.nn import functional as F

from attacks.audio_pcm import fitted, resampled
from attacks.audio_stft import at_tempo
from attacks.limits import check_strength
from bench.protocol import Clips, Target

FINEST = 1000
"""Largest denominator of a ratio of rates: within a thousandth of a semitone of any."""


@dataclass(frozen=True)
class TimeStretch:
    """Change the tempo and not the pitch, with a phase vocoder; then cut the end off, or fill it with silence.

    Attributes:
        factor: of the tempo; above 1 is faster.
    """

    factor: float = 1.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0.1, 10)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) at another tempo."""
        x = at_tempo(content.unit(), content.rate_hz, self.factor)
        return Clips.from_unit(fitted(x, content.samples.shape[-1]), content.rate_hz)


@dataclass(frozen=True)
class PitchShift:
    """Change the pitch and not the tempo: stretched with a phase vocoder, then played as much faster.

    Attributes:
        semitones: upward, 12 to the octave; negative is down.
    """

    semitones: float = 1.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -36, 36)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) at another pitch."""
        ratio = _ratio(2 ** (-self.semitones / 12))
        longer = at_tempo(content.unit(), content.rate_hz, float(ratio))
        x = resampled(longer, ratio)
        return Clips.from_unit(fitted(x, content.samples.shape[-1]), content.rate_hz)


@dataclass(frozen=True)
class Speed:
    """Play faster or slower, as a tape would, pitch and all; then cut the end off, or fill it with silence.

    Attributes:
        factor: of the speed; above 1 is faster and higher.
    """

    factor: float = 1.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0.1, 10)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) at another speed."""
        x = resampled(content.unit(), _ratio(1 / self.factor))
        return Clips.from_unit(fitted(x, content.samples.shape[-1]), content.rate_hz)


@dataclass(frozen=True)
class TimeShift:
    """Delay: silence at the start, and what passes the end is lost.

    Attributes:
        seconds: of delay, rounded to whole samples.
    """

    seconds: float = 0.05
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), later."""
        length = content.samples.shape[-1]
        late = min(length, round(self.seconds * content.rate_hz))
        return Clips(F.pad(content.samples, (late, 0))[..., :length].contiguous(), content.rate_hz)


@dataclass(frozen=True)
class Crop:
    """Keep one piece of each clip, from a random place, moved to the start; the rest is silence.

    Attributes:
        share: of the clip's length that is kept, in (0, 1]; lower is stronger. At least one sample is.
    """

    share: float = 0.5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1e-4, 1)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), what is left of them at the start."""
        length = content.samples.shape[-1]
        kept = max(1, round(self.share * length))
        places = torch.rand(len(content), generator=rng, device=rng.device, dtype=torch.float64) * (length - kept + 1)
        cropped = torch.zeros_like(content.samples)
        for before, after, place in zip(content.samples, cropped, places.long().tolist(), strict=True):
            after[:, :kept] = before[:, place : place + kept]
        return Clips(cropped, content.rate_hz)


def _ratio(factor: float) -> Fraction:
    return Fraction(factor).limit_denominator(FINEST)
