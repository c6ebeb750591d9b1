"""Audio attacks that add other sounds: babble, crackle, hum, a second piece of music."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from attacks.audio_listing import AUDIOMARKBENCH, OURS, STIRMARK, audio_family
from attacks.audio_noise import noisy
from attacks.audio_pcm import fitted, resampled
from attacks.grids import Card, Grid
from attacks.limits import check_strength
from bench.protocol import Clips, Target

TALKERS = 8
FORMANTS_HZ = (
    *((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410)),
    *((640, 1190, 2390), (440, 1020, 2240), (490, 1350, 1690)),
)
"""First three resonances of vowels of men (Peterson and Barney, JASA 24(2), 1952, table II)."""
BANDWIDTHS_HZ = (80.0, 100.0, 140.0)
VOWEL_S = 0.12
FRAMES_HZ = 50
SPEECH_HZ = 8000


@dataclass(frozen=True)
class Babble:
    """Add eight synthetic talkers: vowel after vowel, each at a wandering pitch and with pauses.

    Suites add one recording of babble to everything; this is drawn anew for each clip. Vowels come from a source and
    three resonances (Fant, "Acoustic Theory of Speech Production", 1960). There are no words.

    Attributes:
        snr_db: power of the clip over power of the babble, in dB; lower is stronger. Silent clips stay silent.
    """

    snr_db: float = 20.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -100, 200)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) in a crowd, the same in all channels."""
        length = content.samples.shape[-1]
        crowd = torch.stack([_crowd(length, content.rate_hz, rng) for _ in range(len(content))])
        return noisy(content, crowd[:, None].to(content.samples.device).expand(content.samples.shape), self.snr_db)


def _crowd(length: int, rate_hz: int, rng: Generator) -> Tensor:
    """Sum of the talkers (length,): harmonics of pitches under the resonances of the vowels of the moment."""
    frames = -(-length * FRAMES_HZ // rate_hz) + 1
    vowels = int(frames / FRAMES_HZ / VOWEL_S) + 1
    kind, loud, tune = torch.rand(3, TALKERS, vowels, generator=rng, device=rng.device).cpu()
    of_frame = (torch.arange(frames) / FRAMES_HZ / VOWEL_S).long().clamp_max(vowels - 1)
    formants = torch.tensor(FORMANTS_HZ)[(kind * len(FORMANTS_HZ)).long()][:, of_frame]  # (talkers, frames, 3)
    loud = (0.2 + loud * (loud > 0.2))[:, of_frame]
    base = 95 * 2 ** (1.2 * torch.arange(TALKERS) / TALKERS)
    pitch = base[:, None] * (0.9 + 0.3 * tune)[:, of_frame]  # (talkers, frames)
    step = SPEECH_HZ // FRAMES_HZ
    phase = _at_samples(pitch, step).double().cumsum(-1).mul_(2 * math.pi / SPEECH_HZ).remainder(2 * math.pi).float()
    # sin(k + 1) x = 2 cos x sin k x - sin(k - 1) x
    before, wave, twice = torch.zeros_like(phase), phase.sin(), 2 * phase.cos()
    total = torch.zeros_like(phase)
    for harmonic in range(1, int(SPEECH_HZ / 2 / float(pitch.max())) + 1):
        apart = (harmonic * pitch[..., None] - formants) / torch.tensor(BANDWIDTHS_HZ)
        gain = loud * (1 / (1 + apart**2)).sum(-1) / harmonic  # (talkers, frames)
        total.addcmul_(_at_samples(gain, step), wave)
        before, wave = wave, twice * wave - before
    return fitted(resampled(total.sum(0), Fraction(rate_hz, SPEECH_HZ)), length)


def _at_samples(values: Tensor, step: int) -> Tensor:
    """Values of frames (N, frames) at samples (N, frames * step), in straight lines."""
    return F.interpolate(values[None], scale_factor=step, mode="linear")[0]


@dataclass(frozen=True)
class Crackle:
    """Add clicks as of an old record: single samples of either sign, of half to full strength, at random moments.

    Attributes:
        snr_db: power of the clip over power of the clicks, in dB; lower is stronger. Silent clips stay silent.
        per_second: clicks in each second, on average.
    """

    snr_db: float = 20.0
    per_second: float = 200.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -100, 200)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) with clicks, the same in all channels."""
        shape = (len(content), 1, content.samples.shape[-1])
        when = torch.rand(shape, generator=rng, device=rng.device) < self.per_second / content.rate_hz
        level = torch.rand(shape, generator=rng, device=rng.device) * 2 - 1  # (-1, 1)
        clicks = when * (0.5 * level + 0.5 * level.sign())
        return noisy(content, clicks.to(content.samples.device).expand(content.samples.shape), self.snr_db)


@dataclass(frozen=True)
class Hum:
    """Add the hum of the mains: 50 Hz and its harmonics up to 1 kHz, each softer than the one below.

    Attributes:
        snr_db: power of the clip over power of the hum, in dB; lower is stronger. Silent clips stay silent.
        mains_hz: 50 or 60 Hz.
    """

    snr_db: float = 20.0
    mains_hz: float = 50.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -100, 200)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) with hum, from a random phase each, the same in all channels."""
        time = torch.arange(content.samples.shape[-1], dtype=torch.float64) / content.rate_hz
        start = torch.rand(len(content), 1, 1, generator=rng, device=rng.device, dtype=torch.float64).cpu()
        turns = self.mains_hz * time + start
        hum = torch.stack([torch.sin(2 * math.pi * k * turns) / k for k in range(1, 1 + int(1000 / self.mains_hz))])
        wave = hum.sum(0).float().to(content.samples.device)
        return noisy(content, wave.expand(content.samples.shape), self.snr_db)


