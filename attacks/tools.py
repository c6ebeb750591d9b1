"""What attacks may need from outside: a generator's networks, or a public one, as plain callables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from torch import Generator, Tensor


@dataclass(frozen=True)
class Tools:
    """Networks that an adversary holds; each is optional, and without it the attacks that need it cannot be made.

    What belongs to one scheme (its reader as a service, its users' content) is no tool; see
    :class:`bench.protocol.Access`.

    Attributes:
        reconstruct: an autoencoder's pass: images (B, 3, H, W) float32 in [0, 1], or clips, to the same.
        regenerate: a diffusion model's pass over the same: content, the share in (0, 1) of its schedule's steps that
            noise is added for and then taken away, and the stream that the noise comes from.
        encode: a generator's public encoder: content as for ``reconstruct`` to latents (B, ...), differentiable.
        embed: an unrelated public network's embedding (B, ...) of the same content, differentiable.
    """

    reconstruct: Callable[[Any], Any] | None = None
    regenerate: Callable[[Any, float, Generator], Any] | None = None
    encode: Callable[[Any], Tensor] | None = None
    embed: Callable[[Any], Tensor] | None = None


def _unusable(*_: Any) -> NoReturn:
    raise RuntimeError("this tool only stands for one, so that the attacks that need it can be listed")


LISTED = Tools(**{field.name: _unusable for field in fields(Tools)})
"""Stands for every tool, to list attacks and to know their names; an attack made with it cannot run."""
