"""Over the air: a loudspeaker plays the clip in a room, and a microphone records it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Generator, Tensor

from attacks.audio_filter import high_pass, low_pass
from attacks.audio_listing import SOK, audio_family
from attacks.audio_noise import PinkNoise
from attacks.audio_pcm import filtered
from attacks.grids import Card, Grid
from attacks.limits import check_strength
from bench.protocol import Clips, Target

ROOM_M = (6.0, 4.5, 2.7)
LOUDSPEAKER_M = (1.1, 1.4, 1.2)
DIRECTION = (0.92, 0.36, 0.16)
REFLECTION = 0.84
"""Share of the pressure that a wall gives back: the reverberation of a furnished room, about 0.35 s."""
ORDER = 12
"""Reflections along each axis, to either side."""
SOUND_M_S = 343.0
BAND_HZ = (150.0, 7000.0)
"""What a small loudspeaker plays and a telephone's microphone hears."""
NEAR_SNR_DB = 40.0
"""Of the recording at a distance of a quarter of a metre; the room's own noise stays as loud when the clip does not."""
NEAR_M = 0.25


@dataclass(frozen=True)
class OverTheAir:
    """Play the clip through a small loudspeaker and record it at a distance; pink noise stands for the room's own.

    The room is a furnished one of 6 m by 4.5 m by 2.7 m by the image method (Allen and Berkley, JASA 65(4), 1979).
    The recording starts when the direct sound arrives and is turned up to where that was.

    Attributes:
        distance_m: between loudspeaker and microphone, in metres; reverberation and noise, relative to the direct
            sound, rise by 6 dB whenever it doubles. At a quarter of a metre the noise is 40 dB below the recording.
    """

    distance_m: float = 1.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0.05, 4.2)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), recorded."""
        x, rate = content.unit(), content.rate_hz
        low, high = BAND_HZ
        x = filtered(x, rate, lambda f: high_pass(f, low) * low_pass(f, high))
        room = room_response(self.distance_m, rate).to(x.device)
        padded = 1 << (x.shape[-1] + len(room) - 1).bit_length()
        wet = torch.fft.irfft(torch.fft.rfft(x, padded) * torch.fft.rfft(room, padded), padded)[..., : x.shape[-1]]
        snr_db = NEAR_SNR_DB - 20 * math.log10(self.distance_m / NEAR_M)
        return PinkNoise(snr_db)(Clips.from_unit(wet, rate), rng)


@lru_cache(maxsize=16)
def room_response(distance_m: float, rate_hz: int) -> Tensor:
    """Impulse response of the room (T,); the direct sound is 1, at time 0."""
    size, speaker = torch.tensor(ROOM_M, dtype=torch.float64), torch.tensor(LOUDSPEAKER_M, dtype=torch.float64)
    way = torch.tensor(DIRECTION, dtype=torch.float64)
    microphone = speaker + distance_m * way / way.norm()
    cells = torch.arange(-ORDER, ORDER + 1, dtype=torch.float64)
    shifts, walls = [], []
    for axis in range(3):
        same = 2 * cells * size[axis] + speaker[axis] - microphone[axis]
        mirrored = 2 * cells * size[axis] - speaker[axis] - microphone[axis]
        shifts.append(torch.cat([same, mirrored]))
        walls.append(torch.cat([(2 * cells).abs(), (2 * cells - 1).abs()]))
    x, y, z = torch.meshgrid(*shifts, indexing="ij")
    met = torch.stack(torch.meshgrid(*walls, indexing="ij")).sum(0)
    distance = (x**2 + y**2 + z**2).sqrt().flatten()
    level = (REFLECTION**met).flatten() * distance_m / distance
    late = ((distance - distance_m) / SOUND_M_S * rate_hz).clamp_min(0)
    response = torch.zeros(int(0.4 * rate_hz) + 2, dtype=torch.float64)
    heard = late < 0.4 * rate_hz
    first, level = late[heard].floor(), level[heard]
    share = late[heard] - first
    response.index_add_(0, first.long(), (1 - share) * level)
    response.index_add_(0, first.long() + 1, share * level)
    return response.float()


FAMILIES = (
    audio_family(
        "over-the-air",
        OverTheAir,
        Grid((0.25, 0.5, 1.0, 2.0, 4.0), 2, "metres"),
        Card("Plays the clip through a loudspeaker and records it across the room.", SOK),
        standard=(0.5, 2.0),
    ),
)
