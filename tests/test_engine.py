"""Batches of tensors and of lists, and the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.engine import Engine, join, pick_device, spans
from bench.protocol import UserError
from tests.toy import Toy, ToyGenerator


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_spans_cover_every_chunk_once_and_mix_no_shapes(size: int) -> None:
    chunks = [torch.zeros(2, 3), torch.zeros(1, 3), torch.zeros(4, 5), torch.zeros(1, 5), torch.zeros(1, 5)]
    found = list(spans(size, chunks))
    assert [index for span in found for index in range(len(chunks))[span]] == list(range(5))
    for span in found:
        assert len({chunk.shape[1] for chunk in chunks[span]}) == 1
        assert len(join(chunks[span])) <= size or len(chunks[span]) == 1


def test_engine_handles_lists_of_meshes() -> None:
    """Content without tensors: joined by chaining, observed by the modality, in order."""

    class Lists(Toy):
        def features(self, content: Any) -> Tensor:
            return torch.tensor([[float(each)] for each in content])

    engine = Engine(Lists(), ToyGenerator(), pick_device("cpu"), batch=3)
    assert engine.features([["1", "2"], ["3"], ["4"]]).flatten().tolist() == [1, 2, 3, 4]


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(UserError, match="device 'warp': expected auto, cpu or"):
        pick_device("warp")
