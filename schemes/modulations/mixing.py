"""Mixing of input channels in small blocks: what rotations and orthogonal modulations share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.protocol import UserError
from bench.weights import input_channels
from schemes.modulations.coefficients import CoefficientMap
from schemes.modulations.layers import canonical, groups_of, hooked, modulated_layers, restored


def mixable_layers(decoder: nn.Module, *, attention: bool) -> dict[str, nn.Module]:
    """The modulated layers in which at least two input channels of a group can be mixed.

    Raises:
        UserError: when there is none.
    """
    layers = modulated_layers(decoder, attention=attention)
    mixable = {name: layer for name, layer in layers.items() if input_channels(layer) >= 2 * groups_of(layer)}
    if not mixable:
        kind = type(decoder).__name__
        raise UserError(f"decoder {kind}: expected layers that mix two channels or more to modulate, found none")
    return mixable


def blocks_of(layer: nn.Module, block: int) -> tuple[int, int]:
    """Number and size of blocks of consecutive input channels, over all groups; a group's rest stays unmixed."""
    own = input_channels(layer) // groups_of(layer)
    side = min(block, own)
    return groups_of(layer) * (own // side), side


class MixingMap(CoefficientMap):
    """W' = W R with a block-diagonal R(code) over input channels; a modulation says in :meth:`matrices` which R."""

    def matrices(self, layer: nn.Module, values: Tensor) -> Tensor:
        """Blocks (B, blocks, r, r) of R from coefficients (B, size)."""
        raise NotImplementedError

    def changed(self, name: str, layer: nn.Module, weight: Tensor, values: Tensor) -> Tensor:
        """W R: input channel j becomes the sum over i of W[:, i] R[i, j]."""
        base = canonical(layer, weight)  # (groups, out, in, kernel)
        blocks = self.matrices(layer, values)
        blocks = blocks.unflatten(1, (base.shape[0], -1))  # (B, groups, n, r, r)
        mixed = blocks.shape[2] * blocks.shape[3]
        parts = base[:, :, :mixed].unflatten(2, tuple(blocks.shape[2:4]))  # (groups, out, n, r, kernel)
        rotated = torch.einsum("gonik,bgnij->bgonjk", parts, blocks).flatten(3, 4)
        rest = base[:, :, mixed:].expand(len(values), *[-1] * 4)
        return restored(layer, torch.cat([rotated, rest], 3))

    def applied(self, decoder: nn.Module, codes: Tensor) -> contextlib.AbstractContextManager[None]:
        """Mix the channels that enter a layer, x ↦ R x: the same product, batched over codes."""
        layers = {name: decoder.get_submodule(name) for name in self.sizes}
        return hooked(
            [
                layers[name].register_forward_pre_hook(_mixer(layers[name], self.matrices(layers[name], values)))
                for name, values in self.coefficients(codes).items()
            ]
        )


def _mixer(layer: nn.Module, blocks: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    groups, axis = groups_of(layer), -1 if isinstance(layer, nn.Linear) else 1

    def mix(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0].movedim(axis, 1)
        every = blocks.unflatten(1, (groups, -1)).to(x.dtype)  # (B, groups, n, r, r)
        parts = x.reshape(len(x), groups, x.shape[1] // groups, -1)  # (B, groups, in, positions)
        mixed = every.shape[2] * every.shape[3]
        rotated = every @ parts[:, :, :mixed].unflatten(2, tuple(every.shape[2:4]))
        out = torch.cat([rotated.flatten(2, 3), parts[:, :, mixed:]], 2).reshape(x.shape)
        return (out.movedim(1, axis), *inputs[1:])

    return mix
