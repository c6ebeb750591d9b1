"""Audio attacks of speech telephony: GSM, AMR, G.726 and G.711 by real coders, all at 8 kHz, and chains of coders."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator

from attacks.audio_codec import AAC, MP3, Opus
from attacks.audio_filter import HighPass
from attacks.audio_listing import OURS, SOK, audio_family
from attacks.audio_pcm import Wave, clip_by_clip, fitted, resampled
from attacks.grids import Card, Grid
from attacks.limits import check_strength
from bench.protocol import Clips, Target, UserError

RATE_HZ = 8000
AMR_KBPS = (4.75, 5.15, 5.9, 6.7, 7.4, 7.95, 10.2, 12.2)
"""Modes of 3GPP TS 26.071."""
AMR_DELAY = 40
"""Samples that OpenCORE's coder returns a clip late: its look-ahead of 5 ms."""
G726_KBPS = (16, 24, 32, 40)
FRAME = 160


@dataclass(frozen=True)
class GSM:
    """Compress as GSM full rate (GSM 06.10, 13 kbit/s), at 8 kHz and each channel on its own, with libsndfile.

    Attributes:
        passes: calls one after the other that the clip goes through, as from mobile to mobile; more is stronger.
    """

    passes: int = 1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 100)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), as over a mobile telephone of the nineties."""

        def coded(channel: Wave) -> Wave:
            for _ in range(self.passes):
                channel = _through_file(channel, "WAV", "GSM610")
            return channel

        return narrowband(content, coded)


@dataclass(frozen=True)
class AMR:
    """Compress as AMR narrowband (3GPP TS 26.071), at 8 kHz and each channel on its own, with OpenCORE's coder.

    Attributes:
        bitrate_kbps: one of the eight modes, 4.75 to 12.2 kbit/s a channel; lower is stronger.
    """

    bitrate_kbps: float = 7.95
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        if self.bitrate_kbps not in AMR_KBPS:
            modes = ", ".join(f"{mode:g}" for mode in AMR_KBPS)
            raise UserError(f"{self!r}: the bit rate must be one of {modes}, found {self.bitrate_kbps:g}")

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), as over a mobile telephone."""

        def coded(channel: Wave) -> Wave:
            late = np.concatenate([channel, np.zeros(AMR_DELAY, np.float32)])
            return through_av(late, "libopencore_amrnb", "amr", self.bitrate_kbps)[AMR_DELAY:]

        return narrowband(content, coded)


@dataclass(frozen=True)
class G726:
    """Compress as ADPCM (ITU-T G.726), at 8 kHz and each channel on its own, with FFmpeg's coder.

    Attributes:
        bitrate_kbps: 16, 24, 32 or 40 kbit/s a channel: 2 to 5 bits a sample; lower is stronger.
    """

    bitrate_kbps: int = 24
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        if self.bitrate_kbps not in G726_KBPS:
            rates = ", ".join(map(str, G726_KBPS))
            raise UserError(f"{self!r}: the bit rate must be one of {rates}, found {self.bitrate_kbps:g}")

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), as over a cordless telephone."""
        return narrowband(content, lambda channel: through_av(channel, "g726", "wav", self.bitrate_kbps))


@dataclass(frozen=True)
class Landline:
    """Call through the fixed network: 300 Hz high-pass, 8 kHz, mu-law by ITU-T G.711 proper, with libsndfile.

    Attributes:
        passes: exchanges that code and decode, one after the other; more is stronger.
    """

    passes: int = 1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 100)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), as over the telephone."""
        for _ in range(self.passes):
            content = narrowband(HighPass(300)(content, rng), lambda channel: _through_file(channel, "WAV", "ULAW"))
        return content


