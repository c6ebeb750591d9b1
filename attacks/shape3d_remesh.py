"""Mesh attacks that divide the surface into other triangles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Generator

from attacks.limits import check_strength
from attacks.shape3d_meshes import (
    Array,
    Faces,
    diagonal_of,
    made,
    mesh_by_mesh,
    nearest_colours,
    unit_normals,
    vertices_of,
)
from bench.protocol import Mesh, Target

FLATTEN = 0.25
"""How far apart, in mean spacings of clusters, opposite normals count: both sides of a thin wall stay apart."""
ROUNDS = 4


@dataclass(frozen=True)
class Decimation:
    """Collapse edges where it costs least: quadric error decimation.

    Garland and Heckbert, SIGGRAPH 1997, through fast-simplification.

    Attributes:
        keep_ratio: share of the faces that stays; lower is stronger.
    """

    keep_ratio: float = 0.3
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0.001, 1)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes of fewer faces, in the colours of the nearest old vertices."""
        import fast_simplification

        def simplified(mesh: Mesh) -> Mesh:
            wanted = max(4, round(self.keep_ratio * len(mesh.faces)))
            if wanted >= len(mesh.faces):
                return mesh
            used, faces = mesh.faces.unique(return_inverse=True)
            points, triangles = mesh.vertices[used].numpy(), faces.view(-1, 3).numpy().astype(np.int32)
            vertices, kept = fast_simplification.simplify(points, triangles, target_count=wanted)
            if not len(kept):
                return mesh
            return made(vertices, kept, nearest_colours(mesh, vertices))

        return mesh_by_mesh(content, simplified)


@dataclass(frozen=True)
class IsotropicRemesh:
    """Cluster vertices evenly and connect neighbouring clusters: a new, even triangulation.

    Valette and Chassery, "Approximated Centroidal Voronoi Diagrams for Uniform Polygonal Mesh Coarsening", Eurographics
    2004, with Euclidean distances of places and normals instead of those along the surface.

    Attributes:
        keep_ratio: clusters per vertex; lower is stronger.
    """

    keep_ratio: float = 0.25
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0.01, 1)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes with evenly spaced vertices."""

        def remeshed(mesh: Mesh) -> Mesh:
            used, corners = mesh.faces.unique(return_inverse=True)
            count = max(8, round(self.keep_ratio * len(used)))
            if count >= len(used):
                return mesh
            places, faces = vertices_of(mesh)[used.numpy()], corners.view(-1, 3).numpy()
            seeds = torch.randperm(len(used), generator=rng)[:count].numpy()
            owner, centres = _clusters(
                places, unit_normals(places, faces), seeds, FLATTEN * diagonal_of(mesh) / count**0.5
            )
            dual = owner[faces]
            apart = (dual[:, 0] != dual[:, 1]) & (dual[:, 1] != dual[:, 2]) & (dual[:, 2] != dual[:, 0])
            kept = dual[apart]
            return made(centres, kept, nearest_colours(mesh, centres)) if len(kept) >= 4 else mesh

        return mesh_by_mesh(content, remeshed)


def _clusters(places: Array, normals: Array, seeds: Faces, reach: float) -> tuple[Faces, Array]:
    """Lloyd's algorithm, started at ``seeds``: each vertex's cluster, and the clusters' places (K, 3)."""
    from scipy.spatial import cKDTree

    described = np.concatenate([places, reach * normals], 1)
    centres = described[seeds]
    for _ in range(ROUNDS):
        _, owner = cKDTree(centres).query(described)
        size = np.bincount(owner, minlength=len(centres))[:, None]
        total = np.stack([np.bincount(owner, column, len(centres)) for column in described.T], 1)
        centres = np.where(size > 0, total / np.maximum(size, 1), centres)
    return np.asarray(owner, np.int64), centres[:, :3]


@dataclass(frozen=True)
class ConvexHull:
    """Replace the mesh by its convex hull: a control that no mark should survive and no user would want."""

    target: ClassVar[Target] = "content"

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Hulls, faces outward; a flat mesh has none and stays."""
        from scipy.spatial import ConvexHull as Hull
        from scipy.spatial import QhullError

        def hull(mesh: Mesh) -> Mesh:
            used = mesh.faces.unique().numpy()
            places = vertices_of(mesh)[used]
            try:
                found = Hull(places)
            except QhullError:
                return mesh
            corners, faces = found.vertices, np.searchsorted(np.sort(found.vertices), found.simplices)
            places, own = places[np.sort(corners)], mesh.colours.numpy()[used][np.sort(corners)]
            a, b, c = (places[faces[:, corner]] for corner in range(3))
            inward = (np.cross(b - a, c - a) * (a - places.mean(0))).sum(1) < 0
            faces[inward] = faces[inward][:, ::-1]
            return made(places, faces, own)

        return mesh_by_mesh(content, hull)
