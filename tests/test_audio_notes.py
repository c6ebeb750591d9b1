"""The notes: instruments, captions, splits that no pitch crosses, and the clips that ship."""

from __future__ import annotations

import math
import re
import zipfile
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.protocol import UserError
from modalities.audio import data
from modalities.audio.notes import (
    ARTICULATIONS,
    FAMILIES,
    INSTRUMENTS,
    LOUDNESS,
    LOWEST,
    PEAKS,
    SPAN,
    Note,
    every_note,
)
from modalities.audio.text import LENGTH, build_tokenizer

NOTES = every_note()
SPLITS = {"fit": 0.70, "prompts": 0.15, "reference": 0.15}
MEGABYTE = 2**20


def named(program: str) -> int:
    return INSTRUMENTS.index(program)


def test_128_instruments_in_16_families_of_8() -> None:
    assert len(FAMILIES) == 16 and len(INSTRUMENTS) == len(set(INSTRUMENTS)) == 128
    assert Counter(note.family for note in NOTES) == {family: len(NOTES) // 16 for family in FAMILIES}
    assert all(len(row.split(", ")) == 8 for row in FAMILIES.values())
    for program, family, name in ((0, "piano", "grand piano"), (24, "guitar", "nylon guitar"), (73, "pipe", "flute")):
        assert (INSTRUMENTS[program], Note(program, 60, "soft", "short").family) == (name, family), "General MIDI's"


def test_every_note_is_there_once() -> None:
    assert len(NOTES) == len(set(NOTES)) == 128 * SPAN * len(LOUDNESS) * len(ARTICULATIONS)
    assert set(LOWEST) <= set(INSTRUMENTS)
    assert all(0 < note.frequency_hz < data.RATE_HZ / 4 for note in NOTES)
    keys = {note.key for note in NOTES if note.program == named("flute")}
    assert keys == set(range(60, 60 + SPAN))
    assert every_note() == NOTES


@pytest.mark.parametrize(
    ("key", "pitch", "frequency_hz"),
    [(69, "A4", 440.0), (60, "C4", 261.6256), (57, "A3", 220.0), (54, "F#3", 184.9972), (28, "E1", 41.2034)],
)
def test_pitches_have_their_names_and_frequencies(key: int, pitch: str, frequency_hz: float) -> None:
    note = Note(0, key, "soft", "short")
    assert note.pitch == pitch and note.frequency_hz == pytest.approx(frequency_hz, abs=1e-4)


def test_captions_are_plain_words_and_unique() -> None:
    assert Note(24, 60, "soft", "short").caption == "soft nylon guitar playing C4, short"
    captions = [note.caption for note in NOTES]
    assert len(set(captions)) == len(captions)
    form = re.compile(r"(soft|medium|loud) [a-z-]+( [a-z-]+)* playing [A-G]#?[1-6], (short|long)")
    assert not [caption for caption in captions if not form.fullmatch(caption)]


def test_captions_fit_the_text_encoder() -> None:
    tokenizer = build_tokenizer()
    encoded = tokenizer([note.caption for note in NOTES[:: SPAN * 3]]).input_ids
    assert max(map(len, encoded)) <= LENGTH
    assert not any(tokenizer.unk_token_id in ids for ids in encoded)
    assert len({tuple(ids) for ids in encoded}) == len(encoded)


# Splits


def test_an_instrument_at_one_pitch_falls_into_one_split_as_a_whole() -> None:
    splits: dict[tuple[int, int], set[str]] = {}
    for note in NOTES:
        splits.setdefault((note.program, note.key), set()).add(note.split)
    assert all(len(found) == 1 for found in splits.values())
    count = len(splits)
    assert count == 128 * SPAN
    for split, share in SPLITS.items():  # within three standard deviations of a binomial
        found = sum(split in each for each in splits.values()) / count
        assert found == pytest.approx(share, abs=3 * math.sqrt(share * (1 - share) / count)), split


def test_splits_and_draws_are_fixed_forever() -> None:
    """The shipped clips, the trained weights and the zoo depend on them."""
    fixed = {(0, 50): ("fit", 0.4187), (15, 55): ("prompts", 0.3879), (14, 73): ("reference", 0.6639)}
    for place, expected in fixed.items():
        note = Note(*place, "loud", "long")
        assert (note.split, round(note.draw, 4)) == expected


def test_every_family_is_in_every_split() -> None:
    for split in SPLITS:
        assert {note.family for note in NOTES if note.split == split} == set(FAMILIES), split


def test_at_least_10_000_clips_to_learn_from() -> None:
    assert len(data.training_rows(("fit", "prompts"))) >= 10_000
    assert all(NOTES[row].split == "fit" for row in data.training_rows())
    assert len(data.training_rows()) == sum(note.split == "fit" for note in NOTES)


# What ships


@pytest.mark.parametrize(("split", "count"), [("reference", 512), ("fit", 96)])
def test_the_shipped_clips_are_of_their_split(split: str, count: int) -> None:
    clips, notes = data.shipped(split)
    assert clips.shape == (count, 1, 32_768) and clips.dtype == torch.int16 and data.RATE_HZ == 16_000
    assert len(set(notes)) == count and {note.split for note in notes} == {split}
    assert {note.family for note in notes} == set(FAMILIES)
    assert len(clips.flatten(1).unique(dim=0)) == count
    with zipfile.ZipFile(data.SHIPPED / f"{split}.zip") as archive:
        assert sorted(archive.namelist()) == sorted(map(data._file, notes)) and archive.testzip() is None
        assert {member.date_time[0] for member in archive.infolist()} == {1980}, "a rebuild changes nothing"


@pytest.mark.parametrize("split", ["reference", "fit"])
def test_shipped_clips_have_the_peak_of_their_loudness(split: str) -> None:
    """The peak is set before Vorbis, which changes it by a little: noise and clicks more than tones."""
    clips, notes = data.shipped(split)
    expected = torch.tensor([PEAKS[note.loudness] for note in notes])
    off_db = 20 * (clips.abs().amax((1, 2)) / 32_767 / expected).log10()
    assert off_db.abs().max() < 1.5 and off_db.abs().mean() < 0.15


def test_what_ships_is_small() -> None:
    assert (data.SHIPPED / "reference.zip").stat().st_size <= 6 * MEGABYTE
    assert (data.SHIPPED / "fit.zip").stat().st_size <= 1.2 * MEGABYTE


def fundamental_hz(wave: Tensor) -> float:
    """From the first 0.25 s, while the key is held: the shortest period whose correlation is near the best."""
    x = wave[800:4800].double() - wave[800:4800].double().mean()
    spectrum = torch.fft.rfft(x, 4 * len(x)).abs().square()
    correlation = torch.fft.irfft(spectrum)[:2000] / (len(x) - torch.arange(2000))  # unbiased
    shortest = data.RATE_HZ // 1200
    peaks = [
        lag
        for lag in range(shortest, 1000)
        if correlation[lag] > max(correlation[lag - 1], correlation[lag + 1], 0.8 * correlation[shortest:1000].max())
    ]
    left, middle, right = correlation[peaks[0] - 1 : peaks[0] + 2].tolist()
    period = peaks[0] + 0.5 * (left - right) / (left - 2 * middle + right)  # the parabola's peak
    return float(data.RATE_HZ / period)


@pytest.mark.parametrize(
    "name", ["grand piano", "harpsichord", "violin", "cello", "flute", "recorder", "oboe", "clarinet", "trumpet"]
)
def test_the_note_is_at_the_pitch_of_its_name(name: str) -> None:
    """Within half a semitone; so no octave and no neighbour either."""
    shipped = [data.shipped(split) for split in ("reference", "fit")]
    heard = [
        (note, clip[0])
        for clips, notes in shipped
        for clip, note in zip(clips, notes, strict=True)
        if note.program == named(name)
    ]
    assert heard
    cents = [1200 * math.log2(fundamental_hz(clip) / note.frequency_hz) for note, clip in heard]
    assert np.abs(cents).max() < 50, list(zip([note.caption for note, _ in heard], cents, strict=True))


def test_short_notes_end_before_long_ones() -> None:
    clips, notes = data.shipped("reference")
    late = clips[:, 0, 20_000:24_000].float().square().mean(1) / clips[:, 0].float().square().mean(1)
    shares = {
        kind: torch.stack([share for share, note in zip(late, notes, strict=True) if note.articulation == kind])
        for kind in ARTICULATIONS
    }
    assert shares["short"].median() < shares["long"].median() / 3


def test_without_the_training_set_the_message_says_how_to_make_it(cache: object) -> None:
    data.full_set.cache_clear()
    try:
        with pytest.raises(UserError, match="make data MODALITY=audio") as caught:
            data.full_set()
    finally:
        data.full_set.cache_clear()
    assert str(cache) in str(caught.value) and "\n" not in str(caught.value)


def test_a_rebuild_keeps_the_bytes_of_what_sounds_the_same() -> None:
    tone = torch.sin(torch.arange(4096) / 9)
    first, second = data._vorbis(tone), data._vorbis(tone)
    other = data._vorbis(tone / 2)
    assert data.unless_new(None, second) is second
    assert data.unless_new(first, second) is first
    assert data.unless_new(first, other) is other
