"""M-ary templates: groups of bits choose one of several trained patterns of channel gains.

Simplex signalling, Proakis, "Digital Communications", sec. 4.3-1: 2^g templates around a common mean, of which each is
as far from every other; more distance for the same energy than one pattern per bit once g is 2 or more.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.weights import input_channels
from schemes.modulations.amplitude import gains_applied, gains_merged
from schemes.modulations.layers import modulated_layers
from schemes.modulations.routed import choices


@dataclass(frozen=True)
class Templates:
    """W' = W · diag(1 + Σ_j T_j[choice_j]), the templates T trained, their mean over choices taken out.

    Templates are gains of input channels: free ones would be 2^group copies of the decoder's weights for each group.
    With groups of one bit it is a linear amplitude modulation without bias.

    Attributes:
        group: bits that choose one of 2^group templates together.
        depth: standard deviation over codes of the gains at the start, dimensionless.
        attention: whether queries, keys and values are modulated too.
    """

    group: int = 2
    depth: float = 0.3
    attention: bool = True

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> TemplateMap:
        """Fresh random templates for ``decoder``."""
        layers = modulated_layers(decoder, attention=self.attention)
        return TemplateMap({name: input_channels(layer) for name, layer in layers.items()}, bits, self, rng)


class TemplateMap(nn.Module):
    """See :class:`Templates`."""

    def __init__(self, layers: dict[str, int], bits: int, spec: Templates, rng: torch.Generator) -> None:
        super().__init__()
        self.layers, self.bits, self.group = layers, bits, spec.group
        count, many = math.ceil(bits / spec.group), 2**spec.group
        drawn = torch.randn(count, many, sum(layers.values()), generator=rng)
        unit = spec.depth / (count * (1 - 1 / many)) ** 0.5  # taking the mean out leaves 1 - 1/many of the power
        self.templates = nn.Parameter(drawn * unit)

    def gains(self, codes: Tensor) -> dict[str, Tensor]:
        """Gains by layer name, each (B, channels), of ±1 codes (B, bits)."""
        centred = self.templates - self.templates.mean(1, keepdim=True)
        values = 1 + torch.einsum("bgp,gpc->bc", choices(codes, self.group), centred)
        return dict(zip(self.layers, values.split(list(self.layers.values()), dim=1), strict=True))

    def weights(self, decoder: nn.Module, code: Tensor) -> dict[str, Tensor]:
        """Effective weights under one code; see :class:`schemes.modulations.contract.Modulator`."""
        return gains_merged(decoder, self.gains(code[None]))

    def applied(self, decoder: nn.Module, codes: Tensor) -> contextlib.AbstractContextManager[None]:
        """Scale the inputs of each layer instead of its weight."""
        return gains_applied(decoder, self.gains(codes))
