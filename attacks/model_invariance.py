"""The same function in other weights: channels between two layers permuted, or scaled and scaled back.

Nothing that a decoder puts out changes, so a reader of content sees nothing; whoever reads weights, or merges decoders
that were changed so each in its own way, does. Chains of layers are found by following the tensors of one decoding, and
each change is kept only where the output stays.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Generator, Tensor, nn

from attacks.limits import check_strength
from bench.protocol import Attacker, Target, UserError
from bench.weights import (
    KINDS,
    detached_copy,
    effective_weight,
    input_axis,
    input_channels,
    set_effective_weight,
)

TOLERANCE = 1e-3
"""Largest change of the output, relative to its root mean square, that counts as rounding."""

HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout)
"""Activations f with f(s x) = s f(x) for positive s, in evaluation mode."""

Chain = tuple[nn.Module, ...]
"""A layer, modules that treat each channel alike, and the layer that takes what they put out."""

Change = Callable[[Chain, Generator], bool]
"""Changes a chain in place; False when it leaves this kind of chain alone."""


@dataclass(frozen=True)
class ChannelPermutation:
    """Permute the channels between two layers, everywhere that this leaves the function as it is.

    The equivalences that function-invariant re-parameterisation draws from: "Efficient, Robust, and Anti-Collusion
    Fingerprinting of Image Diffusion Models", 2026, arXiv:2606.12977. Channels of a group normalisation are permuted
    within their group, and groups with each other.

    Attributes:
        share: of the chains of layers, whichever chance picks, rounded up.
    """

    share: float = 1.0
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy with other weights that decodes alike.

        Raises:
            UserError: when no two layers of the decoder can be permuted.
        """
        return _changed(decoder, attacker, rng, (_permute, self.share))


