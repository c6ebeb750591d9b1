"""A linear map from codes to the coefficients of all modulated layers: what most modulations train."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench.rng import fenced
from bench.weights import effective_weight
from schemes.modulations.layers import individual_weights


class CoefficientMap(nn.Module):
    """Coefficients a_l = A_l · code + b_l of each layer l; a modulation says in :meth:`changed` what they do.

    A linear map trains sooner than a mapping network: its output spreads by ``depth`` over codes of any length.

    Attributes:
        sizes: coefficients by layer name.
    """

    def __init__(self, sizes: Mapping[str, int], bits: int, depth: float, rng: torch.Generator) -> None:
        super().__init__()
        self.sizes, self.bits = dict(sizes), bits
        with fenced(0):  # torch draws initial weights that are replaced below
            self.affine = nn.Linear(bits, sum(self.sizes.values()))
        with torch.no_grad():
            self.affine.weight.copy_(torch.randn(self.affine.weight.shape, generator=rng) * depth / bits**0.5)
            self.affine.bias.zero_()

    def coefficients(self, codes: Tensor) -> dict[str, Tensor]:
        """By layer name, each (B, size), of ±1 codes (B, bits)."""
        values: Tensor = self.affine(codes)
        return dict(zip(self.sizes, values.split(list(self.sizes.values()), dim=1), strict=True))

    def changed(self, name: str, layer: nn.Module, weight: Tensor, values: Tensor) -> Tensor:
        """Weights (B, ...) of one layer from its effective weight and coefficients (B, size)."""
        raise NotImplementedError

    def all_weights(self, decoder: nn.Module, codes: Tensor) -> dict[str, Tensor]:
        """Effective weights (B, ...) by layer name, of ±1 codes (B, bits)."""
        return {
            name: self.changed(name, layer, effective_weight(layer).float(), values)
            for name, values in self.coefficients(codes).items()
            for layer in [decoder.get_submodule(name)]
        }

    def weights(self, decoder: nn.Module, code: Tensor) -> dict[str, Tensor]:
        """Effective weights under one code; see :class:`schemes.modulations.contract.Modulator`."""
        return {name: weight[0] for name, weight in self.all_weights(decoder, code[None]).items()}

    def applied(self, decoder: nn.Module, codes: Tensor) -> contextlib.AbstractContextManager[None]:
        """One materialised weight per item and layer."""
        return individual_weights(decoder, self.all_weights(decoder, codes))
