"""All content attacks on audio, with their strength grids, mildest first.

The grids follow the suites named as source, within what clips at 16 kHz can show. Content is
:class:`bench.protocol.Clips` of any length and rate, mono or stereo, in and out; what stays in place stays in place.
Attacks that came later stand in the list of their own file.
"""

from __future__ import annotations

from attacks import (
    audio_air,
    audio_background,
    audio_denoise,
    audio_dynamics,
    audio_equaliser,
    audio_loss,
    audio_lpc,
    audio_neural,
    audio_shape,
    audio_telephone,
    audio_warp,
)
from attacks.audio_adversarial import SQUARE_FAMILY, pgd_family
from attacks.audio_codec import AAC, MP3, Opus, Vorbis
from attacks.audio_filter import BandPass, HighPass, LowPass, Resample, Smoothing
from attacks.audio_level import BitDepth, Clipping, Gain, Polarity
from attacks.audio_listing import (
    AUDIOMARKBENCH,
    AUDIOSEAL,
    OMNISEAL,
    OURS,
    RAW_BENCH,
    WAVES,
    audio_family,
)
from attacks.audio_noise import PinkHiss, PinkNoise, WhiteHiss, WhiteNoise
from attacks.audio_resynthesis import AudioRegeneration, GriffinLim
from attacks.audio_room import Echo, Reverb
from attacks.audio_time import Crop, PitchShift, Speed, TimeShift, TimeStretch
from attacks.grids import Card, Grid
from attacks.tools import Tools
from bench.protocol import AttackFamily

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
    "PinkHiss",
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
    "WhiteHiss",
    "WhiteNoise",
    "tool_families",
]

EVERYDAY = (
    audio_family(
        "white-noise",
        WhiteNoise,
        Grid((40.0, 30.0, 20.0, 10.0, 5.0), 2, "dB SNR"),
        Card("Adds white noise to drown a weak signal.", AUDIOMARKBENCH),
    ),
    audio_family(
        "pink-noise",
        PinkNoise,
        Grid((40.0, 30.0, 20.0, 10.0, 5.0), 2, "dB SNR"),
        Card("Adds noise that is as loud in every octave.", AUDIOMARKBENCH),
    ),
    audio_family(
        "mp3",
        lambda s: MP3(int(s)),
        Grid((64, 40, 32, 24, 16, 8), 2, "kbit/s"),
        Card("Saves the clip as MP3, as sites and players do.", AUDIOMARKBENCH),
    ),
    audio_family(
        "aac",
        lambda s: AAC(int(s)),
        Grid((64, 48, 32, 24, 16), 2, "kbit/s"),
        Card("Saves the clip as AAC, as video sites do.", OMNISEAL),
    ),
    audio_family(
        "opus",
        lambda s: Opus(int(s)),
        Grid((31, 24, 16, 8, 6), 2, "kbit/s"),
        Card("Sends the clip as Opus, as messengers and calls do.", AUDIOMARKBENCH),
    ),
    audio_family(
        "vorbis",
        Vorbis,
        Grid((8.0, 6.0, 4.0, 2.0, 0.0), 3, "quality"),
        Card("Saves the clip as Ogg Vorbis, as games and streams do.", RAW_BENCH),
    ),
    audio_family(
        "resample",
        lambda s: Resample(int(s)),
        Grid((12000, 8000, 6000, 4000, 2000), 1, "Hz"),
        Card("Publishes at a lower sampling rate.", AUDIOSEAL),
    ),
    audio_family(
        "low-pass",
        LowPass,
        Grid((6000.0, 4000.0, 3000.0, 2000.0, 1000.0, 500.0), 2, "Hz"),
        Card("Takes the treble away.", OMNISEAL),
    ),
    audio_family(
        "high-pass",
        HighPass,
        Grid((100.0, 250.0, 500.0, 1000.0, 2000.0), 2, "Hz"),
        Card("Takes the bass away.", RAW_BENCH),
    ),
    audio_family(
        "band-pass",
        BandPass,
        Grid((100.0, 300.0, 500.0, 1000.0), 1, "Hz, up to 3400 Hz"),
        Card("Keeps the band of a telephone.", AUDIOSEAL),
    ),
    audio_family(
        "smoothing",
        lambda s: Smoothing(int(s)),
        Grid((3, 5, 9, 13, 17, 21), 2, "samples"),
        Card("Averages over neighbouring samples.", AUDIOMARKBENCH),
    ),
    audio_family(
        "bit-depth",
        lambda s: BitDepth(int(s)),
        Grid((12, 10, 8, 6, 5, 4), 2, "bits"),
        Card("Rounds to fewer bits.", AUDIOMARKBENCH),
    ),
    audio_family("gain", Gain, Grid((-3.0, -6.0, -12.0, -20.0), 2, "dB"), Card("Turns the volume down.", RAW_BENCH)),
    audio_family(
        "clipping",
        Clipping,
        Grid((0.75, 0.5, 0.3, 0.2, 0.1), 1, "share of the peak"),
        Card("Cuts the peaks off.", OURS),
    ),
    audio_family(
        "polarity",
        lambda _: Polarity(),
        Grid((1,), 0, "none"),
        Card("Turns the sign around, which nobody hears.", RAW_BENCH),
    ),
    audio_family(
        "echo",
        Echo,
        Grid((0.1, 0.3, 0.5, 0.7, 0.9), 1, "volume of the copy"),
        Card("Adds one delayed copy.", AUDIOMARKBENCH),
    ),
    audio_family(
        "reverb",
        Reverb,
        Grid((12.0, 9.0, 6.0, 3.0, 0.0), 2, "dB direct over reverberant"),
        Card("Puts the clip into a room.", RAW_BENCH),
    ),
    audio_family(
        "time-stretch",
        TimeStretch,
        Grid((1.05, 1.1, 1.2, 1.3, 1.5), 1, "factor of the tempo"),
        Card("Plays faster at the same pitch.", AUDIOMARKBENCH),
    ),
    audio_family(
        "pitch-shift",
        PitchShift,
        Grid((0.25, 0.5, 1.0, 2.0, 4.0), 2, "semitones"),
        Card("Raises the pitch at the same tempo.", OURS),
    ),
    audio_family(
        "speed",
        Speed,
        Grid((1.01, 1.05, 1.1, 1.25, 1.5), 2, "factor of the speed"),
        Card("Plays faster and higher, as a tape does.", OMNISEAL),
    ),
    audio_family(
        "time-shift",
        TimeShift,
        Grid((0.001, 0.01, 0.05, 0.1, 0.25, 0.5), 2, "seconds"),
        Card("Delays the clip, so that nothing is where it was.", RAW_BENCH),
    ),
    audio_family(
        "crop",
        Crop,
        Grid((0.9, 0.75, 0.5, 0.25, 0.1), 2, "share of the length kept"),
        Card("Publishes a piece only.", OMNISEAL),
    ),
    audio_family(
        "griffin-lim",
        lambda s: GriffinLim(int(s)),
        Grid((128, 80, 64, 40, 20), 1, "mel bands"),
        Card("Synthesises the clip anew from its mel spectrogram, without a network.", OURS),
    ),
)

