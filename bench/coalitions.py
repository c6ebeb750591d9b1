"""What a coalition may be besides a merge of its decoders (``bench.protocol.CoalitionAttack``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import nn

from bench.protocol import Attacker, CoalitionAttack, Content, Target


@runtime_checkable
class InformedCoalition(Protocol):
    """A coalition that merges its decoders with what it holds beside them, such as the public decoder."""

    target: ClassVar[Target]  # "coalition"

    @property
    def users(self) -> int:
        """How many decoders it merges."""

    def merge(self, decoders: Sequence[nn.Module], attacker: Attacker, rng: torch.Generator) -> nn.Module:
        """The merged decoder."""


@runtime_checkable
class ContentCoalition(Protocol):
    """A coalition whose members decode the same latents, each with its own decoder, and mix what comes out."""

    target: ClassVar[Target]  # "coalition"

    @property
    def users(self) -> int:
        """How many contents it mixes."""

    def mix(self, contents: Sequence[Content], rng: torch.Generator) -> Content:
        """One content from those of the members, item by item; they are left as they are."""


Coalition = CoalitionAttack | InformedCoalition | ContentCoalition
