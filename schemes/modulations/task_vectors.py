"""Task vectors: each bit adds or subtracts a direction of its own in weight space.

FP-VEC (github.com/fingerprintvector/FP-VEC), after Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023,
arXiv:2212.04089: W' = W + Σ_b code_b v_b, the vectors trained together here, by fine-tuning there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.weights import effective_weight
from schemes.modulations.coefficients import CoefficientMap
from schemes.modulations.layers import modulated_layers
from schemes.modulations.low_rank import rms


@dataclass(frozen=True)
class TaskVectors:
    """W' = W + rms(W) Σ_b code_b v_b in the last layers; v = 0 at the start.

    There are ``bits`` vectors as large as the layers they change, so few layers carry them.

    Attributes:
        last: how many of the modulated layers, from the output.
        attention: whether queries, keys and values are modulated too.
    """

    last: int = 4
    attention: bool = True

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> VectorMap:
        """Vectors for ``decoder``, all zero."""
        layers = modulated_layers(decoder, attention=self.attention, last=self.last)
        sizes = {name: effective_weight(layer).numel() for name, layer in layers.items()}
        return VectorMap(sizes, bits, 0.0, rng)


class VectorMap(CoefficientMap):
    """See :class:`TaskVectors`. Its bias is a vector of the base, the same for all users."""

    def changed(self, name: str, layer: nn.Module, weight: Tensor, values: Tensor) -> Tensor:
        """The weight plus signed vectors."""
        return weight + rms(weight) * values.view(-1, *weight.shape)
