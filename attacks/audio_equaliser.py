"""Audio attacks that colour: peaking and random band equalisers, a phaser, and phases that are moved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from attacks.audio_listing import OURS, RAW_BENCH, SOK, audio_family
from attacks.audio_pcm import filtered
from attacks.audio_stft import samples, spectra, window_size
from attacks.grids import Card, Grid
from attacks.limits import check_strength
from bench.protocol import Clips, Target, UserError

BARK_HZ = (
    *(0, 100, 200, 300, 400, 510, 630, 770, 920, 1080, 1270, 1480, 1720, 2000),
    *(2320, 2700, 3150, 3700, 4400, 5300, 6400, 7700, 9500, 12000, 15500),
)
"""Edges of the 24 critical bands (Zwicker, JASA 33(2), 1961)."""
STAGES = 4
BLOCK_S = 0.002


def peaking(frequency_hz: Tensor, gain_db: float, centre_hz: float, quality: float) -> Tensor:
    """Gain of the analogue peaking filter (s^2 + s A/Q + 1) / (s^2 + s/(A Q) + 1), without its phase.

    Bristow-Johnson, "Cookbook formulae for audio EQ biquad filter coefficients": A is the root of the gain at the
    centre.
    """
    root = 10 ** (gain_db / 40)
    ratio = frequency_hz / centre_hz
    rest = (1 - ratio**2) ** 2
    return ((rest + (ratio * root / quality) ** 2) / (rest + (ratio / root / quality) ** 2)).sqrt()


@dataclass(frozen=True)
class ParametricEqualiser:
    """Raise or lower what lies about one frequency.

    Attributes:
        gain_db: at the centre, in dB; below 0 it is a dip.
        centre_hz: in Hz.
        quality: of the resonance; 1 is about 1.4 octaves wide.
    """

    gain_db: float = 6.0
    centre_hz: float = 1000.0
    quality: float = 1.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -60, 60)
        if not (self.centre_hz > 0 and self.quality > 0):
            lowest = min(self.centre_hz, self.quality)
            raise UserError(f"{self!r}: the centre and the quality must lie above 0, found {lowest:g}")

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), coloured."""
        settings = (self.gain_db, self.centre_hz, self.quality)
        x = filtered(content.unit(), content.rate_hz, lambda f: peaking(f, *settings))
        return Clips.from_unit(x, content.rate_hz)


@dataclass(frozen=True)
class BarkEqualiser:
    """Turn every critical band up or down by as much, with a random sign, and no phase moved.

    RAW-Bench gives each band its own gain from an interval, in nepers, through a graphic equaliser.

    Attributes:
        gain_db: of each band, in dB, up or down; between two bands' centres the gain is interpolated.
    """

    gain_db: float = 3.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 60)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), each coloured in its own way."""
        x, rate = content.unit(), content.rate_hz
        edges = torch.tensor(BARK_HZ, dtype=torch.float32)
        centres = (edges[1:] + edges[:-1]) / 2
        signs = torch.rand(len(x), len(centres), generator=rng, device=rng.device).cpu() < 0.5
        gains = torch.where(signs, -self.gain_db, self.gain_db)  # (B, bands)
        y = [
            filtered(clip, rate, partial(_curve, centres_hz=centres, gains_db=own))
            for clip, own in zip(x, gains, strict=True)
        ]
        return Clips.from_unit(torch.stack(y), rate)


def _curve(frequency_hz: Tensor, centres_hz: Tensor, gains_db: Tensor) -> Tensor:
    """Gains (bins,) interpolated between those in dB at the bands' centres."""
    between = np.interp(frequency_hz.cpu().numpy(), centres_hz.numpy(), gains_db.numpy())
    return 10 ** (torch.from_numpy(between).float().to(frequency_hz.device) / 20)


