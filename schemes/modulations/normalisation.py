"""Modulation of normalisation coefficients: the code in the scales and shifts of norm layers, weights untouched.

Personalised normalisation, Fei et al. 2026, arXiv:2606.12977: γ' = γ · (1 + a), β' = β + b. An attack on kernels alone
does not touch it, so an attack has to change the other parameters, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.protocol import UserError
from schemes.modulations.coefficients import CoefficientMap
from schemes.modulations.layers import channel_view, hooked

NORMS = (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


@dataclass(frozen=True)
class Normalisation:
    """γ' = γ · (1 + a), β' = β + b · rms(γ), with (a, b) = A · code, in every norm layer that has both.

    Attributes:
        depth: standard deviation over codes of a and b at the start, dimensionless; 0 starts as the identity.
    """

    depth: float = 0.0

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> NormMap:
        """Fresh coefficient map for ``decoder``.

        Raises:
            UserError: when the decoder has no norm layer with a scale and a shift for each channel.
        """
        norms = {name: layer for name, layer in decoder.named_modules() if isinstance(layer, NORMS) and _fits(layer)}
        if not norms:
            kind = type(decoder).__name__
            raise UserError(f"decoder {kind}: expected norm layers with a scale and a shift to modulate, found none")
        sizes = {name: 2 * layer.get_parameter("weight").numel() for name, layer in norms.items()}
        return NormMap(sizes, bits, self.depth, rng)


def _fits(layer: nn.Module) -> bool:
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    return isinstance(weight, Tensor) and isinstance(bias, Tensor) and weight.ndim == 1


class NormMap(CoefficientMap):
    """See :class:`Normalisation`."""

    def coefficients(self, codes: Tensor) -> dict[str, Tensor]:
        """By layer name, each (B, 2, channels)."""
        return {name: values.unflatten(1, (2, -1)) for name, values in super().coefficients(codes).items()}

    def weights(self, decoder: nn.Module, code: Tensor) -> dict[str, Tensor]:
        """None: no effective weight changes."""
        return {}

    def others(self, decoder: nn.Module, code: Tensor) -> dict[str, Tensor]:
        """Scales and shifts under one code, by parameter name."""
        changed: dict[str, Tensor] = {}
        for name, values in self.coefficients(code[None]).items():
            scale, shift = (decoder.get_parameter(f"{name}.{part}") for part in ("weight", "bias"))
            changed[f"{name}.weight"] = scale * (1 + values[0, 0])
            changed[f"{name}.bias"] = shift + values[0, 1] * _rms(scale)
        return changed

    def applied(self, decoder: nn.Module, codes: Tensor) -> contextlib.AbstractContextManager[None]:
        """Scale and shift what leaves each norm: γ n + β becomes γ (1 + a) n + β + b rms(γ)."""
        layers = {name: decoder.get_submodule(name) for name in self.sizes}
        return hooked(
            [
                layers[name].register_forward_hook(_rescaler(layers[name], values))
                for name, values in self.coefficients(codes).items()
            ]
        )


def _rms(scale: Tensor) -> Tensor:
    return scale.square().mean().sqrt()


def _rescaler(layer: nn.Module, values: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    gain, shift = values[:, 0], values[:, 1] * _rms(layer.get_parameter("weight"))

    def rescale(_: nn.Module, __: tuple[Tensor, ...], out: Tensor) -> Tensor:
        offset = shift - gain * layer.get_parameter("bias")
        return out * channel_view(layer, 1 + gain, out).to(out.dtype) + channel_view(layer, offset, out).to(out.dtype)

    return rescale
