"""The audio attacks of other suites with their strengths: what each says, and of each family its strengths.

See :mod:`attacks.suites`. Intervals that a peer draws from are taken at their ends and in the middle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping


def decibels(*factors: float) -> tuple[float, ...]:
    """Factors of the amplitude in dB."""
    return tuple(round(20 * math.log10(factor), 3) for factor in factors)


def nepers(*values: float) -> tuple[float, ...]:
    """Natural logarithms of factors of the amplitude in dB."""
    return tuple(round(20 * value / math.log(10), 2) for value in values)


NOISE = (40.0, 30.0, 20.0, 10.0, 5.0)

AUDIO: Mapping[str, tuple[str, Mapping[str, tuple[float, ...]]]] = {
    "omniseal_audio": (
        "Omni Seal Bench; its pink noise is a cumulative sum that falls twice as steeply, here 10 dB a decade; echoes "
        "at its first delay; its even windows are the next odd ones, so that nothing moves; MP3 has no 12 kbit/s, so "
        "16; band-pass up to 3400 Hz; resampling to 32 kHz and back is left out, since it does nothing",
        {
            "speed": (0.9, 0.8, 0.7, 0.6, 0.5, 1.1, 1.2, 1.25, 1.3, 1.4, 1.5),
            "echo": (0.1, 0.2, 0.3, 0.4, 0.5),
            "white-hiss": (0.001, 0.01, 0.05, 0.1, 0.3),
            "pink-hiss": (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0),
            "low-pass": (5000.0, 4000.0, 3000.0, 2000.0, 1500.0, 1000.0, 500.0),
            "high-pass": (500.0, 1000.0, 1500.0, 2000.0, 4000.0, 8000.0),
            "band-pass": (300.0,),
            "gain": (
                *decibels(1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9),
                *decibels(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1),
            ),
            "head-silence": (0.001, 0.01, 0.1, 0.3),
            "smoothing": (3, 5, 9, 11, 21, 41),
            "aac": (256, 128, 64, 32, 24, 12),
            "mp3": (256, 128, 64, 32, 24, 16),
        },
    ),
    "audiomarkbench": (
        "AudioMarkBench, arXiv:2406.06979; its EnCodec hears 16 kHz declared as 24 kHz, here resampled; its echo names "
        "decays and passes them as delays, here they are volumes; Opus starts at 6 kbit/s whatever is asked; even "
        "windows are the next odd ones; babble is synthetic; of its 10,000 queries 300; no SoundStream",
        {
            "time-stretch": (0.9, 0.7, 1.1, 1.3, 1.5),
            "white-noise": NOISE,
            "babble": NOISE,
            "opus": (31, 16, 8, 6),
            "encodec": (24.0, 12.0, 6.0, 3.0, 1.5),
            "bit-depth": (6, 5, 4, 3, 2),
            "high-pass": (1600.0, 3200.0, 4800.0, 6400.0),
            "low-pass": (6400.0, 4800.0, 3200.0, 1600.0),
            "smoothing": (7, 11, 15, 19, 23),
            "echo": (0.1, 0.3, 0.5, 0.7, 0.9),
            "mp3": (40, 32, 24, 16, 8),
            "wave-square": (20.0,),
            "wave-pgd": (20.0,),
        },
    ),
    "raw_bench_strict": (
        "RAW-Bench strict, arXiv:2505.19663; babble for its DEMAND noise, a measured living room for its AIR rooms, "
        "Vorbis by quality, which at 0 is near its 48 kbit/s; its phase shift of samples is a delay of 1 ms; DAC at "
        "16 kHz",
        {
            "babble": (35.0, 27.5, 20.0),
            "white-noise": (40.0, 30.0, 20.0),
            "reverb": (6.0, 3.0, 0.0),
            "aac": (64,),
            "mp3": (64,),
            "vorbis": (0.0,),
            "dac": (9, 8, 7),
            "encodec": (24.0, 12.0),
            "compressor": (-18.0, -27.0, -36.0),
            "expander": (-16.0, -14.0, -12.0),
            "limiter": (-18.0, -27.0, -36.0),
            "bark-equaliser": nepers(0.375, 0.5625, 0.75),
            "high-pass": (250.0, 375.0, 500.0),
            "low-pass": (6000.0, 4750.0, 3500.0),
            "gain": (*decibels(0.5, 0.2), *decibels(1.5, 5.0)),
            "bit-depth": (14, 12),
            "time-jitter": (0.01, 0.105, 0.2),
            "time-stretch": (0.95, 0.85, 0.75, 1.05, 1.15, 1.25),
            "polarity": (1,),
            "time-shift": (0.001,),
        },
    ),
    "raw_bench_loose": (
        "RAW-Bench loose, arXiv:2505.19663; differs from its code as raw_bench_strict does; its jitter and its bits "
        "are those of strict; Vorbis at the qualities near 64, 128 and 256 kbit/s",
        {
            "babble": (60.0, 47.5, 35.0),
            "white-noise": (60.0, 50.0, 40.0),
            "reverb": (12.0, 9.0, 6.0),
            "aac": (256, 128),
            "mp3": (256, 128),
            "vorbis": (8.0, 4.0, 1.0),
            "dac": (9,),
            "encodec": (24.0,),
            "compressor": (-6.0, -12.0, -18.0),
            "expander": (-12.0, -9.0, -6.0),
            "limiter": (-6.0, -12.0, -18.0),
            "bark-equaliser": nepers(0.375),
            "high-pass": (10.0, 130.0, 250.0),
            "low-pass": (8000.0, 7000.0, 6000.0),
            "gain": (*decibels(0.75, 0.5), *decibels(1.25, 1.5)),
            "bit-depth": (14, 12),
            "time-jitter": (0.01, 0.105, 0.2),
            "time-stretch": (0.975, 0.95, 1.025, 1.05),
            "polarity": (1,),
            "time-shift": (0.001,),
        },
    ),
}
