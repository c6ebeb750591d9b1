"""Audio attacks by what a room does: echo, and reverberation with a measured impulse response."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from attacks.audio_filter import high_pass, low_pass
from attacks.audio_pcm import filtered, fitted, resampled
from attacks.limits import check_strength
from bench.protocol import Clips, Target, UserError

IMPULSE = Path(__file__).parent / "impulses" / "living_room.flac"
DIRECT_S = 0.0025
"""What arrives later than this after the direct sound is reverberation, in seconds."""
TAIL_S = 0.4
"""Where the recording's own noise is stronger than the room; the last quarter fades out."""


@dataclass(frozen=True)
class Echo:
    """Add one delayed copy.

    Attributes:
        volume: of the copy, relative to the clip, 0 to 1.
        delay_s: of the copy, in seconds, rounded to whole samples.
    """

    volume: float = 0.3
    delay_s: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)
        if not self.delay_s > 0:
            raise UserError(f"{self!r}: the delay must lie above 0 seconds, found {self.delay_s:g}")

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) with an echo."""
        x = content.unit()
        late = round(self.delay_s * content.rate_hz)
        echo = F.pad(x, (late, 0))[..., : x.shape[-1]]
        return Clips.from_unit(x + self.volume * echo, content.rate_hz)


@dataclass(frozen=True)
class Reverb:
    """Play the clip in a room: its measured reverberation, added to the clip itself.

    The clip stands for the direct sound, which keeps its time and colour; the loudspeaker's is in no result. The
    impulse response is that of a domestic living room in the OpenAIR library (University of York).

    Attributes:
        direct_db: energy of the direct sound over that of the reverberation, for an impulse, in dB; lower is stronger.
    """

    direct_db: float = 6.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -60, 200)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) in a room."""
        x = content.unit()
        tail = reverberation(content.rate_hz).to(x.device)
        padded = 1 << (x.shape[-1] + len(tail) - 1).bit_length()
        wet = torch.fft.irfft(torch.fft.rfft(x, padded) * torch.fft.rfft(tail, padded), padded)[..., : x.shape[-1]]
        return Clips.from_unit(x + 10 ** (-self.direct_db / 20) * wet, content.rate_hz)


@lru_cache(maxsize=8)
def reverberation(rate_hz: int) -> Tensor:
    """The room's impulse response without its direct sound, of energy 1, (T,); time 0 is the direct sound's.

    The recording's rumble below 80 Hz and hiss above 15 kHz do not belong to the room.
    """
    import soundfile

    recorded, recorded_hz = soundfile.read(IMPULSE, dtype="float32")
    response = torch.from_numpy(recorded)
    response = filtered(response, recorded_hz, lambda f: high_pass(f, 80) * low_pass(f, 15_000))
    response = response[int(response.abs().argmax()) :]
    start, end = round(DIRECT_S * recorded_hz), round(TAIL_S * recorded_hz)
    response = fitted(response, end) * (torch.arange(end) >= start)
    response *= 0.5 - 0.5 * torch.cos(torch.pi * ((end - torch.arange(end)) / (end / 4)).clamp(0, 1))
    response = resampled(response, Fraction(rate_hz, recorded_hz))
    return response / response.square().sum().sqrt()
