"""What modulations share: which layers they touch, the axes of a weight, and one weight per item of a batch."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.protocol import UserError
from bench.weights import effective_weight, input_axis, input_channels, weighted_layers

# WOUAF modulates both convolutions of each resnet block and the attention's queries, keys and values.
RESNET = re.compile(r"resnets\.\d+\.conv[12]$")
ATTENTION = re.compile(r"(to_[qkv]|query|key|value)$")

CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
TRANSPOSED: dict[int, Callable[..., Tensor]] = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}
"""Functions by the number of axes of their weight."""


def modulated_layers(
    decoder: nn.Module, *, attention: bool = True, last: int = 0, everywhere: bool = False
) -> dict[str, nn.Module]:
    """The layers that a code is written into, by name.

    Those of WOUAF: both convolutions of resnet blocks and, with ``attention``, queries, keys and values. A decoder
    without resnet blocks is modulated in every layer but its first and last.

    Args:
        decoder: the public decoder.
        attention: whether attention projections count.
        last: how many of these layers, from the output; 0 means all.
        everywhere: every layer with weights instead.

    Raises:
        UserError: when there is none.
    """
    every = weighted_layers(decoder)
    named = {n for n in every if RESNET.search(n) or (attention and ATTENTION.search(n))}
    if everywhere:
        named = set(every)
    elif not any(RESNET.search(name) for name in named):
        named = set(list(every)[1:-1])
    if not named:
        kinds = sorted(
            {type(module).__name__ for module in decoder.modules() if list(module.parameters(recurse=False))}
        )
        found = ", ".join(kinds) or "nothing"
        wanted = "convolutions or linear layers" + (" besides the first and the last" if every else "")
        raise UserError(f"decoder {type(decoder).__name__}: expected {wanted} to modulate, found {found}")
    layers = {name: layer for name, layer in every.items() if name in named}
    return dict(list(layers.items())[-last:]) if last else layers


def groups_of(layer: nn.Module) -> int:
    """Groups of a convolution; 1 for a linear layer."""
    return int(getattr(layer, "groups", 1))


def output_channels(layer: nn.Module) -> int:
    """Number of channels that leave ``layer``, over all groups."""
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]


def canonical(layer: nn.Module, weight: Tensor) -> Tensor:
    """A weight as (groups, outputs per group, inputs per group, kernel positions), whatever the layer's kind.

    Differentiable; :func:`restored` is the inverse. Leading axes before those of the layer's weight stay in front.
    """
    groups, kernel = groups_of(layer), _kernel(layer)
    front = weight.shape[: weight.ndim - len(_shape(layer))]
    if input_axis(layer) == 1:
        return weight.reshape(*front, groups, output_channels(layer) // groups, input_channels(layer) // groups, kernel)
    split = weight.reshape(*front, groups, input_channels(layer) // groups, output_channels(layer) // groups, kernel)
    return split.transpose(-3, -2)


def restored(layer: nn.Module, weight: Tensor) -> Tensor:
    """A weight in the layer's own layout from that of :func:`canonical`."""
    plain = weight if input_axis(layer) == 1 else weight.transpose(-3, -2)
    return plain.reshape(*weight.shape[:-4], *_shape(layer))


def _kernel(layer: nn.Module) -> int:
    return math.prod(getattr(layer, "kernel_size", ()))


def _shape(layer: nn.Module) -> tuple[int, ...]:
    return tuple(effective_weight(layer).shape)


def individual_weights(decoder: nn.Module, weights: Mapping[str, Tensor]) -> contextlib.AbstractContextManager[None]:
    """Within the context, item b of a batch passes through the layer ``name`` with ``weights[name][b]``.

    One grouped convolution per layer, in which each item is a group: on a CPU as fast as one shared weight, but for the
    backward pass, in which every item's weight has a gradient.
    """
    layers = {name: decoder.get_submodule(name) for name in weights}
    return other_forwards({layer: _individual(layer, weights[name]) for name, layer in layers.items()})


def individual_factors(
    decoder: nn.Module, factors: Mapping[str, tuple[Tensor, Tensor]]
) -> contextlib.AbstractContextManager[None]:
    """The same where the weights are W + up[b] · down: W stays one for all items, and none is materialised.

    Args:
        decoder: the public decoder.
        factors: by layer name, up (B, groups, outputs per group, r) and down (groups, r, inputs per group · kernel), in
            the layout of :func:`canonical`.
    """
    layers = {name: decoder.get_submodule(name) for name in factors}
    return other_forwards({layer: _factored(layer, *factors[name]) for name, layer in layers.items()})


