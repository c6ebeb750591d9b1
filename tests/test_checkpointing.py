"""Recomputing a large decoder: the same loss and gradients, fewer tensors kept, nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.rng import fenced, stream
from schemes import checkpointing
from schemes.checkpointing import blocks, recomputed
from schemes.modulations import Amplitude
from tests.plain_networks import dcgan, waves


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return x + scale * torch.tanh(self.second(torch.tanh(self.first(x))))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Conv2d(4, 8, 1)
        self.resnets = nn.ModuleList([Residual() for _ in range(4)])
        self.end = nn.Conv2d(8, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.start(z)
        for resnet in self.resnets:
            x = resnet(x, scale=0.5)
        made: Tensor = self.end(x)
        return made


@pytest.fixture
def decoder() -> nn.Module:
    with fenced(0):
        return Decoder().eval().requires_grad_(False)


def gradients(decoder: nn.Module) -> tuple[list[Tensor], int]:
    """Gradients of a modulation's parameters, and how many numbers are kept for the backward pass."""
    modulator: Any = Amplitude().bind(decoder, 6, stream(0, "modulator"))
    codes = torch.randint(2, (3, 6), generator=stream(0, "codes")) * 2.0 - 1
    z, kept = torch.randn(3, 4, 16, 16, generator=stream(0, "z")), 0

    def pack(x: Tensor) -> Tensor:
        nonlocal kept
        kept += x.numel()
        return x

    with modulator.applied(decoder, codes), recomputed(decoder):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            loss = decoder(z).square().mean()
        loss.backward()
    return [p.grad for p in modulator.parameters()], kept


def test_gradients_are_those_of_what_is_kept(decoder: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(decoder.resnets[0].__dict__)  # type: ignore[index]
    plain, much = gradients(decoder)
    monkeypatch.setattr(checkpointing, "LARGE", 1)
    again, little = gradients(decoder)
    assert all(bool(gradient.any()) for gradient in plain)
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))
    assert little < 0.5 * much
    assert dict(decoder.resnets[0].__dict__).keys() == before.keys(), "the public decoder is as it was"  # type: ignore[index]


def test_small_decoders_are_left_alone(decoder: nn.Module) -> None:
    with recomputed(decoder):
        assert "forward" not in decoder.resnets[0].__dict__  # type: ignore[index]


def test_blocks_are_the_innermost_members_of_lists(decoder: nn.Module) -> None:
    assert [type(block) for block in blocks(decoder)] == [Residual] * 4
    assert len(blocks(waves())) == 3
    assert all(next(block.parameters(), None) is not None for block in blocks(dcgan()))
