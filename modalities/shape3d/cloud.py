"""Points on the surface of a mesh, and distances from points to surfaces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.protocol import Mesh


class Cloud(NamedTuple):
    """Points drawn from a surface.

    Attributes:
        points: (N, 3) float32, in the mesh's own unit.
        normals: of unit length, as the faces are wound, (N, 3).
        colours: RGB in [0, 1], (N, 3).
    """

    points: Tensor
    normals: Tensor
    colours: Tensor


def normals_of(mesh: Mesh) -> tuple[Tensor, Tensor]:
    """Unit normals (F, 3) and areas (F,) of faces; a face without area has the normal 0."""
    a, b, c = (mesh.vertices[mesh.faces[:, corner]].double() for corner in range(3))
    cross = torch.linalg.cross(b - a, c - a)
    length = cross.norm(dim=1)
    return (cross / length.clamp_min(1e-30)[:, None]).float(), length / 2


def sampled_surface(mesh: Mesh, count: int, rng: torch.Generator) -> Cloud:
    """``count`` points, uniform by area (Osada et al., "Shape Distributions", ACM TOG 2002, eq. 1).

    Raises:
        ValueError: when the mesh has no area.
    """
    normals, areas = normals_of(mesh)
    total = areas.cumsum(0)
    if not len(total) or not total[-1] > 0:
        raise ValueError("a mesh without area, expected a surface to draw points from")
    drawn = torch.rand(count, 3, generator=rng, dtype=torch.float64)
    face = torch.searchsorted(total, drawn[:, 0] * total[-1], right=True).clamp(max=len(total) - 1)
    root, other = drawn[:, 1].sqrt(), drawn[:, 2]
    weights = torch.stack([1 - root, root * (1 - other), root * other], 1)[..., None]  # (N, 3, 1)
    corners = mesh.faces[face]
    points = (mesh.vertices[corners].double() * weights).sum(1).float()
    colours = (mesh.colours[corners].double() * weights).sum(1).float() / 255
    return Cloud(points, normals[face], colours)


class Feet(NamedTuple):
    """The nearest surface point of each of N points.

    Attributes:
        distance: (N,).
        normals: of the faces that they lie on, (N, 3).
        colours: RGB in [0, 1], (N, 3).
    """

    distance: Tensor
    normals: Tensor
    colours: Tensor


def feet(points: Tensor, mesh: Mesh) -> Feet:
    """Exact nearest points of a surface, through point-cloud-utils (Embree's hierarchy of boxes)."""
    import point_cloud_utils as pcu  # compiled; a tenth of a second to import

    vertices = np.ascontiguousarray(mesh.vertices.numpy(), dtype=np.float32)
    faces = np.ascontiguousarray(mesh.faces.numpy().astype(np.int32))
    distance, face, weights = pcu.closest_points_on_mesh(np.ascontiguousarray(points.float().numpy()), vertices, faces)
    weights = np.where(np.isfinite(weights), weights, 1 / 3)  # a triangle without area has none
    owners = mesh.faces[torch.from_numpy(face.astype(np.int64))]
    colours = mesh.colours[owners].float() / 255 * torch.from_numpy(weights).float()[..., None]
    normals, _ = normals_of(Mesh(mesh.vertices, owners, mesh.colours))
    return Feet(torch.from_numpy(distance).float(), normals, colours.sum(1))
