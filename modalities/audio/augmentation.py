"""Differentiable random distortions of observed tensors (B, 1, T) at 16 kHz, for training readers of audio."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

RATE_HZ = 16_000


def distort(x: Tensor, rng: torch.Generator) -> Tensor:
    """Apply one distortion drawn from the set; every third call changes nothing."""
    if _uniform(rng, 0, 1) < 1 / 3:
        return x
    pick = int(torch.randint(len(DISTORTIONS), (), generator=rng))
    return DISTORTIONS[pick](x, rng)


def _uniform(rng: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=rng))


def _noise(x: Tensor, rng: torch.Generator) -> Tensor:
    """White noise of 10 to 40 dB below each clip."""
    level = x.detach().square().mean((1, 2), keepdim=True).sqrt() * 10 ** (-_uniform(rng, 10, 40) / 20)
    return x + level * torch.randn(x.shape, generator=rng).to(x.device)


def _filtered(x: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
    """Each frequency, in Hz, multiplied by its ``gain``; zero phase."""
    frequencies = torch.fft.rfftfreq(x.shape[2], 1 / RATE_HZ, device=x.device)
    changed: Tensor = torch.fft.irfft(torch.fft.rfft(x.float()) * gain(frequencies), n=x.shape[2])
    return changed


def _low_pass(x: Tensor, rng: torch.Generator) -> Tensor:
    cutoff = _uniform(rng, 1500, 7000)
    return _filtered(x, lambda f: (1 + (f / cutoff) ** 16).rsqrt())


def _high_pass(x: Tensor, rng: torch.Generator) -> Tensor:
    cutoff = _uniform(rng, 50, 500)
    return _filtered(x, lambda f: (1 + (cutoff / f.clamp_min(1e-3)) ** 16).rsqrt())


def _tilt(x: Tensor, rng: torch.Generator) -> Tensor:
    """An equaliser that rises or falls by up to 3 dB per octave around 1 kHz."""
    slope = _uniform(rng, -0.5, 0.5)
    return _filtered(x, lambda f: (f.clamp_min(50) / 1000) ** slope)


def _shift(x: Tensor, rng: torch.Generator) -> Tensor:
    """Later by up to 0.2 s; what leaves at the end is lost."""
    late = int(_uniform(rng, 1, 0.2 * RATE_HZ))
    return F.pad(x, (late, 0))[..., : x.shape[2]]


def _cut(x: Tensor, rng: torch.Generator) -> Tensor:
    """Earlier by up to 0.2 s; silence at the end."""
    early = int(_uniform(rng, 1, 0.2 * RATE_HZ))
    return F.pad(x[..., early:], (0, early))


def _speed(x: Tensor, rng: torch.Generator) -> Tensor:
    """Played 10 % slower to faster, linearly interpolated; cut or padded to its length."""
    length = round(x.shape[2] * math.exp(_uniform(rng, -0.1, 0.1)))
    y = F.interpolate(x, length, mode="linear")[..., : x.shape[2]]
    return F.pad(y, (0, x.shape[2] - y.shape[2]))


def _echo(x: Tensor, rng: torch.Generator) -> Tensor:
    late, volume = int(_uniform(rng, 0.02, 0.3) * RATE_HZ), _uniform(rng, 0.1, 0.5)
    return x + volume * F.pad(x, (late, 0))[..., : x.shape[2]]


def _clip(x: Tensor, rng: torch.Generator) -> Tensor:
    """Clipped at half to all of each clip's peak."""
    limit = x.detach().abs().amax((1, 2), keepdim=True) * _uniform(rng, 0.5, 1)
    return torch.minimum(torch.maximum(x, -limit), limit)


def _coarse(x: Tensor, rng: torch.Generator) -> Tensor:
    """Quantised to 6 to 12 bits of each clip's peak, with the gradient of the identity."""
    step = x.detach().abs().amax((1, 2), keepdim=True).clamp_min(1e-9) / 2 ** _uniform(rng, 5, 11)
    return x + ((x / step).round() * step - x).detach()


def _polarity(x: Tensor, rng: torch.Generator) -> Tensor:
    return -x


DISTORTIONS: tuple[Callable[[Tensor, torch.Generator], Tensor], ...] = (
    _noise,
    _low_pass,
    _high_pass,
    _tilt,
    _shift,
    _cut,
    _speed,
    _echo,
    _clip,
    _coarse,
    _polarity,
)
