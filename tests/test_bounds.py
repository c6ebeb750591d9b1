"""Clamping that a training cannot run away behind."""

from __future__ import annotations

import pytest
import torch

from bench.bounds import bounded
from bench.rng import stream


def test_values_are_clamped_and_only_the_way_out_is_blocked() -> None:
    x = (4 * torch.rand(1000, generator=stream(0, "bounded"), dtype=torch.float64) - 2).requires_grad_()
    weights = torch.randn(1000, generator=stream(1, "bounded"), dtype=torch.float64)
    y = bounded(x, -1.0, 0.5)
    assert torch.equal(y, x.detach().clamp(-1.0, 0.5))
    (y * weights).sum().backward()
    assert x.grad is not None
    inside = (x >= -1) & (x <= 0.5)
    inward = ((x > 0.5) & (weights > 0)) | ((x < -1) & (weights < 0))
    assert torch.equal(x.grad, torch.where(inside | inward, weights, torch.zeros(())))
    assert bool(inward.any()) and not bool((inside | inward).all())


@pytest.mark.parametrize(("towards", "end"), [(-1.0, 0.0), (2.0, 1.0)])
def test_descent_comes_back_to_what_is_asked_for_and_stops_at_the_bound(towards: float, end: float) -> None:
    """Asked for a value beyond a bound, descent stays there; from beyond the other bound it comes back at once."""
    x = torch.tensor([-0.5, 0.5, 1.5], requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad((bounded(x, 0.0, 1.0) - towards).square().sum(), x)
        x = (x - 0.1 * gradient).detach().requires_grad_()
    assert torch.allclose(bounded(x, 0.0, 1.0), torch.tensor(end))
    assert bool(((x > -0.51) & (x < 1.51)).all()), "nothing went further out than it began"
