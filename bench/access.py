"""What an adversary can get of one scheme from outside: its reader as a service, and content of its copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.digest import plain_repr
from bench.engine import Engine
from bench.ground import Ground
from bench.protocol import Codec, Content, ContentAttack


class Access:
    """One scheme as its adversary meets it; latents and codes are none of those under test.

    Args:
        codec: reads, and makes the copies.
        codes: (N, bits), all registered; the attacker holds the last but one, a third user the last.
        ground: the public decoder, and latents that anybody can have.
    """

    def __init__(self, codec: Codec, codes: Tensor, ground: Ground) -> None:
        self._codec = codec
        self._codes = codes
        self._ground = ground

    def query(self, content: Content) -> Tensor:
        """Agreement (B,) in [-1, 1] of the squashed soft bits with the nearest registered code."""
        soft = torch.tanh(self._engine.read(self._codec, [content]))
        return (soft @ (2.0 * self._codes.float() - 1).T).amax(1) / soft.shape[1]

    def owned(self, n: int) -> Content:
        """At most ``n`` items of the attacker's own copy."""
        return self._engine.content(self._copy(-2), self._latents(first=True)[:n])

    def clean(self, n: int) -> Content:
        """The same items from the public decoder."""
        return self._engine.content(self._ground.decoder, self._latents(first=True)[:n])

    def published(self, n: int) -> Content:
        """At most ``n`` other items, of a third user's copy."""
        return self._engine.content(self._copy(-1), self._latents(first=False)[:n])

    @property
    def _engine(self) -> Engine:
        return self._ground.engine

    def _copy(self, index: int) -> nn.Module:
        code = self._codes[max(index, -len(self._codes))]
        return self._codec.modulate(self._ground.decoder, code.to(self._engine.device))

    def _latents(self, *, first: bool) -> Tensor:
        """One half of the latents that an attacker holds."""
        held = self._ground.attacker.latents
        half = (len(held) + 1) // 2
        return held[:half] if first else held[half:]


def armed(attack: ContentAttack, access: Access, ground: Ground) -> ContentAttack:
    """The attack with what it needs of the scheme, or as it is when it needs nothing."""
    arm: Callable[[Any, torch.Generator], ContentAttack] | None = getattr(attack, "armed", None)
    return attack if arm is None else arm(access, ground.attack_stream(plain_repr(attack), "armed"))
