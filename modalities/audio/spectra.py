"""Differentiable spectral distances of waveforms, for training and for scores."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

SIZES = (2048, 1024, 512, 256, 128)
FLOOR = 1e-4
"""Amplitude, relative to full scale, below which spectra count as silent: -80 dB."""


def stft_distance(a: Tensor, b: Tensor) -> Tensor:
    """Multi-resolution STFT distance of waveforms.

    Yamamoto et al., "Parallel WaveGAN", ICASSP 2020, arXiv:1910.11480, eqs. 4 to 6: spectral convergence plus the mean
    absolute difference of natural log amplitudes, averaged over window sizes of 8 to 128 ms at 16 kHz with a quarter
    of the window as hop. Amplitudes are those of a full-scale sine's peak, floored at -80 dB.

    Args:
        a: original waveforms (B, T) in [-1, 1], T above 1024.
        b: others of the same shape.

    Returns:
        Distances (B,), 0 for equal waveforms.
    """
    total = torch.zeros(len(a), device=a.device)
    for size in SIZES:
        x, y = amplitudes(a, size), amplitudes(b, size)
        apart = ((x - y).square().mean((1, 2)) / (x.square().mean((1, 2)) + FLOOR**2) + 1e-12).sqrt()
        total = total + apart + ((x + FLOOR).log() - (y + FLOOR).log()).abs().mean((1, 2))
    return total / len(SIZES)


def mel_distance(a: Tensor, b: Tensor, rate_hz: int = 16_000) -> Tensor:
    """Mean absolute difference of natural log mel amplitudes: 80 bands, 64 ms windows, 16 ms hop at 16 kHz.

    Args:
        a: original waveforms (B, T) in [-1, 1].
        b: others of the same shape.
        rate_hz: sampling rate of both.

    Returns:
        Distances (B,).
    """
    x, y = mel_spectrum(a, rate_hz), mel_spectrum(b, rate_hz)
    return ((x + FLOOR).log() - (y + FLOOR).log()).abs().mean((1, 2))


def mel_spectrum(wave: Tensor, rate_hz: int = 16_000) -> Tensor:
    """Mel amplitudes (B, 80, frames) of waveforms (B, T): 64 ms windows, 16 ms hop at 16 kHz."""
    return torch.einsum("bft,fm->bmt", amplitudes(wave, 1024), _bank(1024, rate_hz).to(wave.device))


def amplitudes(wave: Tensor, size: int) -> Tensor:
    """Short-time spectrum (B, size // 2 + 1, frames) of (B, T), in units of a sine's amplitude."""
    window = _window(size).to(wave.device)
    spectrum = torch.stft(wave, size, size // 4, window=window, return_complex=True)
    power = torch.view_as_real(spectrum).square().sum(-1)
    return (power + 1e-12).sqrt() * (2 / float(window.sum()))


@lru_cache(maxsize=16)
def _window(size: int) -> Tensor:
    return torch.hann_window(size)


@lru_cache(maxsize=4)
def _bank(size: int, rate_hz: int) -> Tensor:
    bank: Tensor = melscale_fbanks(size // 2 + 1, 0.0, rate_hz / 2, 80, rate_hz, "slaney", "slaney")
    return bank * (rate_hz / size)
