"""Low-rank modulation: the code in a small matrix between two trained factors.

FI-LoRA, ICCV 2025 (github.com/jumpycat/FI-LORA): W' = W + B · Z(code) · A with rank 16 in the last stage, B = 0 at the
start. Z is linear in the code here, a two-layer network there.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.weights import effective_weight
from schemes.modulations.coefficients import CoefficientMap
from schemes.modulations.layers import canonical, individual_factors, modulated_layers, restored


@dataclass(frozen=True)
class LowRank:
    """W' = W + s B Z A with Z = Z(code), (r, r), and W seen as a matrix (outputs, inputs · kernel) for each group.

    Attributes:
        rank: r; less where a layer has fewer inputs or outputs.
        last: how many of the modulated layers, from the output; 0 means all.
        attention: whether queries, keys and values are modulated too.
        everywhere: whether every layer with weights is modulated instead, whatever ``attention`` says.
    """

    rank: int = 8
    last: int = 0
    attention: bool = True
    everywhere: bool = False

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> LowRankMap:
        """Fresh factors for ``decoder``; B is zero."""
        layers = modulated_layers(decoder, attention=self.attention, last=self.last, everywhere=self.everywhere)
        shapes = {name: tuple(canonical(layer, effective_weight(layer)).shape) for name, layer in layers.items()}
        return LowRankMap(shapes, bits, self.rank, rng)


class LowRankMap(CoefficientMap):
    """See :class:`LowRank`.

    Entries of Z spread by 1/r over codes and rows of A have norm 1, so that a step of B is felt alike at any rank.
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]], bits: int, rank: int, rng: torch.Generator) -> None:
        ranks = {name: min(rank, out, inputs * kernel) for name, (_, out, inputs, kernel) in shapes.items()}
        super().__init__({name: r * r for name, r in ranks.items()}, bits, 1 / rank, rng)
        self.ranks = ranks
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for name, (groups, out, inputs, kernel) in shapes.items():
            rows = torch.randn(groups, self.ranks[name], inputs * kernel, generator=rng)
            self.down[name.replace(".", "/")] = nn.Parameter(rows / rows.shape[-1] ** 0.5)
            self.up[name.replace(".", "/")] = nn.Parameter(torch.zeros(groups, out, self.ranks[name]))

    def changed(self, name: str, layer: nn.Module, weight: Tensor, values: Tensor) -> Tensor:
        """The weight plus B Z A, in proportion to the weight's root mean square."""
        base = canonical(layer, weight)  # (groups, out, in, kernel)
        up, down = self.factors(name, weight, values)
        return restored(layer, base + (up @ down).unflatten(-1, tuple(base.shape[2:])))

    def factors(self, name: str, weight: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Up, s B Z of (B, groups, out, r), and down, A of (groups, r, in · kernel)."""
        middle, key = values.view(len(values), 1, self.ranks[name], self.ranks[name]), name.replace(".", "/")
        return rms(weight) * (self.up[key] @ middle), self.down[key]

    def applied(self, decoder: nn.Module, codes: Tensor) -> contextlib.AbstractContextManager[None]:
        """Through both factors, which are narrow; the public weights stay as they are."""
        factors = {
            name: self.factors(name, effective_weight(decoder.get_submodule(name)).float(), values)
            for name, values in self.coefficients(codes).items()
        }
        return individual_factors(decoder, factors)


def rms(weight: Tensor) -> Tensor:
    """Root mean square of a tensor, detached: the unit in which weights are changed."""
    return weight.detach().square().mean().sqrt()
