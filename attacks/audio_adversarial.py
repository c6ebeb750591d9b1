"""Audio attacks by small, well-aimed changes: gradients of networks the attacker holds, and answers of the reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor

from attacks.audio_listing import AUDIOMARKBENCH, WAVES, audio_family
from attacks.grids import Card, Grid
from attacks.limits import check_strength
from attacks.tools import Access
from bench.protocol import AttackFamily, Clips, Target, UserError

Embed = Callable[[Clips], Tensor]
FIRST_SHARE = 0.3
HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Andriushchenko et al., section 4: the share that is repainted is halved after these queries of 10,000."""


@dataclass(frozen=True)
class WavePGD:
    """Drive a network's embedding as far away as noise of a stated power allows.

    Projected gradient ascent on the L2 sphere of each clip (Madry et al., ICLR 2018, arXiv:1706.06083), as WAVES does
    for images (arXiv:2401.08573); AudioMarkBench (arXiv:2406.06979) bounds its white-box attack by 20 dB as well.

    Attributes:
        snr_db: power of the clip over power of the change, in dB, exactly; lower is stronger.
        embed: clips whose samples are floats in 16-bit units, not rounded, to (B, ...), differentiable.
        steps: gradient steps.
        stride: length of a step, as a share of the change's own length.
    """

    snr_db: float
    embed: Embed = field(repr=False, compare=False)
    steps: int = 20
    stride: float = 0.3
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 100)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) that the network hears as something else."""
        x = content.unit()
        length = 10 ** (-self.snr_db / 20) * _length(x)  # (B, 1, 1)
        change = torch.randn(x.shape, generator=rng, device=rng.device).to(x.device)
        change *= length / _length(change).clamp_min(1e-12)
        with torch.no_grad():
            before = self.embed(_floats(x, content.rate_hz)).float()
        for _ in range(self.steps):
            moved = change.requires_grad_()
            with torch.enable_grad():
                away = (self.embed(_floats(x + moved, content.rate_hz)).float() - before).square().sum()
                (slope,) = torch.autograd.grad(away, moved)
            change = change.detach() + self.stride * length * slope / _length(slope).clamp_min(1e-20)
            change = change * (length / _length(change).clamp_min(1e-12))
        return Clips.from_unit(x + change, content.rate_hz)


def _floats(x: Tensor, rate_hz: int) -> Clips:
    return Clips(x * 32768, rate_hz)


def _length(x: Tensor) -> Tensor:
    """Euclidean length of each clip (B, 1, 1)."""
    return x.square().sum((1, 2), keepdim=True).sqrt()


@dataclass(frozen=True)
class WaveSquare:
    """Upload the clip with stretches of it moved up or down, and keep what the answer likes less.

    Andriushchenko et al., "Square Attack", ECCV 2020, arXiv:1912.00049, in one dimension, as AudioMarkBench runs it
    (arXiv:2406.06979, there 10,000 queries). Every sample moves by exactly the same amount, up or down.

    Attributes:
        snr_db: power of the clip over power of the change, in dB; lower is stronger.
        queries: uploads per clip, the first one included.
        query: clips to a score each, (B,), that the attack brings down; held by an armed copy.
    """

    snr_db: float
    queries: int = 300
    query: Callable[[Clips], Tensor] | None = field(default=None, repr=False, compare=False)
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 100)
        if self.queries < 1:
            raise UserError(f"{self!r}: the number of queries must be at least 1, found {self.queries}")

    def armed(self, access: Access, rng: Generator) -> WaveSquare:
        """The same attack with the operator's reader to ask."""
        return replace(self, query=access.query)

    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T) of which the operator is less sure.

        Raises:
            UserError: when there is nobody to ask: only a run, which has a scheme, has its reader.
        """
        if self.query is None:
            raise UserError(f"{self!r}: expected the scheme's reader to ask, found none; see `armed`")
        x, rate, length = content.unit(), content.rate_hz, content.samples.shape[-1]
        size = 10 ** (-self.snr_db / 20) * x.square().mean((1, 2), keepdim=True).sqrt()  # (B, 1, 1)
        signs = _signs((len(x), 1, length), rng).to(x.device)
        best = Clips.from_unit(x + size * signs, rate)
        lowest = self.query(best)
        for index in range(1, self.queries):
            tried = self._repainted(signs, max(1, round(_share(index, self.queries) * length)), rng)
            clips = Clips.from_unit(x + size * tried, rate)
            score = self.query(clips)
            better = (score < lowest).to(x.device)
            signs = torch.where(better[:, None, None], tried, signs)
            best = Clips(torch.where(better[:, None, None], clips.samples, best.samples), rate)
            lowest = torch.where(better.to(lowest.device), score, lowest)
        return best

    def _repainted(self, signs: Tensor, size: int, rng: Generator) -> Tensor:
        """The signs (B, 1, T) with one stretch of each clip set to one sign."""
        start = torch.rand(len(signs), 1, 1, generator=rng, device=rng.device, dtype=torch.float64).to(signs.device)
        start = (start * (signs.shape[-1] - size + 1)).long()
        sign = _signs((len(signs), 1, 1), rng).to(signs.device)
        index = torch.arange(signs.shape[-1], device=signs.device)
        return torch.where((index >= start) & (index < start + size), sign, signs)


def _signs(shape: tuple[int, ...], rng: Generator) -> Tensor:
    return torch.randint(2, shape, generator=rng, device=rng.device) * 2.0 - 1


def _share(index: int, queries: int) -> float:
    """Share of the clip that one query repaints."""
    return FIRST_SHARE / 2.0 ** sum(index * 10_000 / queries > at for at in HALVED_AT)


SQUARE_FAMILY = audio_family(
    "wave-square",
    WaveSquare,
    Grid((40.0, 30.0, 25.0, 20.0), 2, "dB SNR"),
    Card(
        "Uploads the clip 300 times, changed a little, and keeps what is recognised least.",
        AUDIOMARKBENCH,
        "the operator's reader as a service that tells its score",
    ),
    standard=(),
)


def pgd_family(embed: Embed) -> AttackFamily:
    """Gradients of the public encoder that the caller brings.

    Args:
        embed: see :class:`WavePGD`.
    """
    return audio_family(
        "wave-pgd",
        lambda s: WavePGD(s, embed),
        Grid((40.0, 30.0, 25.0, 20.0), 2, "dB SNR"),
        Card(
            "Adds noise shaped by a network's gradients, so that the clip's latent moves far away.",
            WAVES,
            "a differentiable public encoder, such as the generator's own (encode)",
        ),
        standard=(),
    )
