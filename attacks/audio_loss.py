"""Audio attacks that lose something: samples, packets, stretches of time, bands of frequency, the order of things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from attacks.audio_listing import OMNISEAL, OURS, RAW_BENCH, SOK, STIRMARK, audio_family
from attacks.audio_stft import samples, spectra, window_size
from attacks.grids import Card, Grid
from attacks.limits import check_strength
from bench.protocol import Clips, Target, UserError


def drawn(rng: Generator, content: Clips, *shape: int) -> Tensor:
    """Uniform numbers in [0, 1), float64, on the clips' device."""
    return torch.rand(shape, generator=rng, device=rng.device, dtype=torch.float64).to(content.samples.device)


def chosen(score: Tensor, count: int) -> Tensor:
    """Which ``count`` places of each row have the lowest score, boolean like ``score``."""
    places = score.argsort(-1)[..., :count]
    return torch.zeros_like(score, dtype=torch.bool).scatter_(-1, places, value=True)


@dataclass(frozen=True)
class SampleSuppression:
    """Set randomly chosen single samples to zero; all channels lose the same ones.

    Attributes:
        share: of each clip's samples, rounded to whole samples, at least one.
    """

    share: float = 0.01
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) with holes."""
        length = content.samples.shape[-1]
        count = max(1, round(self.share * length)) if self.share else 0
        lost = chosen(drawn(rng, content, len(content), length), count)
        return Clips(content.samples.masked_fill(lost[:, None], 0), content.rate_hz)


@dataclass(frozen=True)
class PacketLoss:
    """Lose packets of a call at random, played as silence.

    Attributes:
        share: of each clip's packets that is lost, rounded to whole packets, at least one.
        packet_s: length of a packet, in seconds; 20 ms is the usual one (RFC 3551).
    """

    share: float = 0.05
    packet_s: float = 0.02
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)
        if not self.packet_s > 0:
            raise UserError(f"{self!r}: the packet must last longer than 0 seconds, found {self.packet_s:g}")

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) with gaps."""
        length, size = content.samples.shape[-1], max(1, round(self.packet_s * content.rate_hz))
        packets = -(-length // size)
        count = max(1, round(self.share * packets)) if self.share else 0
        lost = chosen(drawn(rng, content, len(content), packets), count).repeat_interleave(size, -1)[:, :length]
        return Clips(content.samples.masked_fill(lost[:, None], 0), content.rate_hz)


@dataclass(frozen=True)
class TimeMask:
    """Silence one stretch of each clip, at a random place (SpecAugment, arXiv:1904.08779, on the wave).

    Attributes:
        share: of the clip's length, rounded to whole samples.
    """

    share: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) with a gap."""
        length = content.samples.shape[-1]
        gap = round(self.share * length)
        start = (drawn(rng, content, len(content), 1, 1) * (length - gap + 1)).long()
        index = torch.arange(length, device=content.samples.device)
        return Clips(content.samples.masked_fill((index >= start) & (index < start + gap), 0), content.rate_hz)


@dataclass(frozen=True)
class HeadSilence:
    """Silence the start, where some schemes keep their synchronisation.

    Attributes:
        share: of the clip's length, rounded to whole samples.
    """

    share: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) that begin late."""
        x = content.samples.clone()
        x[..., : round(self.share * x.shape[-1])] = 0
        return Clips(x, content.rate_hz)