@dataclass(frozen=True)
class ChannelRescaling:
    """Scale channels between two layers and undo it in the second, everywhere that this leaves the function as it is.

    Behind layers that a group normalisation follows, each group is scaled, and the normalisation undoes it; around
    ReLU-like and Snake activations each channel is. Dinh et al., "Sharp Minima Can Generalize For Deep Nets", ICML
    2017, arXiv:1703.04933; as part of a defence, arXiv:2606.12977.

    Attributes:
        factor: largest scale; each is log-uniform in [1/factor, factor].
    """

    factor: float = 2.0
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 1, 100)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy with other weights that decodes alike.

        Raises:
            UserError: when no two layers of the decoder can be rescaled.
        """
        return _changed(decoder, attacker, rng, (lambda chain, draws: _rescale(chain, self.factor, draws), 1.0))


@torch.no_grad()
def _changed(decoder: nn.Module, attacker: Attacker, rng: Generator, what: tuple[Change, float]) -> nn.Module:
    """A copy in which a change was made to a share of the chains that bear it."""
    change, share = what
    copied = detached_copy(decoder)
    probe = attacker.latents[:1]
    output = attacker.decode(copied, probe)
    chains = _chains(copied, attacker, probe)
    order = torch.randperm(len(chains), generator=rng, device=rng.device).tolist()
    wanted, kept = math.ceil(share * len(chains)), 0
    for index in order:
        if kept >= wanted:
            break
        before = [{name: value.clone() for name, value in part.state_dict().items()} for part in chains[index]]
        if not change(chains[index], rng):
            continue
        if _same(attacker.decode(copied, probe), output):
            kept += 1
            continue
        for part, state in zip(chains[index], before, strict=True):
            part.load_state_dict(state)
    if share and not kept:
        raise UserError(f"{type(decoder).__name__}: expected layers in a row that bear the change, found none")
    return copied


def _same(a: Tensor, b: Tensor) -> bool:
    return float((a - b).abs().max()) <= TOLERANCE * float(b.square().mean().sqrt())


class _Call(NamedTuple):
    module: nn.Module
    given: Tensor
    output: Tensor


def _chains(decoder: nn.Module, attacker: Attacker, probe: Tensor) -> list[Chain]:
    """Layers in a row in one decoding, whose tensors go nowhere else and whose channels can be matched."""
    calls: list[_Call] = []  # keeps the tensors alive: an id means nothing after

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        given = inputs[0] if len(inputs) == 1 else None
        if isinstance(given, Tensor) and isinstance(output, Tensor) and output is not given:
            calls.append(_Call(module, given, output))

    with ExitStack() as stack:
        for module in decoder.modules():
            if isinstance(module, KINDS) or not list(module.children()):
                stack.callback(module.register_forward_hook(note).remove)
        attacker.decode(decoder, probe)
    return [chain for chain in _followed(calls) if _fits(chain)]


def _followed(calls: list[_Call]) -> Iterator[Chain]:
    """From each layer that is called once to the next one."""
    takers: dict[int, list[_Call]] = {}
    for call in calls:
        takers.setdefault(id(call.given), []).append(call)
    times = Counter(id(call.module) for call in calls)
    for start in [call for call in calls if isinstance(call.module, KINDS) and times[id(call.module)] == 1]:
        chain, output = [start.module], start.output
        while len(following := takers.get(id(output), [])) == 1:
            chain.append(following[0].module)
            output = following[0].output
            if isinstance(chain[-1], KINDS):
                if times[id(chain[-1])] == 1:
                    yield tuple(chain)
                break


def _fits(chain: Chain) -> bool:
    grouped = any(getattr(layer, "groups", 1) > 1 for layer in (chain[0], chain[-1]))
    return not grouped and _outputs(chain[0]) == input_channels(chain[-1])


def _outputs(layer: nn.Module) -> int:
    return effective_weight(layer).shape[1 - input_axis(layer)]


def _groups(chain: Chain) -> int:
    """Groups of the first group normalisation in between; 1 without one, whose channels mix with none."""
    return next((part.num_groups for part in chain[1:-1] if isinstance(part, nn.GroupNorm)), 1)


def _permute(chain: Chain, rng: Generator) -> bool:
    first, last, channels = chain[0], chain[-1], _outputs(chain[0])
    groups = _groups(chain)
    blocks = torch.arange(channels).view(groups, -1)[_random_order(groups, rng)]
    place = torch.cat([block[_random_order(len(block), rng)] for block in blocks]).to(effective_weight(first).device)
    set_effective_weight(first, effective_weight(first).index_select(1 - input_axis(first), place))
    set_effective_weight(last, effective_weight(last).index_select(input_axis(last), place))
    between = [value for part in chain[1:-1] for value in (*part.parameters(), *part.buffers())]
    for value in (*between, getattr(first, "bias", None)):
        axes = [] if value is None else [axis for axis, size in enumerate(value.shape) if size == channels]
        if value is not None and axes:
            value.copy_(value.index_select(axes[0], place))
    return channels > 1


def _random_order(count: int, rng: Generator) -> Tensor:
    return torch.randperm(count, generator=rng, device=rng.device).cpu()


def _rescale(chain: Chain, factor: float, rng: Generator) -> bool:
    first, between, last = chain[0], chain[1:-1], chain[-1]
    channels = _outputs(first)
    normed = bool(between) and isinstance(between[0], nn.GroupNorm)
    if not normed and not all(isinstance(part, HOMOGENEOUS) or _is_snake(part) for part in between):
        return False
    count = _groups(chain) if normed else channels
    drawn = 2 * torch.rand(count, generator=rng, device=rng.device) - 1
    scale = (drawn.to(effective_weight(first).device) * math.log(factor)).exp().repeat_interleave(channels // count)
    _scale(first, 1 - input_axis(first), scale)
    if isinstance(bias := getattr(first, "bias", None), Tensor):
        bias.mul_(scale)
    if not normed:
        _scale(last, input_axis(last), 1 / scale)
        for part in filter(_is_snake, between):
            _scale_snake(part, scale)
    return True


def _scale(layer: nn.Module, axis: int, scale: Tensor) -> None:
    weight = effective_weight(layer)
    set_effective_weight(layer, weight * scale.view([-1 if each == axis else 1 for each in range(weight.ndim)]))


def _is_snake(part: nn.Module) -> bool:
    """Whether it is x + sin²(αx)/β with one α and β for each channel, as in Oobleck and BigVGAN decoders."""
    return "snake" in type(part).__name__.lower() and hasattr(part, "alpha") and hasattr(part, "beta")


def _scale_snake(part: nn.Module, scale: Tensor) -> None:
    """With α/s and β/s, the value at s x is s times the one at x."""
    for name in ("alpha", "beta"):
        value = part.get_parameter(name)
        shaped = scale.view([-1 if size == len(scale) else 1 for size in value.shape])
        value.copy_(value - shaped.log() if getattr(part, "logscale", False) else value / shaped)
