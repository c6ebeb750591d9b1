"""Orthonormal directions that authentic content is on one side of, among those that a decoder can move it in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.protocol import Generator, Modality
from bench.weights import detached_copy

if TYPE_CHECKING:
    from schemes.decentralized import DecentralizedAttribution


@torch.no_grad()
def reachable(modality: Modality, generator: Generator, latents: Tensor, probes: int, rng: torch.Generator) -> Tensor:
    """Directions (probes, values) in which changes of the decoder move the mean item: orthonormal, the largest first.

    The changes of the generator's decoder are noise of a tenth of each tensor's spread; ``latents`` (n, ...) are those
    of the items.
    """
    plain = modality.soft_release(generator.decode(generator.decoder, latents))
    effects = []
    for _ in range(probes):
        changed = detached_copy(generator.decoder)
        for parameter in changed.parameters():
            noise = torch.randn(parameter.shape, generator=rng).to(parameter)
            parameter.add_(noise * 0.1 * parameter.std(correction=0))
        moved = modality.soft_release(generator.decode(changed, latents)) - plain
        effects.append(moved.float().mean(0).flatten().cpu())
    directions: Tensor = torch.linalg.svd(torch.stack(effects), full_matrices=False).Vh
    return directions


def trained_keys(content: Tensor, spec: DecentralizedAttribution, rng: torch.Generator) -> Tensor:
    """Orthonormal keys (bits, values), φᵀx ≥ margin for authentic ``content`` (N, values) as far as there are such.

    Each minimises the mean of [margin - φᵀx]₊ among the directions that earlier keys leave. It starts where the mean
    item is on neither side, so that training ends near the margin, and a user's decoder has not far to go.
    """
    keys, mean = torch.empty(0, content.shape[1]), content.mean(0, keepdim=True)
    for _ in range(spec.bits):
        start, away = torch.randn(content.shape[1], generator=rng), F.normalize(mean - mean @ keys.T @ keys)
        key = _unit(start, torch.cat([keys, away])).requires_grad_()
        optimiser = torch.optim.Adam([key], lr=spec.key_rate, betas=(0.5, 0.99))
        for _ in range(spec.key_steps):
            batch = content[torch.randint(len(content), (min(64, len(content)),), generator=rng)]
            optimiser.zero_grad()
            F.relu(spec.margin - batch @ key).mean().backward()
            optimiser.step()
            with torch.no_grad():
                key.copy_(_unit(key, keys))
        keys = torch.cat([keys, key.detach()[None]])
    return keys


def _unit(key: Tensor, keys: Tensor) -> Tensor:
    """Of length 1 and orthogonal to all ``keys``; twice, since once leaves what rounding adds."""
    for _ in range(2):
        key = F.normalize(key - keys.T @ (keys @ key), dim=0)
    return key