@dataclass(frozen=True)
class Phaser:
    """Add a copy through four all-pass filters whose corner sweeps from 300 to 3000 Hz: notches that wander.

    Attributes:
        mix: level of the copy relative to the clip, 0 to 1; the sum is scaled by 1 / (1 + mix).
        rate_hz: sweeps up and down, in Hz.
    """

    mix: float = 0.5
    rate_hz: float = 0.5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), swirling."""
        from scipy.signal import lfilter

        rate, x = content.rate_hz, content.unit().cpu().numpy().astype(np.float64)
        size = max(1, round(BLOCK_S * rate))
        copy, state = np.empty_like(x), np.zeros((STAGES, *x.shape[:-1], 1))
        for start in range(0, x.shape[-1], size):
            sweep = 0.5 - 0.5 * math.cos(2 * math.pi * self.rate_hz * start / rate)
            bend = math.tan(math.pi * min(0.45, 300 * 10**sweep / rate))
            a = (bend - 1) / (bend + 1)
            block = x[..., start : start + size]
            for stage in range(STAGES):
                block, state[stage] = lfilter([a, 1], [1, a], block, zi=state[stage])
            copy[..., start : start + size] = block
        y = torch.from_numpy((x + self.mix * copy) / (1 + self.mix))
        return Clips.from_unit(y.to(content.samples.device), rate)


@dataclass(frozen=True)
class PhaseNoise:
    """Add independent Gaussian noise to the phase of every value of the 64 ms spectra; magnitudes stay.

    Attributes:
        std_rad: standard deviation, in radians. Channels get the same, so that their place between them stays.
    """

    std_rad: float = 0.5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 100)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), blurred."""
        x, size = content.unit(), window_size(content.rate_hz)
        spectrum = spectra(x.flatten(0, 1), size).unflatten(0, x.shape[:2])  # (B, C, bins, frames)
        shape = (len(x), 1, *spectrum.shape[2:])
        angle = self.std_rad * torch.randn(shape, generator=rng, device=rng.device).to(x.device)
        turned = (spectrum * torch.polar(torch.ones_like(angle), angle)).flatten(0, 1)
        return Clips.from_unit(samples(turned, size, x.shape[-1]).view_as(x), content.rate_hz)


@dataclass(frozen=True)
class PhaseRotation:
    """Turn the phase of every frequency by the same angle, as broadcasters do to even out speech; nobody hears it.

    Attributes:
        degrees: 180 is the same as turning the polarity around.
    """

    degrees: float = 90.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -180, 180)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), of other waves and the same sound."""
        x, angle = content.unit(), math.radians(self.degrees)
        length = x.shape[-1]
        quadrature = torch.fft.irfft(torch.fft.rfft(F.pad(x, (length, length))) * 1j, 3 * length)[..., length:-length]
        return Clips.from_unit(math.cos(angle) * x + math.sin(angle) * quadrature, content.rate_hz)


FAMILIES = (
    audio_family(
        "parametric-equaliser",
        ParametricEqualiser,
        Grid((3.0, 6.0, 9.0, 12.0, 18.0), 2, "dB at 1 kHz"),
        Card("Raises the middle.", OURS),
        standard=(),
    ),
    audio_family(
        "bark-equaliser",
        BarkEqualiser,
        Grid((1.0, 3.3, 6.5, 9.0, 12.0), 2, "dB up or down"),
        Card("Colours the clip band by band.", RAW_BENCH),
        standard=(3.3, 6.5),
    ),
    audio_family(
        "phaser",
        Phaser,
        Grid((0.1, 0.2, 0.4, 0.7, 1.0), 2, "level of the copy"),
        Card("Adds a copy whose phases wander.", OURS),
        standard=(),
    ),
    audio_family(
        "phase-noise",
        PhaseNoise,
        Grid((0.1, 0.2, 0.5, 1.0, 2.0), 2, "radians"),
        Card("Disturbs the phases and keeps the magnitudes, which ears go by.", SOK),
        standard=(),
    ),
    audio_family(
        "phase-rotation",
        PhaseRotation,
        Grid((15.0, 30.0, 45.0, 90.0, 135.0), 3, "degrees"),
        Card("Turns all phases by one angle, which nobody hears.", OURS),
        standard=(),
    ),
)
