"""Audio attacks that clean: they take what is no music for noise, and a fingerprint with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from attacks.audio_listing import SOK, audio_family
from attacks.audio_stft import samples, spectra, window_size
from attacks.grids import Card, Grid
from attacks.limits import check_strength
from bench.protocol import Clips, Target

QUIET = 0.1
"""Share of each bin's frames that is soft enough to be taken for noise."""
NEAR = 16
"""Bins to either side in which noise is alike."""
FLOOR = 0.02
SMOOTHING = 0.98


def noise_power(power: Tensor) -> Tensor:
    """Noise power of each bin (N, bins, 1) from powers (N, bins, frames).

    Below the tenth percentile lies a share 0.105 of an exponential's mean, which is what noise has in one bin. Of that
    goes the lower quartile of the neighbourhood, so that a partial that lasts is not taken for noise.
    """
    soft = 1 + round(QUIET * (power.shape[-1] - 1))
    softest = power.kthvalue(soft, dim=-1).values / 0.10536  # (N, bins)
    around = F.pad(softest[:, None], (NEAR, NEAR), "replicate")[:, 0].unfold(-1, 2 * NEAR + 1, 1)
    return around.kthvalue(1 + NEAR // 2, dim=-1).values[..., None]


@dataclass(frozen=True)
class SpectralSubtraction:
    """Subtract the power spectrum of noise, as the clip's softest frames show it.

    Berouti, Schwartz and Makhoul, "Enhancement of speech corrupted by acoustic noise", ICASSP 1979.

    Attributes:
        factor: how much of the noise's power is subtracted; 1 is all of it, more is over-subtraction.
    """

    factor: float = 2.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1000)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), cleaner; nothing goes below a fiftieth of its magnitude."""
        return _cleaned(content, self._gain)

    def _gain(self, power: Tensor) -> Tensor:
        left = 1 - self.factor * noise_power(power) / power.clamp_min(1e-12)
        return left.clamp_min(FLOOR**2).sqrt()


@dataclass(frozen=True)
class WienerDenoise:
    """Wiener filter whose a-priori signal-to-noise ratio is decision-directed.

    Scalart and Vieira Filho, "Speech enhancement based on a priori signal to noise estimation", ICASSP 1996.

    Attributes:
        factor: by which the noise's power is overestimated; 1 is as measured on the softest frames.
    """

    factor: float = 2.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1000)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), cleaner."""
        return _cleaned(content, self._gain)

    def _gain(self, power: Tensor) -> Tensor:
        posterior = power / (self.factor * noise_power(power)).clamp_min(1e-12)
        gains, clean = [], (posterior[..., 0] - 1).clamp_min(0)
        for frame in posterior.unbind(-1):
            prior = SMOOTHING * clean + (1 - SMOOTHING) * (frame - 1).clamp_min(0)
            gain = prior / (1 + prior)
            gains.append(gain.clamp_min(FLOOR))
            clean = gain.square() * frame
        return torch.stack(gains, -1)


def _cleaned(content: Clips, gain: Callable[[Tensor], Tensor]) -> Clips:
    """Clips whose 64 ms spectra are scaled by what ``gain`` makes of their powers (N, bins, frames)."""
    x, size = content.unit(), window_size(content.rate_hz)
    spectrum = spectra(x.flatten(0, 1), size)
    scaled = spectrum * gain(spectrum.abs().square())
    return Clips.from_unit(samples(scaled, size, x.shape[-1]).view_as(x), content.rate_hz)


FAMILIES = (
    audio_family(
        "spectral-subtraction",
        SpectralSubtraction,
        Grid((0.5, 1.0, 2.0, 4.0, 8.0), 2, "times the noise"),
        Card("Subtracts what sounds in the softest moments.", SOK),
        standard=(),
    ),
    audio_family(
        "wiener-denoise",
        WienerDenoise,
        Grid((0.5, 1.0, 2.0, 4.0, 8.0), 2, "times the noise"),
        Card("Cleans the clip as a telephone's noise suppression does.", SOK),
        standard=(1.0, 4.0),
    ),
)
