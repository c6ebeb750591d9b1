"""Sounds to attack, and what is measured on them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.protocol import Clips
from bench.rng import stream

RATE = 16_000


def notes(n: int, length: int, rate_hz: int, channels: int = 1) -> Clips:
    """Struck strings: harmonics of a few pitches that die away, with a little hiss."""
    t = torch.arange(length) / rate_hz
    clips = []
    for item in range(n):
        pitch = 110 * 2 ** (0.7 * item)
        harmonics = range(1, int(min(7000, 0.45 * rate_hz) / pitch))
        x = torch.stack([torch.sin(2 * math.pi * pitch * k * t + k * k) / k**1.2 for k in harmonics]).sum(0)
        x = x * torch.exp(-1.5 * t) * (1 - torch.exp(-100 * t))
        x = x + 0.002 * torch.randn(channels, length, generator=stream(0, "hiss", item))
        clips.append(0.3 * x / x.abs().max())
    return Clips.from_unit(torch.stack(clips), rate_hz)


def noise(n: int, length: int, rate_hz: int = RATE, channels: int = 1) -> Clips:
    """White up to 0.35 of the rate, falling above 300 Hz, as much music does."""
    spectrum = torch.fft.rfft(torch.randn(n, channels, length, generator=stream(0, "noise")))
    f = torch.fft.rfftfreq(length, 1 / rate_hz)
    x = torch.fft.irfft(spectrum * (f < 0.35 * rate_hz) / (1 + f / 300).sqrt(), length)
    return Clips.from_unit(0.5 * x / x.abs().max(), rate_hz)


def tone(hz: float, seconds: float = 1.0, rate_hz: int = RATE) -> Clips:
    t = torch.arange(round(seconds * rate_hz), dtype=torch.float64) / rate_hz
    return Clips.from_unit(0.4 * torch.sin(2 * math.pi * hz * t)[None, None], rate_hz)


def impulse(level: float = 0.5, length: int = RATE, rate_hz: int = RATE) -> Clips:
    x = torch.zeros(1, 1, length)
    x[..., 0] = level
    return Clips.from_unit(x, rate_hz)


def level_db(x: Tensor) -> float:
    return float(10 * x.double().square().mean().log10())


def snr_db(clean: Clips, attacked: Clips) -> float:
    return level_db(clean.unit()) - level_db(attacked.unit().double() - clean.unit())


def lag(before: Tensor, after: Tensor) -> int:
    """Samples by which ``after`` is late, where the cross-correlation is highest."""
    size = 4 * len(before)
    correlation = torch.fft.irfft(torch.fft.rfft(after, size) * torch.fft.rfft(before, size).conj(), size)
    return (int(correlation.argmax()) + size // 2) % size - size // 2


def pitch_hz(x: Tensor, rate_hz: int = RATE) -> float:
    size = 1 << 19
    return float(torch.fft.rfft(x * torch.hann_window(len(x)), size).abs().argmax()) * rate_hz / size
