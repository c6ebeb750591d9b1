"""Latents of the held-out prompts: sampled once, cached on disk, shared by every scheme."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.digest import generator_digest
from bench.engine import report
from bench.pool import stored_latents
from bench.presets import Plan
from bench.protocol import Generator, Modality
from bench.rng import stream

CHUNK = 64
"""Prompts per call of the sampler. Not the plan's batch: the draws depend on it."""


def cached_latents(modality: Modality, generator: Generator, plan: Plan) -> Tensor:
    """Latents of every user's items, (users, items, ...) float32, on the CPU.

    Depends on the generator, the prompts and the seed only, never on a scheme.
    """
    facts = {
        "modality": modality.name,
        "generator": generator_digest(generator),
        "users": plan.users,
        "items": plan.items,
        "seed": plan.seed,
    }
    return stored_latents(facts, lambda: _sample(modality, generator, plan))


@torch.no_grad()
def _sample(modality: Modality, generator: Generator, plan: Plan) -> Tensor:
    count = plan.users * plan.items
    prompts = modality.prompts(count, stream(plan.seed, "prompts"))
    parts: list[Tensor] = []
    report("latents", 0, count)
    for start in range(0, count, CHUNK):
        chunk = prompts[start : start + CHUNK]
        parts.append(generator.latents(chunk, stream(plan.seed, "latents", start)).float().cpu())
        report("latents", min(start + CHUNK, count), count)
    flat = torch.cat(parts)  # (users * items, ...)
    return flat.reshape(plan.users, plan.items, *flat.shape[1:])
