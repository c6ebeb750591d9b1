"""How close one clip is to another: SI-SDR, log-spectral and mel distance, and ViSQOL.

PESQ and STOI are left out on purpose: both are models of speech, and their numbers for music mean nothing.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.protocol import Clips, UserError
from modalities.audio.perceptual import mono
from modalities.audio.spectra import FLOOR, amplitudes, mel_distance

if TYPE_CHECKING:
    from visqol import VisqolApi

SI_SDR_LIMIT_DB = 100.0
VISQOL_BEST, VISQOL_WORST = 4.732101, 1.0
"""MOS-LQO that its audio model gives a clip compared with itself, and the end of the scale."""
VISQOL_RATE_HZ = 48_000


def paired(a: Clips, b: Clips) -> dict[str, Tensor]:
    """Distortion of each pair.

    Args:
        a: original clips.
        b: others, of the same rate, channels and length.

    Returns:
        Name to (B,) float32: ``si_sdr`` in dB, higher is closer (:func:`si_sdr`); ``lsd`` in dB, lower is closer
        (:func:`log_spectral_distance`); ``mel``, lower is closer (:func:`modalities.audio.spectra.mel_distance`).
        The last two are means over channels.

    Raises:
        UserError: if rates or shapes differ.
    """
    _check(a, b)
    x, y = a.unit(), b.unit()
    mel = mel_distance(x.flatten(0, 1), y.flatten(0, 1), a.rate_hz)  # (B * C,)
    return {
        "si_sdr": si_sdr(x, y).float(),
        "lsd": log_spectral_distance(x, y, a.rate_hz),
        "mel": mel.view(len(x), -1).mean(1),
    }


def si_sdr(a: Tensor, b: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio.

    Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, arXiv:1811.02508; a constant offset counts
    as distortion (means are not subtracted, as is torchmetrics' default), and a sign does not. It compares samples,
    so it falls far for what is hardly heard: a delay, a phase shift, a filter.

    Args:
        a: originals (B, C, T); one scale for all channels.
        b: others of the same shape.

    Returns:
        dB (B,), float64, held within -100 and 100: 100 for equal clips, also silent ones, and -100 when just one of
        the two is silent.
    """
    a, b = a.double().flatten(1), b.double().flatten(1)
    scale = (a * b).sum(1, keepdim=True) / a.square().sum(1, keepdim=True).clamp_min(1e-300)  # 0 for a silent a
    signal, noise = (scale * a).square().sum(1), (scale * a - b).square().sum(1)
    ratio_db = torch.where(signal > 0, 10 * (signal / noise).log10(), -SI_SDR_LIMIT_DB)
    ratio_db = torch.where((a == b).all(1), SI_SDR_LIMIT_DB, ratio_db)
    return ratio_db.clamp(-SI_SDR_LIMIT_DB, SI_SDR_LIMIT_DB)


def log_spectral_distance(a: Tensor, b: Tensor, rate_hz: int) -> Tensor:
    """Root mean square over frequency of the difference of two spectra in dB, averaged over time.

    Gray and Markel, "Distance measures for speech processing", IEEE TASSP 1976; windows of about 43 ms (2048 samples
    at 48 kHz, 512 at 16 kHz) with a quarter as hop. Levels below -80 dB of a full-scale sine count as -80 dB.

    Args:
        a: originals (B, C, T) in [-1, 1].
        b: others of the same shape.
        rate_hz: sampling rate of both.

    Returns:
        dB (B,), 0 for equal clips.
    """
    size = 2 ** round(math.log2(rate_hz * 2048 / 48_000))
    x, y = (20 * amplitudes(wave.flatten(0, 1), size).clamp_min(FLOOR).log10() for wave in (a, b))
    apart: Tensor = (x - y).square().mean(1).sqrt().mean(1)  # (B * C,)
    return apart.view(len(a), -1).mean(1)


def visqol(a: Clips, b: Clips) -> Tensor:
    """Predicted opinion score of each clip next to its original: ViSQOL in audio mode.

    Hines et al., "ViSQOLAudio", JASA 2015, and Chinen et al., "ViSQOL v3", QoMEX 2020, arXiv:2004.09584; through the
    Python port ``visqol-python``, on one channel at 48 kHz. Level differences do not count, and small delays do not.
    It takes 0.1 to 0.3 s for two seconds on one core, so it is for some pairs, not for every cell of a run; the first
    call on a machine compiles for 15 s. Without ``numba`` it takes 1.3 to 1.9 s.

    Args:
        a: original clips, at least 1 s long.
        b: others, of the same rate, channels and length.

    Returns:
        MOS-LQO (B,) float32 from 1 to 4.73, higher is better; 4.73 for two silent clips, 1 when one is silent.

    Raises:
        UserError: if rates or shapes differ, or the clips are shorter than 1 s.
    """
    _check(a, b)
    if a.samples.shape[2] < a.rate_hz:
        seconds = a.samples.shape[2] / a.rate_hz
        raise UserError(f"ViSQOL: expected clips of 1 s or more, found {seconds:.2f} s")
    pairs = zip(mono(a, VISQOL_RATE_HZ).cpu(), mono(b, VISQOL_RATE_HZ).cpu(), strict=True)
    return torch.tensor([_opinion(x, y) for x, y in pairs])


def _opinion(a: Tensor, b: Tensor) -> float:
    if not (a.any() and b.any()):  # its level matching divides by zero, and a silent original scores 4.73
        return VISQOL_WORST if a.any() or b.any() else VISQOL_BEST
    score: float = _visqol().measure_from_arrays(a.double().numpy(), b.double().numpy(), VISQOL_RATE_HZ).moslqo
    return score


@lru_cache(maxsize=1)
def _visqol() -> VisqolApi:
    from visqol import VisqolApi  # takes seconds to import

    api = VisqolApi()
    api.create(mode="audio")
    return api


def _check(a: Clips, b: Clips) -> None:
    if a.rate_hz != b.rate_hz or a.samples.shape != b.samples.shape:
        raise UserError(
            f"clips to compare: expected one rate and shape, found {a.rate_hz} Hz {tuple(a.samples.shape)} and "
            f"{b.rate_hz} Hz {tuple(b.samples.shape)}"
        )
