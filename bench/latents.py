"""Latents of the held-out prompts: sampled once, cached on disk, shared by every scheme."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.digest import digest_of, generator_digest
from bench.engine import logger, report
from bench.folders import cache_folder
from bench.presets import Plan
from bench.protocol import Generator, Modality
from bench.results import replacing
from bench.rng import stream

CHUNK = 64
"""Prompts per call of the sampler. Not the plan's batch: the draws depend on it."""


def cached_latents(modality: Modality, generator: Generator, plan: Plan) -> Tensor:
    """Latents of every user's items, (users, items, ...) float32, on the CPU.

    Depends on the generator, the prompts and the seed only, never on a scheme. An unreadable cache file is made again.
    """
    path = cache_folder() / "latents" / f"{_key(modality, generator, plan)}.safetensors"
    try:
        return load_file(path)["latents"]
    except FileNotFoundError:
        logger.info("sampling %d latents into %s", plan.users * plan.items, path)
    except (SafetensorError, KeyError) as error:
        logger.warning("%s is not readable (%s); sampling again", path, error)
    latents = _sample(modality, generator, plan)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        save_file({"latents": latents.contiguous()}, partial)
    return latents


def _key(modality: Modality, generator: Generator, plan: Plan) -> str:
    return digest_of(
        {
            "modality": modality.name,
            "generator": generator_digest(generator),
            "users": plan.users,
            "items": plan.items,
            "seed": plan.seed,
        }
    )


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
