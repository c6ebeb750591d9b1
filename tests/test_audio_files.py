"""Audio files: what is saved can be loaded again, and what is no audio ends in one line."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from bench.protocol import Clips, UserError
from modalities.audio import Audio
from modalities.audio.fidelity import si_sdr
from tests.clips import notes, tone

AUDIO = Audio()
TONE = tone(440.0).samples[0, 0].numpy()  # one second
PCM, FLOAT = 1, 3


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
def test_wav_and_flac_are_exact_and_ogg_and_mp3_close(tmp_path: Path, rate_hz: int, channels: int) -> None:
    clips = notes(1, rate_hz + 1, rate_hz, channels)
    for name in ("a.wav", "b.WAV", "c.flac", "d.ogg", "e.mp3"):
        AUDIO.save(clips, tmp_path / name)
        again = AUDIO.load(tmp_path / name)
        AUDIO.check(again)
        assert again.rate_hz == rate_hz and again.samples.shape == clips.samples.shape, name
        exact = Path(name).suffix.lower() in (".wav", ".flac")
        assert torch.equal(again.samples, clips.samples) if exact else si_sdr(clips.unit(), again.unit()) > 24, name
    assert len(list(tmp_path.iterdir())) == 5, "nothing half-written stays behind"


def test_a_lossy_file_sounds_the_same_to_readers(tmp_path: Path) -> None:
    clips = AUDIO.reference(1)
    for name in ("a.ogg", "a.mp3"):
        AUDIO.save(clips, tmp_path / name)
        assert si_sdr(AUDIO.observe(clips), AUDIO.observe(AUDIO.load(tmp_path / name))) > 18, name


def test_rates_from_end_to_end(tmp_path: Path) -> None:
    for rate_hz in (8_000, 37_123, 96_000):
        clips = tone(440.0, 0.2, rate_hz)
        AUDIO.save(clips, tmp_path / "a.flac")
        assert AUDIO.load(tmp_path / "a.flac").rate_hz == rate_hz
    with pytest.raises(UserError, match="only supports sample rates of"):
        AUDIO.save(clips, tmp_path / "a.mp3")
    assert [path.name for path in tmp_path.iterdir()] == ["a.flac"]


def test_a_minute_of_vorbis_is_written(tmp_path: Path) -> None:
    """Written at once it overflows libsndfile's stack, and Python with it."""
    clips = Clips(torch.zeros(1, 2, 60 * 48_000, dtype=torch.int16), 48_000)
    AUDIO.save(clips, tmp_path / "long.ogg")
    assert AUDIO.load(tmp_path / "long.ogg").samples.shape == clips.samples.shape


@pytest.mark.parametrize("name", ["a", "a.xyz", "a.raw", "missing/a.wav"])
def test_what_cannot_be_saved_ends_in_one_line_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        AUDIO.save(tone(440.0), tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: expected ") and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_failure_while_writing_keeps_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    AUDIO.save(tone(440.0), tmp_path / "a.wav")
    before = (tmp_path / "a.wav").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile.SoundFile, "write", full)
    with pytest.raises(UserError, match="No space left on device"):
        AUDIO.save(tone(880.0), tmp_path / "a.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"] and (tmp_path / "a.wav").read_bytes() == before


def test_one_clip_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one clip to save, found 2"):
        AUDIO.save(notes(2, 8_000, 8_000), tmp_path / "a.wav")


# Loading what others wrote


def wav(samples: np.ndarray, rate_hz: int = 16_000, kind: int = PCM, promised: int | None = None) -> bytes:
    """A RIFF file of samples (T,) or (T, channels) whose header may say what soundfile would not write."""
    channels, width = samples.reshape(len(samples), -1).shape[1] if len(samples) else 1, samples.itemsize
    data = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    rate = rate_hz * channels * width
    head = struct.pack("<HHIIHH", kind, channels, rate_hz, rate, channels * width, 8 * width)
    size = len(data) if promised is None else promised
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", len(head) + 20 + size) + body


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_rounded_and_clipped(tmp_path: Path, dtype: type) -> None:
    samples: np.ndarray = np.linspace(-1.5, 1.5, 3201).astype(dtype)
    (tmp_path / "a.wav").write_bytes(wav(samples, kind=FLOAT))
    found = AUDIO.load(tmp_path / "a.wav").samples[0, 0].double()
    expected = torch.from_numpy(samples).double().mul(32_768).clamp(-32_768, 32_767)
    assert (found - expected).abs().max() <= 0.51 and found.min() == -32_768 and found.max() == 32_767


def test_six_channels_are_averaged_and_two_kept(tmp_path: Path) -> None:
    levels = np.array([600, -1200, 1800, 2400, 0, 0], np.int16)
    for count, expected in ((6, [600]), (3, [400]), (2, [600, -1200]), (1, [600])):
        (tmp_path / "a.wav").write_bytes(wav(np.tile(levels[:count], (2000, 1))))
        samples = AUDIO.load(tmp_path / "a.wav").samples
        assert samples.shape == (1, len(expected), 2000) and samples[0, :, 7].tolist() == expected
        assert len(samples.unique()) == len(expected)