@dataclass(frozen=True)
class CodecChain:
    """Compress as AAC, then as Opus, then as MP3, as a clip that goes from site to messenger to site.

    Attributes:
        bitrate_kbps: of each of them, one that all three have; lower is stronger.
    """

    bitrate_kbps: int = 32
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 8, 256)
        MP3(self.bitrate_kbps)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), compressed and opened again three times."""
        for codec in (AAC(self.bitrate_kbps), Opus(self.bitrate_kbps), MP3(self.bitrate_kbps)):
            content = codec(content, rng)
        return content


@dataclass(frozen=True)
class RepeatedMp3:
    """Save as MP3 of 64 kbit/s again and again.

    Attributes:
        passes: how often; more is stronger.
        bitrate_kbps: see :class:`attacks.audio_codec.MP3`.
    """

    passes: int = 3
    bitrate_kbps: int = 64
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 100)
        MP3(self.bitrate_kbps)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), compressed and opened again every time."""
        for _ in range(self.passes):
            content = MP3(self.bitrate_kbps)(content, rng)
        return content


def narrowband(content: Clips, coded: Callable[[Wave], Wave]) -> Clips:
    """Each channel at 8 kHz through ``coded``, (T,) to (any length,), and back at the clips' own rate."""

    def change(clip: Wave) -> Wave:
        entering = resampled(torch.from_numpy(clip), Fraction(RATE_HZ, content.rate_hz))
        entering = fitted(entering, max(FRAME, entering.shape[-1]))
        leaving = np.stack([coded(channel) for channel in entering.numpy()])
        restored: Wave = resampled(torch.from_numpy(leaving), Fraction(content.rate_hz, RATE_HZ)).numpy()
        return restored

    return clip_by_clip(content, change)


def _through_file(channel: Wave, container: str, subtype: str) -> Wave:
    """One channel (T,) at 8 kHz through a file of libsndfile's."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, channel.clip(-1, 1), RATE_HZ, format=container, subtype=subtype)
    file.seek(0)
    read: Wave = soundfile.read(file, dtype="float32")[0]
    return read


def encoded(channel: Wave, codec: str, container: str, bitrate_kbps: float) -> bytes:
    """A file of FFmpeg's of one channel (T,) at 8 kHz."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as target:
        stream: Any = target.add_stream(codec, rate=RATE_HZ, layout="mono")
        stream.bit_rate = round(1000 * bitrate_kbps)
        pcm = (channel * 32768).round().clip(-32768, 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE_HZ, 0
        target.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


def through_av(channel: Wave, codec: str, container: str, bitrate_kbps: float) -> Wave:
    """One channel (T,) at 8 kHz through a file of FFmpeg's, (about T,)."""
    import av

    with av.open(io.BytesIO(encoded(channel, codec, container, bitrate_kbps)), "r", container) as source:
        parts = [frame.to_ndarray() for frame in source.decode(audio=0)]
    wave = np.concatenate(parts, axis=-1).reshape(-1)
    scale = np.float32(1 / 32768) if wave.dtype == np.int16 else np.float32(1)
    return wave.astype(np.float32) * scale


FAMILIES = (
    audio_family(
        "gsm",
        lambda s: GSM(int(s)),
        Grid((1, 2, 4, 8), 0, "calls"),
        Card("Plays the clip over a GSM call.", SOK),
        standard=(),
    ),
    audio_family(
        "amr",
        lambda s: AMR(s),
        Grid((12.2, 7.95, 5.9, 4.75), 1, "kbit/s"),
        Card("Plays the clip over a mobile call.", SOK),
        standard=(7.95, 4.75),
    ),
    audio_family(
        "g726",
        lambda s: G726(int(s)),
        Grid((40, 32, 24, 16), 2, "kbit/s"),
        Card("Plays the clip over a cordless telephone (ADPCM).", OURS),
        standard=(),
    ),
    audio_family(
        "landline",
        lambda s: Landline(int(s)),
        Grid((1, 2, 4, 8), 0, "exchanges"),
        Card("Plays the clip over the fixed telephone network.", OURS),
        standard=(),
    ),
    audio_family(
        "codec-chain",
        lambda s: CodecChain(int(s)),
        Grid((64, 40, 32, 24, 16), 2, "kbit/s"),
        Card("Passes the clip on: AAC, then Opus, then MP3.", OURS),
        standard=(),
    ),
    audio_family(
        "repeated-mp3",
        lambda s: RepeatedMp3(int(s)),
        Grid((2, 3, 5, 8), 1, "times at 64 kbit/s"),
        Card("Saves the clip as MP3 again and again.", OURS),
        standard=(),
    ),
)
