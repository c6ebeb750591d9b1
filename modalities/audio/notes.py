"""What the embedded generator plays: 128 instruments, their notes, three loudness levels, two articulations."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

FAMILIES = {
    "piano": "grand piano, bright piano, electric grand piano, honky-tonk piano, rhodes piano, fm electric piano, "
    "harpsichord, clavinet",
    "chromatic percussion": "celesta, glockenspiel, music box, vibraphone, marimba, xylophone, tubular bells, dulcimer",
    "organ": "drawbar organ, percussive organ, rock organ, church organ, reed organ, accordion, harmonica, bandoneon",
    "guitar": "nylon guitar, steel guitar, jazz guitar, clean guitar, muted guitar, overdrive guitar, "
    "distortion guitar, guitar harmonics",
    "bass": "acoustic bass, fingered bass, picked bass, fretless bass, slap bass, pop bass, round synth bass, "
    "sharp synth bass",
    "strings": "violin, viola, cello, contrabass, tremolo strings, pizzicato strings, harp, timpani",
    "ensemble": "string ensemble, slow strings, synth strings, warm synth strings, ahh choir, ooh choir, synth voice, "
    "orchestra hit",
    "brass": "trumpet, trombone, tuba, muted trumpet, french horn, brass section, synth brass, soft synth brass",
    "reed": "soprano sax, alto sax, tenor sax, baritone sax, oboe, english horn, bassoon, clarinet",
    "pipe": "piccolo, flute, recorder, pan flute, blown bottle, shakuhachi, whistle, ocarina",
    "synth lead": "square lead, saw lead, calliope lead, chiffer lead, charang lead, voice lead, fifths lead, "
    "bass lead",
    "synth pad": "fantasia pad, warm pad, polysynth pad, space choir pad, bowed glass pad, metal pad, halo pad, "
    "sweep pad",
    "synth effect": "ice rain, soundtrack, crystal, atmosphere, brightness, goblin, echo drops, star theme",
    "ethnic": "sitar, banjo, shamisen, koto, kalimba, bagpipe, fiddle, shenai",
    "percussive": "tinker bell, agogo, steel drums, woodblock, taiko drum, melodic tom, synth drum, reverse cymbal",
    "sound effect": "fret noise, breath noise, sea shore, bird tweet, telephone, helicopter, applause, gun shot",
}
"""General MIDI's sixteen families of eight programs, in its order, in plain words."""

INSTRUMENTS = tuple(name for row in FAMILIES.values() for name in row.split(", "))
LOUDNESS = {"soft": 45, "medium": 80, "loud": 120}
"""Key velocities."""
ARTICULATIONS = {"short": 0.25, "long": 1.5}
"""Seconds until the key is let go; what follows is the instrument's own release."""
PEAKS = {"soft": 0.18, "medium": 0.36, "loud": 0.72}
"""Largest sample of a clip. As sampled, the instruments differ by 40 dB, and a loud one's soft by more."""
SPAN = 16
"""Notes of each instrument: so many semitones upward from its lowest."""
LOWEST = {
    **dict.fromkeys(FAMILIES["bass"].split(", "), 28),
    **dict.fromkeys(["contrabass", "tuba"], 28),
    **dict.fromkeys(["baritone sax", "bassoon", "cello", "timpani", "taiko drum"], 36),
    **dict.fromkeys(["trombone", "tenor sax", "french horn", "bass lead"], 41),
    **dict.fromkeys(["soprano sax", "violin", "trumpet", "muted trumpet", "oboe", "fiddle", "vibraphone"], 55),
    **dict.fromkeys(["flute", "recorder", "pan flute", "ocarina", "celesta", "music box", "tubular bells"], 60),
    **dict.fromkeys(["shakuhachi", "xylophone", "kalimba", "steel drums", "calliope lead"], 60),
    **dict.fromkeys(["glockenspiel", "piccolo", "whistle", "tinker bell"], 62),
}
"""MIDI key of the lowest note where it is not C3 (48)."""
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


@dataclass(frozen=True)
class Note:
    """One clip: who plays what, how.

    Attributes:
        program: General MIDI program, 0 to 127.
        key: MIDI key, 60 is C4.
        loudness: ``soft``, ``medium`` or ``loud``.
        articulation: ``short`` or ``long``.
    """

    program: int
    key: int
    loudness: str
    articulation: str

    @property
    def caption(self) -> str:
        """Prompt in plain words, such as ``soft nylon guitar playing C4, short``."""
        return f"{self.loudness} {INSTRUMENTS[self.program]} playing {self.pitch}, {self.articulation}"

    @property
    def pitch(self) -> str:
        """Scientific pitch name, such as ``F#3``."""
        return f"{NAMES[self.key % 12]}{self.key // 12 - 1}"

    @property
    def frequency_hz(self) -> float:
        """Fundamental in equal temperament, A4 = 440 Hz."""
        return float(440 * 2 ** ((self.key - 69) / 12))

    @property
    def family(self) -> str:
        """General MIDI family of the instrument."""
        return tuple(FAMILIES)[self.program // 8]

    @property
    def split(self) -> str:
        """``fit``, ``prompts`` or ``reference``: all clips of one instrument and pitch fall into one."""
        share = _share("split", self.program, self.key)
        return "reference" if share < 0.15 else "prompts" if share < 0.30 else "fit"

    @property
    def draw(self) -> float:
        """A fixed number in [0, 1) that picks the clips which ship."""
        return _share("draw", self.program, self.key, self.loudness, self.articulation)


def _share(*what: object) -> float:
    return int(hashlib.sha256(repr(what).encode()).hexdigest()[:8], 16) / 2**32


def every_note() -> list[Note]:
    """All notes of all instruments, in a fixed order."""
    return [
        Note(program, key, loudness, articulation)
        for program, name in enumerate(INSTRUMENTS)
        for key in range(LOWEST.get(name, 48), LOWEST.get(name, 48) + SPAN)
        for loudness in LOUDNESS
        for articulation in ARTICULATIONS
    ]
