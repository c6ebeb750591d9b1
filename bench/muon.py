"""The optimiser of matrices, in a precision that the device multiplies fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.precision import multiplies_bfloat16


class Muon(torch.optim.Muon):
    """Steps along the orthogonalised momentum; takes matrices only.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. PyTorch's own orthogonalises in
    bfloat16, which a processor without such instructions emulates, 20 times slower than single precision (`make
    speed`). There this class does the same in single precision.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of all matrices that have a gradient."""
        matrices = [p for group in self.param_groups for p in group["params"]]
        if all(multiplies_bfloat16(p.device) for p in matrices):
            stepped: float | None = super().step(closure)  # type: ignore[no-untyped-call]
            return stepped
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._step_matrix(matrix, matrix.grad, group)
        return loss

    def _step_matrix(self, matrix: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient, memory_format=torch.preserve_format)
        momentum = state["momentum_buffer"]
        momentum.lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        update = orthogonalised(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        rows, columns = matrix.shape
        matrix.add_(update, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def orthogonalised(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """A matrix (R, C) with its singular values drawn to about 1, by Newton and Schulz's iteration, in its precision."""
    a, b, c = coefficients
    wide = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if len(matrix) <= matrix.shape[1] else wide.T
