"""Between published clips, int16 (B, C, T), and what the attacks compute on; one rate to another."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bench.parallel import in_parallel
from bench.protocol import Clips

Wave = NDArray[np.float32]
"""One clip as libraries take it, float32 (C, T) in [-1, 1)."""

SPARE = 4096
"""Zeros that filters get to ring into, in samples: nothing comes back around at the other end."""


def fitted(x: Tensor, length: int) -> Tensor:
    """Samples (..., T) cut at the end, or continued with zeros, to ``length``."""
    return F.pad(x[..., :length], (0, max(0, length - x.shape[-1])))


def clip_by_clip(content: Clips, change: Callable[[Wave], Wave]) -> Clips:
    """Pass each clip of a batch through a library, several at once.

    Args:
        content: clips of any number.
        change: what happens to each, (C, T) to (C, any length); what is too long is cut, what is short padded. It must
            not depend on the clips before.
    """
    length = content.samples.shape[-1]
    waves = in_parallel(change, list(content.unit().cpu().numpy()))
    changed = [fitted(torch.from_numpy(wave), length) for wave in waves]
    return Clips.from_unit(torch.stack(changed).to(content.samples.device), content.rate_hz)


def filtered(x: Tensor, rate_hz: int, response: Callable[[Tensor], Tensor]) -> Tensor:
    """Filter without moving anything in time, silence assumed before and after.

    Args:
        x: samples (..., T).
        rate_hz: samples per second.
        response: frequencies in Hz (bins,) to the real gain at each (bins,).
    """
    length = x.shape[-1]
    padded = 1 << (length + SPARE - 1).bit_length()
    gain = response(torch.fft.rfftfreq(padded, 1 / rate_hz, device=x.device))
    y: Tensor = torch.fft.irfft(torch.fft.rfft(x, padded) * gain, padded)
    return y[..., :length]


def resampled(x: Tensor, ratio: Fraction) -> Tensor:
    """Band-limited interpolation at ``ratio`` times as many samples; sample 0 stays at time 0.

    What lies above the smaller of the two Nyquist frequencies goes, with a soft edge over the tenth below it.

    Args:
        x: samples (..., T).
        ratio: new rate over old rate.

    Returns:
        Samples (..., ceil(T * ratio)).
    """
    if ratio == 1:
        return x
    blocks = ceil((x.shape[-1] + SPARE) / ratio.denominator)
    old = ratio.denominator << (blocks - 1).bit_length()
    new = old // ratio.denominator * ratio.numerator
    edge = min(old, new) // 2
    place = torch.arange(edge + 1, device=x.device) / edge  # 1 is the smaller Nyquist frequency
    gain = 0.5 + 0.5 * torch.cos(torch.pi * ((place - 0.9) / 0.1).clamp(0, 1))
    spectrum = torch.fft.rfft(x, old)[..., : edge + 1] * gain
    y: Tensor = torch.fft.irfft(spectrum, new) * (new / old)
    return y[..., : ceil(x.shape[-1] * ratio)]
