"""Amplitude modulation: a code-dependent gain on every input channel.

Kim et al., "WOUAF: Weight Modulation for User Attribution and Fingerprinting in Text-to-Image Diffusion Models",
CVPR 2024, arXiv:2306.04744, sec. 3: W'[o, i] = s[i] · W[o, i] with s = A(M(code)).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.rng import fenced
from bench.weights import effective_weight, input_axis, input_channels, scaled_weight
from schemes.modulations.layers import canonical, hooked, modulated_layers


@dataclass(frozen=True)
class Amplitude:
    """Gain of input channels, s = 1 + A(M(code)).

    Attributes:
        depth: standard deviation over codes of the gains at the start, dimensionless. WOUAF's equalised layers start
            at about 0.45 and destroy the image first.
        hidden: width of the two-layer mapping network M; 0 makes s linear in the ±1 code, which trains sooner.
        attention: whether queries, keys and values are modulated too (WOUAF-all) or convolutions only (WOUAF-conv).
        everywhere: whether every layer with weights is modulated instead, whatever ``attention`` says.
    """

    depth: float = 0.3
    hidden: int = 0
    attention: bool = True
    everywhere: bool = False

    def layers(self, decoder: nn.Module) -> dict[str, int]:
        """Names of the modulated layers with their input channels; see :func:`modulated_layers`."""
        layers = modulated_layers(decoder, attention=self.attention, everywhere=self.everywhere)
        return {name: input_channels(layer) for name, layer in layers.items()}

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> GainMap:
        """Fresh gain map for ``decoder``."""
        return GainMap(self.layers(decoder), bits, self, rng)


class GainMap(nn.Module):
    """Trained map from codes to the gains of all modulated layers."""

    def __init__(self, layers: dict[str, int], bits: int, spec: Amplitude, rng: torch.Generator) -> None:
        super().__init__()
        self.layers, self.bits = layers, bits
        width = spec.hidden or bits
        self.mapping = nn.Sequential()
        with fenced(0):  # torch draws initial weights that are replaced below
            if spec.hidden:
                for size in (bits, width):
                    self.mapping.extend([nn.Linear(size, width), nn.LeakyReLU(0.2)])
            self.affine = nn.Linear(width, sum(layers.values()))
        with torch.no_grad():
            for layer in (m for m in self.modules() if isinstance(m, nn.Linear)):
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=rng) / layer.in_features**0.5)
                layer.bias.zero_()
            self.affine.weight.mul_(spec.depth)

    def gains(self, codes: Tensor) -> dict[str, Tensor]:
        """Gains by layer name, each (B, channels), of ±1 codes (B, bits)."""
        values: Tensor = 1 + self.affine(self.mapping(codes))
        return dict(zip(self.layers, values.split(list(self.layers.values()), dim=1), strict=True))

    def weights(self, decoder: nn.Module, code: Tensor) -> dict[str, Tensor]:
        """Effective weights under one code; see :class:`schemes.modulations.contract.Modulator`."""
        return gains_merged(decoder, self.gains(code[None]))

    @property
    def reads_weights(self) -> bool:
        """Whether gains are linear in the code, so that they can be solved for it."""
        return len(self.mapping) == 0

    @torch.no_grad()
    def read_weights(self, decoder: nn.Module, public: nn.Module) -> Tensor:
        """Soft bits (bits,): the code whose gains are nearest to what the public weights were multiplied by.

        Least squares over all modulated weights, the best estimate under white noise on them; ±1 without any.
        """
        gains, energy = [], []
        for name in self.layers:
            layers = [each.get_submodule(name) for each in (decoder, public)]
            found, base = (canonical(layer, effective_weight(layer).detach()).double().cpu() for layer in layers)
            energy.append(base.square().sum((1, 3)).flatten())  # (groups, out, in, kernel)
            gains.append((found * base).sum((1, 3)).flatten() / energy[-1].clamp_min(1e-30))
        weight, matrix = torch.cat(energy), self.affine.weight.double().cpu()  # (channels,), (channels, bits)
        change = torch.cat(gains) - 1 - self.affine.bias.double().cpu()
        normal = matrix.T @ (weight[:, None] * matrix)
        soft: Tensor = torch.linalg.pinv(normal, hermitian=True) @ (matrix.T @ (weight * change))
        return soft.float()

    def applied(self, decoder: nn.Module, codes: Tensor) -> contextlib.AbstractContextManager[None]:
        """Scale the inputs of each layer instead of its weight: the same product, batched over codes."""
        return gains_applied(decoder, self.gains(codes))


def gains_merged(decoder: nn.Module, gains: dict[str, Tensor]) -> dict[str, Tensor]:
    """Effective weights by layer name with the gains (1, channels) of one code multiplied in."""
    layers = {name: decoder.get_submodule(name) for name in gains}
    return {name: scaled_weight(layer, input_factor(layer, gains[name][0])) for name, layer in layers.items()}


def gains_applied(decoder: nn.Module, gains: dict[str, Tensor]) -> contextlib.AbstractContextManager[None]:
    """Within the context, what enters each layer is multiplied by gains (B, channels)."""
    layers = {name: decoder.get_submodule(name) for name in gains}
    return hooked([layers[name].register_forward_pre_hook(_scaler(layers[name], gain)) for name, gain in gains.items()])


def input_factor(layer: nn.Module, gain: Tensor) -> Tensor:
    """The gain (channels,) of each input channel, as :func:`bench.weights.scaled_weight` takes it.

    Written out for each number of a kernel: a factor that stands still along kernels is not multiplied in vectors.
    """
    if input_axis(layer) == 0:
        return gain[:, None]
    kernel, groups = math.prod(getattr(layer, "kernel_size", ())), int(getattr(layer, "groups", 1))
    factor = gain.view(groups, -1).repeat_interleave(kernel, dim=1)  # (groups, in/groups · kernel)
    return factor if groups == 1 else factor.repeat_interleave(layer.out_channels // groups, dim=0)  # type: ignore[operator]


def _scaler(layer: nn.Module, gain: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def scale(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0]
        last = isinstance(layer, nn.Linear)  # linear layers keep their channels last
        shape = [len(gain), *[1] * (x.ndim - 2), -1] if last else [len(gain), -1, *[1] * (x.ndim - 2)]
        return (x * gain.to(x.dtype).view(shape), *inputs[1:])

    return scale
