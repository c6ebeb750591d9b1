"""White noise on a decoder's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from attacks.limits import check_strength
from bench.protocol import Attacker, Target
from bench.weights import mapped_copy, other_parameters


@dataclass(frozen=True)
class WeightNoise:
    """Add white Gaussian noise to every effective weight, in proportion to that layer's own spread.

    Biases, norm scales and embeddings get noise in proportion to their own spread, too. A parameter whose values are
    all equal has none, and keeps them.

    Attributes:
        relative_std: standard deviation of the noise over that of the tensor it is added to.
        kernels_only: leave the other parameters alone.
    """

    relative_std: float = 0.1
    kernels_only: bool = False
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A noisy copy."""
        return _noisy(decoder, lambda exact: self.relative_std * exact.std(correction=0), rng, self.kernels_only)


@dataclass(frozen=True)
class AbsoluteWeightNoise:
    """Add white Gaussian noise of one standard deviation to every effective weight, bias, norm scale and embedding.

    What the same number does depends on the decoder: compare strengths of :class:`WeightNoise` across decoders, and
    these with papers that state theirs so.

    Attributes:
        std: standard deviation of the noise, in the unit of the weights.
        kernels_only: leave the other parameters alone.
    """

    std: float = 0.01
    kernels_only: bool = False
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A noisy copy."""
        return _noisy(decoder, lambda exact: exact.new_tensor(self.std), rng, self.kernels_only)


@torch.no_grad()
def _noisy(decoder: nn.Module, deviation: Callable[[Tensor], Tensor], rng: Generator, kernels_only: bool) -> nn.Module:
    """A copy with noise of the standard deviation that ``deviation`` takes from each tensor."""

    def noisy(tensor: Tensor) -> Tensor:
        exact = tensor.float()
        noise = torch.randn(tensor.shape, generator=rng, device=rng.device).to(tensor.device)
        return exact + deviation(exact) * noise

    changed = mapped_copy(decoder, lambda name, layer, weight: noisy(weight))
    if not kernels_only:
        for parameter in other_parameters(changed).values():
            parameter.copy_(noisy(parameter))
    return changed
