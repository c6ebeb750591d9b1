"""Private networks that read soft bits from observed tensors of any rank."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
NORMS: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
PATCHES = {1: 15, 2: 3, 3: 4}
"""Sides of the whitened patches by rank."""
APART = {1: 1, 2: 1, 3: 2}
"""Steps between patches by rank: 32³ cells are as many as a picture of 181 pixels on a side has."""
STRIDES = {1: (2, 4, 1, 4, 1, 4), 2: (1, 2, 1, 2, 1, 2), 3: (1, 1, 2, 1)}
"""Strides of the stages by rank. A stride of 4 in time thins as much as one of 2 on either side of a picture."""
CORRELATED = {3: 32}
"""By rank, how many of the loudest components of patches are correlated with each other, at two sizes.

What a gain does to a surface depends on the surface: on 1,536 pairs of meshes under opposite codes, 28 dB apart, a
linear map from differences of these correlations to codes found 0.67 of the bits of other pairs, one from differences
of the means and variances of all stages 0.56."""
WIDTHS = {1: 32, 2: 32, 3: 48}
"""Channels of the first stages by rank, where a reader names no other number."""
FLOOR = 1e-5
"""Variance below which a patch component is taken for rounding noise: about the square of an 8-bit step."""


@dataclass(frozen=True)
class StatisticsReader:
    """Convolutions on whitened patches; the statistics of every stage's channels; a perceptron.

    A channel gain changes statistics (texture, how edges are drawn) and not a pattern at a place, so what is read is
    the mean and log-variance over space of each channel at each stage. The first layer whitens patches with what
    unmarked content shows, as in Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498: the small
    components, which natural content hardly uses and a mark does, are then as loud as the others. Of solids the
    correlations between such components are read too; see :data:`CORRELATED`.

    Attributes:
        width: channels of the first stages, None for those of :data:`WIDTHS`; twice and four times as many after each
            second stride.
        hidden: width of the perceptron.
    """

    width: int | None = None
    hidden: int = 384

    def build(self, originals: Tensor, bits: int) -> StatisticsNetwork:
        """Fresh network for unmarked observed tensors (N, C, ...) of rank 1, 2 or 3, which it is whitened by."""
        network = StatisticsNetwork(originals.ndim - 2, originals.shape[1], bits, self)
        network.whiten(originals)
        return network


class Stage(nn.Module):
    """Convolution, batch normalisation, GELU; the kernel is a matrix (out, in · kˢ), as the optimiser wants it.

    A kernel is 3 wide, or a step wider than its stride, so that no sample is passed over.
    """

    def __init__(self, rank: int, channels: tuple[int, int], stride: int) -> None:
        super().__init__()
        side = max(3, stride + 1)
        self.stride, self.shape = stride, (channels[1], channels[0], *[side] * rank)
        self.kernel = nn.Parameter(torch.empty(channels[1], channels[0] * side**rank))
        nn.init.kaiming_uniform_(self.kernel, a=5**0.5)
        self.norm = NORMS[rank](channels[1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, ...) to (B, out, .../stride)."""
        kernel = self.kernel.view(self.shape)
        y: Tensor = F.gelu(
            self.norm(CONVOLUTIONS[x.ndim - 2](x, kernel, stride=self.stride, padding=self.shape[2] // 2))
        )
        return y


class StatisticsNetwork(nn.Module):
    """See :class:`StatisticsReader`."""

    mean: Tensor
    patches: Tensor
    coarse: Tensor

    def __init__(self, rank: int, channels: int, bits: int, spec: StatisticsReader) -> None:
        super().__init__()
        side, width = PATCHES[rank], spec.width or WIDTHS[rank]
        first = CORRELATED.get(rank, channels * side**rank)
        self.register_buffer("mean", torch.zeros(channels, *[1] * rank))
        self.register_buffer("patches", torch.zeros(first, channels, *[side] * rank))
        if rank in CORRELATED:
            self.register_buffer("coarse", torch.zeros_like(self.patches))
        widths = [first, width, width, 2 * width, 2 * width, 4 * width, 4 * width][: len(STRIDES[rank]) + 1]
        self.stages = nn.ModuleList(
            Stage(rank, (a, b), stride) for a, b, stride in zip(widths, widths[1:], STRIDES[rank], strict=False)
        )
        count = 2 * sum(widths) + (2 * first + first * (first - 1) if rank in CORRELATED else 0)
        self.norm = nn.BatchNorm1d(count)
        self.linear = nn.Linear(count, bits)
        self.hidden = nn.Linear(count, spec.hidden)
        self.head = nn.Linear(spec.hidden, bits)

    @torch.no_grad()
    def whiten(self, originals: Tensor) -> None:
        """Take mean and patch whitening from at most 512 of the unmarked observed tensors (N, C, ...)."""
        x = originals[:: -(-len(originals) // 512)].float().cpu()
        self.mean.copy_(x.transpose(0, 1).flatten(1).mean(1).view_as(self.mean))
        self.patches.copy_(self._whitening(x - self.mean))
        if x.ndim - 2 in CORRELATED:
            self.coarse.copy_(self._whitening(halved(x - self.mean)))

    def _whitening(self, x: Tensor) -> Tensor:
        """Kernels that whiten patches of (N, C, ...), for as many of the loudest components as there are kernels."""
        rank, (count, *_, side) = x.ndim - 2, self.patches.shape
        for axis in range(2, x.ndim):  # as F.unfold, which knows two axes only
            x = x.unfold(axis, side, APART[rank])
        rows = x.movedim(1, rank + 1).flatten(0, rank).flatten(1)  # (patches, C · sideʳ)
        levels, axes = torch.linalg.eigh(torch.cov(rows.T))
        kernels: Tensor = (axes / (levels.clamp_min(0) + FLOOR).sqrt())[:, -count:].T
        return kernels.reshape(self.patches.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Soft bits (B, bits) of tensors (B, C, ...); positive means 1."""
        rank = x.ndim - 2
        if rank == 2:
            x = x.contiguous(memory_format=torch.channels_last)  # a quarter faster
        with torch.autocast(x.device.type, enabled=False):  # half precision is coarser than the mark
            padding = PATCHES[rank] // 2 if APART[rank] == 1 else 0
            x = x.float() - self.mean
            h = CONVOLUTIONS[rank](x, self.patches, stride=APART[rank], padding=padding)
            statistics = _statistics(h)
            if rank in CORRELATED:
                coarse = CONVOLUTIONS[rank](halved(x), self.coarse, stride=APART[rank])
                statistics += [*_statistics(coarse), _correlations(h), _correlations(coarse)]
        for stage in self.stages:
            h = stage(h)
            statistics += _statistics(h)
        with torch.autocast(x.device.type, enabled=False):
            f = self.norm(torch.cat(statistics, 1))
            bits: Tensor = self.linear(f) + self.head(F.gelu(self.hidden(f)))
        return bits


@contextlib.contextmanager
def settled(reader: nn.Module) -> Iterator[None]:
    """Within the context, a network normalises by its running statistics, as it does when it reads what was published.

    A batch whose items share one change of the weights shifts its own statistics, and normalising by these would take
    back what the reader is to learn to stand.
    """
    training = reader.training
    reader.eval()
    try:
        yield
    finally:
        reader.train(training)


def _statistics(h: Tensor) -> list[Tensor]:
    """Mean and log-variance over space of (B, C, ...), each (B, C) in single precision."""
    mean, square = Moments.apply(h)  # type: ignore[no-untyped-call]
    return [mean, ((square - mean.square()).clamp_min(0) + 1e-4).log()]


def _correlations(h: Tensor) -> Tensor:
    """Of the channels of (B, C, ...), over space: (B, C (C - 1) / 2)."""
    flat = h.flatten(2)
    flat = flat - flat.mean(2, keepdim=True)
    products = flat @ flat.mT / flat.shape[2]
    lengths = (products.diagonal(dim1=1, dim2=2) + 1e-4).sqrt()
    products = products / (lengths[:, :, None] * lengths[:, None])
    rows, columns = torch.triu_indices(h.shape[1], h.shape[1], 1, device=h.device)
    # Not by products[:, rows, columns]: its gradient sorts, and never ends with two threads (torch 2.13, fbgemm).
    return products.flatten(1).index_select(1, rows * h.shape[1] + columns)


def halved(x: Tensor) -> Tensor:
    """(B, C, g, g, g) at half the resolution."""
    return F.avg_pool3d(x, 2)


class Moments(torch.autograd.Function):
    """Mean and mean square over space of (B, C, ...), each (B, C) in single precision.

    With torch's own operations the backward pass takes a third of a whole reader's time: several passes over what is
    one multiply-add.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> tuple[Tensor, Tensor]:
        """Both moments."""
        ctx.save_for_backward(h)
        wide, space = h.float(), tuple(range(2, h.ndim))
        return wide.mean(space), (wide * wide).mean(space)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Gradient of ``h``: (∂mean + 2 h ∂square) / n."""
        (h,) = ctx.saved_tensors
        n, shape = h[0, 0].numel(), (*h.shape[:2], *[1] * (h.ndim - 2))
        mean, square = ((g / n).to(h.dtype).view(shape) for g in gradients)
        return torch.addcmul(mean.expand_as(h), 2 * square, h)
