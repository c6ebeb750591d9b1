"""Mesh attacks that take parts of a surface away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Generator

from attacks.grids import Card, Grid
from attacks.limits import check_strength
from attacks.shape3d_listing import OURS, POINTS, mesh_family
from attacks.shape3d_meshes import Array, Faces, face_areas, mesh_by_mesh, vertices_of
from attacks.shape3d_pose import random_direction
from bench.protocol import Mesh, Target

FEWEST_FACES = 4
HOLES = 8


@dataclass(frozen=True)
class MeshCrop:
    """Drop the faces beyond a plane in a random direction; what is left is open where it was cut.

    Attributes:
        keep_ratio: share of the faces that stays; lower is stronger.
    """

    keep_ratio: float = 0.9
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0.05, 1)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Cut meshes."""

        def cut(mesh: Mesh) -> Mesh:
            direction = random_direction(rng)
            place = vertices_of(mesh)[mesh.faces.numpy()].mean(1) @ direction
            order = np.argsort(place, kind="stable")[: max(4, round(self.keep_ratio * len(place)))]
            return Mesh(mesh.vertices, mesh.faces[torch.from_numpy(np.sort(order))], mesh.colours)

        return mesh_by_mesh(content, cut)


@dataclass(frozen=True)
class HoleCutting:
    """Cut eight round holes into the surface at random places, and leave them open.

    Attributes:
        share: of the faces that are cut out, over all holes; higher is stronger.
    """

    share: float = 0.05
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 0.95)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes with holes; where a wall is thin they go through it."""
        from scipy.spatial import cKDTree

        def pierced(mesh: Mesh) -> Mesh:
            centres = vertices_of(mesh)[mesh.faces.numpy()].mean(1)
            seeds = torch.randint(len(centres), (HOLES,), generator=rng).numpy()
            apart, _ = cKDTree(centres[seeds]).query(centres)
            return _without(mesh, np.argsort(apart, kind="stable")[: round(self.share * len(centres))])

        return mesh_by_mesh(content, pierced)


@dataclass(frozen=True)
class ComponentRemoval:
    """Delete loose parts, the smallest first, and the end of the next one, until so much of the surface is gone.

    A mesh in one piece loses the end of its longest direction. Vertices at one place count as connected.

    Attributes:
        share: of the surface's area that goes, to within a face; higher is stronger.
    """

    share: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 0.95)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes without their small parts."""

        def pruned(mesh: Mesh) -> Mesh:
            areas, part = face_areas(mesh), _parts(mesh)
            sizes = np.bincount(part, areas)
            rank = np.argsort(np.argsort(sizes, kind="stable"))[part]
            order = np.lexsort((-_along(mesh, part, areas), rank))
            gone = np.cumsum(areas[order]) <= self.share * areas.sum()
            return _without(mesh, order[gone])

        return mesh_by_mesh(content, pruned)


@dataclass(frozen=True)
class PointDropout:
    """Delete vertices at random, with the faces around them.

    Attributes:
        share: of the vertices that faces use; higher is stronger.
    """

    share: float = 0.02
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 0.95)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes with a hole at each deleted vertex."""

        def thinned(mesh: Mesh) -> Mesh:
            used = mesh.faces.unique()
            order = torch.randperm(len(used), generator=rng)
            dropped = torch.zeros(len(mesh.vertices), dtype=torch.bool)
            dropped[used[order[: round(self.share * len(used))]]] = True
            return _without(mesh, np.flatnonzero(dropped[mesh.faces].any(1).numpy()))

        return mesh_by_mesh(content, thinned)


def _without(mesh: Mesh, dropped: NDArray[np.intp]) -> Mesh:
    """The mesh without faces of these numbers, but with no fewer than four; those in front go first."""
    kept = torch.ones(len(mesh.faces), dtype=torch.bool)
    kept[torch.from_numpy(dropped[: max(0, len(mesh.faces) - FEWEST_FACES)].copy())] = False
    return Mesh(mesh.vertices, mesh.faces[kept], mesh.colours)


def _parts(mesh: Mesh) -> Faces:
    """Number of each face's connected part, (F,)."""
    _, place = np.unique(mesh.vertices.numpy(), axis=0, return_inverse=True)
    faces = place.reshape(-1)[mesh.faces.numpy()]
    ones, count = np.ones(2 * len(faces)), int(place.max()) + 1
    start, end = np.concatenate([faces[:, 0], faces[:, 1]]), np.concatenate([faces[:, 1], faces[:, 2]])
    _, part = sparse.csgraph.connected_components(sparse.coo_matrix((ones, (start, end)), (count, count)), False)
    _, number = np.unique(part[faces[:, 0]], return_inverse=True)
    return np.asarray(number, np.int64)


def _along(mesh: Mesh, part: Faces, areas: Array) -> Array:
    """Place of each face along the longest direction of its part, (F,)."""
    centres = vertices_of(mesh)[mesh.faces.numpy()].mean(1)
    total = np.bincount(part, areas).clip(1e-30)
    middle = np.stack([np.bincount(part, areas * column) / total for column in centres.T], 1)
    apart = centres - middle[part]
    spread = np.einsum("f,fi,fj->fij", areas, apart, apart)
    moments = np.stack([np.bincount(part, spread[:, i, j]) for i in range(3) for j in range(3)], 1).reshape(-1, 3, 3)
    axes = np.linalg.eigh(moments)[1][:, :, -1]
    place: Array = (apart * axes[part]).sum(1)
    return place


FAMILIES = (
    mesh_family(
        "hole-cutting",
        HoleCutting,
        Grid((0.02, 0.05, 0.1, 0.2), 1, "share of the faces"),
        Card("Cuts holes into the surface.", OURS),
        standard=(0.1,),
    ),
    mesh_family(
        "component-removal",
        ComponentRemoval,
        Grid((0.05, 0.1, 0.2, 0.3), 1, "share of the area"),
        Card("Deletes loose parts, or the end of a mesh in one piece.", OURS),
        standard=(),
    ),
    mesh_family(
        "point-dropout",
        PointDropout,
        Grid((0.005, 0.02, 0.05, 0.1), 1, "share of the vertices"),
        Card("Deletes vertices at random with the faces around them.", POINTS),
        standard=(),
    ),
)
