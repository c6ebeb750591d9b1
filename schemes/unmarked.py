"""What the public decoder makes of training latents: once for all of them, and under a step's noise on its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from bench.precision import mixed
from bench.protocol import Generator, Modality
from schemes.readers import settled
from schemes.trials import Setting, Weights, noisy


def originals(modality: Modality, generator: Generator, latents: Tensor) -> Tensor:
    """What the public decoder makes of each latent, observed, (N, C, ...) on the CPU.

    In half precision, which resolves an 8-bit step eight times.
    """
    with torch.no_grad():
        parts = [modality.soft_release(generator.decode(generator.decoder, z)).half().cpu() for z in latents.split(32)]
    return torch.cat(parts)


class Unmarked(NamedTuple):
    """What marks of one step lie on.

    Attributes:
        latents: (B, ...), the second half as the first (:func:`schemes.training._pairs`).
        observed: what the public decoder makes of them, (B, C, ...).
        fields: what it puts out for the first half, (B / 2, ...); None where nothing asked for it.
    """

    latents: Tensor
    observed: Tensor
    fields: Tensor | None


@contextlib.contextmanager
def unmarked(setting: Setting, rows: Tensor, noise: float, rng: torch.Generator, *, fields: bool) -> Iterator[Unmarked]:
    """Within the context the public decoder's weights are noisy, and the reader normalises as when it reads.

    Args:
        setting: decoder, reader and pool.
        rows: of the pool, (B,), the second half as the first.
        noise: standard deviation over that of each tensor; 0 leaves decoder and reader alone.
        rng: draws the noise.
        fields: whether what the decoder puts out is wanted, too.
    """
    decoder, reader = setting.generator.decoder, setting.networks[1]
    device = next(decoder.parameters()).device
    z = setting.pool[0][rows].to(device)
    if not noise:
        yield Unmarked(z, setting.pool[1][rows].to(device).float(), _decoded(setting, z) if fields else None)
        return
    public = Weights.of(decoder)
    layers = {name: noisy(weight, noise, rng) for name, weight in public.effective.items()}
    rest = {name: noisy(value, noise, rng) for name, value in public.others.items()}
    with Weights(layers, rest).within(decoder), settled(reader):
        half = _decoded(setting, z)
        with torch.no_grad():
            observed = setting.modality.soft_release(half.float())
        yield Unmarked(z, observed.repeat(2, *[1] * (observed.ndim - 1)), half)


@torch.no_grad()
def _decoded(setting: Setting, z: Tensor) -> Tensor:
    """Fields of the first half of the latents."""
    with mixed(z.device):
        return setting.generator.decode(setting.generator.decoder, z[: len(z) // 2])
