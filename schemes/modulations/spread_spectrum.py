"""Spread-spectrum modulation: each bit adds its secret pattern, with its sign, to the weights.

Cox et al., "Secure Spread Spectrum Watermarking for Multimedia", IEEE TIP 6(12), 1997, eq. 1 in the weights, with one
pattern per bit; Uchida et al., "Embedding Watermarks into Deep Neural Networks", ICMR 2017, arXiv:1701.04082, reads
weights by such projections.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from schemes.modulations.layers import modulated_layers
from schemes.modulations.patterns import PatternMap


@dataclass(frozen=True)
class SpreadSpectrum:
    """W' = W + depth ‖W‖ / √bits · Σ_b code_b a_b P_b; trained are the strengths a of each layer and bit.

    Memory for the patterns is ``bits`` times that of the modulated weights.

    Attributes:
        depth: ‖W' - W‖ / ‖W‖ at the start, dimensionless.
        attention: whether queries, keys and values are modulated too.
    """

    depth: float = 0.1
    attention: bool = True

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> SpreadMap:
        """Fresh strengths, all 1, and a fresh key."""
        return SpreadMap(modulated_layers(decoder, attention=self.attention), bits, self.depth, rng)


class SpreadMap(PatternMap):
    """See :class:`SpreadSpectrum`."""

    def __init__(self, layers: dict[str, nn.Module], bits: int, depth: float, rng: torch.Generator) -> None:
        super().__init__(layers, bits, rng)
        self.depth = depth

    def changed(self, name: str, weight: Tensor, codes: Tensor) -> Tensor:
        """The weight plus signed patterns."""
        unit = self.depth * weight.detach().norm() / self.bits**0.5
        signed = codes * self.strength[self.names.index(name)]  # (B, bits)
        spread: Tensor = weight + unit * (signed @ self.patterns(name, weight.numel())).view(-1, *weight.shape)
        return spread

    def evidence(self, name: str, weight: Tensor, base: Tensor) -> Tensor:
        """Projections of the change on the patterns, in the sign of the strengths: a matched filter."""
        matched = self.patterns(name, weight.numel()) * self.strength[self.names.index(name)][:, None]
        projections: Tensor = matched @ (weight - base).flatten()
        return projections
