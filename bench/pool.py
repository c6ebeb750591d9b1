"""Latents that are drawn once and kept on disk, since drawing them takes minutes and every scheme asks for the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.digest import digest_of, generator_digest, source_digest
from bench.folders import cache_folder, replacing
from bench.protocol import Generator

logger = logging.getLogger("genprint")


def stored_latents(facts: Mapping[str, Any], draw: Callable[[], Tensor]) -> Tensor:
    """The latents that ``facts`` name, from the cache folder, or drawn now and kept there.

    An unreadable file is made again.
    """
    path = cache_folder() / "latents" / f"{digest_of(dict(facts))}.safetensors"
    try:
        return load_file(path)["latents"]
    except FileNotFoundError:
        logger.info("sampling latents into %s", path)
    except (SafetensorError, KeyError) as error:
        logger.warning("%s is not readable (%s); sampling again", path, error)
    latents = draw().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        save_file({"latents": latents}, partial)
    return latents


def training_latents(generator: Generator, n: int, rng: torch.Generator) -> Tensor:
    """What ``generator.training_latents(n, rng)`` draws, (n, ...) on the CPU.

    Args:
        generator: whose weights, settings and source code name the file, beside ``n`` and the seed.
        n: how many.
        rng: fresh, as :func:`bench.rng.child` makes it: its seed stands for what it would draw.
    """
    facts = {
        "what": "training",
        "generator": generator_digest(generator),
        "source": source_digest(generator),
        "n": n,
        "seed": rng.initial_seed(),
    }
    return stored_latents(facts, lambda: generator.training_latents(n, rng).cpu())
