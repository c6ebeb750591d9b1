"""Differential modulation: pairs of input channels, one made louder and the other quieter.

Bender et al., "Techniques for Data Hiding", IBM Systems Journal 35(3-4), 1996 ("Patchwork"), in weights: what scales a
whole layer scales both channels of a pair and cancels.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.protocol import UserError
from bench.weights import effective_weight, input_channels
from schemes.modulations.amplitude import gains_applied, gains_merged
from schemes.modulations.layers import canonical, modulated_layers


@dataclass(frozen=True)
class Differential:
    """s[i] = 1 + δ code_b and s[i'] = 1 - δ code_b for a pair (i, i') of similar norm; a bit has many pairs.

    Trained is δ of each pair; which bit a pair carries is drawn once.

    Attributes:
        depth: δ at the start, dimensionless.
        attention: whether queries, keys and values are modulated too.
    """

    depth: float = 0.3
    attention: bool = True

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> PairMap:
        """Fresh pairs and depths for ``decoder``.

        Raises:
            UserError: when there are fewer pairs than bits.
        """
        layers = modulated_layers(decoder, attention=self.attention)
        pairs = sum(input_channels(layer) // 2 for layer in layers.values())
        if pairs < bits:
            raise UserError(
                f"decoder {type(decoder).__name__}: expected a pair of channels for each of {bits} bits, found {pairs}"
            )
        return PairMap(layers, bits, self.depth, rng)


class PairMap(nn.Module):
    """See :class:`Differential`.

    Attributes:
        order: input channels of each layer by falling norm, int64 (channels in all,); neighbours are pairs.
        bit: bit of each pair, int64 (pairs,).
    """

    order: Tensor
    bit: Tensor

    def __init__(self, layers: dict[str, nn.Module], bits: int, depth: float, rng: torch.Generator) -> None:
        super().__init__()
        self.layers, self.bits = {name: input_channels(layer) for name, layer in layers.items()}, bits
        self.register_buffer("order", torch.cat([_by_norm(layer) for layer in layers.values()]))
        pairs = sum(channels // 2 for channels in self.layers.values())
        self.register_buffer("bit", torch.randperm(pairs, generator=rng) % bits)
        self.depth = nn.Parameter(torch.full((pairs,), depth))

    def gains(self, codes: Tensor) -> dict[str, Tensor]:
        """Gains by layer name, each (B, channels), of ±1 codes (B, bits)."""
        changes = (codes[:, self.bit] * self.depth).split([n // 2 for n in self.layers.values()], 1)
        orders = self.order.split(list(self.layers.values()))
        gains = {}
        for (name, channels), change, order in zip(self.layers.items(), changes, orders, strict=True):
            pairs = torch.stack([change, -change], 2).flatten(1)  # (B, 2 · pairs)
            single = pairs.new_zeros(len(codes), channels % 2)
            gains[name] = 1 + torch.cat([pairs, single], 1)[:, order.argsort()]
        return gains

    def weights(self, decoder: nn.Module, code: Tensor) -> dict[str, Tensor]:
        """Effective weights under one code; see :class:`schemes.modulations.contract.Modulator`."""
        return gains_merged(decoder, self.gains(code[None]))

    def applied(self, decoder: nn.Module, codes: Tensor) -> contextlib.AbstractContextManager[None]:
        """Scale the inputs of each layer instead of its weight."""
        return gains_applied(decoder, self.gains(codes))


def _by_norm(layer: nn.Module) -> Tensor:
    energy = canonical(layer, effective_weight(layer).detach().float()).square().sum((1, 3)).flatten()
    return energy.argsort(descending=True, stable=True).cpu()
