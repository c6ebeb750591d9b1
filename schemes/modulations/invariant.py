"""Function-invariant modulation: channels between two layers change places, and the function stays as it is.

The permutation part of the anti-collusion transform of Fei et al. 2026, arXiv:2606.12977, and of weight-space marks in
general. Content carries nothing of it: the negative control of every black-box reader.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.protocol import UserError
from bench.weights import KINDS, effective_weight, input_axis
from schemes.modulations.layers import groups_of, output_channels

ELEMENTWISE = (nn.SiLU, nn.ReLU, nn.LeakyReLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.Mish, nn.Softplus, nn.Identity)
BLOCKS = (("conv1", "norm2", "conv2"), ("conv1", "snake2", "conv2"))
"""Attributes of residual blocks, two convolutions and what is between: diffusers' resnets and Oobleck units."""


@dataclass(frozen=True)
class FunctionInvariant:
    """Where a bit is 1, its pairs of hidden channels swap, with the norm between and the layers around them."""

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> SwapMap:
        """Fresh pairs for ``decoder``.

        Raises:
            UserError: when fewer pairs of channels can change places than there are bits.
        """
        return SwapMap(sites(decoder), type(decoder).__name__, bits, rng)


@dataclass(frozen=True)
class Site:
    """Two layers between which channels can change places.

    Attributes:
        first: name of the layer whose outputs they are.
        between: name of a layer with one parameter for each channel, or None.
        second: name of the layer whose inputs they are.
        channels: how many.
        block: channels that a norm treats alike; only those can change places.
    """

    first: str
    between: str | None
    second: str
    channels: int
    block: int


def sites(decoder: nn.Module) -> list[Site]:
    """All places for swaps; no layer belongs to two of them."""
    found: list[Site] = []
    used: set[str] = set()
    modules = dict(decoder.named_modules())
    for name, module in modules.items():
        for first, between, second in _triples(name, module):
            site = _site(modules, first, between, second)
            if site and not used & {first, second}:
                found.append(site)
                used |= {first, second}
    return found


def _triples(name: str, module: nn.Module) -> Iterator[tuple[str, str | None, str]]:
    """Names of (layer, what is between, layer), before it is checked that they fit."""
    prefix = f"{name}." if name else ""
    for names in BLOCKS:
        if all(hasattr(module, each) for each in names) and getattr(module, "time_emb_proj", None) is None:
            first, between, second = (prefix + each for each in names)
            yield first, between, second
    if not isinstance(module, nn.Sequential):
        return
    last, middle = None, None
    for child, layer in module.named_children():
        if isinstance(layer, KINDS):
            if last is not None:
                yield last, middle, prefix + child
            last, middle = prefix + child, None
        elif isinstance(layer, nn.GroupNorm) and last is not None and middle is None:
            middle = prefix + child
        elif not isinstance(layer, ELEMENTWISE):
            last = None


def _site(modules: dict[str, nn.Module], first: str, between: str | None, second: str) -> Site | None:
    one, other = modules[first], modules[second]
    if not isinstance(one, KINDS) or not isinstance(other, KINDS) or groups_of(one) * groups_of(other) != 1:
        return None
    if isinstance(one, nn.Linear) != isinstance(other, nn.Linear):
        return None
    channels = output_channels(one)
    if effective_weight(other).shape[input_axis(other)] != channels:
        return None
    norm = modules[between] if between else None
    block = channels // norm.num_groups if isinstance(norm, nn.GroupNorm) else channels
    return Site(first, between, second, channels, block)


class SwapMap(nn.Module):
    """See :class:`FunctionInvariant`. Nothing is trained.

    Attributes:
        bit: bit of each possible swap, int64; swaps of a site are neighbours within a block, sites in order.
    """

    bit: Tensor

    def __init__(self, places: list[Site], kind: str, bits: int, rng: torch.Generator) -> None:
        super().__init__()
        self.sites, self.bits = places, bits
        self.left = [torch.tensor(_left(site), dtype=torch.long) for site in places]
        count = sum(map(len, self.left))
        if count < bits:
            raise UserError(f"decoder {kind}: expected {bits} pairs of channels that can swap, found {count}")
        self.register_buffer("bit", torch.randperm(count, generator=rng) % bits)

    def orders(self, code: Tensor) -> list[Tensor]:
        """Order of the channels of each site under one ±1 code (bits,)."""
        result, chosen = [], (code[self.bit] > 0).split([len(left) for left in self.left])
        for site, left, swap in zip(self.sites, self.left, chosen, strict=True):
            order = torch.arange(site.channels)
            moved = left[swap.cpu()]
            order[moved], order[moved + 1] = moved + 1, moved
            result.append(order.to(code.device))
        return result

    def weights(self, decoder: nn.Module, code: Tensor) -> dict[str, Tensor]:
        """Effective weights under one code; see :class:`schemes.modulations.contract.Modulator`."""
        changed = {}
        for site, order in zip(self.sites, self.orders(code), strict=True):
            first, second = decoder.get_submodule(site.first), decoder.get_submodule(site.second)
            changed[site.first] = effective_weight(first).index_select(1 - input_axis(first), order)
            changed[site.second] = effective_weight(second).index_select(input_axis(second), order)
        return changed

    def others(self, decoder: nn.Module, code: Tensor) -> dict[str, Tensor]:
        """Biases and norm parameters under one code, by parameter name."""
        changed: dict[str, Tensor] = {}
        for site, order in zip(self.sites, self.orders(code), strict=True):
            bias = decoder.get_submodule(site.first).bias
            if isinstance(bias, Tensor):
                changed[f"{site.first}.bias"] = bias[order]
            if site.between is not None:
                for name, value in decoder.get_submodule(site.between).named_parameters(recurse=False):
                    axis = list(value.shape).index(site.channels)
                    changed[f"{site.between}.{name}"] = value.index_select(axis, order)
        return changed

    def applied(self, decoder: nn.Module, codes: Tensor) -> contextlib.AbstractContextManager[None]:
        """Nothing: the function is that of the public decoder under every code."""
        return contextlib.nullcontext()

    @torch.no_grad()
    def read_weights(self, decoder: nn.Module, public: nn.Module) -> Tensor:
        """Soft bits (bits,): for each pair, whether its filters look swapped."""
        total = torch.zeros(self.bits)
        for site, left, bit in zip(
            self.sites, self.left, self.bit.cpu().split([len(left) for left in self.left]), strict=True
        ):
            found, known = (_filters(each.get_submodule(site.first)) for each in (decoder, public))
            change, swap = found[left] - found[left + 1], known[left + 1] - known[left]
            total.index_add_(0, bit, (change * swap).sum(1) / swap.square().sum(1).clamp_min(1e-12))
        return total


def _left(site: Site) -> list[int]:
    """The first channel of each pair."""
    starts = range(0, site.channels - site.block + 1, site.block)
    return [start + 2 * pair for start in starts for pair in range(site.block // 2)]


def _filters(layer: nn.Module) -> Tensor:
    return effective_weight(layer).float().cpu().movedim(1 - input_axis(layer), 0).flatten(1)
