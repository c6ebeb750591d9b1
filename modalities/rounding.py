"""The last bit of what a network makes: what stock diffusers and transformers round it to.

GenPrint freezes a generator's networks; the libraries load theirs with parameters that require gradients. That decides
how ``torch.matmul`` multiplies a batch of transposed matrices (``should_fold`` in ATen's ``LinearAlgebra.cpp``), even
where no gradient is computed, and sums in another order end in another last bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def as_loaded(*networks: nn.Module) -> Iterator[None]:
    """Within the context, where no gradients are computed, ``networks`` round as the stock libraries' own.

    Content of an exported copy then has the same bits in a stock process (same machine, threads and batch).
    """
    held: list[torch.Tensor] = []
    if not torch.is_grad_enabled():
        parameters = (p for network in networks for p in network.parameters())
        held = [p for p in parameters if p.is_floating_point() and not p.requires_grad]
    try:
        for parameter in held:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(False)
