"""Mesh attacks that disturb single vertices, or the surface along its normals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator

from attacks.grids import Card, Grid
from attacks.limits import check_strength
from attacks.shape3d_listing import OURS, mesh_family
from attacks.shape3d_meshes import diagonal_of, mesh_by_mesh, moved, unit_normals, vertices_of
from bench.protocol import Mesh, Target

THROW = 0.05
"""How far outliers land, in diagonals: the standard deviation along each axis."""


@dataclass(frozen=True)
class OutlierVertices:
    """Throw a few vertices far away, as a faulty scanner does; the others stay.

    Attributes:
        share: of the vertices that faces use; higher is stronger.
    """

    share: float = 0.01
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes with spikes."""

        def spiked(mesh: Mesh) -> Mesh:
            used = mesh.faces.unique()
            order = torch.randperm(len(used), generator=rng)
            throws = THROW * torch.randn(len(used), 3, generator=rng, dtype=torch.float64)
            chosen = order[: round(self.share * len(used))]
            vertices = vertices_of(mesh)
            vertices[used[chosen].numpy()] += diagonal_of(mesh) * throws[: len(chosen)].numpy()
            return moved(mesh, vertices)

        return mesh_by_mesh(content, spiked)


@dataclass(frozen=True)
class NormalNoise:
    """Move every vertex along its normal by Gaussian noise: the surface gets rough, the triangles stay even.

    Attributes:
        relative_std: standard deviation, in diagonals of the bounding box; higher is stronger.
    """

    relative_std: float = 0.005
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes with a rough surface."""

        def roughened(mesh: Mesh) -> Mesh:
            vertices = vertices_of(mesh)
            height = torch.randn(len(vertices), 1, generator=rng, dtype=torch.float64).numpy()
            normals = unit_normals(vertices, mesh.faces.numpy())
            return moved(mesh, vertices + self.relative_std * diagonal_of(mesh) * height * normals)

        return mesh_by_mesh(content, roughened)


FAMILIES = (
    mesh_family(
        "outlier-vertices",
        OutlierVertices,
        Grid((0.001, 0.005, 0.01, 0.05), 2, "share of the vertices"),
        Card("Leaves spikes in the mesh, as a faulty scan has.", OURS),
        standard=(),
    ),
    mesh_family(
        "normal-noise",
        NormalNoise,
        Grid((0.001, 0.003, 0.005, 0.01, 0.02), 2, "diagonals"),
        Card("Roughens the surface along its normals, as sanding or a displacement map does.", OURS),
        standard=(),
    ),
)