@contextlib.contextmanager
def other_forwards(forwards: Mapping[nn.Module, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Within the context, each layer runs another function."""
    own = {layer: layer.__dict__.get("forward") for layer in forwards}
    for layer, forward in forwards.items():
        layer.__dict__["forward"] = forward
    try:
        yield
    finally:
        for layer, earlier in own.items():
            del layer.__dict__["forward"]
            if earlier is not None:
                layer.__dict__["forward"] = earlier


def _individual(layer: nn.Module, weights: Tensor) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        if isinstance(layer, nn.Linear):
            y = x.flatten(1, -2) if x.ndim > 2 else x[:, None]  # (B, positions, in)
            out = y @ weights.to(y.dtype).transpose(1, 2)
            return _with_bias(layer, out.reshape(*x.shape[:-1], -1), last=True)
        return _with_bias(layer, _convolved(layer, x, weights), last=False)

    return forward


def _factored(layer: nn.Module, up: Tensor, down: Tensor) -> Callable[[Tensor], Tensor]:
    own: Callable[[Tensor], Tensor] = layer.forward
    groups, rank = down.shape[:2]
    if input_axis(layer) == 0:
        down = down.unflatten(2, (-1, _kernel(layer))).transpose(1, 2)  # (groups, in, r, kernel)
    narrow = down.reshape(-1, *_shape(layer)[1:] if input_axis(layer) == 1 else (rank, *_shape(layer)[2:]))

    def forward(x: Tensor) -> Tensor:
        if isinstance(layer, nn.Linear):
            y = x.flatten(1, -2) if x.ndim > 2 else x[:, None]  # (B, positions, in)
            out = y @ narrow.to(y.dtype).T @ up[:, 0].to(y.dtype).transpose(1, 2)
            return own(x) + out.reshape(*x.shape[:-1], -1)
        inner = _run(layer, x, narrow.to(x.dtype), groups)  # (B, groups · r, ...)
        out = up.to(inner.dtype) @ inner.reshape(len(x), groups, rank, -1)
        return own(x) + out.view(len(x), -1, *inner.shape[2:])

    return forward


def _convolved(layer: nn.Module, x: Tensor, weights: Tensor) -> Tensor:
    """Convolution without bias of items (B, C, ...), each with its own weight (B, ...), in one of B · groups groups."""
    together = x.reshape(1, -1, *x.shape[2:])  # all items are channels of one
    out = _run(layer, together, weights.flatten(0, 1).to(x.dtype), groups_of(layer) * len(x))
    return out.view(len(x), -1, *out.shape[2:])


def _run(layer: nn.Module, x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """The layer's convolution of (B, C, ...) with another weight in so many groups, without bias."""
    settings: dict[str, object] = {name: getattr(layer, name) for name in ("stride", "dilation")}
    settings["groups"] = groups
    if input_axis(layer) == 0:
        convolve = TRANSPOSED[weight.ndim]
        settings |= {"padding": layer.padding, "output_padding": layer.output_padding}
    else:
        convolve = CONVOLUTIONS[weight.ndim]
        settings["padding"] = layer.padding
        if layer.padding_mode != "zeros":
            x = F.pad(x, layer._reversed_padding_repeated_twice, mode=str(layer.padding_mode))  # type: ignore[arg-type]
            settings["padding"] = 0
    return convolve(x, weight, **settings)


def _with_bias(layer: nn.Module, out: Tensor, *, last: bool) -> Tensor:
    bias = layer.bias
    if not isinstance(bias, Tensor):
        return out
    return out + bias.to(out.dtype).view(-1, *[1] * (0 if last else out.ndim - 2))


@contextlib.contextmanager
def hooked(handles: list[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    """Remove hooks at the end, also after an exception."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def channel_view(layer: nn.Module, values: Tensor, x: Tensor) -> Tensor:
    """Values (B, channels) in a shape that multiplies ``x``, whose channels are last for linear layers, else second."""
    if isinstance(layer, nn.Linear | nn.LayerNorm):
        return values.view(len(values), *[1] * (x.ndim - 2), -1)
    return values.view(len(values), -1, *[1] * (x.ndim - 2))
