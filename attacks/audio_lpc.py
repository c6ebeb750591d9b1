"""The vocoder of old military telephones: linear prediction, a pitch, and nothing of the wave."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from attacks.audio_listing import OURS, audio_family
from attacks.audio_pcm import fitted, resampled
from attacks.grids import Card, Grid
from attacks.limits import check_strength
from bench.protocol import Clips, Target

RATE_HZ = 8000
SIZE, HOP = 256, 128
LOWEST_HZ, HIGHEST_HZ = 60.0, 400.0
VOICED = 0.35
"""Peak of the normalised autocorrelation above which a frame has a pitch."""
WHITENING = 1e-4
"""Noise added to the autocorrelation, relative to its power: 40 dB below, so that the recursion stays stable."""


@dataclass(frozen=True)
class LinearPrediction:
    """Describe each 32 ms by a linear predictor, a level, and a pitch or none, at 8 kHz, and synthesise from that.

    The scheme of LPC-10 (US Federal Standard 1015, 1984), nothing of it quantised; there the order is 10.

    Attributes:
        order: coefficients of the predictor; fewer is stronger.
    """

    order: int = 10
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 64)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), synthesised."""
        x, ratio = content.unit(), Fraction(RATE_HZ, content.rate_hz)
        low = resampled(x, ratio).flatten(0, 1)  # (N, t)
        low = fitted(low, max(SIZE, low.shape[-1]))
        window = torch.hann_window(SIZE, device=x.device)
        power = _spectra(low, window).abs().square()  # (N, bins, frames)
        correlation = torch.fft.irfft(power, dim=1)[:, : SIZE // 2]
        predictor, error = levinson(correlation[:, : self.order + 1])
        shape = torch.fft.rfft(predictor, SIZE, dim=1)
        hiss = torch.randn(low.shape, generator=rng, device=rng.device).to(x.device)
        source = _spectra(_excitation(correlation, hiss), window)
        level = error.clamp_min(0).sqrt() / _spectra(hiss, window).abs().square().mean(1).sqrt().clamp_min(1e-9)
        spoken = torch.istft(source * level[:, None] / shape, SIZE, HOP, window=window, length=low.shape[-1])
        restored = fitted(resampled(spoken, 1 / ratio), x.shape[-1])
        return Clips.from_unit(restored.view_as(x), content.rate_hz)


def _spectra(x: Tensor, window: Tensor) -> Tensor:
    return torch.stft(x, SIZE, HOP, window=window, pad_mode="constant", return_complex=True)


def levinson(correlation: Tensor) -> tuple[Tensor, Tensor]:
    """Prediction filters (N, order + 1, frames), the first coefficient 1, and the error's power (N, frames).

    The recursion of Levinson and Durbin on autocorrelations (N, order + 1, frames).
    """
    r = correlation.clone()
    r[:, 0] = r[:, 0] * (1 + WHITENING) + 1e-9
    a = torch.zeros_like(r)
    a[:, 0], error = 1, r[:, 0].clone()
    for order in range(1, r.shape[1]):
        reflection = -(a[:, :order] * r[:, 1 : order + 1].flip(1)).sum(1) / error
        a[:, 1 : order + 1] += reflection[:, None] * a[:, :order].flip(1)
        error = error * (1 - reflection.square())
    return a, error


def _excitation(correlation: Tensor, hiss: Tensor) -> Tensor:
    """Pulses at the pitch where there is one, else ``hiss``, both of power 1, (N, T), from autocorrelations."""
    shortest, longest = int(RATE_HZ / HIGHEST_HZ), min(int(RATE_HZ / LOWEST_HZ), correlation.shape[1] - 1)
    strength, lag = correlation[:, shortest : longest + 1].max(1)  # (N, frames)
    # The window's own autocorrelation falls with the lag, so the same share is asked of a shorter overlap.
    voiced = strength > VOICED * correlation[:, 0].clamp_min(1e-9) * (1 - (lag + shortest) / SIZE)
    frame = (torch.arange(hiss.shape[-1], device=hiss.device) / HOP).round().long().clamp_max(lag.shape[-1] - 1)
    period = (lag + shortest).double()[:, frame]
    turns = (1 / period).cumsum(-1)
    pulses = (turns.floor() > F.pad(turns, (1, 0))[..., :-1].floor()) * period.sqrt().float()
    return torch.where(voiced[:, frame], pulses.float(), hiss)


FAMILIES = (
    audio_family(
        "linear-prediction",
        lambda s: LinearPrediction(int(s)),
        Grid((40, 20, 10, 6, 3), 2, "coefficients"),
        Card("Speaks the clip through a vocoder of a pitch and a filter.", OURS),
        standard=(),
    ),
)
