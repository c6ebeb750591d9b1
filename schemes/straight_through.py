"""The benchmark's own attacks on content as augmentation: exact forwards, straight-through backwards."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor

from attacks import families_for
from bench.protocol import AttackFamily, Modality, UserError


@cache
def content_attacks(modality: str) -> tuple[AttackFamily, ...]:
    """The everyday families on this modality's content, those of suite ``quick``, that can run here, in their order."""
    everyday = (each for each in families_for(modality).values() if "quick" in each.suites)
    return tuple(family for family in everyday if family.target == "content" and _available(family))


def _available(family: AttackFamily) -> bool:
    installed = family.requires is None or importlib.util.find_spec(family.requires) is not None
    return installed and (family.missing is None or family.missing() is None)


def attacked(modality: Modality, field: Tensor, observed: Tensor, rng: torch.Generator) -> Tensor:
    """What is observed of ``field`` after release and one attack, drawn at random with its strength.

    The gradient is that of ``observed``, straight through, as long as the attacked tensor resembles it; after an attack
    that moves things elsewhere (crops, turns, shifts) that would be the gradient of another place, and there is none.

    Args:
        modality: releases and observes.
        field: what a decoder put out, (B, ...).
        observed: its differentiable observation, (B, ...).
        rng: draws the attack and its damage.

    Raises:
        UserError: when there is no attack on such content.
    """
    listed = content_attacks(modality.name)
    if not listed:
        raise UserError(f"attacks on {modality.name!r} content: expected some to train with, found none")
    family = listed[_draw(len(listed), rng)]
    attack: Any = family.make(family.strengths[_draw(len(family.strengths), rng)])
    with torch.no_grad():
        seen = modality.observe(attack(modality.release(field.detach()), rng)).to(observed.device, observed.dtype)
    if seen.shape != observed.shape:
        return _fitted(seen, observed)
    return observed + (seen - observed).detach() if _alike(seen, observed) else seen


def _draw(count: int, rng: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=rng))


def _alike(seen: Tensor, observed: Tensor) -> bool:
    """Whether the attack left more of the content in its place than it moved: correlation of at least one half."""
    a, b = (each.detach().float().flatten(1) for each in (seen, observed))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return bool(((a * b).sum(1) >= 0.5 * a.norm(dim=1) * b.norm(dim=1)).float().mean() >= 0.5)


def _fitted(seen: Tensor, observed: Tensor) -> Tensor:
    """Cut or filled with zeros to the length of what it is batched with: an attack on time changes it."""
    out = torch.zeros_like(observed)
    window = tuple(slice(0, min(a, b)) for a, b in zip(seen.shape, observed.shape, strict=True))
    out[window] = seen[window]
    return out.detach()
