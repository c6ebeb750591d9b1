"""What a modulation has to offer to the fingerprint schemes."""

from __future__ import annotations

import contextlib
from typing import Protocol

import torch
from torch import Tensor, nn

from bench.weights import effective_weight


class Modulator(Protocol):
    """The trained part of a modulation, bound to one decoder's layers; an ``nn.Module``.

    Two more members are optional: ``others(decoder, code) -> dict[str, Tensor]``, values of parameters that are no part
    of an effective weight (biases, norm scales) by dotted name; and ``read_weights(decoder) -> Tensor``, soft bits
    (bits,) that whoever holds the decoder and the secret reads from its weights.
    """

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


def other_values(modulator: object, decoder: nn.Module, code: Tensor) -> dict[str, Tensor]:
    """Values of the other parameters that a modulator changes, by dotted name; most change none."""
    others = getattr(modulator, "others", None)
    values: dict[str, Tensor] = others(decoder, code) if others else {}
    return values


@torch.no_grad()
def energy_per_bit(modulator: Modulator, decoder: nn.Module, codes: Tensor) -> float:
    """Mean of ‖W' - W‖² / ‖W‖² over ±1 codes (B, bits), per bit; all that the modulator touches taken together.

    Against white noise on the weights, what a matched filter needs to know: E_b of digital communications.
    """
    total = 0.0
    for code in codes:
        values = modulator.weights(decoder, code)
        pairs = [(value, effective_weight(decoder.get_submodule(name))) for name, value in values.items()]
        pairs += [(v, decoder.get_parameter(n)) for n, v in other_values(modulator, decoder, code).items()]
        change = sum(float((value - base).double().square().sum()) for value, base in pairs)
        total += change / max(sum(float(base.double().square().sum()) for _, base in pairs), 1e-300)
    return total / len(codes) / codes.shape[1]
