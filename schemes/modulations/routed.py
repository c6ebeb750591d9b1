"""Routed low-rank modulation: groups of bits choose which of several adapters a layer carries.

"MOLM", ICLR 2026, arXiv:2510.00293: one of P adapters in each of L blocks, L · log2 P bits. Here every layer carries at
least one group of bits, and several where the code is longer.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.weights import effective_weight
from schemes.modulations.layers import canonical, individual_weights, modulated_layers, restored
from schemes.modulations.low_rank import rms


@dataclass(frozen=True)
class Routed:
    """W' = W + Σ over the layer's groups B[choice] A[choice]; B = 0 at the start.

    Attributes:
        group: bits that choose one of 2^group adapters together.
        rank: of an adapter.
        attention: whether queries, keys and values are modulated too.
    """

    group: int = 2
    rank: int = 2
    attention: bool = True

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> RoutedMap:
        """Fresh adapters for ``decoder``."""
        layers = modulated_layers(decoder, attention=self.attention)
        shapes = {name: tuple(canonical(layer, effective_weight(layer)).shape) for name, layer in layers.items()}
        return RoutedMap(shapes, bits, self, rng)


def choices(codes: Tensor, group: int) -> Tensor:
    """Which of 2^group each group of ±1 codes (B, bits) chooses, one-hot (B, groups, 2^group).

    The last group is filled up with zeros when bits are left over.
    """
    ones = (codes > 0).long()
    ones = nn.functional.pad(ones, (0, -codes.shape[1] % group)).unflatten(1, (-1, group))
    place = 2 ** torch.arange(group, device=codes.device)
    return nn.functional.one_hot((ones * place).sum(-1), 2**group).to(codes.dtype)


class RoutedMap(nn.Module):
    """See :class:`Routed`. Slot s sits in layer s mod L and carries group s mod G, so that all of both are used."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], bits: int, spec: Routed, rng: torch.Generator) -> None:
        super().__init__()
        self.names, self.bits, self.spec = list(shapes), bits, spec
        self.groups = math.ceil(bits / spec.group)
        self.down, self.up, many = nn.ParameterList(), nn.ParameterList(), 2**spec.group
        for slot in range(max(len(self.names), self.groups)):
            groups, out, inputs, kernel = shapes[self.names[slot % len(self.names)]]
            rows = torch.randn(many, groups, spec.rank, inputs * kernel, generator=rng)
            self.down.append(nn.Parameter(rows / rows.shape[-1] ** 0.5))
            self.up.append(nn.Parameter(torch.zeros(many, groups, out, spec.rank)))

    def all_weights(self, decoder: nn.Module, codes: Tensor) -> dict[str, Tensor]:
        """Effective weights (B, ...) by layer name, of ±1 codes (B, bits)."""
        chosen, changes = choices(codes, self.spec.group), {name: 0 * codes[:, :1, None, None] for name in self.names}
        for slot, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            name = self.names[slot % len(self.names)]
            every = up @ down  # (2^group, groups, out, in · kernel)
            changes[name] = changes[name] + torch.einsum("bp,pgoi->bgoi", chosen[:, slot % self.groups], every)
        weights = {}
        for name, change in changes.items():
            layer = decoder.get_submodule(name)
            base = canonical(layer, effective_weight(layer).float())
            weights[name] = restored(layer, base + rms(base) * change.unflatten(-1, tuple(base.shape[2:])))
        return weights

    def weights(self, decoder: nn.Module, code: Tensor) -> dict[str, Tensor]:
        """Effective weights under one code; see :class:`schemes.modulations.contract.Modulator`."""
        return {name: weight[0] for name, weight in self.all_weights(decoder, code[None]).items()}

    def applied(self, decoder: nn.Module, codes: Tensor) -> contextlib.AbstractContextManager[None]:
        """One materialised weight per item and layer."""
        return individual_weights(decoder, self.all_weights(decoder, codes))
