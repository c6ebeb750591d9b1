"""One user's item, and back: whose copy of the decoder made a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.calibration import p_value, threshold
from bench.codebook import code_book
from bench.metrics.attribution import identify
from bench.presets import Plan
from bench.protocol import Codec, Content, Generator, Modality, UserError

TOGETHER = "all together"


@dataclass(frozen=True)
class Trace:
    """What one file, or all of them together, say.

    Attributes:
        source: the file.
        user: who is named; None when nobody reaches the threshold.
        nearest: the registered user whose code fits best, named or not.
        matches: bits in which that code agrees.
        bits: fingerprint length.
        threshold: fewest matches that name somebody; None when no number of them is enough.
        p_value: probability that an unrelated item matches that one code as well.
    """

    source: str
    user: int | None
    nearest: int
    matches: int
    bits: int
    threshold: int | None
    p_value: float


def code_of(plan: Plan, scheme: str, bits: int, user: int) -> Tensor:
    """Code (bits,) of a registered user.

    Raises:
        UserError: when no such user is registered.
    """
    if not 0 <= user < plan.registered:
        raise UserError(f"user: expected 0 to {plan.registered - 1}, found {user}")
    return code_book(plan, scheme, bits)[user]


@torch.no_grad()
def item_of(modality: Modality, generator: Generator, decoder: nn.Module, prompt: str, rng: torch.Generator) -> Content:
    """One item that a decoder makes of a prompt, as it would be published."""
    latents = generator.latents([prompt], rng).to(next(decoder.parameters()).device)
    return modality.release(generator.decode(decoder, latents))


def trace(codec: Codec, plan: Plan, scheme: str, read: Mapping[str, Tensor]) -> list[Trace]:
    """Look up what was read from each file, and from several also the sum of their soft bits.

    Args:
        codec: read them.
        plan: says who is registered, and the rate of false positives.
        scheme: its name, which the codes depend on.
        read: soft bits (bits,) by file.
    """
    if len(read) > 1:
        read = {**read, TOGETHER: torch.stack(list(read.values())).nan_to_num(nan=0.0).sum(0)}
    codes = code_book(plan, scheme, codec.bits)
    tau = threshold(codec.bits, len(codes), plan.fpr)
    soft = torch.stack(list(read.values())).cpu()
    best = identify(soft, torch.zeros(len(soft), dtype=torch.int64), codes, tau).best
    found = identify(soft, best, codes, tau)
    chances = p_value(found.matches, codec.bits)
    return [
        Trace(source, user if alone else None, user, matches, codec.bits, tau, float(chance))
        for source, user, alone, matches, chance in zip(
            read, best.tolist(), found.correct.tolist(), found.matches.tolist(), chances, strict=True
        )
    ]
