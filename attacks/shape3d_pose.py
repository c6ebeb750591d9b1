"""Mesh attacks that turn, stretch or reorder a mesh."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Generator

from attacks.limits import check_strength
from attacks.shape3d_meshes import Array, box_of, mesh_by_mesh, moved, vertices_of
from bench.protocol import Mesh, Target


@dataclass(frozen=True)
class MeshRotation:
    """Turn around a random axis.

    Attributes:
        degrees: angle; stronger up to 180.
    """

    degrees: float = 30.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 180)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Turned meshes."""
        return mesh_by_mesh(
            content, lambda mesh: moved(mesh, vertices_of(mesh) @ _turn(math.radians(self.degrees), rng).T)
        )


@dataclass(frozen=True)
class Similarity:
    """Scale by any factor up to a strongest one, or its inverse, and move by as many half metres: another unit.

    Attributes:
        largest_factor: above or equal to 1; higher is stronger.
    """

    largest_factor: float = 10.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 1e6)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes of another size, elsewhere."""

        def changed(mesh: Mesh) -> Mesh:
            drawn = 2 * torch.rand(4, generator=rng, dtype=torch.float64).numpy() - 1
            factor = self.largest_factor ** drawn[0]
            return moved(mesh, vertices_of(mesh) * factor + 0.5 * (self.largest_factor - 1) * drawn[1:])

        return mesh_by_mesh(content, changed)


@dataclass(frozen=True)
class Affine:
    """Multiply coordinates by the identity plus a random matrix: stretched and sheared.

    Attributes:
        strain: standard deviation of that matrix's numbers; higher is stronger.
    """

    strain: float = 0.05
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Distorted meshes."""

        def distorted(mesh: Mesh) -> Mesh:
            matrix = np.eye(3) + self.strain * torch.randn(3, 3, generator=rng, dtype=torch.float64).numpy()
            return moved(mesh, vertices_of(mesh) @ matrix.T)

        return mesh_by_mesh(content, distorted)


@dataclass(frozen=True)
class NonUniformScaling:
    """Stretch one axis, squeeze another, and leave the third: which ones is drawn; the volume stays.

    Attributes:
        factor: by how much the longest of the three scales exceeds the shortest, at least 1; higher is stronger.
    """

    factor: float = 1.2
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 100)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes of other proportions, around the centres of their boxes."""
        scales = self.factor ** np.array([0.5, 0.0, -0.5])

        def stretched(mesh: Mesh) -> Mesh:
            order = torch.randperm(3, generator=rng).numpy()
            centre = sum(box_of(mesh)) / 2
            return moved(mesh, (vertices_of(mesh) - centre) * scales[order] + centre)

        return mesh_by_mesh(content, stretched)


@dataclass(frozen=True)
class Reordering:
    """Shuffle vertices and faces, and which corner a face begins with: the same surface, another file.

    The first thing that a mark in the order of a file cannot survive.
    """

    target: ClassVar[Target] = "content"

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """The same meshes in another order."""

        def shuffled(mesh: Mesh) -> Mesh:
            order = torch.randperm(len(mesh.vertices), generator=rng)
            place = torch.empty_like(order)
            place[order] = torch.arange(len(order))
            faces = place[mesh.faces[torch.randperm(len(mesh.faces), generator=rng)]]
            first = torch.randint(3, (len(faces), 1), generator=rng)
            return Mesh(mesh.vertices[order], faces.gather(1, (first + torch.arange(3)) % 3), mesh.colours[order])

        return mesh_by_mesh(content, shuffled)


def random_direction(rng: Generator) -> Array:
    """Unit vector (3,), uniform over the sphere."""
    drawn: Array = torch.randn(3, generator=rng, dtype=torch.float64).numpy()
    unit: Array = drawn / max(float(np.linalg.norm(drawn)), 1e-12)
    return unit


def _turn(angle: float, rng: Generator) -> Array:
    """Rotation matrix around a random axis, by Rodrigues' formula."""
    x, y, z = random_direction(rng)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: Array = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    return turn
