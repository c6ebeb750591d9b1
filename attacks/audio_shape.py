"""Audio attacks that bend or coarsen sample values and sampling: distortion, mu-law, sample and hold, median."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from attacks.audio_listing import OURS, STIRMARK, audio_family
from attacks.grids import Card, Grid
from attacks.limits import check_strength
from bench.protocol import Clips, Target, UserError

MU = 255
LARGEST_SORTED = 15
"""Window up to which a median is found fastest by sorting shifted copies."""


@dataclass(frozen=True)
class Distortion:
    """Overdrive: each clip's peak meets a soft saturation (tanh), and comes out at the level it had.

    Attributes:
        drive_db: how far the peak is driven above the saturation's unit, in dB; at -40 and below nothing is heard.
    """

    drive_db: float = 12.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -60, 60)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) with harmonics that were not there."""
        x, drive = content.unit(), 10 ** (self.drive_db / 20)
        peak = x.abs().amax((1, 2), keepdim=True).clamp_min(1e-9)  # (B, 1, 1)
        return Clips.from_unit(torch.tanh(drive * x / peak) * (peak / math.tanh(drive)), content.rate_hz)


@dataclass(frozen=True)
class MuLaw:
    """Round on the logarithmic scale of ITU-T G.711 (mu = 255), smooth, without its piecewise-linear segments.

    Attributes:
        bits: 2^bits - 1 levels, symmetric about 0, of full scale; lower is stronger. Telephony has 8.
    """

    bits: int = 8
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 2, 16)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) on coarse steps where they are loud."""
        x, top = content.unit(), 2 ** (self.bits - 1) - 1
        code = (top * torch.log1p(MU * x.abs()) / math.log1p(MU)).round()
        level = torch.expm1(code / top * math.log1p(MU)) / MU
        return Clips.from_unit(x.sign() * level, content.rate_hz)


@dataclass(frozen=True)
class BitCrush:
    """Sample and hold without a filter, as lo-fi effects do: every so many samples one is kept and repeated.

    Attributes:
        hold: samples that show the first one of them, in the clip's own sampling periods; 1 changes nothing. What is
            left is (hold - 1) / 2 samples late on average.
    """

    hold: int = 4
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 10_000)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) as a staircase, with all its aliases."""
        index = torch.arange(content.samples.shape[-1], device=content.samples.device)
        return Clips(content.samples[..., index - index % self.hold].contiguous(), content.rate_hz)


@dataclass(frozen=True)
class MedianSmoothing:
    """Replace each sample by the median of its neighbourhood; beyond the ends the last sample goes on.

    Attributes:
        window: of the median, in samples, odd, so that nothing moves.
    """

    window: int = 5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 255)
        if self.window % 2 == 0:
            raise UserError(f"{self!r}: the window must be odd, found {self.window}")

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) without their narrowest peaks."""
        half, length = self.window // 2, content.samples.shape[-1]
        padded = F.pad(content.unit(), (half, half), "replicate").mul(32768).to(torch.int16)
        if self.window > LARGEST_SORTED:
            middle = torch.cat([part.unfold(-1, self.window, 1).median(-1).values for part in padded.split(8)])
        else:
            middle = _middle([padded[..., start : start + length] for start in range(self.window)])
        return Clips(middle, content.rate_hz)


def _middle(shifted: list[Tensor]) -> Tensor:
    """Median of an odd number of tensors, entry by entry: bubble sort of the smaller half, many entries at a time."""
    half = len(shifted) // 2
    for place in range(half + 1):
        for index in range(len(shifted) - 1, place, -1):
            low, high = shifted[index - 1], shifted[index]
            shifted[index - 1], shifted[index] = torch.minimum(low, high), torch.maximum(low, high)
    return shifted[half]


FAMILIES = (
    audio_family(
        "distortion",
        Distortion,
        Grid((0.0, 6.0, 12.0, 18.0, 24.0), 2, "dB of drive"),
        Card("Overdrives the clip as a guitar amplifier does.", OURS),
        standard=(),
    ),
    audio_family(
        "mu-law",
        lambda s: MuLaw(int(s)),
        Grid((8, 7, 6, 5, 4), 2, "bits"),
        Card("Rounds on the logarithmic scale of telephones.", OURS),
        standard=(),
    ),
    audio_family(
        "bit-crush",
        lambda s: BitCrush(int(s)),
        Grid((2, 3, 4, 6, 8), 2, "samples held"),
        Card("Repeats every so many samples' first one, as lo-fi effects do.", OURS),
        standard=(),
    ),
    audio_family(
        "median-smoothing",
        lambda s: MedianSmoothing(int(s)),
        Grid((3, 5, 7, 9, 13), 2, "samples"),
        Card("Filters with the median, which takes clicks and fine detail.", STIRMARK),
        standard=(),
    ),
)
