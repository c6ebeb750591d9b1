"""The white-box channel beside attacks on decoders: what whoever holds the weights still reads of a code.

It tells a code that an attack took out of the weights from one that content no longer shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.metrics.intervals import clustered
from bench.protocol import Codec
from bench.rng import stream

COLUMNS = ("white_box_bit_accuracy", "white_box_bit_accuracy_lo", "white_box_bit_accuracy_hi")


def weight_accuracy(codec: Codec, decoder: nn.Module, public: nn.Module, code: Tensor) -> float | None:
    """Share of the bits (bits,) that a codec reads right from the weights of ``decoder``; a tie is wrong.

    None when the codec reads no weights, or the decoder has other weights than the public one: distilled into another
    network, or wrapped.
    """
    if not getattr(codec, "reads_weights", False) or _shapes(decoder) != _shapes(public):
        return None
    soft: Tensor = codec.read_weights(decoder, public).cpu()  # type: ignore[attr-defined]
    right = (soft != 0) & ((soft > 0) == (code.cpu() > 0))
    return float(right.double().mean())


def _shapes(decoder: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in decoder.state_dict().items()}


def white_box(found: Sequence[float | None]) -> dict[str, list[float]]:
    """What a cell's summary keeps: the accuracy of each user's decoder; nothing where none could be read."""
    known = [value for value in found if value is not None]
    return {"white_box": known} if known else {}


def white_box_columns(summary: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Mean over users with its interval, by column name; empty for a cell that was read from content alone."""
    if not (values := summary.get("white_box")):
        return {}
    rng = stream(seed, "white box", summary["scheme"], summary["repr"])
    mean, low, high = clustered(torch.tensor(values, dtype=torch.float64), torch.arange(len(values)), rng=rng)
    return dict(zip(COLUMNS, (mean, low, high), strict=True)) if math.isfinite(mean) else {}
