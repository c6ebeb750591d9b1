"""Orthogonal modulation by the Cayley transform: blocks of input channels turned in all their planes at once.

Qiu et al., "Controlling Text-to-Image Diffusion by Orthogonal Finetuning", NeurIPS 2023, arXiv:2306.07280, sec. 3:
R = (I + Q)(I - Q)⁻¹ with Q = -Qᵀ. The angles between filters stay ("hyperspherical energy").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.protocol import UserError
from schemes.modulations.mixing import MixingMap, blocks_of, mixable_layers


@dataclass(frozen=True)
class Orthogonal:
    """W' = W R, R block-diagonal and orthogonal, Q = skew(A · code).

    Attributes:
        depth: root mean square over codes of ‖W' - W‖ / ‖W‖ at the start, dimensionless.
        block: channels in a block; 2 is a rotation by 2 arctan of the coefficient.
        attention: whether queries, keys and values are modulated too.
    """

    depth: float = 0.3
    block: int = 4
    attention: bool = True

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> CayleyMap:
        """Fresh map from codes to skew-symmetric matrices for ``decoder``."""
        if self.block < 2:
            raise UserError(f"block: expected at least 2 channels, found {self.block}")
        sizes = {}
        for name, layer in mixable_layers(decoder, attention=self.attention).items():
            count, side = blocks_of(layer, self.block)
            sizes[name] = count * side * (side - 1) // 2
        # R - I is 2 Q to first order, and a column of Q has block - 1 entries.
        return CayleyMap(sizes, bits, self.depth / (2 * (self.block - 1) ** 0.5), self.block, rng)


class CayleyMap(MixingMap):
    """See :class:`Orthogonal`."""

    def __init__(self, sizes: dict[str, int], bits: int, depth: float, block: int, rng: torch.Generator) -> None:
        super().__init__(sizes, bits, depth, rng)
        self.block = block

    def matrices(self, layer: nn.Module, values: Tensor) -> Tensor:
        """Orthogonal blocks (B, blocks, r, r)."""
        count, side = blocks_of(layer, self.block)
        row, column = torch.triu_indices(side, side, 1, device=values.device)
        upper = values.new_zeros(len(values), count, side, side)
        upper[..., row, column] = values.unflatten(1, (count, -1))
        skew, identity = upper - upper.mT, torch.eye(side, device=values.device)
        # (I + Q)(I - Q)⁻¹: both factors are polynomials of Q, so their order is free.
        solved: Tensor = torch.linalg.solve(identity - skew, identity + skew)
        return solved
