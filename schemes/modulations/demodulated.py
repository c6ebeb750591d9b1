"""Demodulated amplitude: gains of input channels, each output filter brought back to its norm.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, arXiv:1912.04958, eq. 3, with the
filter's own norm in place of 1, since the decoder is trained already.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.weights import effective_weight, input_channels
from schemes.modulations.coefficients import CoefficientMap
from schemes.modulations.layers import canonical, channel_view, groups_of, hooked, restored
from schemes.modulations.mixing import mixable_layers


@dataclass(frozen=True)
class Demodulated:
    """W'[o, i] = s[i] W[o, i] · ‖W[o]‖ / ‖s W[o]‖ with s = 1 + A · code.

    The scale of an output filter carries nothing, so attacks on it remove nothing. A filter of one input channel
    stays alone: its gain would be divided out.

    Attributes:
        depth: standard deviation over codes of the gains at the start, dimensionless.
        attention: whether queries, keys and values are modulated too.
    """

    depth: float = 0.3
    attention: bool = True

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> DemodulatedMap:
        """Fresh gain map for ``decoder``."""
        layers = mixable_layers(decoder, attention=self.attention)
        sizes = {name: input_channels(layer) for name, layer in layers.items()}
        return DemodulatedMap(sizes, bits, self.depth, rng)


class DemodulatedMap(CoefficientMap):
    """See :class:`Demodulated`."""

    def changed(self, name: str, layer: nn.Module, weight: Tensor, values: Tensor) -> Tensor:
        """Scaled, then demodulated."""
        base = canonical(layer, weight)  # (groups, out, in, kernel)
        scaled = base * (1 + values).view(len(values), base.shape[0], 1, base.shape[2], 1)
        return restored(layer, scaled * _correction(base, scaled.square().sum((-2, -1)))[..., None, None])

    def applied(self, decoder: nn.Module, codes: Tensor) -> contextlib.AbstractContextManager[None]:
        """Scale what enters a layer by s and what leaves it by the correction: the same, batched over codes."""
        handles = []
        for name, values in self.coefficients(codes).items():
            layer = decoder.get_submodule(name)
            base = canonical(layer, effective_weight(layer).float())
            squares = (1 + values).square().view(len(values), groups_of(layer), 1, -1)
            energy = (squares * base.square().sum(-1)).sum(-1)  # (B, groups, out)
            handles += _hooks(layer, 1 + values, _correction(base, energy).flatten(1))
        return hooked(handles)


def _correction(base: Tensor, energy: Tensor) -> Tensor:
    """‖W[o]‖ / ‖s W[o]‖, (B, groups, out), from squared norms of scaled filters; 1 where a filter is all zero."""
    own = base.square().sum((-2, -1))
    return torch.where(energy > 0, own / energy.clamp_min(1e-30), 1).sqrt()


def _hooks(layer: nn.Module, gain: Tensor, correction: Tensor) -> list[torch.utils.hooks.RemovableHandle]:
    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] * channel_view(layer, gain.to(inputs[0].dtype), inputs[0]), *inputs[1:])

    return [layer.register_forward_pre_hook(before), layer.register_forward_hook(output_scaler(layer, correction))]


def output_scaler(layer: nn.Module, gain: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Hook that multiplies what a layer puts out, but for its bias, by gains (B, channels)."""

    def after(_: nn.Module, __: tuple[Tensor, ...], out: Tensor) -> Tensor:
        scale = channel_view(layer, gain.to(out.dtype), out)
        if not isinstance(layer.bias, Tensor):
            return out * scale
        bias = layer.bias.to(out.dtype)
        bias = bias if isinstance(layer, nn.Linear) else bias.view(-1, *[1] * (out.ndim - 2))
        return (out - bias) * scale + bias

    return after
