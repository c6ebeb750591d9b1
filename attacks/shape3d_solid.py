"""Mesh attacks that keep a shape and none of its mesh: voxels, points, an autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Generator

from attacks.limits import check_strength
from attacks.shape3d_meshes import Array, box_of, made, mesh_by_mesh, nearest_colours, vertices_of
from bench.metrics.solids import volumes
from bench.protocol import Mesh, Target

MARGIN = 2
"""Empty cells around a shape."""
NEIGHBOURS = 4
POINT_CELLS = 40
"""Cells along the longest side of the grid that points are turned into a surface on."""


@dataclass(frozen=True)
class VoxelRemesh:
    """Fill voxels, and make a new surface around them by marching cubes.

    It takes away whatever is written into vertices and faces: FuncEvade, arXiv:2311.12059, reports to evade every mark
    of that kind by extracting the mesh anew.

    Attributes:
        cells: voxels along the longest side; fewer is stronger.
    """

    cells: int = 48
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 4, 256)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """New meshes of the same solids."""

        def remeshed(mesh: Mesh) -> Mesh:
            low, cell = grid_around(mesh, self.cells)
            corners = (vertices_of(mesh) - low) / cell
            colours = np.zeros((len(mesh.faces), 3, 3))
            filled = volumes(corners[mesh.faces.numpy()], colours, self.cells + 2 * MARGIN).filled
            return surfaced(filled - 0.5, (low, cell), mesh)

        return mesh_by_mesh(content, remeshed)


@dataclass(frozen=True)
class PointReconstruction:
    """Keep only points with normals, drawn evenly from the surface, and reconstruct it from them.

    Signed distances to the tangent planes of the nearest points, as in Hoppe et al., "Surface Reconstruction from
    Unorganized Points", SIGGRAPH 1992, and marching cubes.

    Attributes:
        points: how many; fewer is stronger.
    """

    points: int = 8192
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 64, 1_000_000)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Reconstructed meshes."""

        def reconstructed(mesh: Mesh) -> Mesh:
            low, cell = grid_around(mesh, POINT_CELLS)
            places, normals = drawn_points(mesh, self.points, rng)
            return surfaced(_planes((places - low) / cell, normals, POINT_CELLS + 2 * MARGIN), (low, cell), mesh)

        return mesh_by_mesh(content, reconstructed)


def grid_around(mesh: Mesh, cells: int, margin: int = MARGIN) -> tuple[Array, float]:
    """Corner and side of a cell of the grid of ``cells`` along the longest side, and ``margin`` empty ones around."""
    low, high = box_of(mesh)
    cell = max(float((high - low).max()), 1e-12) / cells
    return (low + high) / 2 - cell * (cells / 2 + margin), cell


def surfaced(values: NDArray[np.floating[Any]], grid: tuple[Array, float], mesh: Mesh) -> Mesh:
    """Marching cubes around positive ``values`` at cell centres, painted like ``mesh``; or ``mesh``."""
    from skimage.measure import marching_cubes

    if not values.max() > 0 > values.min():
        return mesh
    corners, faces, _, _ = marching_cubes(np.pad(values, 1, constant_values=values.min()), 0.0)
    (low, cell), vertices = grid, corners - 0.5
    places = low + vertices * cell
    return made(places, faces[:, ::-1], nearest_colours(mesh, places))


def drawn_points(mesh: Mesh, count: int, rng: Generator) -> tuple[Array, Array]:
    """Points (N, 3), uniform by area, and their faces' unit normals."""
    corners = vertices_of(mesh)[mesh.faces.numpy()]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(cross, axis=1)
    drawn = torch.rand(count, 3, generator=rng, dtype=torch.float64).numpy()
    total = np.cumsum(areas)
    face = np.searchsorted(total, drawn[:, 0] * total[-1], side="right").clip(max=len(total) - 1)
    root, other = np.sqrt(drawn[:, 1]), drawn[:, 2]
    weights = np.stack([1 - root, root * (1 - other), root * other], 1)
    return (corners[face] * weights[..., None]).sum(1), cross[face] / areas[face].clip(1e-30)[:, None]


def _planes(places: Array, normals: Array, side: int) -> Array:
    """Signed distance, positive inside, of cell centres (side³) to planes through nearby points, all in cells.

    Cells far from all points are inside when cells near points cut them off from the grid's corner.
    """
    from scipy.spatial import cKDTree

    occupied = np.zeros([side] * 3, bool)
    occupied[tuple(places.astype(int).clip(0, side - 1).T)] = True
    near = ndimage.binary_dilation(occupied, iterations=2)
    centres = np.argwhere(near) + 0.5
    apart, which = cKDTree(places).query(centres, NEIGHBOURS)
    signed = -((centres[:, None] - places[which]) * normals[which]).sum(2)
    weights = 1 / (apart + 0.1) ** 2
    regions, _ = ndimage.label(~near)
    values = np.where(regions == regions[0, 0, 0], -2.0, 2.0)
    values[near] = (signed * weights).sum(1) / weights.sum(1)
    return values.clip(-2, 2)


@dataclass(frozen=True)
class MeshRegeneration:
    """Encode and decode with an autoencoder that knows nothing of the fingerprint.

    As :class:`attacks.image_codec.Regeneration`: Zhao et al., NeurIPS 2024, arXiv:2306.01953.

    Attributes:
        passes: how often; each starts from the published meshes of the last.
        reconstruct: meshes to as many meshes; the same at every call.
    """

    passes: int
    reconstruct: Callable[[list[Mesh]], list[Mesh]] = field(repr=False, compare=False)
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1)

    @torch.no_grad()
    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes, as the autoencoder restores them."""
        meshes = list(content)
        for _ in range(self.passes):
            restored = self.reconstruct(meshes)
            if len(restored) != len(meshes):
                raise ValueError(f"reconstructed {len(restored)} meshes, expected {len(meshes)}")
            meshes = restored
        return meshes
