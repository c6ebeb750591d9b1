"""Rotation of pairs of input channels: the code in angles, as phase-shift keying has it in phases.

Givens rotations of weights as in Ma et al., "Parameter Efficient Quasi-Orthogonal Fine-Tuning via Givens Rotation",
ICML 2024, arXiv:2404.04316; keying of phases instead of amplitudes as in Proakis, "Digital Communications", sec. 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from schemes.modulations.mixing import MixingMap, blocks_of, mixable_layers


@dataclass(frozen=True)
class Rotation:
    """W' = W R, R turning each pair of neighbouring input channels by an angle A · code.

    Norms stay; the change is ‖W' - W‖² = Σ over pairs 2 (1 - cos θ) ‖W_pair‖².

    Attributes:
        depth: standard deviation over codes of the angles at the start, radians.
        attention: whether queries, keys and values are modulated too.
    """

    depth: float = 0.3
    attention: bool = True

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> AngleMap:
        """Fresh map from codes to angles for ``decoder``."""
        layers = mixable_layers(decoder, attention=self.attention)
        return AngleMap({name: blocks_of(layer, 2)[0] for name, layer in layers.items()}, bits, self.depth, rng)


class AngleMap(MixingMap):
    """See :class:`Rotation`."""

    def matrices(self, layer: nn.Module, values: Tensor) -> Tensor:
        """Plane rotations (B, pairs, 2, 2)."""
        cos, sin = values.cos(), values.sin()
        turns: Tensor = torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))
        return turns
