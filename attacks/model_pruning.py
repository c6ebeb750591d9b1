"""Parts of a decoder's weights set to zero: single weights, whole output channels, the smaller singular values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from attacks.limits import check_strength
from bench.protocol import Attacker, Target
from bench.weights import input_axis, mapped_copy


@dataclass(frozen=True)
class MagnitudePruning:
    """Set the smallest effective weights of every layer to zero.

    Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015, arXiv:1506.02626,
    without retraining.

    Attributes:
        ratio: share of each layer's weights that is zeroed.
    """

    ratio: float = 0.3
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A pruned copy."""
        return mapped_copy(decoder, lambda name, layer, weight: self._pruned(weight))

    def _pruned(self, weight: Tensor) -> Tensor:
        flat = weight.flatten()
        order = flat.abs().argsort(stable=True)
        return flat.index_fill(0, order[: round(self.ratio * flat.numel())], 0).view_as(weight)


@dataclass(frozen=True)
class RandomPruning:
    """Set effective weights of every layer to zero, whichever chance picks.

    The control of magnitude pruning in Blalock et al., "What is the State of Neural Network Pruning?", MLSys 2020,
    arXiv:2003.03033.

    Attributes:
        ratio: share of each layer's weights that is zeroed.
    """

    ratio: float = 0.1
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A pruned copy; a higher ratio on the same stream zeroes more of the same order."""
        return mapped_copy(decoder, lambda name, layer, weight: self._pruned(weight, rng))

    def _pruned(self, weight: Tensor, rng: Generator) -> Tensor:
        order = torch.randperm(weight.numel(), generator=rng, device=rng.device).to(weight.device)
        return weight.flatten().index_fill(0, order[: round(self.ratio * weight.numel())], 0).view_as(weight)


@dataclass(frozen=True)
class ChannelPruning:
    """Set the output channels of smallest weight norm to zero, in every layer but those that put content out.

    Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv:1608.08710: L1 norm, one share for all layers,
    no retraining. Shapes and biases stay, so that the copy loads wherever the original does.

    Attributes:
        ratio: share of each layer's output channels that is zeroed.
        fewest: layers of fewer output channels (per group) stay: red, green and blue, or a waveform, have no filter to
            spare.
    """

    ratio: float = 0.1
    fewest: int = 8
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A pruned copy."""
        return mapped_copy(decoder, lambda name, layer, weight: self._pruned(weight, 1 - input_axis(layer)))

    def _pruned(self, weight: Tensor, axis: int) -> Tensor | None:
        channels = weight.shape[axis]
        if channels < self.fewest:
            return None
        norms = weight.abs().sum([other for other in range(weight.ndim) if other != axis])
        return weight.index_fill(axis, norms.argsort(stable=True)[: round(self.ratio * channels)], 0)


@dataclass(frozen=True)
class SVDTruncation:
    """Keep the largest singular values of every effective weight, seen as the matrix outputs × (inputs · kernel).

    Denton et al., "Exploiting Linear Structure Within Convolutional Networks for Efficient Evaluation", NeurIPS 2014,
    arXiv:1404.0736. The best approximation of that rank; the shape stays.

    Attributes:
        keep_ratio: share of each layer's singular values that is kept, rounded up; lower is stronger.
    """

    keep_ratio: float = 0.75
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy of lower rank."""
        return mapped_copy(decoder, lambda name, layer, weight: self._truncated(weight, 1 - input_axis(layer)))

    def _truncated(self, weight: Tensor, axis: int) -> Tensor:
        turned = weight.float().movedim(axis, 0)  # (out, in, ...)
        left, values, right = torch.linalg.svd(turned.flatten(1), full_matrices=False)
        values[math.ceil(self.keep_ratio * len(values)) :] = 0
        low: Tensor = (left * values) @ right
        return low.view(turned.shape).movedim(0, axis)
