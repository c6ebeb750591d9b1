"""Private networks that read soft bits from observed tensors of any rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}


@dataclass(frozen=True)
class StatisticsReader:
    """Reads the statistics of several convolution stages.

    A channel gain changes statistics, not a pattern at a place, so the reader pools mean and log-variance of every
    channel of every stage and maps them to bits. Pooling only the mean of the last stage learns far slower.

    Attributes:
        widths: channels of the stages; each stage halves the resolution, the first too, since full resolution costs as
            much as the decoder itself and reads no better.
        hidden: width of the perceptron on top.
    """

    widths: tuple[int, ...] = (48, 96, 128)
    hidden: int = 512

    def build(self, observed: Tensor, bits: int) -> StatisticsNetwork:
        """Fresh network for tensors like ``observed`` (B, C, ...) of rank 1, 2 or 3."""
        return StatisticsNetwork(observed.ndim - 2, observed.shape[1], bits, self)


class StatisticsNetwork(nn.Module):
    """See :class:`StatisticsReader`."""

    def __init__(self, rank: int, channels: int, bits: int, spec: StatisticsReader) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[rank]
        self.stages = nn.ModuleList()
        for width in spec.widths:
            self.stages.append(
                nn.Sequential(
                    convolution(channels, width, 4, padding=1, stride=2),
                    nn.SiLU(),
                    convolution(width, width, 3, padding=1),
                )
            )
            channels = width
        pooled = 2 * sum(spec.widths)
        self.head = nn.Sequential(
            nn.BatchNorm1d(pooled),
            nn.Linear(pooled, spec.hidden),
            nn.SiLU(),
            nn.BatchNorm1d(spec.hidden),
            nn.Linear(spec.hidden, bits),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Soft bits (B, bits) of tensors (B, C, ...); positive means 1."""
        x, statistics = x * 2 - 1, []
        for stage in self.stages:
            x = stage(x)
            flat = x.flatten(2).float()
            statistics += [flat.mean(2), (flat.var(2, unbiased=False) + 1e-4).log()]
            x = nn.functional.silu(x)
        bits: Tensor = self.head(torch.cat(statistics, 1))
        return bits.float()
