"""Grids: where their points lie, and moving between them and the mesh's own coordinates.

A grid of side g holds values at the centres of g³ cells that fill the cube [-1, 1]³; axes are x, y, z.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 32
"""Points per axis of fields and observed tensors."""
CELL = 2 / SIDE
"""Side of a cell, in half sides of the cube."""
TRUNCATION = 2.5 * CELL
"""Distance at which signed distances saturate."""
EXTENT = 0.85
"""Half of the longest side of a normalised shape: it leaves two cells around."""


def centres(side: int = SIDE) -> Tensor:
    """Cell centres along one axis, (side,)."""
    return (torch.arange(side) + 0.5) * (2 / side) - 1


def points(side: int = SIDE) -> Tensor:
    """Cell centres (side³, 3), x slowest."""
    axis = centres(side)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).view(-1, 3)


def sampled(grid: Tensor, where: Tensor) -> Tensor:
    """Trilinear values (B, C, N) of grids (B, C, g, g, g) at points (B, N, 3); beyond the cube its edge goes on."""
    places = where.flip(-1)[:, :, None, None]  # grid_sample wants z, y, x
    values: Tensor = F.grid_sample(grid, places, mode="bilinear", padding_mode="border", align_corners=False)
    return values[..., 0, 0]
