"""Audio attacks on the dynamics: compressor, expander, limiter, and a level that goes up and down.

Feed-forward with the gain computed and smoothed in decibels, as Giannoulis, Massberg and Reiss describe, "Digital
Dynamic Range Compressor Design", JAES 60(6), 2012. The level is the largest magnitude of all channels within 10 ms to
either side, so that nothing passes before the gain answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional as F

from attacks.audio_listing import OURS, RAW_BENCH, audio_family
from attacks.grids import Card, Grid
from attacks.limits import check_strength
from bench.protocol import Clips, Target, UserError

STEP_S = 0.001
"""Between two values of the gain; what lies between them is interpolated."""
LOOK_S = 0.01
FLOOR_DB = -90.0
"""Where 16 bits end: levels are not told apart below, nor are they turned down by more than that."""


def levels_db(x: Tensor, step: int, look: int) -> Tensor:
    """Peak levels in dB of full scale (B, steps), one every ``step`` samples, of samples (B, C, T)."""
    peak = F.max_pool1d(x.abs().amax(1, keepdim=True), 2 * look + 1, step, look)[:, 0]
    return 20 * peak.clamp_min(10 ** (FLOOR_DB / 20)).log10()


def smoothed(gain_db: NDArray[np.float64], down: float, up: float) -> NDArray[np.float64]:
    """One-pole smoothing along the last axis that goes down and up at its own pace; shares of a step, 1 is at once."""
    result, state = np.empty_like(gain_db), gain_db[..., 0]
    for step in range(gain_db.shape[-1]):
        ahead = gain_db[..., step] - state
        state = state + np.where(ahead < 0, down, up) * ahead
        result[..., step] = state
    return result


def _controlled(content: Clips, curve: Callable[[Tensor], Tensor], down_s: float, up_s: float) -> Tensor:
    """Samples (B, C, T) under the gain that ``curve`` gives for their level, both in dB."""
    x, rate = content.unit(), content.rate_hz
    step, look = max(1, round(STEP_S * rate)), round(LOOK_S * rate)
    gain = curve(levels_db(x, step, look)).clamp_min(FLOOR_DB).double().cpu().numpy()
    down, up = (1 - math.exp(-step / rate / time_s) if time_s else 1.0 for time_s in (down_s, up_s))
    gain_db = torch.from_numpy(smoothed(gain, down, up)).float().to(x.device)[:, None]  # (B, 1, steps)
    ends = F.interpolate(F.pad(gain_db, (0, 1), "replicate"), scale_factor=step, mode="linear", align_corners=False)
    # Interpolation puts a step's value at the middle of its samples; it belongs to the first of them.
    placed = F.pad(ends, (0, step), "replicate")[..., step // 2 : step // 2 + x.shape[-1]]
    return x * 10 ** (placed / 20)


@dataclass(frozen=True)
class Compressor:
    """Turn down what is loud: above the threshold the level rises by 1 dB for every ``ratio`` dB; no make-up gain.

    Attributes:
        threshold_db: in dB of full scale; lower is stronger.
        ratio: dB in per dB out.
    """

    threshold_db: float = -24.0
    ratio: float = 4.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -90, 0)
        if not self.ratio >= 1:
            raise UserError(f"{self!r}: the ratio must be at least 1, found {self.ratio:g}")

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) of less dynamics; down within 5 ms, up within 100 ms."""
        slope = 1 / self.ratio - 1
        x = _controlled(content, lambda level: slope * (level - self.threshold_db).clamp_min(0), 0.005, 0.1)
        return Clips.from_unit(x, content.rate_hz)


@dataclass(frozen=True)
class Expander:
    """Turn down what is soft: below the threshold the level falls by ``ratio`` dB for every dB.

    Attributes:
        threshold_db: in dB of full scale; higher is stronger.
        ratio: dB out per dB in.
    """

    threshold_db: float = -16.0
    ratio: float = 4.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -90, 0)
        if not self.ratio >= 1:
            raise UserError(f"{self!r}: the ratio must be at least 1, found {self.ratio:g}")

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) of more dynamics; up within 5 ms, down within 100 ms."""
        slope = self.ratio - 1
        x = _controlled(content, lambda level: slope * (level - self.threshold_db).clamp_max(0), 0.1, 0.005)
        return Clips.from_unit(x, content.rate_hz)


@dataclass(frozen=True)
class Limiter:
    """Let no sample pass the threshold: turned down at once, and up again within 50 ms; no make-up gain.

    Attributes:
        threshold_db: in dB of full scale; lower is stronger.
    """

    threshold_db: float = -18.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -90, 0)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) whose peaks end at the threshold."""
        x = _controlled(content, lambda level: (self.threshold_db - level).clamp_max(0), 0.0, 0.05)
        top = 10 ** (self.threshold_db / 20)
        return Clips.from_unit(x.clamp(-top, top), content.rate_hz)


@dataclass(frozen=True)
class Tremolo:
    """Let the level go up and down as a sine.

    Attributes:
        depth: how much of the level goes at the lowest point, 0 to 1.
        rate_hz: how often, in Hz.
    """

    depth: float = 0.5
    rate_hz: float = 5.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), trembling, at full level at the start."""
        x = content.unit()
        time = torch.arange(x.shape[-1], dtype=torch.float64, device=x.device) / content.rate_hz
        gain = 1 - self.depth * (0.5 - 0.5 * torch.cos(2 * math.pi * self.rate_hz * time))
        return Clips.from_unit(x * gain.float(), content.rate_hz)


@dataclass(frozen=True)
class RingModulator:
    """Multiply by a sine, in part: every partial gets a copy above and below it.

    Attributes:
        mix: share of the clip that is multiplied, 0 to 1.
        carrier_hz: of the sine, in Hz.
    """

    mix: float = 0.5
    carrier_hz: float = 440.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), metallic."""
        x = content.unit()
        time = torch.arange(x.shape[-1], dtype=torch.float64, device=x.device) / content.rate_hz
        wave = torch.sin(2 * math.pi * self.carrier_hz * time).float()
        return Clips.from_unit((1 - self.mix) * x + self.mix * wave * x, content.rate_hz)


FAMILIES = (
    audio_family(
        "compressor",
        Compressor,
        Grid((-12.0, -18.0, -24.0, -30.0, -36.0), 2, "dB of full scale"),
        Card("Evens the loudness out, as mastering and broadcasting do.", RAW_BENCH),
        standard=(-24.0, -36.0),
    ),
    audio_family(
        "expander",
        Expander,
        Grid((-18.0, -15.0, -12.0, -9.0, -6.0), 2, "dB of full scale"),
        Card("Turns soft passages down, as a noise gate does.", RAW_BENCH),
        standard=(),
    ),
    audio_family(
        "limiter",
        Limiter,
        Grid((-12.0, -18.0, -24.0, -30.0, -36.0), 2, "dB of full scale"),
        Card("Lets no peak pass, as loud masters do.", RAW_BENCH),
        standard=(),
    ),
    audio_family(
        "tremolo",
        Tremolo,
        Grid((0.2, 0.4, 0.6, 0.8, 1.0), 2, "share of the level"),
        Card("Lets the loudness tremble.", OURS),
        standard=(),
    ),
    audio_family(
        "ring-modulator",
        RingModulator,
        Grid((0.05, 0.1, 0.2, 0.4, 0.8), 2, "share multiplied"),
        Card("Multiplies by a tone: a robot's voice.", OURS),
        standard=(),
    ),
)
