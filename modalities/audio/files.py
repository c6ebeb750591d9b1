"""Audio files: WAV, FLAC, Ogg Vorbis and MP3, through libsndfile."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from bench.protocol import UserError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def write(samples: Tensor, rate_hz: int, path: Path) -> None:
    """Write int16 (C, T) in the format of the suffix, atomically; WAV and FLAC are exact.

    Raises:
        UserError: for another suffix, or a folder that cannot be written to.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: expected the suffix .wav, .flac, .ogg or .mp3, found {path.suffix!r}")
    partial = path.with_name(f".{path.name}.part{path.suffix}")
    wide = samples.T.cpu().int() << 16  # libsndfile's MP3 coder makes noise of 16-bit stereo
    try:
        with soundfile.SoundFile(partial, "w", rate_hz, len(samples)) as file:
            for part in wide.split(65_536):  # a minute of Vorbis at once overflows its stack
                file.write(part.numpy())
        os.replace(partial, path)
    except (OSError, ValueError, soundfile.LibsndfileError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path}: expected a file that can be written, found: {_line(error)}") from error


def read(path: Path) -> tuple[Tensor, int]:
    """Samples (C, T) float32 and their rate in Hz.

    Raises:
        UserError: when there is no such file, it is no audio, it was cut off, or a sample is not finite.
    """
    if not os.path.isfile(path):  # pathlib's raises for a name that is too long
        raise UserError(f"{path}: expected an audio file, found {'a folder' if os.path.isdir(path) else 'none'}")
    try:  # a header may promise more than fits into memory; headerless files (.raw) are a TypeError
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)  # (T, channels)
    except (OSError, ValueError, RuntimeError, TypeError, MemoryError) as error:
        raise UserError(f"{path}: expected an audio file, found something unreadable: {_line(error)}") from error
    if missing := _missing_bytes(path):
        raise UserError(f"{path}: expected a whole WAV file, found one that ends {missing} bytes early")
    if not np.isfinite(samples).all():
        raise UserError(f"{path}: expected finite samples, found NaN or infinity")
    return torch.from_numpy(samples.T.copy()), int(rate_hz)


def _missing_bytes(path: Path) -> int:
    """How many bytes of sound a WAV file lacks of what its header promises, which libsndfile does not tell.

    Streamed files, whose header says 0 or 4 GiB since nobody knew the length, lack nothing.
    """
    with path.open("rb") as file:
        if file.read(4) != b"RIFF" or file.read(8)[4:] != b"WAVE":
            return 0
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", header)
            if name == b"data":
                left = path.stat().st_size - file.tell()
                return max(0, size - left) if size < 0xFFFFFF00 else 0
            file.seek(size + size % 2, os.SEEK_CUR)
    return 0


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
