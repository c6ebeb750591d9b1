"""Fewer bits for each of a decoder's weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from attacks.limits import check_strength
from bench.protocol import Attacker, Target, UserError
from bench.weights import input_axis, mapped_copy, other_parameters

FORMATS = {10: torch.float16, 7: torch.bfloat16, 3: torch.float8_e4m3fn, 2: torch.float8_e5m2}
"""Floating-point formats by the bits of their mantissa; the two shortest are those of Micikevicius et al., "FP8 Formats
for Deep Learning", 2022, arXiv:2209.05433."""


@dataclass(frozen=True)
class WeightQuantization:
    """Round every effective weight to the nearest of 2^bits - 1 evenly spaced levels, symmetric about 0.

    The uniform symmetric quantiser of Krishnamoorthi, "Quantizing deep convolutional networks for efficient
    inference", 2018, arXiv:1806.08342, with the largest magnitude as its range. Values stay floating point; biases
    and norms stay exact, as deployments keep them.

    Attributes:
        bits: bits per weight; lower is stronger.
        per_channel: one range for each output channel, instead of one for each layer.
    """

    bits: int = 8
    per_channel: bool = False
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 2, 16)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy with quantised weights."""
        return mapped_copy(decoder, lambda name, layer, weight: self._rounded(layer, weight.float()))

    def _rounded(self, layer: nn.Module, weight: Tensor) -> Tensor:
        outputs = 1 - input_axis(layer)
        axes = [axis for axis in range(weight.ndim) if not self.per_channel or axis != outputs]
        step = weight.abs().amax(axes, keepdim=True) / (2 ** (self.bits - 1) - 1)
        step = torch.where(step > 0, step, 1)  # an all-zero channel stays zero
        return (weight / step).round() * step


@dataclass(frozen=True)
class FloatPrecision:
    """Store every effective weight and every other parameter and statistic in a shorter floating-point format.

    What ``decoder.half()`` does to a decoder whose weight normalisation was folded, as deployments fold it. Values
    beyond the largest of the format become it. They stay float32 numbers, so that every machine computes with them.

    Attributes:
        mantissa_bits: 10 is float16, 7 bfloat16, 3 float8 (e4m3), 2 float8 (e5m2); lower is stronger.
    """

    mantissa_bits: int = 10
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        if self.mantissa_bits not in FORMATS:
            raise UserError(f"{self!r}: expected one of {sorted(FORMATS)} mantissa bits, found {self.mantissa_bits}")

    @torch.no_grad()
    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy of shorter numbers."""
        rounded = mapped_copy(decoder, lambda name, layer, weight: self._rounded(weight))
        for tensor in (*other_parameters(rounded).values(), *rounded.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(self._rounded(tensor))
        return rounded

    def _rounded(self, tensor: Tensor) -> Tensor:
        top = torch.finfo(FORMATS[self.mantissa_bits]).max
        return tensor.float().clamp(-top, top).to(FORMATS[self.mantissa_bits]).float()
