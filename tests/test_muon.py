"""The optimiser of matrices: the same steps in either precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench import muon
from bench.muon import Muon, orthogonalised

SHAPES = ((6, 20), (20, 6), (8, 8))


def trained(kind: type[torch.optim.Muon], *, nesterov: bool = True) -> list[torch.Tensor]:
    """Matrices after three steps on fixed gradients."""
    rng = torch.Generator().manual_seed(0)
    matrices = [nn.Parameter(torch.randn(shape, generator=rng)) for shape in SHAPES]
    optimiser = kind(matrices, lr=0.1, weight_decay=0.02, momentum=0.9, nesterov=nesterov, ns_steps=4)
    for _ in range(3):
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape, generator=rng)
        optimiser.step()
    return [matrix.detach() for matrix in matrices]


@pytest.mark.parametrize("nesterov", [True, False])
def test_single_precision_steps_as_pytorch_does(nesterov: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "multiplies_bfloat16", lambda device: False)
    kinds = (Muon, torch.optim.Muon)
    for ours, theirs in zip(*(trained(kind, nesterov=nesterov) for kind in kinds), strict=True):
        assert not torch.equal(ours, theirs), "in another precision"
        assert (ours - theirs).abs().max() < 0.01, "of steps of 0.1 times numbers near 1"


def test_where_bfloat16_is_fast_it_is_pytorch_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "multiplies_bfloat16", lambda device: True)
    for ours, theirs in zip(trained(Muon), trained(torch.optim.Muon), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_are_drawn_to_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = torch.linalg.svdvals(orthogonalised(matrix, (3.4445, -4.775, 2.0315), 5, 1e-7))
    assert found.min() > 0.5 and found.max() < 1.3


def test_a_closure_is_called_once_and_its_loss_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "multiplies_bfloat16", lambda device: False)
    matrix = nn.Parameter(torch.eye(3))
    calls = []

    def closure() -> float:
        calls.append(1)
        matrix.grad = torch.ones(3, 3)
        return 2.0

    assert Muon([matrix], lr=0.1).step(closure) == 2.0 and len(calls) == 1
    assert not torch.equal(matrix.detach(), torch.eye(3))
