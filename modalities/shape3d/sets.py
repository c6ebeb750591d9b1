"""How two sets of shapes compare: coverage, minimum matching distance and nearest-neighbour accuracy.

As Yang et al., "PointFlow", ICCV 2019, arXiv:1906.12347, sec. 5.1 define them, with the Chamfer distance: the sum of
both directions' mean squared distances between points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bench.protocol import Mesh
from bench.rng import stream
from modalities.shape3d.perceptual import oriented_points


class SetScores(NamedTuple):
    """Scores of a set of samples beside a set of real shapes.

    Attributes:
        coverage: share of the real shapes that are some sample's nearest; higher is better.
        mmd: mean over real shapes of the distance to the nearest sample; lower is better.
        nna: share of both sets' shapes whose nearest neighbour is of their own set; 0.5 is best, 1 worst.
    """

    coverage: float
    mmd: float
    nna: float


Chamfer = Callable[[Tensor, Tensor], Tensor]
"""Point sets (N, P, 3) and (M, Q, 3) to distances (N, M)."""


def chamfer_matrix(a: Tensor, b: Tensor) -> Tensor:
    """Chamfer distances (N, M) of point sets (N, P, 3) and (M, Q, 3)."""
    rows = []
    for one in a.double():
        squared = torch.cdist(one.expand(len(b), -1, -1), b.double()).square()  # (M, P, Q)
        rows.append(squared.amin(2).mean(1) + squared.amin(1).mean(1))
    return torch.stack(rows) if rows else a.new_zeros(0, len(b)).double()


def scores(between: Tensor, within: tuple[Tensor, Tensor]) -> SetScores:
    """Scores from distances.

    Args:
        between: of samples to real shapes (N, M).
        within: of samples to samples (N, N), and of real shapes to real shapes (M, M).
    """
    samples, real = (each.clone().fill_diagonal_(torch.inf) for each in within)
    covered = between.argmin(1).unique().numel() / between.shape[1]
    own = (samples.amin(1) < between.amin(1)).sum() + (real.amin(1) < between.amin(0)).sum()
    return SetScores(covered, float(between.amin(0).mean()), float(own) / sum(between.shape))


def compared(samples: Sequence[Mesh], real: Sequence[Mesh], *, chamfer: Chamfer = chamfer_matrix) -> SetScores:
    """Scores of meshes beside real ones, by 512 points of each at one size; quadratic in their number.

    Args:
        samples: meshes; those without a surface are left out, on both sides.
        real: others.
        chamfer: measures the distances; :mod:`modalities.shape3d.pytorch3d` has another.
    """
    clouds = []
    for meshes in (samples, real):
        drawn = oriented_points(meshes, stream(0, "sets"))[:, :3].mT
        clouds.append(drawn[drawn.isfinite().flatten(1).all(1)])
    first, second = clouds
    return scores(chamfer(first, second), (chamfer(first, first), chamfer(second, second)))
