"""What a modulation has to offer to the fingerprint schemes."""

from __future__ import annotations

import contextlib
from typing import Protocol

import torch
from torch import Tensor, nn


class Modulator(Protocol):
    """The trained part of a modulation, bound to one decoder's layers; an ``nn.Module``."""

    bits: int

    def weights(self, decoder: nn.Module, code: Tensor) -> dict[str, Tensor]:
        """Effective weights of the layers it touches, by layer name, for one ±1 code (bits,)."""
        ...

    def applied(self, decoder: nn.Module, codes: Tensor) -> contextlib.AbstractContextManager[None]:
        """Within the context, item b of a batch passes through ``decoder`` as modulated by ``codes[b]`` (B, bits).

        Equal to materialising B decoders with :meth:`weights`, and much faster; gradients reach the modulator.
        """
        ...


class Modulation(Protocol):
    """A description: which layers, what change, how it starts. A frozen dataclass."""

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> nn.Module:
        """A fresh :class:`Modulator` for this decoder.

        Raises:
            bench.protocol.UserError: when the decoder has no layer that this modulation can touch.
        """
        ...
