"""Frequency-domain modulation: secret bands of a weight's cosine transform are made louder or quieter.

The multiplicative rule v' = v (1 + α x) of Cox et al., "Secure Spread Spectrum Watermarking for Multimedia", IEEE TIP
6(12), 1997, eq. 2, on the transform of a weight over its output and input channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.rng import stream
from schemes.modulations.layers import canonical, modulated_layers, restored
from schemes.modulations.patterns import PatternMap


def cosine_basis(size: int) -> Tensor:
    """Orthonormal DCT-II matrix (size, size), rows are basis functions."""
    n = torch.arange(size, dtype=torch.float64)
    rows = torch.cos(math.pi / size * n[:, None] * (n + 0.5)) * (2 / size) ** 0.5
    rows[0] /= 2**0.5
    found: Tensor = rows.float()
    return found


@dataclass(frozen=True)
class Frequency:
    """DCT(W)[band b] · (1 + depth a_b code_b), then back; trained are the strengths a of each layer and bit.

    Bands part the coefficients at random, by a secret key, evenly among the bits. Memory for what each band is in a
    weight is ``bits`` times that of the modulated weights.

    Attributes:
        depth: ‖W' - W‖ / ‖W‖ at the start, dimensionless, exact since the transform is orthonormal.
        attention: whether queries, keys and values are modulated too.
    """

    depth: float = 0.3
    attention: bool = True

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> BandMap:
        """Fresh strengths, all 1, and a fresh key."""
        return BandMap(modulated_layers(decoder, attention=self.attention), bits, self.depth, rng)


class BandMap(PatternMap):
    """See :class:`Frequency`."""

    def __init__(self, layers: dict[str, nn.Module], bits: int, depth: float, rng: torch.Generator) -> None:
        super().__init__(layers, bits, rng)
        self.layers = {name: [layer] for name, layer in layers.items()}  # in a list, not to be a submodule
        self.depth = depth
        self._shares: dict[str, tuple[Tensor, Tensor]] = {}

    def bands(self, name: str, size: int) -> Tensor:
        """Bit of each coefficient of one layer, int64 (size,)."""
        order = torch.randperm(size, generator=stream(int(self.key), "bands", name))
        return (order % self.bits).to(self.strength.device)

    def transform(self, name: str, weight: Tensor) -> Tensor:
        """Cosine transform over channels, (groups, out, in, kernel)."""
        base = canonical(self.layers[name][0], weight)
        out, inputs = (cosine_basis(n).to(weight.device) for n in base.shape[1:3])
        return _along_channels(base, out, inputs)

    def shares(self, name: str, weight: Tensor) -> Tensor:
        """What each band is in one layer's weight, (bits, size), rows of sum ``weight``; made once for each weight."""
        kept = self._shares.get(name)
        if kept is None or kept[0].device != weight.device or not torch.equal(kept[0], weight):
            spectrum = self.transform(name, weight.detach())
            chosen = self.bands(name, spectrum.numel()) == torch.arange(self.bits, device=spectrum.device)[:, None]
            out, inputs = (cosine_basis(n).to(spectrum.device) for n in spectrum.shape[1:3])
            parts = _along_channels(chosen.view(-1, *spectrum.shape) * spectrum, out.T, inputs.T)
            kept = weight.detach().clone(), restored(self.layers[name][0], parts).flatten(1)
            self._shares[name] = kept
        return kept[1]

    def changed(self, name: str, weight: Tensor, codes: Tensor) -> Tensor:
        """The weight plus what its bands gain."""
        gains = self.depth * self.strength[self.names.index(name)] * codes  # (B, bits)
        gained: Tensor = weight + (gains @ self.shares(name, weight)).view(-1, *weight.shape)
        return gained

    def evidence(self, name: str, weight: Tensor, base: Tensor) -> Tensor:
        """Energy that each band gained, by correlation with the public spectrum, in the sign of the strengths."""
        spectrum, change = self.transform(name, base), self.transform(name, weight - base)
        gained = base.new_zeros(self.bits)
        gained.index_add_(0, self.bands(name, spectrum.numel()), (spectrum * change).flatten())
        return gained * self.strength[self.names.index(name)].sign()


def _along_channels(x: Tensor, out: Tensor, inputs: Tensor) -> Tensor:
    """Matrices applied over the outputs and inputs of (..., O, I, kernel), one after the other.

    In one einsum of three factors the matrices are multiplied with each other first: O² · I² numbers.
    """
    rows = torch.einsum("po,...oik->...pik", out, x)
    return torch.einsum("qi,...pik->...pqk", inputs, rows)
