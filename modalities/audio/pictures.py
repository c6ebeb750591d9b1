"""How clips look on a comparison sheet."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks

from bench.protocol import Clips
from modalities.audio.perceptual import RATE_HZ, mono
from modalities.audio.spectra import amplitudes

SIDE = 128
WINDOW = 1024
"""Samples of a spectrum, 64 ms; :func:`amplitudes` moves on by a quarter of them."""
SHOWN = (SIDE - 1) * WINDOW // 4
"""Samples behind 128 columns: 2.03 s."""
RANGE_DB = 80.0


def spectrograms(clips: Clips) -> Tensor:
    """Mel spectrograms of the first 2 s, in matplotlib's viridis: time to the right, 0 to 8 kHz upwards.

    The darkest colour is -80 dB and the brightest 0 dB, a full-scale sine, in every picture, so that pictures compare.

    Returns:
        uint8 (B, 3, 128, 128), on the CPU.
    """
    x = mono(clips).cpu()[:, :SHOWN]
    power = amplitudes(F.pad(x, (0, SHOWN - x.shape[1])), WINDOW).square()  # (B, 513, 128)
    bands = torch.einsum("bft,fm->bmt", power, _bank()).flip(1)  # (B, 128, 128), high ones first
    level = 10 * bands.clamp_min(1e-10).log10() / RANGE_DB + 1
    return _colours()[(level.clamp(0, 1) * 255).round().long()].permute(0, 3, 1, 2).contiguous()


@lru_cache(maxsize=1)
def _bank() -> Tensor:
    """Triangles of height one: a band holds the power in it, and so a sine's level, wherever it lies."""
    bank: Tensor = melscale_fbanks(WINDOW // 2 + 1, 0.0, RATE_HZ / 2, SIDE, RATE_HZ, None, "slaney")
    return bank


@lru_cache(maxsize=1)
def _colours() -> Tensor:
    """(256, 3) uint8."""
    return torch.from_numpy(colormaps["viridis"](np.arange(256), bytes=True)[:, :3].copy())