@dataclass(frozen=True)
class FrequencyMask:
    """Take out one band of frequencies, at a random place (SpecAugment, arXiv:1904.08779).

    Attributes:
        share: of the bins from 0 Hz to half the sampling rate, rounded to whole bins of a 64 ms spectrum.
    """

    share: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) without that band; the same in all channels."""
        x, size = content.unit(), window_size(content.rate_hz)
        bins = size // 2 + 1
        band = round(self.share * bins)
        start = (drawn(rng, content, len(content), 1, 1) * (bins - band + 1)).long().expand(-1, x.shape[1], -1)
        index = torch.arange(bins, device=x.device)[:, None]
        inside = (index >= start.reshape(-1, 1, 1)) & (index < start.reshape(-1, 1, 1) + band)  # (B * C, bins, 1)
        spectrum = spectra(x.flatten(0, 1), size) * ~inside
        return Clips.from_unit(samples(spectrum, size, x.shape[-1]).view_as(x), content.rate_hz)


@dataclass(frozen=True)
class SampleDeletion:
    """Take single samples out and close up, so that what follows comes ever earlier; the end is silence.

    The cut-samples attack of StirMark for audio (Steinebach et al., ITCC 2001).

    Attributes:
        per_second: samples taken out in each second, at random places.
    """

    per_second: float = 10.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), shortened and filled up."""
        length = content.samples.shape[-1]
        count = min(length, max(1, round(self.per_second * length / content.rate_hz))) if self.per_second else 0
        gone = chosen(drawn(rng, content, len(content), length), count)  # (B, T)
        order = gone.byte().argsort(dim=-1, stable=True)[:, None].expand_as(content.samples)
        x = content.samples.gather(-1, order)
        x[..., length - count :] = 0
        return Clips(x, content.rate_hz)


@dataclass(frozen=True)
class Shuffle:
    """Cut the clip into pieces and change their places with their neighbours', two by two.

    Attributes:
        piece_s: length of a piece, in seconds; shorter is stronger. What is no whole pair at the end stays.
    """

    piece_s: float = 0.05
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1e-4, 1000)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) in another order."""
        x, piece = content.samples.clone(), max(1, round(self.piece_s * content.rate_hz))
        pairs = x.shape[-1] // (2 * piece)
        if pairs:
            head = x[..., : pairs * 2 * piece]
            x[..., : pairs * 2 * piece] = head.unflatten(-1, (pairs, 2, piece)).flip(-2).flatten(-3)
        return Clips(x, content.rate_hz)


@dataclass(frozen=True)
class Reversal:
    """Play the clip backwards; it has no strength."""

    target: ClassVar[Target] = "content"

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), backwards."""
        return Clips(content.samples.flip(-1), content.rate_hz)


FAMILIES = (
    audio_family(
        "sample-suppression",
        SampleSuppression,
        Grid((0.001, 0.005, 0.01, 0.05, 0.1), 2, "share of the samples"),
        Card("Sets random samples to zero.", SOK),
        standard=(),
    ),
    audio_family(
        "packet-loss",
        PacketLoss,
        Grid((0.02, 0.05, 0.1, 0.2, 0.4), 2, "share of the packets"),
        Card("Sends the clip over a bad call that loses packets.", OURS),
        standard=(),
    ),
    audio_family(
        "time-mask",
        TimeMask,
        Grid((0.02, 0.05, 0.1, 0.15, 0.3), 2, "share of the length"),
        Card("Silences one stretch.", RAW_BENCH),
        standard=(),
    ),
    audio_family(
        "head-silence",
        HeadSilence,
        Grid((0.001, 0.01, 0.1, 0.3), 2, "share of the length"),
        Card("Silences the start.", OMNISEAL),
        standard=(),
    ),
    audio_family(
        "frequency-mask",
        FrequencyMask,
        Grid((0.02, 0.05, 0.1, 0.15, 0.3), 2, "share of the bins"),
        Card("Takes one band out.", RAW_BENCH),
        standard=(),
    ),
    audio_family(
        "sample-deletion",
        SampleDeletion,
        Grid((1.0, 10.0, 50.0, 200.0, 1000.0), 2, "samples a second"),
        Card("Cuts single samples out, so that the rest comes ever earlier.", STIRMARK),
        standard=(),
    ),
    audio_family(
        "shuffle",
        Shuffle,
        Grid((0.05, 0.02, 0.005, 0.001), 1, "seconds a piece"),
        Card("Swaps neighbouring pieces.", STIRMARK),
        standard=(),
    ),
    audio_family(
        "reversal", lambda _: Reversal(), Grid((1,), 0, "none"), Card("Plays the clip backwards.", OURS), standard=()
    ),
)
