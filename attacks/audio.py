"""All content attacks on audio, with their strength grids, mildest first.

The grids follow the suites named as source, within what clips at 16 kHz can show. Content is
:class:`bench.protocol.Clips` of any length and rate, mono or stereo, in and out; what stays in place stays in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from attacks.audio_codec import AAC, MP3, Opus, Vorbis
from attacks.audio_filter import BandPass, HighPass, LowPass, Resample, Smoothing
from attacks.audio_level import BitDepth, Clipping, Gain, Polarity
from attacks.audio_noise import PinkNoise, WhiteNoise
from attacks.audio_resynthesis import AudioRegeneration, GriffinLim
from attacks.audio_room import Echo, Reverb
from attacks.audio_time import Crop, PitchShift, Speed, TimeShift, TimeStretch
from attacks.tools import Tools
from bench.protocol import AttackFamily, ContentAttack

__all__ = [
    "AAC",
    "FAMILIES",
    "MP3",
    "AudioRegeneration",
    "BandPass",
    "BitDepth",
    "Clipping",
    "Crop",
    "Echo",
    "Gain",
    "GriffinLim",
    "HighPass",
    "LowPass",
    "Opus",
    "PinkNoise",
    "PitchShift",
    "Polarity",
    "Resample",
    "Reverb",
    "Smoothing",
    "Speed",
    "TimeShift",
    "TimeStretch",
    "Vorbis",
    "WhiteNoise",
    "tool_families",
]

AUDIOMARKBENCH = "AudioMarkBench, arXiv:2406.06979"
RAW_BENCH = "RAW-Bench, arXiv:2505.19663"
AUDIOSEAL = "AudioSeal, arXiv:2401.17264"
OMNISEAL = "Omni Seal Bench"
WAVES = "WAVES, arXiv:2401.08573"
OURS = "GenPrint"


def _family(
    name: str, make: Callable[[float], ContentAttack], strengths: tuple[float, ...], quick: int, unit: str, source: str
) -> AttackFamily:
    return AttackFamily(name, "audio", "content", make, strengths, quick, unit, source)


FAMILIES = (
    _family("white-noise", WhiteNoise, (40.0, 30.0, 20.0, 10.0, 5.0), 2, "dB SNR", AUDIOMARKBENCH),
    _family("pink-noise", PinkNoise, (40.0, 30.0, 20.0, 10.0, 5.0), 2, "dB SNR", AUDIOMARKBENCH),
    _family("mp3", lambda s: MP3(int(s)), (64, 40, 32, 24, 16, 8), 2, "kbit/s", AUDIOMARKBENCH),
    _family("aac", lambda s: AAC(int(s)), (64, 48, 32, 24, 16), 2, "kbit/s", OMNISEAL),
    _family("opus", lambda s: Opus(int(s)), (31, 24, 16, 8, 6), 2, "kbit/s", AUDIOMARKBENCH),
    _family("vorbis", Vorbis, (8.0, 6.0, 4.0, 2.0, 0.0), 3, "quality", RAW_BENCH),
    _family("resample", lambda s: Resample(int(s)), (12000, 8000, 6000, 4000, 2000), 1, "Hz", AUDIOSEAL),
    _family("low-pass", LowPass, (6000.0, 4000.0, 3000.0, 2000.0, 1000.0, 500.0), 2, "Hz", OMNISEAL),
    _family("high-pass", HighPass, (100.0, 250.0, 500.0, 1000.0, 2000.0), 2, "Hz", RAW_BENCH),
    _family("band-pass", BandPass, (100.0, 300.0, 500.0, 1000.0), 1, "Hz, up to 3400 Hz", AUDIOSEAL),
    _family("smoothing", lambda s: Smoothing(int(s)), (3, 5, 9, 13, 17, 21), 2, "samples", AUDIOMARKBENCH),
    _family("bit-depth", lambda s: BitDepth(int(s)), (12, 10, 8, 6, 5, 4), 2, "bits", AUDIOMARKBENCH),
    _family("gain", Gain, (-3.0, -6.0, -12.0, -20.0), 2, "dB", RAW_BENCH),
    _family("clipping", Clipping, (0.75, 0.5, 0.3, 0.2, 0.1), 1, "share of the peak", OURS),
    _family("polarity", lambda _: Polarity(), (1,), 0, "none", RAW_BENCH),
    _family("echo", Echo, (0.1, 0.3, 0.5, 0.7, 0.9), 1, "volume of the copy", AUDIOMARKBENCH),
    _family("reverb", Reverb, (12.0, 9.0, 6.0, 3.0, 0.0), 2, "dB direct over reverberant", RAW_BENCH),
    _family("time-stretch", TimeStretch, (1.05, 1.1, 1.2, 1.3, 1.5), 1, "factor of the tempo", AUDIOMARKBENCH),
    _family("pitch-shift", PitchShift, (0.25, 0.5, 1.0, 2.0, 4.0), 2, "semitones", OURS),
    _family("speed", Speed, (1.01, 1.05, 1.1, 1.25, 1.5), 2, "factor of the speed", OMNISEAL),
    _family("time-shift", TimeShift, (0.001, 0.01, 0.05, 0.1, 0.25, 0.5), 2, "seconds", RAW_BENCH),
    _family("crop", Crop, (0.9, 0.75, 0.5, 0.25, 0.1), 2, "share of the length kept", OMNISEAL),
    _family("griffin-lim", lambda s: GriffinLim(int(s)), (128, 80, 64, 40, 20), 1, "mel bands", OURS),
)


def tool_families(tools: Tools) -> tuple[AttackFamily, ...]:
    """The attacks that need a tool, as far as it is there."""
    reconstruct = tools.reconstruct
    if reconstruct is None:
        return ()
    regeneration = _family(
        "audio-regeneration", lambda s: AudioRegeneration(int(s), reconstruct), (1, 2, 4), 0, "passes", WAVES
    )
    # An Oobleck encoder takes half a second for a clip of two seconds.
    return (replace(regeneration, suites=("standard",), standard=(1, 2)),)
