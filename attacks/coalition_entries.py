"""Decoders merged entry by entry: effective weights, other parameters and running statistics, in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn

from bench.weights import effective_weight, mapped_copy, other_parameters, weighted_layers

Entries = Callable[[Tensor], Tensor]
"""From the members' values of one tensor, stacked in float32, (users, ...), to the merged one, (...)."""


def merged(decoders: Sequence[nn.Module], users: int, entries: Entries) -> nn.Module:
    """A copy of the first decoder that holds ``entries`` of all of them.

    Effective weights, other parameters and statistics alike; counters are those of the first.

    Raises:
        ValueError: when the decoders are not ``users`` many, or differ in their state-dict keys.
    """
    check_team(decoders, users)
    return entrywise(decoders[0], decoders, entries)


@torch.no_grad()
def entrywise(base: nn.Module, decoders: Sequence[nn.Module], entries: Entries) -> nn.Module:
    """A copy of ``base`` that holds ``entries`` of all ``decoders``."""
    weights = [
        {name: effective_weight(layer) for name, layer in weighted_layers(decoder).items()} for decoder in decoders
    ]
    made = mapped_copy(base, lambda name, layer, weight: entries(_stacked([held[name] for held in weights])))
    rest = [other_parameters(decoder) | dict(decoder.named_buffers()) for decoder in decoders]
    for name, tensor in (other_parameters(made) | dict(made.named_buffers())).items():
        if tensor.is_floating_point():
            tensor.copy_(entries(_stacked([held[name] for held in rest])))
    return made


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.float() for tensor in tensors])


def median(entries: Tensor) -> Tensor:
    """Median over members; of an even number, the mean of the middle two."""
    ordered, middle = entries.sort(0).values, (len(entries) - 1) // 2
    return (ordered[middle] + ordered[len(entries) - 1 - middle]) / 2


def picked(entries: Tensor, shape: tuple[int, ...], rng: Generator) -> Tensor:
    """Each of ``shape`` entries (all together when it is empty) from one member at random."""
    chosen = torch.randint(len(entries), shape, generator=rng, device=rng.device).to(entries.device)
    return entries.gather(0, chosen.expand(entries.shape[1:])[None])[0]


def check_team(decoders: Sequence[nn.Module], users: int) -> None:
    """Refuse another number of decoders, and decoders of different state-dict keys.

    Raises:
        ValueError: naming both sides.
    """
    if len(decoders) != users:
        raise ValueError(f"{len(decoders)} decoders, expected {users}")
    expected = decoders[0].state_dict().keys()
    for index, decoder in enumerate(decoders):
        found = decoder.state_dict().keys()
        if found != expected:
            odd = sorted(found ^ expected)[0]
            raise ValueError(
                f"decoder {index} has {len(found)} state-dict keys, expected the {len(expected)} of decoder 0; "
                f"only one of the two has {odd}"
            )
