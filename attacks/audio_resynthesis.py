"""Audio attacks that describe a clip coarsely and synthesise it anew: from mel bands, or through an autoencoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Generator, Tensor

from attacks.audio_stft import samples, spectra, window_size
from attacks.limits import check_strength
from bench.protocol import Clips, Target

UPDATES = 10
ITERATIONS = 16
MOMENTUM = 0.99


@dataclass(frozen=True)
class GriffinLim:
    """Keep the magnitudes of mel bands only, and find a wave that has them.

    Griffin and Lim, "Signal Estimation from Modified Short-Time Fourier Transform", IEEE TASSP 32(2), 1984, started
    at random phases, in the accelerated form of Perraudin, Balazs and Søndergaard, WASPAA 2013: a vocoder without
    weights. Waves are not those of before; how they sound roughly is.

    Attributes:
        bands: mel bands up to half the sampling rate; fewer is stronger.
    """

    bands: int = 80
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 2, 512)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), synthesised."""
        size = window_size(content.rate_hz)
        x = content.unit()
        magnitude = spectra(x.flatten(0, 1), size).abs()  # (B * C, bins, frames)
        filters = mel_filters(self.bands, size, content.rate_hz).to(x.device)
        magnitude = _unmixed(filters @ magnitude, filters)
        phase = 2 * torch.pi * torch.rand(magnitude.shape, generator=rng, device=rng.device).to(x.device)
        wave = _found(magnitude, phase, size, x.shape[-1])
        return Clips.from_unit(wave.view_as(x), content.rate_hz)


def _unmixed(mel: Tensor, filters: Tensor) -> Tensor:
    """Magnitudes (N, bins, frames), none negative, of about these mel bands (N, bands, frames).

    Multiplicative updates of Lee and Seung, "Algorithms for Non-negative Matrix Factorization", NeurIPS 2000.
    """
    target = filters.T @ mel
    magnitude = target
    for _ in range(UPDATES):
        magnitude = magnitude * target / (filters.T @ (filters @ magnitude)).clamp_min(1e-9)
    return magnitude


def _found(magnitude: Tensor, phase: Tensor, size: int, length: int) -> Tensor:
    """A wave (N, length) whose spectra have about these magnitudes, by alternating projections."""
    spectrum, before = torch.polar(magnitude, phase), torch.zeros(())
    for _ in range(ITERATIONS):
        consistent = spectra(samples(spectrum, size, length), size)
        ahead = consistent - MOMENTUM / (1 + MOMENTUM) * before
        spectrum = magnitude * ahead / ahead.abs().clamp_min(1e-12)
        before = consistent
    return samples(spectrum, size, length)


@lru_cache(maxsize=16)
def mel_filters(bands: int, size: int, rate_hz: int) -> Tensor:
    """Triangular filters (bands, size // 2 + 1) equally spaced in mel, 0 Hz to Nyquist.

    Mel is 2595 log10(1 + f / 700 Hz) (O'Shaughnessy, "Speech Communication", 1987). A filter narrower than a bin may
    be empty.
    """
    highest = 2595 * math.log10(1 + rate_hz / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, highest, bands + 2, dtype=torch.float64) / 2595) - 1)
    frequency = torch.linspace(0, rate_hz / 2, size // 2 + 1, dtype=torch.float64)
    low, middle, high = (corners[i : bands + i, None] for i in range(3))  # (bands, 1)
    filters = torch.minimum((frequency - low) / (middle - low), (high - frequency) / (high - middle))
    return filters.clamp_min(0).float()


@dataclass(frozen=True)
class AudioRegeneration:
    """Encode and decode with an autoencoder that knows nothing of the fingerprint.

    As :class:`attacks.image_codec.Regeneration`: Zhao et al., NeurIPS 2024, arXiv:2306.01953.

    Attributes:
        passes: how often; each starts from the published (16-bit) clips of the last.
        reconstruct: clips to clips of the same shape and rate; the same at every call.
    """

    passes: int
    reconstruct: Callable[[Clips], Clips] = field(repr=False, compare=False)
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1)

    @torch.no_grad()
    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), as the autoencoder restores them."""
        expected = (tuple(content.samples.shape), content.rate_hz)
        for _ in range(self.passes):
            restored = self.reconstruct(content)
            found = (tuple(restored.samples.shape), restored.rate_hz)
            if found != expected:
                raise ValueError(f"reconstructed clips (shape, Hz) {found}, expected {expected}")
            content = restored.to(content.samples.device)
        return content
