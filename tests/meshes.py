"""Meshes to attack and to read: bodies with known volumes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from skimage.measure import marching_cubes

from bench.protocol import Mesh

Distance = Callable[[np.ndarray], np.ndarray]


def body(distance: Distance, cells: int = 28) -> Mesh:
    """Marching cubes of a signed distance, negative inside, over [-1, 1]³, painted by place."""
    axis = np.linspace(-1, 1, cells)
    places = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    corners, faces, _, _ = marching_cubes(-distance(places), 0.0)
    vertices = torch.from_numpy(corners / (cells - 1) * 2 - 1).float()
    colours = ((vertices + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Mesh(vertices, torch.from_numpy(faces[:, ::-1].astype(np.int64)), colours)


def sphere(radius: float = 0.8, cells: int = 28) -> Mesh:
    return body(lambda x: np.linalg.norm(x, axis=-1) - radius, cells)


def brick(cells: int = 28) -> Mesh:
    """A box of 1.6 × 0.7 × 1.0 with a cylinder of radius 0.3 on top."""

    def distance(x: np.ndarray) -> np.ndarray:
        box = (np.abs(x) - np.array([0.8, 0.35, 0.5])).max(-1)
        stud = np.maximum(np.hypot(x[..., 0], x[..., 2]) - 0.3, np.abs(x[..., 1] - 0.4) - 0.25)
        return np.minimum(box, stud)

    return body(distance, cells)


def cube(side: float = 1.0) -> Mesh:
    """Twelve triangles around the origin, from the corners of a cube."""
    corners = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]) * side / 2
    squares = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = torch.tensor([face for a, b, c, d in squares for face in ((a, b, c), (a, c, d))])
    return Mesh(corners, faces, torch.full((8, 3), 200, dtype=torch.uint8))


def empty() -> Mesh:
    return Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 3, dtype=torch.uint8))


def volume(mesh: Mesh) -> float:
    """Signed, positive when faces look outward."""
    return float(torch.linalg.det(mesh.vertices.double()[mesh.faces]).sum() / 6)


def area(mesh: Mesh) -> float:
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    return float(torch.linalg.cross(b - a, c - a).norm(dim=1).sum() / 2)


def same(a: Mesh, b: Mesh) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("vertices", "faces", "colours"))
