"""Function-invariant modulation by scale: channels between two layers grow or shrink, and what follows undoes it.

Dinh et al., "Sharp Minima Can Generalize For Deep Nets", ICML 2017, arXiv:1703.04933, sec. 3; as a part of
fingerprints, Fei et al. 2026, arXiv:2606.12977. Content carries nothing of it, as with swapped channels: a negative
control.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.protocol import UserError
from bench.weights import KINDS, effective_weight, input_axis
from schemes.modulations.invariant import BLOCKS
from schemes.modulations.layers import groups_of, output_channels

HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.Identity)
"""Activations f with f(s x) = s f(x) for positive s."""


@dataclass(frozen=True)
class InvariantScaling:
    """Where a bit is 1, its hidden channels are multiplied by ``factor``, where it is 0, divided.

    Attributes:
        factor: above 1.
    """

    factor: float = 1.25

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> ScaleMap:
        """Fresh bits for the gains of ``decoder``.

        Raises:
            UserError: when fewer gains can be undone than there are bits.
        """
        return ScaleMap(list(places(decoder)), self, (type(decoder).__name__, bits), rng)


@dataclass(frozen=True)
class Place:
    """Where gains can be undone.

    Attributes:
        first: name of the layer whose outputs are scaled.
        second: name of the layer that divides by the gain; None where a group norm behind ``first`` does.
        snakes: names of activations x + sin²(αx) / β in between, whose α and β are divided, too.
        gains: how many, one for each group of the norm or for each channel.
    """

    first: str
    second: str | None
    snakes: tuple[str, ...]
    gains: int


def places(decoder: nn.Module) -> Iterator[Place]:
    """All places; no layer belongs to two of them."""
    modules, used = dict(decoder.named_modules()), set[str]()
    for names in _chains(decoder):
        if not used & {names[0], names[-1]} and (place := _place(modules, names)):
            used |= {names[0], names[-1]}
            yield place


def _chains(decoder: nn.Module) -> Iterator[list[str]]:
    """Names of a layer, what is between, and the next layer."""
    for name, module in decoder.named_modules():
        prefix = f"{name}." if name else ""
        for names in BLOCKS:
            if all(hasattr(module, each) for each in names) and getattr(module, "time_emb_proj", None) is None:
                yield [prefix + each for each in names]
        chain: list[str] = []
        for child, layer in module.named_children() if isinstance(module, nn.Sequential) else ():
            if isinstance(layer, KINDS):
                if chain:
                    yield [*chain, prefix + child]
                chain = []
            if chain or isinstance(layer, KINDS):
                chain.append(prefix + child)


def _place(modules: dict[str, nn.Module], names: list[str]) -> Place | None:
    first, between, second = modules[names[0]], [modules[name] for name in names[1:-1]], modules[names[-1]]
    if not isinstance(first, KINDS) or not isinstance(second, KINDS) or groups_of(first) * groups_of(second) != 1:
        return None
    if between and isinstance(between[0], nn.GroupNorm):
        return Place(names[0], None, (), between[0].num_groups)
    if not all(isinstance(each, HOMOGENEOUS) or _is_snake(each) for each in between):
        return None
    channels = output_channels(first)
    if isinstance(first, nn.Linear) != isinstance(second, nn.Linear):
        return None
    if effective_weight(second).shape[input_axis(second)] != channels:
        return None
    return Place(names[0], names[-1], tuple(n for n in names[1:-1] if _is_snake(modules[n])), channels)


def _is_snake(module: nn.Module) -> bool:
    return "snake" in type(module).__name__.lower() and hasattr(module, "alpha") and hasattr(module, "beta")


class ScaleMap(nn.Module):
    """See :class:`InvariantScaling`. Nothing is trained.

    Attributes:
        bit: bit of each gain, int64, places in order.
    """

    bit: Tensor

    def __init__(self, where: list[Place], spec: InvariantScaling, size: tuple[str, int], rng: torch.Generator) -> None:
        super().__init__()
        self.places, self.factor, (kind, self.bits) = where, spec.factor, size
        count = sum(place.gains for place in where)
        if count < self.bits:
            raise UserError(f"decoder {kind}: expected {self.bits} gains that can be undone, found {count}")
        self.register_buffer("bit", torch.randperm(count, generator=rng) % self.bits)

    def scales(self, decoder: nn.Module, code: Tensor) -> Iterator[tuple[Place, Tensor]]:
        """Each place with the factors of the channels there, (channels,), of one ±1 code (bits,)."""
        every = (code[self.bit] * math.log(self.factor)).exp().split([place.gains for place in self.places])
        for place, gains in zip(self.places, every, strict=True):
            yield place, gains.repeat_interleave(output_channels(decoder.get_submodule(place.first)) // place.gains)

    def weights(self, decoder: nn.Module, code: Tensor) -> dict[str, Tensor]:
        """Effective weights under one code; see :class:`schemes.modulations.contract.Modulator`."""
        changed = {}
        for place, scale in self.scales(decoder, code):
            first = decoder.get_submodule(place.first)
            changed[place.first] = _along(effective_weight(first), 1 - input_axis(first), scale)
            if place.second is not None:
                second = decoder.get_submodule(place.second)
                changed[place.second] = _along(effective_weight(second), input_axis(second), 1 / scale)
        return changed

    def others(self, decoder: nn.Module, code: Tensor) -> dict[str, Tensor]:
        """Biases, and α and β of snakes, under one code, by parameter name."""
        changed: dict[str, Tensor] = {}
        for place, scale in self.scales(decoder, code):
            bias = decoder.get_submodule(place.first).bias
            if isinstance(bias, Tensor):
                changed[f"{place.first}.bias"] = bias * scale
            for name in place.snakes:
                logarithmic = bool(getattr(decoder.get_submodule(name), "logscale", False))
                for each in ("alpha", "beta"):
                    value = decoder.get_parameter(f"{name}.{each}")
                    shaped = scale.view([-1 if size == len(scale) else 1 for size in value.shape])
                    changed[f"{name}.{each}"] = value - shaped.log() if logarithmic else value / shaped
        return changed

    def applied(self, decoder: nn.Module, codes: Tensor) -> contextlib.AbstractContextManager[None]:
        """Nothing: the function is that of the public decoder under every code."""
        return contextlib.nullcontext()

    @torch.no_grad()
    def read_weights(self, decoder: nn.Module, public: nn.Module) -> Tensor:
        """Soft bits (bits,): logarithms of how much larger filters are than the public ones, summed."""
        total = torch.zeros(self.bits)
        every = self.bit.cpu().split([place.gains for place in self.places])
        for place, bit in zip(self.places, every, strict=True):
            layers = (each.get_submodule(place.first) for each in (decoder, public))
            found, known = (
                effective_weight(layer).float().cpu().movedim(1 - input_axis(layer), 0).reshape(place.gains, -1)
                for layer in layers
            )
            ratio = (found * known).sum(1) / known.square().sum(1).clamp_min(1e-12)
            total.index_add_(0, bit, ratio.clamp_min(1e-3).log())
        return total


def _along(weight: Tensor, axis: int, scale: Tensor) -> Tensor:
    return weight * scale.view([-1 if each == axis else 1 for each in range(weight.ndim)])
