"""Output-channel modulation: a gain of every filter, the bias left alone.

The scale half of Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", AAAI 2018,
arXiv:1709.07871, eq. 2, folded into the weight.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from schemes.modulations.coefficients import CoefficientMap
from schemes.modulations.demodulated import output_scaler
from schemes.modulations.layers import canonical, hooked, modulated_layers, output_channels, restored


@dataclass(frozen=True)
class OutputChannel:
    """W'[o, i] = s[o] W[o, i] with s = 1 + A · code.

    Before a group norm part of it vanishes: a gain that all channels of a group share is divided out.

    Attributes:
        depth: standard deviation over codes of the gains at the start, dimensionless.
        attention: whether queries, keys and values are modulated too.
    """

    depth: float = 0.3
    attention: bool = True

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> FilterMap:
        """Fresh gain map for ``decoder``."""
        layers = modulated_layers(decoder, attention=self.attention)
        return FilterMap({name: output_channels(layer) for name, layer in layers.items()}, bits, self.depth, rng)


class FilterMap(CoefficientMap):
    """See :class:`OutputChannel`."""

    def changed(self, name: str, layer: nn.Module, weight: Tensor, values: Tensor) -> Tensor:
        """Each filter times its gain."""
        base = canonical(layer, weight)  # (groups, out, in, kernel)
        return restored(layer, base * (1 + values).view(len(values), *base.shape[:2], 1, 1))

    def applied(self, decoder: nn.Module, codes: Tensor) -> contextlib.AbstractContextManager[None]:
        """Scale what leaves each layer: the same product, batched over codes."""
        layers = {name: decoder.get_submodule(name) for name in self.sizes}
        return hooked(
            [
                layers[name].register_forward_hook(output_scaler(layers[name], 1 + values))
                for name, values in self.coefficients(codes).items()
            ]
        )
