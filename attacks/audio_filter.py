"""Audio attacks that take frequencies away, without moving anything in time."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from torch import Generator, Tensor
from torch.nn import functional as F

from attacks.audio_pcm import filtered, resampled
from attacks.limits import check_strength
from bench.protocol import Clips, Target, UserError

ORDER = 8
"""Of the Butterworth responses: 48 dB per octave."""


def low_pass(frequency_hz: Tensor, cutoff_hz: float) -> Tensor:
    """Gain of a Butterworth low-pass, 3 dB down at the cutoff; applied without its phase."""
    return (1 + (frequency_hz / cutoff_hz) ** (2 * ORDER)).rsqrt()


def high_pass(frequency_hz: Tensor, cutoff_hz: float) -> Tensor:
    """Gain of a Butterworth high-pass, 3 dB down at the cutoff; applied without its phase."""
    return (1 + (cutoff_hz / frequency_hz.clamp_min(1e-3)) ** (2 * ORDER)).rsqrt()


@dataclass(frozen=True)
class LowPass:
    """Remove what lies above a frequency; 3 dB down there, 48 dB an octave above.

    Attributes:
        cutoff_hz: in Hz; at half the sampling rate or above nothing happens.
    """

    cutoff_hz: float = 4000.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), muffled."""
        if self.cutoff_hz >= content.rate_hz / 2:
            return Clips(content.samples.clone(), content.rate_hz)
        x = filtered(content.unit(), content.rate_hz, lambda f: low_pass(f, self.cutoff_hz))
        return Clips.from_unit(x, content.rate_hz)


@dataclass(frozen=True)
class HighPass:
    """Remove what lies below a frequency; 3 dB down there, 48 dB an octave below.

    Attributes:
        cutoff_hz: in Hz; above half the sampling rate little is left.
    """

    cutoff_hz: float = 500.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), thin."""
        x = filtered(content.unit(), content.rate_hz, lambda f: high_pass(f, self.cutoff_hz))
        return Clips.from_unit(x, content.rate_hz)


@dataclass(frozen=True)
class BandPass:
    """Keep a band of frequencies, by default that of a telephone (ITU-T G.712).

    Attributes:
        low_hz: lower edge in Hz, 3 dB down; higher is stronger.
        high_hz: upper edge in Hz, 3 dB down; at half the sampling rate or above it does nothing.
    """

    low_hz: float = 300.0
    high_hz: float = 3400.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1)
        if not self.low_hz < self.high_hz:
            raise UserError(f"{self!r}: the upper edge must lie above the lower one, found {self.high_hz:g}")

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), as over the telephone."""
        return LowPass(self.high_hz)(HighPass(self.low_hz)(content, rng), rng)


@dataclass(frozen=True)
class Resample:
    """Publish at a lower sampling rate, in 16 bits, and bring it back to the old one.

    Attributes:
        rate_hz: of the copy in between, in Hz; lower is stronger. At the clips' own rate or above nothing happens.
    """

    rate_hz: int = 8000
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 100)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) of less bandwidth."""
        if self.rate_hz >= content.rate_hz:
            return Clips(content.samples.clone(), content.rate_hz)
        ratio = Fraction(self.rate_hz, content.rate_hz)
        between = Clips.from_unit(resampled(content.unit(), ratio), self.rate_hz)
        restored = resampled(between.unit(), 1 / ratio)[..., : content.samples.shape[-1]]
        return Clips.from_unit(restored, content.rate_hz)


@dataclass(frozen=True)
class Smoothing:
    """Replace each sample by the mean of its neighbourhood; at the ends, of what there is of it.

    Attributes:
        window: of the mean, in samples, odd, so that nothing moves.
    """

    window: int = 9
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1)
        if self.window % 2 == 0:
            raise UserError(f"{self!r}: the window must be odd, found {self.window}")

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), smoothed."""
        x = F.avg_pool1d(content.unit(), self.window, 1, self.window // 2, count_include_pad=False)
        return Clips.from_unit(x, content.rate_hz)
