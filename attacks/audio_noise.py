"""Audio attacks that add noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from attacks.limits import check_strength
from bench.protocol import Clips, Target

LOWEST_HZ = 20.0


@dataclass(frozen=True)
class WhiteNoise:
    """Add white Gaussian noise.

    Attributes:
        snr_db: power of the clip over power of the noise, in dB; lower is stronger. Silent clips stay silent.
    """

    snr_db: float = 20.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -100, 200)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) with noise."""
        return noisy(content, _white(content, rng), self.snr_db)


@dataclass(frozen=True)
class PinkNoise:
    """Add noise whose power falls by 10 dB per decade of frequency, from 20 Hz on and none below.

    White noise with its spectrum divided by the root of the frequency. The cumulative sum that some suites use falls
    by 20 dB per decade.

    Attributes:
        snr_db: power of the clip over power of the noise, in dB; lower is stronger. Silent clips stay silent.
    """

    snr_db: float = 20.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -100, 200)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) with noise."""
        return noisy(content, _pink(content, rng), self.snr_db)


@dataclass(frozen=True)
class WhiteHiss:
    """Add white Gaussian noise of a stated level, whatever the clip's own is.

    Attributes:
        std: standard deviation, in units of full scale.
    """

    std: float = 0.01
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 10)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) with hiss."""
        return Clips.from_unit(content.unit() + self.std * _white(content, rng), content.rate_hz)


@dataclass(frozen=True)
class PinkHiss:
    """Add pink noise of a stated level, whatever the clip's own is; see :class:`PinkNoise`.

    Attributes:
        std: standard deviation in each clip, in units of full scale.
    """

    std: float = 0.01
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 10)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) with hiss."""
        pink = _pink(content, rng)
        power = pink.square().mean((1, 2), keepdim=True).clamp_min(1e-20)
        return Clips.from_unit(content.unit() + self.std * pink / power.sqrt(), content.rate_hz)


def _white(content: Clips, rng: Generator) -> Tensor:
    return torch.randn(content.samples.shape, generator=rng, device=rng.device).to(content.samples.device)


def _pink(content: Clips, rng: Generator) -> Tensor:
    length = content.samples.shape[-1]
    spectrum = torch.fft.rfft(_white(content, rng))
    frequency = torch.fft.rfftfreq(length, 1 / content.rate_hz, device=spectrum.device)
    shape = frequency.clamp_min(LOWEST_HZ).rsqrt() * (frequency >= LOWEST_HZ)
    pink: Tensor = torch.fft.irfft(spectrum * shape, length)
    return pink


def noisy(content: Clips, noise: Tensor, snr_db: float) -> Clips:
    """Clips with noise of exactly that power, each clip's own; all its channels count together."""
    clean = content.unit()
    power, drawn = (x.square().mean((1, 2), keepdim=True) for x in (clean, noise))  # (B, 1, 1)
    scale = (power / drawn.clamp_min(1e-20)).sqrt() * 10 ** (-snr_db / 20)
    return Clips.from_unit(clean + scale * noise, content.rate_hz)