@pytest.mark.parametrize("bits", [8, 32])
def test_other_depths_become_16_bits(tmp_path: Path, bits: int) -> None:
    ramp = np.arange(-100, 100).repeat(20)
    raw = (ramp + 128).astype(np.uint8) if bits == 8 else ramp.astype(np.int32) << 24
    (tmp_path / "a.wav").write_bytes(wav(raw))
    assert AUDIO.load(tmp_path / "a.wav").samples.flatten().tolist() == (ramp * 256).tolist()


def test_a_streamed_file_whose_length_nobody_knew_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(TONE[:5000], promised=2**32 - 100))
    assert AUDIO.load(tmp_path / "a.wav").samples[0, 0].tolist() == TONE[:5000].tolist()


def test_chunks_around_the_sound_do_not_matter(tmp_path: Path) -> None:
    raw = wav(TONE[:5000])
    odd = b"LIST" + struct.pack("<I", 5) + b"INFOx\0"
    body = raw[12:36] + odd + raw[36:] + odd
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body)
    assert AUDIO.load(tmp_path / "a.wav").samples[0, 0].tolist() == TONE[:5000].tolist()


def test_the_suffix_need_not_name_the_format(tmp_path: Path) -> None:
    AUDIO.save(tone(440.0), tmp_path / "a.flac")
    (tmp_path / "a.flac").rename(tmp_path / "a.wav")
    assert AUDIO.load(tmp_path / "a.wav").samples[0, 0].tolist() == TONE.tolist()


def flac(samples: np.ndarray, cut: int = 0, promised: int = 0) -> Callable[[Path], None]:
    """A FLAC file without its last ``cut`` bytes, or whose header promises another number of samples."""

    def write(path: Path) -> None:
        soundfile.write(path, samples, 16_000, format="FLAC")
        raw = bytearray(path.read_bytes())
        if promised:
            raw[21:26] = ((raw[21] >> 4 << 36) | promised).to_bytes(5, "big")
        path.write_bytes(raw[: len(raw) - cut])

    return write


def ogg(path: Path) -> None:
    soundfile.write(path, TONE, 16_000, format="OGG")
    path.write_bytes(path.read_bytes()[:60])


def content(raw: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(raw)


BROKEN: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "missing": ("a.wav", lambda path: None, "found none"),
    "folder": ("a.wav", Path.mkdir, "found a folder"),
    "long name": ("a" * 300 + ".wav", lambda path: None, "found none"),
    "empty": ("a.wav", content(b""), "unreadable"),
    "text": ("a.wav", content(b"not a sound\nat all\n"), "unreadable"),
    "text as raw": ("a.raw", content(b"not a sound\nat all\n"), "unreadable"),
    "cut WAV": ("a.wav", content(wav(TONE)[:-1000]), "found one that ends 1000 bytes early"),
    "half a header": ("a.wav", content(wav(TONE)[:20]), "unreadable"),
    "no samples": ("a.wav", content(wav(TONE[:0])), "expected at least 0.1 s, found 0.000 s"),
    "short": ("a.wav", content(wav(TONE[:1599])), "expected at least 0.1 s, found 0.100 s"),
    "0 Hz": ("a.wav", content(wav(TONE, 0)), "unreadable"),
    "4 kHz": ("a.wav", content(wav(TONE, 4_000)), "expected 8000 to 96000 Hz, found 4000 Hz"),
    "192 kHz": ("a.wav", content(wav(TONE, 192_000)), "expected 8000 to 96000 Hz, found 192000 Hz"),
    "NaN": ("a.wav", content(wav(np.full(1600, np.nan, np.float32), kind=FLOAT)), "found NaN or infinity"),
    "infinity": ("a.wav", content(wav(np.full(1600, -np.inf), kind=FLOAT)), "found NaN or infinity"),
    "cut FLAC": ("a.flac", flac(TONE, cut=3000), "unreadable"),
    "FLAC of 2^36 samples": ("a.flac", flac(TONE, promised=2**36 - 1), "unreadable"),
    "cut Ogg": ("a.ogg", ogg, "unreadable"),
}


@pytest.mark.parametrize(("name", "write", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_audio_ends_in_one_line(tmp_path: Path, name: str, write: Callable[[Path], Any], words: str) -> None:
    path = tmp_path / name
    write(path)
    with pytest.raises(UserError) as caught:
        AUDIO.load(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "expected" in line and words in line and "\n" not in line


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    AUDIO.save(tone(440.0), tmp_path / "a.wav")
    (tmp_path / "a.wav").chmod(0)
    with pytest.raises(UserError, match="unreadable"):
        AUDIO.load(tmp_path / "a.wav")
