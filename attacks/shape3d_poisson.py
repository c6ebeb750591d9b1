"""A mesh attack that keeps oriented points and solves Poisson's equation for the solid around which they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import fft, ndimage
from torch import Generator

from attacks.grids import Card, Grid
from attacks.limits import check_strength
from attacks.shape3d_listing import OURS, mesh_family
from attacks.shape3d_meshes import Array, face_areas, mesh_by_mesh
from attacks.shape3d_solid import drawn_points, grid_around, surfaced
from bench.protocol import Mesh, Target

POINTS = 32_768
MARGIN = 6
"""Empty cells around a shape: the solver repeats space, and shapes must not feel their own copies."""
WIDTH = 0.7
"""Of the Gaussian that points are spread by beside the trilinear weights, in cells."""


@dataclass(frozen=True)
class PoissonReconstruction:
    """Draw points with normals from the surface, and reconstruct the solid whose gradient they are.

    Kazhdan, Bolitho and Hoppe, "Poisson Surface Reconstruction", SGP 2006, equation 1, on a regular grid by the Fourier
    transform, as Peng et al., "Shape As Points", NeurIPS 2021, arXiv:2106.03452, section 3.1, do; then marching cubes
    at the mean value at the points. No library with wheels has it without a rendering stack beside it.

    Attributes:
        cells: of the grid along the longest side; fewer is stronger.
    """

    cells: int = 48
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 4, 256)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Reconstructed meshes, closed, painted like the old ones."""

        def reconstructed(mesh: Mesh) -> Mesh:
            low, cell = grid_around(mesh, self.cells, MARGIN)
            places, normals = drawn_points(mesh, POINTS, rng)
            weight = face_areas(mesh).sum() / cell**2 / POINTS  # of a point, in faces of a cell: the solid becomes 1
            inside = _solid((places - low) / cell - 0.5, normals * weight, self.cells + 2 * MARGIN)
            return surfaced(inside, (low, cell), mesh)

        return mesh_by_mesh(content, reconstructed)


def _solid(places: Array, normals: Array, side: int) -> Array:
    """Indicator of a solid, about 1 inside and 0 outside, less its mean at the points, at nodes (side³).

    Args:
        places: of points on its surface, in cells, (N, 3).
        normals: outward, of the length of the area that each point stands for, (N, 3).
        side: nodes per axis.
    """
    field = np.stack([_spread(places, normals[:, axis], side) for axis in range(3)])
    waves = np.meshgrid(*[2 * np.pi * fft.fftfreq(side)] * 2, 2 * np.pi * fft.rfftfreq(side), indexing="ij")
    square = np.square(waves).sum(0)
    square[0, 0, 0] = 1
    outward = sum(wave * fft.rfftn(part) for wave, part in zip(waves, field, strict=True))
    value = fft.irfftn(1j * outward / square * np.exp(-square * WIDTH**2 / 2), [side] * 3)
    level = ndimage.map_coordinates(value, places.T, order=1).mean()
    inside: Array = value - level
    return inside


def _spread(places: Array, values: Array, side: int) -> Array:
    """Values at points, shared among the eight nodes around each by trilinear weights, (side³)."""
    low = np.floor(places).astype(np.int64)
    rest, total = places - low, np.zeros(side**3)
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(corner, rest, 1 - rest).prod(1)
        node = (low + corner).clip(0, side - 1)
        total += np.bincount((node[:, 0] * side + node[:, 1]) * side + node[:, 2], weight * values, side**3)
    return total.reshape([side] * 3)


FAMILIES = (
    mesh_family(
        "poisson-reconstruction",
        lambda s: PoissonReconstruction(int(s)),
        Grid((64, 48, 32, 24, 16), 2, "cells"),
        Card("Scans the shape as points and reconstructs its surface, as scanning software does.", OURS),
        standard=(32,),
    ),
)
