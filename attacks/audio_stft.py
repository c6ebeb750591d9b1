"""Short-time spectra, and the phase vocoder that plays them at another tempo."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def window_size(rate_hz: int) -> int:
    """Samples per frame: the power of two nearest to 64 ms."""
    return 1 << max(2, round(math.log2(0.064 * rate_hz)))


def spectra(x: Tensor, size: int) -> Tensor:
    """Complex spectra (N, size // 2 + 1, frames) of samples (N, T); frames overlap by three quarters."""
    window = torch.hann_window(size, device=x.device)
    return torch.stft(x, size, size // 4, window=window, pad_mode="constant", return_complex=True)


def samples(spectrum: Tensor, size: int, length: int) -> Tensor:
    """Samples (N, length) of spectra (N, size // 2 + 1, frames)."""
    window = torch.hann_window(size, device=spectrum.device)
    return torch.istft(spectrum, size, size // 4, window=window, length=length)


def at_tempo(x: Tensor, rate_hz: int, factor: float) -> Tensor:
    """Play ``factor`` times as fast at the same pitch.

    The phase vocoder of Flanagan and Golden, "Phase Vocoder", Bell System Technical Journal 45, 1966: magnitudes are
    interpolated between frames, and each bin's phase goes on by what it went on between the two frames.

    Args:
        x: samples (..., T).
        rate_hz: samples per second.
        factor: above 1 is faster.

    Returns:
        Samples (..., round(T / factor)).
    """
    size, length = window_size(rate_hz), round(x.shape[-1] / factor)
    frames = F.pad(spectra(x.flatten(0, -2), size), (0, 2))
    at = torch.arange(0, frames.shape[-1] - 2, factor, dtype=torch.float64, device=x.device)
    first, second = frames[..., at.long()], frames[..., at.long() + 1]  # (N, bins, new frames)
    share = (at % 1).float()
    magnitude = (1 - share) * first.abs() + share * second.abs()
    step = (second * first.conj()).angle().double()
    phase = step.cumsum(-1).roll(1, -1)
    phase[..., 0] = 0
    phase += frames[..., :1].angle()
    stretched = torch.polar(magnitude, torch.remainder(phase, 2 * torch.pi).float())
    return samples(stretched, size, length).view(*x.shape[:-1], length)
