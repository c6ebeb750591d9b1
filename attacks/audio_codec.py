"""Audio attacks that compress and restore: MP3, AAC and Opus at a bit rate, Vorbis at a quality.

Each clip becomes a file in memory and is read again the way players do: the encoder's delay, which the file declares,
is taken off, and the length is restored. A clip at a sampling rate that the format lacks is resampled to the next one
above that it has (the highest one, where there is none above), and back.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Generator

from attacks.audio_pcm import Wave, clip_by_clip, fitted, resampled
from attacks.limits import check_strength
from bench.protocol import Clips, Target, UserError

LOW_KBPS = (8, 16, 24, 32, 40, 48, 56, 64)
MP3_KBPS = {
    (8000, 11025, 12000): LOW_KBPS,  # MPEG-2.5, the decoders' extension
    (16000, 22050, 24000): (*LOW_KBPS, 80, 96, 112, 128, 144, 160),  # MPEG-2: ISO/IEC 13818-3
    (32000, 44100, 48000): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG-1: ISO/IEC 11172-3
}
"""Layer III: sampling rates in Hz to the bit rates that they allow."""
AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
BLOCK = 65_536
"""Samples that libvorbis is handed at a time; a minute at once overflows its stack."""
FRAME = 2048
"""Samples that a file has at least; some formats give nothing back of less than a frame."""


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        codec: encoder's name in FFmpeg.
        container: muxer's name in FFmpeg; each of these declares the encoder's delay.
        options: of the encoder.
    """

    codec: Literal["libmp3lame", "aac", "libopus"]
    container: str
    options: tuple[tuple[str, str], ...] = ()


MP3_FILE = Format("libmp3lame", "mp3")
AAC_FILE = Format("aac", "mp4")
OPUS_FILE = Format("libopus", "ogg", (("vbr", "off"),))


@dataclass(frozen=True)
class MP3:
    """Compress as MP3 at a constant bit rate, with LAME.

    A bit rate that MP3 does not have at the clip's sampling rate takes the clip to one where it has, as encoders do.

    Attributes:
        bitrate_kbps: of all channels together, in kbit/s, one that the format has; lower is stronger.
    """

    bitrate_kbps: int = 32
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 8, 320)
        allowed = sorted({kbps for row in MP3_KBPS.values() for kbps in row})
        if self.bitrate_kbps not in allowed:
            raise UserError(
                f"{self!r}: the bit rate must be one of {', '.join(map(str, allowed))}, found {self.bitrate_kbps}"
            )

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), compressed and opened again."""
        rates = [rate for row, kbps in MP3_KBPS.items() if self.bitrate_kbps in kbps for rate in row]
        return _reopened(content, MP3_FILE, self.bitrate_kbps, rates)


@dataclass(frozen=True)
class AAC:
    """Compress as AAC-LC with FFmpeg's own encoder, in an MP4 file.

    Attributes:
        bitrate_kbps: mean of all channels together, in kbit/s; lower is stronger. The format carries no more than 6
            bits per sample.
    """

    bitrate_kbps: int = 32
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 8, 512)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), compressed and opened again."""
        return _reopened(content, AAC_FILE, self.bitrate_kbps, AAC_RATES)


@dataclass(frozen=True)
class Opus:
    """Compress as Opus at a constant bit rate, with libopus.

    Attributes:
        bitrate_kbps: of all channels together, in kbit/s; lower is stronger. RFC 6716 starts at 6: suites that ask
            for less get about that. At 8 and below libopus itself returns the clip 0.1 ms late.
    """

    bitrate_kbps: int = 16
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 6, 256)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), compressed and opened again."""
        return _reopened(content, OPUS_FILE, self.bitrate_kbps, OPUS_RATES)


@dataclass(frozen=True)
class Vorbis:
    """Compress as Ogg Vorbis, which knows a quality and no bit rate, with libvorbis.

    Attributes:
        quality: as ``oggenc -q`` counts, 0 to 10; lower is stronger.
    """

    quality: float = 2.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 10)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), compressed and opened again."""
        import soundfile

        def reopened(clip: Wave) -> Wave:
            file = io.BytesIO()
            # libsndfile hands libvorbis the quality 1 - level.
            level = 1 - self.quality / 10
            kind = {"format": "OGG", "subtype": "VORBIS", "compression_level": level}
            with soundfile.SoundFile(file, "w", content.rate_hz, len(clip), **kind) as coder:
                for start in range(0, clip.shape[1], BLOCK):
                    coder.write(clip[:, start : start + BLOCK].T)
            file.seek(0)
            samples: Wave = soundfile.read(file, dtype="float32", always_2d=True)[0]
            return samples.T

        return clip_by_clip(content, reopened)


def encoded(clip: Wave, rate_hz: int, form: Format, bitrate_kbps: int) -> bytes:
    """A file of one clip (C, T)."""
    import av

    file, layout = io.BytesIO(), "mono" if len(clip) == 1 else "stereo"
    with av.open(file, "w", format=form.container) as container:
        stream = container.add_stream(form.codec, rate=rate_hz, options=dict(form.options), layout=layout)
        stream.bit_rate = 1000 * bitrate_kbps
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(clip), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, 0
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


def decoded(data: bytes, form: Format) -> tuple[Wave, int]:
    """The clip (C, T) in a file, and its sampling rate in Hz."""
    import av

    # Named, since a very short file is too short to be recognised.
    with av.open(io.BytesIO(data), "r", form.container) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        return np.concatenate(frames, axis=1), container.streams.audio[0].rate


def _reopened(content: Clips, form: Format, bitrate_kbps: int, rates: Sequence[int]) -> Clips:
    """Every clip through a file at one of ``rates``."""
    rate = min((rate for rate in rates if rate >= content.rate_hz), default=max(rates))

    def change(clip: Wave) -> Wave:
        entering = resampled(torch.from_numpy(clip), Fraction(rate, content.rate_hz))
        entering = fitted(entering, max(FRAME, entering.shape[-1]))
        leaving, restored_rate = decoded(encoded(entering.numpy(), rate, form, bitrate_kbps), form)
        # Opus always comes back at 48 kHz.
        restored: Wave = resampled(torch.from_numpy(leaving), Fraction(content.rate_hz, restored_rate)).numpy()
        return restored

    return clip_by_clip(content, change)
