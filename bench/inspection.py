"""What of a decoder a fingerprint reaches: its tree, with every module that holds parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from bench.protocol import UserError
from bench.rng import stream
from bench.weights import effective_weight, weighted_layers


@dataclass(frozen=True)
class Entry:
    """One module of a decoder.

    Attributes:
        path: dotted name in the decoder.
        kind: its class.
        parameters: that it and all below it hold.
        shape: of the weight that it multiplies with, of a layer.
        state: ``modulated``, why not, or nothing of a module that only holds others.
    """

    path: str
    kind: str
    parameters: int
    shape: tuple[int, ...]
    state: str

    @property
    def depth(self) -> int:
        """Levels below the decoder."""
        return self.path.count(".") + 1


def modulated_layers(decoder: nn.Module, scheme: Any) -> list[str]:
    """Names of the layers in which a scheme writes its code.

    Raises:
        UserError: when it writes in no weights, or the decoder has none of the kinds that can be written in.
    """
    modulation = getattr(scheme, "modulation", None)
    if modulation is None:
        raise UserError(f"scheme {type(scheme).__name__}: expected one that modulates weights, found none of its own")
    if not weighted_layers(decoder):
        kinds = sorted({type(module).__name__ for module in decoder.modules() if _own(module)})
        found = ", ".join(kinds) or "nothing with parameters"
        raise UserError(f"decoder {type(decoder).__name__}: expected convolutions or linear layers, found {found}")
    bound: Any = modulation.bind(decoder, scheme.bits, stream(0, "inspect"))
    return list(bound.layers)


def inspected(decoder: nn.Module, scheme: Any) -> list[Entry]:
    """Every module of ``decoder`` that holds parameters, itself excepted, in its own order."""
    modulated, layers = set(modulated_layers(decoder, scheme)), weighted_layers(decoder)
    ends = {"first": next(iter(layers)), "last": list(layers)[-1]}
    entries = []
    for path, module in decoder.named_modules():
        count = sum(p.numel() for p in module.parameters())
        if not path or not count or ".parametrizations" in f".{path}":
            continue
        shape = tuple(effective_weight(module).shape) if path in layers else ()
        state = "modulated" if path in modulated else _why_not(path, module, path in layers, ends)
        entries.append(Entry(path, type(module).__name__.removeprefix("Parametrized"), count, shape, state))
    return entries


def _why_not(path: str, module: nn.Module, is_layer: bool, ends: dict[str, str]) -> str:
    if is_layer:
        place = [name for name, end in ends.items() if end == path]
        return (
            f"left as it is: the {' and '.join(place)} layer"
            if place
            else "left as it is: not among its kinds of layer"
        )
    own = _own(module)
    if not own:
        return ""
    if all(p.ndim < 2 for p in own):
        return "no weights between channels"
    return f"skipped: the weights of {type(module).__name__} cannot be written yet"


def _own(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))
