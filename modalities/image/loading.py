"""From a generator's name to the adapter that knows it: a pipeline, or a network that makes pictures of noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.protocol import Generator, UserError
from modalities.exported import is_exported, load_exported
from modalities.image import diffusion
from modalities.modules import ModuleGenerator, noise_shape, tried
from modalities.settings import Settings, split


def load(spec: str | None, device: torch.device) -> Generator:
    """The embedded generator (None), a pipeline in a folder or behind a hub id, or a ``torch.export`` file.

    Raises:
        UserError: when it cannot be loaded, or makes no pictures.
    """
    source, settings = split(spec)
    if source is not None and is_exported(path := Path(source)):
        return wrapped(source, load_exported(path).to(device), settings, path)
    return diffusion.load(spec, device)


def wrapped(name: str, thing: Any, settings: Settings, path: Path | None = None) -> ModuleGenerator:
    """Any network from noise to pictures as a generator. Its pictures are in [-1, 1], or in its ``output_range``.

    Raises:
        UserError: when it is no network, or makes no pictures.
    """
    if not isinstance(thing, nn.Module):
        raise UserError(f"generator {name}: expected a network, found {type(thing).__name__}")
    settings.limited(name, "latent", "batch")
    network = thing.eval().requires_grad_(False)
    shape = noise_shape(name, network, settings)
    made = tried(name, network, shape)
    if made.ndim != 4 or made.shape[1] != 3 or min(made.shape[2:]) < 16:
        raise UserError(
            f"generator {name}: expected pictures (B, 3, H, W) of at least 16x16, found {tuple(made.shape)}"
        )
    low, high = getattr(network, "output_range", (-1.0, 1.0))
    generator = ModuleGenerator(name, network, shape, (float(low), float(high)), (0.0, 1.0), source=path)
    return replace(generator, **settings.chosen("batch"))
