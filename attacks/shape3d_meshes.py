"""Between published meshes and what the attacks compute on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bench.protocol import Mesh

Array = NDArray[np.float64]
Faces = NDArray[np.int64]


def mesh_by_mesh(content: Sequence[Mesh], change: Callable[[Mesh], Mesh]) -> list[Mesh]:
    """Change each mesh of a batch; one without faces stays as it is."""
    return [change(mesh) if len(mesh.faces) else mesh for mesh in content]


def vertices_of(mesh: Mesh) -> Array:
    """Vertices (V, 3) in double precision, a copy."""
    return mesh.vertices.numpy().astype(np.float64)


def moved(mesh: Mesh, vertices: Array) -> Mesh:
    """The mesh with its vertices elsewhere."""
    return Mesh(torch.from_numpy(vertices.astype(np.float32)), mesh.faces, mesh.colours)


def made(vertices: Array, faces: Faces, colours: Array) -> Mesh:
    """A mesh from arrays: vertices (V, 3), faces (F, 3), and colours (V, 3) on the scale of 0 to 255."""
    return Mesh(
        torch.from_numpy(np.ascontiguousarray(vertices, dtype=np.float32)),
        torch.from_numpy(np.ascontiguousarray(faces, dtype=np.int64)),
        torch.from_numpy(np.asarray(colours).clip(0, 255).round().astype(np.uint8)),
    )


def box_of(mesh: Mesh) -> tuple[Array, Array]:
    """Lowest and highest corner of the bounding box of the vertices that faces use."""
    used = vertices_of(mesh)[mesh.faces.unique().numpy()]
    return used.min(0), used.max(0)


def diagonal_of(mesh: Mesh) -> float:
    """Length of the bounding box's diagonal: the unit of strengths."""
    low, high = box_of(mesh)
    return float(np.linalg.norm(high - low))


def nearest_colours(mesh: Mesh, vertices: Array) -> Array:
    """Colours (V, 3), 0 to 255, of the mesh's vertices nearest to others (V, 3)."""
    from scipy.spatial import cKDTree  # takes a while to import

    used = mesh.faces.unique().numpy()
    _, found = cKDTree(vertices_of(mesh)[used]).query(vertices)
    colours: Array = mesh.colours.numpy()[used][found].astype(np.float64)
    return colours


def unit_normals(places: Array, faces: Faces) -> Array:
    """Unit normals of vertices (V, 3): of the faces around them, by area."""
    a, b, c = (places[faces[:, corner]] for corner in range(3))
    cross, normals = np.cross(b - a, c - a), np.zeros_like(places)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], cross)
    unit: Array = normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-30)
    return unit


def face_areas(mesh: Mesh) -> Array:
    """Area of each face, (F,)."""
    corners = vertices_of(mesh)[mesh.faces.numpy()]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas: Array = np.linalg.norm(cross, axis=1) / 2
    return areas
