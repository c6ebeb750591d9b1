"""Spread-transform dither modulation: projections of the weights, rounded to one of two interleaved lattices.

Chen and Wornell, "Quantization Index Modulation", IEEE Trans. Inf. Theory 47(4), 2001, sec. V-B; for weights, Li, Tondi
and Barni, "Spread-Transform Dither Modulation Watermarking of Deep Neural Network", 2020, arXiv:2012.14171.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.protocol import UserError
from bench.weights import effective_weight
from schemes.modulations.layers import modulated_layers
from schemes.modulations.patterns import PatternMap


@dataclass(frozen=True)
class Dither:
    """p_b = ⟨W, P_b⟩ goes to the nearest point of Δ_b (integers + code_b / 4); W' = W + Σ_b (p'_b - p_b) P_b.

    The weights themselves do not interfere with reading: of the public decoder only ‖W‖ is needed, and without noise
    every bit is right. Trained is Δ for each layer and bit; rounding passes its gradient with the lattice index held.

    Attributes:
        depth: ‖W' - W‖ / ‖W‖ at the start, dimensionless, where projections are small against Δ.
        attention: whether queries, keys and values are modulated too.
    """

    depth: float = 0.1
    attention: bool = True

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> DitherMap:
        """Fresh steps and a fresh key; a layer with fewer weights than bits has no room for patterns.

        Raises:
            UserError: when no layer has room.
        """
        layers = modulated_layers(decoder, attention=self.attention)
        roomy = {name: layer for name, layer in layers.items() if effective_weight(layer).numel() >= bits}
        if not roomy:
            kind = type(decoder).__name__
            raise UserError(f"decoder {kind}: expected a layer of at least {bits} weights to modulate, found none")
        return DitherMap(roomy, bits, self.depth, rng)


class DitherMap(PatternMap):
    """See :class:`Dither`."""

    def __init__(self, layers: dict[str, nn.Module], bits: int, depth: float, rng: torch.Generator) -> None:
        super().__init__(layers, bits, rng)
        self.depth = depth

    def steps(self, name: str, weight: Tensor) -> Tensor:
        """Δ of each bit, (bits,)."""
        start = 4 * self.depth * weight.detach().norm() / self.bits**0.5
        step: Tensor = start * self.strength[self.names.index(name)].abs().clamp_min(1e-3)
        return step

    def changed(self, name: str, weight: Tensor, codes: Tensor) -> Tensor:
        """The weight with its projections moved to the lattice of the code."""
        patterns, step = self.patterns(name, weight.numel()), self.steps(name, weight)
        projections = (patterns @ weight.flatten()).expand(len(codes), -1)  # (B, bits)
        index = (projections / step - codes / 4).round().detach()
        moved = (index + codes / 4) * step
        return weight + ((moved - projections) @ patterns).view(-1, *weight.shape)

    def evidence(self, name: str, weight: Tensor, base: Tensor) -> Tensor:
        """Which lattice the projections are near: Δ/4 when exactly on one of them, with its sign."""
        step = self.steps(name, base)
        place = self.patterns(name, weight.numel()) @ weight.flatten() / step
        return step / 4 * (2 * math.pi * place).sin()
