"""Private networks that read soft bits from observed tensors of any rank."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
BLOCKS = {1: (256, 64, 16), 2: (8, 4, 2), 3: (4, 2)}
"""Sides of the cosine-transform blocks by rank."""


@dataclass(frozen=True)
class WhitenedReader:
    """Reads fixed statistics, whitened by what unmarked content does to them, with a perceptron.

    A channel gain changes statistics, and natural content changes the same statistics far more, in a few directions.
    Divided by the covariance that unmarked content shows, the small directions that only the mark moves are as loud as
    the others, and a perceptron finds them at once; a linear reader would be the discriminant of Fisher, "The Use of
    Multiple Measurements in Taxonomic Problems", 1936. Learned convolutions find them far later.

    The statistics are the log mean square and log mean magnitude of every block-cosine coefficient (texture), and the
    samples in the rim, where zero padding makes the decoder's response the same for all content.

    Attributes:
        hidden: width of the perceptron.
        rim: width in samples of the rim that is read as it is.
        shrinkage: added to the correlation matrix before it is inverted.
    """

    hidden: int = 512
    rim: int = 4
    shrinkage: float = 1e-3

    def build(self, originals: Tensor, bits: int) -> WhitenedNetwork:
        """Fresh network, whitened by unmarked observed tensors (N, C, ...) of rank 1, 2 or 3; N ≥ 2."""
        network = WhitenedNetwork(originals[:1], bits, self)
        network.whiten(originals, self.shrinkage)
        return network


class WhitenedNetwork(nn.Module):
    """See :class:`WhitenedReader`.

    Until :meth:`fold`, whitening is a matrix of its own and only the perceptron learns; folding multiplies it into the
    first layer, which is what a file keeps.
    """

    centre: Tensor
    mix: Tensor
    whitening: Tensor | None

    def __init__(self, example: Tensor, bits: int, spec: WhitenedReader) -> None:
        super().__init__()
        self.rank, channels, self.rim = example.ndim - 2, example.shape[1], spec.rim
        self.register_buffer("mix", torch.eye(channels))
        sides = sorted({min(side, *example.shape[2:]) for side in BLOCKS[self.rank]})
        self.banks = [_cosines(side, self.rank) for side in sides]
        features = sum(part.shape[1] for part in self._parts(example.float().cpu()))
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("whitening", None, persistent=False)
        self.embed = nn.Linear(features, spec.hidden)
        self.norm = nn.LayerNorm(spec.hidden)
        self.head = nn.Linear(2 * spec.hidden, bits)

    @torch.no_grad()
    def whiten(self, originals: Tensor, shrinkage: float) -> None:
        """Take channel mix, centre and whitening from unmarked observed tensors (N, C, ...)."""
        flat = originals.float().transpose(0, 1).flatten(1)  # (C, everything)
        self.mix.copy_(torch.linalg.eigh(flat @ flat.T / flat.shape[1]).eigenvectors.T.half())
        parts = [torch.cat(part) for part in zip(*(self._parts(x.float()) for x in originals.split(128)), strict=True)]
        values = torch.cat(parts, 1).double()
        # A statistic that never moves must not become infinitely loud: 2 % of an energy, half an 8-bit step of a rim.
        floor = torch.cat([torch.full((p.shape[1],), 0.02 if i == 0 else 0.002) for i, p in enumerate(parts)])
        scale = (values.var(0) + floor.double().to(values.device).square()).sqrt()
        self.centre.copy_(values.mean(0).half())  # a file keeps half precision
        correlation = torch.cov(((values - values.mean(0)) / scale).T)
        levels, axes = torch.linalg.eigh(correlation + shrinkage * torch.eye(len(scale)).to(correlation))
        # The factor gives a step of the optimiser on thousands of inputs the effect of one on a few.
        self.whitening = (0.05 * (axes / levels.sqrt()) @ axes.T / scale).float()

    @torch.no_grad()
    def fold(self) -> None:
        """Multiply the whitening into the first layer; the function stays the same."""
        if self.whitening is not None:
            self.embed.weight.copy_(self.embed.weight @ self.whitening)
            self.whitening = None

    @torch.no_grad()
    def balance(self, originals: Tensor) -> None:
        """Move every bit's threshold to the median of unmarked content, which then reads as 1 half of the time."""
        device = self.head.bias.device
        soft = torch.cat([self(x.to(device).float()) for x in originals.split(128)])
        self.head.bias.sub_(soft.median(0).values)

    def forward(self, x: Tensor) -> Tensor:
        """Soft bits (B, bits) of tensors (B, C, ...); positive means 1."""
        with torch.autocast(x.device.type, enabled=False):
            values = torch.cat(self._parts(x.float()), 1) - self.centre
            if self.whitening is not None:
                values = values @ self.whitening.T
            h = self.norm(self.embed(values))
            bits: Tensor = self.head(torch.cat([h, F.silu(h)], 1))
        return bits

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Texture statistics and rim of tensors (B, C, ...)."""
        mixed = torch.einsum("dc,bc...->bd...", self.mix, x).flatten(0, 1)[:, None]  # (B·C, 1, ...)
        texture = []
        for bank in self.banks:
            stride = max(1, bank.shape[-1] // 2)
            coefficients = CONVOLUTIONS[self.rank](mixed, bank.to(x.device), stride=stride).flatten(2)
            texture += [
                (coefficients.square().mean(2) + 1e-6).log().view(len(x), -1),
                (coefficients.abs().mean(2) + 1e-3).log().view(len(x), -1),
            ]
        rim = torch.ones(x.shape[2:], dtype=torch.bool, device=x.device)
        rim[(slice(self.rim, -self.rim or None),) * self.rank] = False
        return torch.cat(texture, 1), x[..., rim].flatten(1)


def _cosines(side: int, rank: int) -> Tensor:
    """Orthonormal cosine-transform blocks (side^rank, 1, side, ...)."""
    frequency = torch.arange(side, dtype=torch.float32)
    basis = torch.cos(math.pi * (frequency + 0.5) * frequency[:, None] / side) * math.sqrt(2 / side)
    basis[0] /= math.sqrt(2)
    bank = basis
    for _ in range(rank - 1):
        bank = torch.einsum("u...,va->uv...a", bank.view(-1, *bank.shape[-(bank.ndim - 1) :]), basis).flatten(0, 1)
    return bank[:, None].contiguous()
