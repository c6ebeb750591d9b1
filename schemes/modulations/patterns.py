"""Secret patterns over the weights of a layer, and the modulators that use them: they can be read from weights, too."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn

from bench.rng import stream
from bench.weights import effective_weight
from schemes.modulations.layers import individual_weights

KEYS = 2**62


def orthonormal_patterns(key: int, name: str, bits: int, size: int) -> Tensor:
    """Secret patterns of a layer, orthonormal rows (bits, size): random signs, orthogonalised.

    A layer with fewer weights than bits has no room for orthogonal ones; its rows have norm 1 only.
    """
    signs = torch.randint(2, (bits, size), generator=stream(key, "patterns", name)) * 2.0 - 1
    rows: Tensor = signs / size**0.5 if size < bits else torch.linalg.qr(signs.T.double()).Q.T.float().contiguous()
    return rows


class PatternMap(nn.Module):
    """A trained strength for each layer and bit, beside secret patterns that only a key is kept of.

    Attributes:
        strength: (layers, bits), in units of what a modulation starts from.
        key: seeds the patterns, int64.
    """

    key: Tensor

    def __init__(self, layers: dict[str, nn.Module], bits: int, rng: torch.Generator) -> None:
        super().__init__()
        self.names, self.bits = list(layers), bits
        self.register_buffer("key", torch.randint(KEYS, (1,), generator=rng))
        self.strength = nn.Parameter(torch.ones(len(layers), bits))
        self._made: dict[tuple[int, str], Tensor] = {}

    def patterns(self, name: str, size: int) -> Tensor:
        """Patterns of one layer, (bits, size), made once."""
        index = (int(self.key), name)
        if index not in self._made:
            self._made[index] = orthonormal_patterns(*index, self.bits, size)
        return self._made[index].to(self.strength.device)

    def changed(self, name: str, weight: Tensor, codes: Tensor) -> Tensor:
        """Weights (B, ...) of one layer from its effective weight and ±1 codes (B, bits)."""
        raise NotImplementedError

    def evidence(self, name: str, weight: Tensor, base: Tensor) -> Tensor:
        """Soft bits (bits,) in one layer's weight, given the public one."""
        raise NotImplementedError

    def all_weights(self, decoder: nn.Module, codes: Tensor) -> dict[str, Tensor]:
        """Effective weights (B, ...) by layer name, of ±1 codes (B, bits)."""
        return {
            name: self.changed(name, effective_weight(decoder.get_submodule(name)).float(), codes)
            for name in self.names
        }

    def weights(self, decoder: nn.Module, code: Tensor) -> dict[str, Tensor]:
        """Effective weights under one code; see :class:`schemes.modulations.contract.Modulator`."""
        return {name: weight[0] for name, weight in self.all_weights(decoder, code[None]).items()}

    def applied(self, decoder: nn.Module, codes: Tensor) -> contextlib.AbstractContextManager[None]:
        """One materialised weight per item and layer."""
        return individual_weights(decoder, self.all_weights(decoder, codes))

    @torch.no_grad()
    def read_weights(self, decoder: nn.Module, public: nn.Module) -> Tensor:
        """Soft bits (bits,) from the weights of ``decoder``, summed over layers in units of their norm."""
        total = torch.zeros(self.bits)
        for name in self.names:
            weight, base = (effective_weight(each.get_submodule(name)).float() for each in (decoder, public))
            total += (self.evidence(name, weight, base) / base.norm().clamp_min(1e-12)).cpu()
        return total
