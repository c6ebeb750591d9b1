"""Clamping that a training cannot run away behind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,), (low, high), (gradient,) = ctx.saved_tensors, ctx.bounds, gradients
        outward = ((x > high) & (gradient < 0)) | ((x < low) & (gradient > 0))
        return gradient.masked_fill(outward, 0.0), None, None


def bounded(x: Tensor, low: float, high: float) -> Tensor:
    """``x`` clamped; descent can move what lies beyond a bound inward, and not further out.

    What release clips has no effect out there, so the gradient of the identity would let a reader's loss push it on and
    on, and no loss of quality would hold it back. The gradient of a plain clamp would never bring it back. As the lower
    bound of Ballé et al., "Variational image compression with a scale hyperprior", ICLR 2018, arXiv:1802.01436, is
    commonly implemented.

    Args:
        x: any shape.
        low: least value.
        high: largest value.

    Returns:
        The clamped values. Their gradient is that of the identity, but 0 where a step against it would lead away from
        the bounds.

    Example:
        >>> x = torch.tensor([-1.0, 0.5, 2.0, 2.0], requires_grad=True)
        >>> (bounded(x, 0.0, 1.0) * torch.tensor([1.0, 1.0, 1.0, -1.0])).sum().backward()
        >>> x.grad
        tensor([0., 1., 1., 0.])
    """
    clamped: Tensor = _Bounded.apply(x, low, high)  # type: ignore[no-untyped-call]
    return clamped