HISS = (
    audio_family(
        "white-hiss",
        WhiteHiss,
        Grid((0.001, 0.003, 0.01, 0.03, 0.1), 2, "std, full scale is 1"),
        Card("Adds the hiss of a recorder, as loud under soft clips as under loud ones.", OMNISEAL),
        standard=(),
    ),
    audio_family(
        "pink-hiss",
        PinkHiss,
        Grid((0.001, 0.003, 0.01, 0.03, 0.1), 2, "std, full scale is 1"),
        Card("Adds the rush of wind or traffic, as loud under soft clips as under loud ones.", OMNISEAL),
        standard=(),
    ),
)

FAMILIES = (
    *EVERYDAY,
    *HISS,
    *audio_background.FAMILIES,
    *audio_dynamics.FAMILIES,
    *audio_shape.FAMILIES,
    *audio_warp.FAMILIES,
    *audio_loss.FAMILIES,
    *audio_equaliser.FAMILIES,
    *audio_denoise.FAMILIES,
    *audio_telephone.FAMILIES,
    *audio_lpc.FAMILIES,
    *audio_air.FAMILIES,
    *audio_neural.FAMILIES,
    SQUARE_FAMILY,
)


def tool_families(tools: Tools) -> tuple[AttackFamily, ...]:
    """The attacks that need a tool, as far as it is there."""
    reconstruct = tools.reconstruct
    families: list[AttackFamily] = []
    if reconstruct is not None:
        families.append(
            audio_family(
                "audio-regeneration",
                lambda s: AudioRegeneration(int(s), reconstruct),
                Grid((1, 2, 4), 0, "passes"),
                Card(
                    "Encodes and decodes with a public autoencoder that knows no fingerprint.",
                    WAVES,
                    "an autoencoder, such as the public one of the generator (reconstruct)",
                ),
                standard=(1,),  # an Oobleck encoder takes half a second for a clip of two seconds
            )
        )
    if tools.encode is not None:
        families.append(pgd_family(tools.encode))
    return tuple(families)
