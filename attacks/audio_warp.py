"""Audio attacks that read the clip at moving places: jitter, wow, flanger, chorus."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from attacks.audio_listing import OURS, RAW_BENCH, audio_family
from attacks.grids import Card, Grid
from attacks.limits import check_strength
from bench.protocol import Clips, Target


def read_at(x: Tensor, place: Tensor) -> Tensor:
    """Cubic interpolation (Catmull-Rom) at places between samples; silence before and after the clip.

    Args:
        x: samples (B, C, T).
        place: where to read, in samples, float64, (T,) for all clips or (B, 1, T).

    Returns:
        Samples (B, C, T).
    """
    length = x.shape[-1]
    place = place.expand(len(x), 1, -1)
    first = place.floor()
    u = (place - first).float()
    # Four samples, of which the first lies one before the place; what is outside sees zeros only.
    index = first.long().clamp(-3, length + 1) + 3
    padded = F.pad(x, (4, 4))
    a, b, c, d = (padded.gather(-1, (index + i).expand(-1, x.shape[1], -1)) for i in range(4))
    return b + 0.5 * u * (c - a + u * (2 * a - 5 * b + 4 * c - d + u * (3 * (b - c) + d - a)))


def _times(content: Clips) -> Tensor:
    """Sample numbers (T,), float64."""
    return torch.arange(content.samples.shape[-1], dtype=torch.float64, device=content.samples.device)


@dataclass(frozen=True)
class TimeJitter:
    """Sample the clip at moments that are each a little off, as a converter with a bad clock does.

    Attributes:
        std_samples: standard deviation of each moment, independent and Gaussian, in sampling periods.
    """

    std_samples: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 100)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), grainy; all channels of a clip share its clock."""
        shape = (len(content), 1, content.samples.shape[-1])
        off = torch.randn(shape, generator=rng, device=rng.device, dtype=torch.float64).to(content.samples.device)
        x = read_at(content.unit(), _times(content) + self.std_samples * off)
        return Clips.from_unit(x, content.rate_hz)


@dataclass(frozen=True)
class Wow:
    """Let the speed go up and down slowly, as tape and vinyl do; nothing is late for long.

    Attributes:
        percent: largest deviation of the speed, in percent.
        rate_hz: how often it goes up and down, in Hz; 4 Hz is where it is heard most (IEC 60386).
    """

    percent: float = 1.0
    rate_hz: float = 4.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 50)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) of wavering pitch, each from another phase."""
        start = torch.rand(len(content), 1, 1, generator=rng, device=rng.device, dtype=torch.float64)
        turns = self.rate_hz * _times(content) / content.rate_hz + start.to(content.samples.device)
        reach = self.percent / 100 * content.rate_hz / (2 * math.pi * self.rate_hz)  # samples
        place = _times(content) + reach * torch.sin(2 * math.pi * turns)
        return Clips.from_unit(read_at(content.unit(), place), content.rate_hz)


@dataclass(frozen=True)
class Flanger:
    """Add a copy whose delay goes up and down between 1 and 5 ms: teeth of a comb that wander.

    Attributes:
        mix: level of the copy relative to the clip, 0 to 1; the sum is scaled by 1 / (1 + mix).
        rate_hz: how often the delay goes up and down, in Hz.
    """

    mix: float = 0.5
    rate_hz: float = 0.5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) with a swooshing copy."""
        x = content.unit()
        swing = torch.cos(2 * math.pi * self.rate_hz * _times(content) / content.rate_hz)
        delay = (0.003 - 0.002 * swing) * content.rate_hz
        return Clips.from_unit((x + self.mix * read_at(x, _times(content) - delay)) / (1 + self.mix), content.rate_hz)


@dataclass(frozen=True)
class Chorus:
    """Add three voices, 15 to 30 ms late and each out of tune on its own.

    Attributes:
        mix: level of all voices together relative to the clip, 0 to 1; the sum is scaled by 1 / (1 + mix).
    """

    mix: float = 0.5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), as if several played."""
        x, times = content.unit(), _times(content)
        voices = torch.zeros_like(x)
        for base_s, rate_hz in ((0.015, 0.7), (0.022, 1.1), (0.030, 1.6)):
            swing = 0.002 * torch.sin(2 * math.pi * rate_hz * times / content.rate_hz)
            voices += read_at(x, times - (base_s + swing) * content.rate_hz) / 3
        return Clips.from_unit((x + self.mix * voices) / (1 + self.mix), content.rate_hz)


FAMILIES = (
    audio_family(
        "time-jitter",
        TimeJitter,
        Grid((0.01, 0.05, 0.1, 0.2, 0.5), 3, "sampling periods"),
        Card("Samples again by a clock that is a little off at every sample.", RAW_BENCH),
        standard=(0.1, 0.2),
    ),
    audio_family(
        "wow",
        Wow,
        Grid((0.1, 0.3, 1.0, 2.0, 4.0), 2, "percent of the speed"),
        Card("Lets the speed waver as a worn tape does.", OURS),
        standard=(0.3, 1.0),
    ),
    audio_family(
        "flanger",
        Flanger,
        Grid((0.1, 0.2, 0.4, 0.7, 1.0), 2, "level of the copy"),
        Card("Adds a copy whose delay wanders about 3 ms.", OURS),
        standard=(),
    ),
    audio_family(
        "chorus",
        Chorus,
        Grid((0.1, 0.2, 0.4, 0.7, 1.0), 2, "level of the copies"),
        Card("Adds three voices that are late and out of tune.", OURS),
        standard=(),
    ),
)
