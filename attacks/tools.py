"""What attacks may need from outside: a generator's networks, or a public one, as plain callables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NoReturn, Protocol

from torch import Generator, Tensor


@dataclass(frozen=True)
class Tools:
    """Networks that an adversary holds; each is optional, and without it the attacks that need it cannot be made.

    What belongs to one scheme (its reader as a service, its users' content) is no tool; see :class:`Access`.

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


class Access(Protocol):
    """What an adversary can get of the scheme under attack, from outside.

    An attack that has a method ``armed(access, rng)`` is asked by a run, once for every scheme, for a copy of itself
    that holds what it needs of it.
    """

    def query(self, content: Any) -> Tensor:
        """The operator's answer to uploaded content: how surely it is attributed to anybody, (B,), higher is surer."""

    def owned(self, n: int) -> Any:
        """At most ``n`` items that the attacker's own fingerprinted copy made."""

    def clean(self, n: int) -> Any:
        """The same items from the public generator: the attacker runs both on the same latents."""

    def published(self, n: int) -> Any:
        """At most ``n`` other items, made by the copy of a third user."""


def _unusable(*_: Any) -> NoReturn:
    raise RuntimeError("this tool only stands for one, so that the attacks that need it can be listed")


LISTED = Tools(**{field.name: _unusable for field in fields(Tools)})
"""Stands for every tool, to list attacks and to know their names; an attack made with it cannot run."""
