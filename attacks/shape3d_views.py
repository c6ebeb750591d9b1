"""A mesh attack that photographs a shape and models it anew from its outlines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import ndimage
from torch import Generator

from attacks.grids import Card, Grid
from attacks.limits import check_strength
from attacks.shape3d_listing import OURS, mesh_family
from attacks.shape3d_meshes import Array, box_of, mesh_by_mesh, vertices_of
from attacks.shape3d_solid import grid_around, surfaced
from bench.metrics.solids import crossings
from bench.protocol import Mesh, Target

CELLS = 48
"""Along the longest side of the grid that is carved."""
MARGIN = 2
PIXELS = 128
OUTSIDE = -2.0
"""Signed distance, in pixels, from which on a cell is carved away for good."""


@dataclass(frozen=True)
class VisualHull:
    """Render outlines from all around, and carve what lies within all of them out of a block.

    Laurentini, "The Visual Hull Concept for Silhouette-Based Image Understanding", IEEE TPAMI 1994: hollows that no
    outline shows are filled. Parallel views, evenly spread and turned at random; painted like the nearest old vertices.

    Attributes:
        views: how many; fewer is stronger.
    """

    views: int = 16
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 2, 256)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Closed meshes without the hollows of the old ones."""

        def carved(mesh: Mesh) -> Mesh:
            low, cell = grid_around(mesh, CELLS, MARGIN)
            side = CELLS + 2 * MARGIN
            centre = sum(box_of(mesh)) / 2
            reach = 0.5 * math.sqrt(3) * cell * CELLS * 1.1
            triangles = ((vertices_of(mesh) - centre) / reach)[mesh.faces.numpy()]
            cells = (low + (np.indices([side] * 3).reshape(3, -1).T + 0.5) * cell - centre) / reach
            inside = np.full(len(cells), np.inf)
            for view in _views(self.views, rng):
                left = np.flatnonzero(inside > OUTSIDE)
                inside[left] = np.minimum(inside[left], _within(triangles @ view.T, cells[left] @ view.T))
            return surfaced(inside.clip(OUTSIDE, -OUTSIDE).reshape([side] * 3), (low, cell), mesh)

        return mesh_by_mesh(content, carved)


def _views(count: int, rng: Generator) -> list[Array]:
    """Right and up of each view, (2, 3), spread over half a sphere by golden angles, in random order.

    Opposite views show the same outline. All are turned by one random rotation.
    """
    turn, _ = np.linalg.qr(torch.randn(3, 3, generator=rng, dtype=torch.float64).numpy())
    number = np.arange(count)
    height, angle = (number + 0.5) / count, number * math.pi * (3 - math.sqrt(5))
    views = []
    for z, a in zip(height, angle, strict=True):
        right = np.array([-math.sin(a), math.cos(a), 0])
        towards = np.array([math.sqrt(1 - z * z) * math.cos(a), math.sqrt(1 - z * z) * math.sin(a), z])
        views.append(np.stack([right, np.cross(towards, right)]) @ turn)
    return views


def _within(triangles: Array, places: Array) -> Array:
    """Signed distance in pixels of places (N, 2) from the outline of triangles (F, 3, 2), positive within."""
    scale = PIXELS / 2
    seen = crossings((triangles + 1) * scale - 0.5, PIXELS).line
    picture = np.zeros([PIXELS] * 2, bool)
    picture[seen[:, 0], seen[:, 1]] = True
    signed = ndimage.distance_transform_edt(picture) - ndimage.distance_transform_edt(~picture)
    found: Array = ndimage.map_coordinates(signed, ((places + 1) * scale - 0.5).T, order=1, mode="nearest")
    return found


FAMILIES = (
    mesh_family(
        "visual-hull",
        lambda s: VisualHull(int(s)),
        Grid((32, 16, 8, 4), 1, "views"),
        Card("Photographs the shape from all around and models it from its outlines.", OURS),
        standard=(8,),
    ),
)