@dataclass(frozen=True)
class Mixing:
    """Mix with another item at a stated ratio, as a track under a voice-over or in a medley.

    Attributes:
        ratio_db: power of the clip over power of the other one, in dB; lower is stronger. Silent clips stay silent.
        other: what is mixed in, looped to length, each clip from a random place; without it a synthetic accompaniment,
            broken chords of plucked strings drawn for each clip.
    """

    ratio_db: float = 10.0
    other: Clips | None = field(default=None, repr=False, compare=False)
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, -100, 200)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), mixed; the other item is the same in all channels."""
        length = content.samples.shape[-1]
        found = [self._piece(length, content.rate_hz, rng) for _ in range(len(content))]
        others = torch.stack(found)[:, None].to(content.samples.device)
        return noisy(content, others.expand(content.samples.shape), self.ratio_db)

    def _piece(self, length: int, rate_hz: int, rng: Generator) -> Tensor:
        if self.other is None:
            return accompaniment(length, rate_hz, rng)
        first, second = torch.rand(2, generator=rng, device=rng.device, dtype=torch.float64).tolist()
        chosen = self.other[(at := int(first * len(self.other))) : at + 1].unit()[0].mean(0).cpu()
        wave = resampled(chosen, Fraction(rate_hz, self.other.rate_hz)).roll(-int(second * len(chosen)))
        return wave.repeat(-(-length // len(wave)))[:length]


def accompaniment(length: int, rate_hz: int, rng: Generator) -> Tensor:
    """Broken chords (length,): a note every eighth of a second, each of ten partials that die away."""
    step, total = max(1, round(rate_hz / 8)), torch.zeros(length)
    scale = torch.tensor([0, 3, 7, 10, 12, 15, 19])
    root = 110 * 2 ** float(torch.rand((), generator=rng, device=rng.device))
    time = torch.arange(min(length, rate_hz)) / rate_hz
    fade = torch.exp(-4 * time) * (1 - torch.exp(-300 * time))
    partials = torch.arange(1, 11)[:, None]
    for start in range(0, length, step):
        semitones = scale[int(torch.randint(len(scale), (), generator=rng, device=rng.device))]
        pitch = root * 2 ** (float(semitones) / 12)
        heard = (partials * pitch < 0.45 * rate_hz) / partials
        note = (heard * torch.sin(2 * math.pi * partials * pitch * time)).sum(0) * fade
        total[start:] += fitted(note, length - start)
    return total


FAMILIES = (
    audio_family(
        "babble",
        Babble,
        Grid((40.0, 30.0, 20.0, 10.0, 5.0), 2, "dB SNR"),
        Card("Records in a crowd: adds the murmur of eight synthetic talkers.", AUDIOMARKBENCH),
        standard=(20.0, 10.0),
    ),
    audio_family(
        "crackle",
        Crackle,
        Grid((40.0, 30.0, 20.0, 10.0, 5.0), 2, "dB SNR"),
        Card("Adds the clicks of an old record.", STIRMARK),
        standard=(),
    ),
    audio_family(
        "hum",
        Hum,
        Grid((40.0, 30.0, 20.0, 10.0, 5.0), 2, "dB SNR"),
        Card("Adds the hum of the mains.", STIRMARK),
        standard=(),
    ),
    audio_family(
        "mixing",
        Mixing,
        Grid((30.0, 20.0, 10.0, 5.0, 0.0), 2, "dB clip over other"),
        Card("Puts other music under the clip, as in a medley or a video.", OURS),
        standard=(),
    ),
)
