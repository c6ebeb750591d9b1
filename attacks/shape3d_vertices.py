"""Mesh attacks that move vertices: noise, quantised coordinates, smoothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import sparse
from torch import Generator

from attacks.limits import check_strength
from attacks.shape3d_meshes import Array, box_of, diagonal_of, mesh_by_mesh, moved, vertices_of
from bench.protocol import Mesh, Target

TAUBIN = -0.53


@dataclass(frozen=True)
class VertexNoise:
    """Move every vertex by Gaussian noise, each on its own.

    Wang et al., "A Benchmark for 3D Mesh Watermarking", SMI 2010, where the unit is the mean distance to the centre.

    Attributes:
        relative_std: standard deviation along each axis, in diagonals of the bounding box; higher is stronger.
    """

    relative_std: float = 0.005
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes with moved vertices."""

        def noisy(mesh: Mesh) -> Mesh:
            noise = torch.randn(mesh.vertices.shape, generator=rng, dtype=torch.float64).numpy()
            return moved(mesh, vertices_of(mesh) + self.relative_std * diagonal_of(mesh) * noise)

        return mesh_by_mesh(content, noisy)


@dataclass(frozen=True)
class VertexQuantisation:
    """Round coordinates to a lattice over the bounding box, the same along all axes.

    Attributes:
        bits: lattice points along the longest side, as a power of two; lower is stronger.
    """

    bits: int = 8
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 24)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes with coordinates rounded."""

        def rounded(mesh: Mesh) -> Mesh:
            low, high = box_of(mesh)
            step = max(float((high - low).max()), 1e-12) / (2**self.bits - 1)
            return moved(mesh, low + np.round((vertices_of(mesh) - low) / step) * step)

        return mesh_by_mesh(content, rounded)


@dataclass(frozen=True)
class LaplacianSmoothing:
    """Move every vertex half-way to the mean of its neighbours, several times; shapes shrink.

    Field, "Laplacian smoothing and Delaunay triangulations", Communications in Applied Numerical Methods, 1988.

    Attributes:
        iterations: how often; higher is stronger.
    """

    iterations: int = 10
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 10_000)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Smoothed meshes."""
        return mesh_by_mesh(content, lambda mesh: moved(mesh, _diffused(mesh, (0.5,) * self.iterations)))


@dataclass(frozen=True)
class TaubinSmoothing:
    """Smooth and swell in turn, so that shapes keep their volume.

    Taubin, "A Signal Processing Approach to Fair Surface Design", SIGGRAPH 1995, with λ = 0.5 and μ = -0.53.

    Attributes:
        iterations: pairs of steps; higher is stronger.
    """

    iterations: int = 10
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 10_000)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Smoothed meshes."""
        return mesh_by_mesh(content, lambda mesh: moved(mesh, _diffused(mesh, (0.5, TAUBIN) * self.iterations)))


def _diffused(mesh: Mesh, shares: tuple[float, ...]) -> Array:
    """Vertices after steps of these shares of the way to the mean of the neighbours; a lone vertex stays."""
    faces, count = mesh.faces.numpy(), len(mesh.vertices)
    start = np.concatenate([faces[:, i] for i in (0, 1, 2, 1, 2, 0)])
    end = np.concatenate([faces[:, i] for i in (1, 2, 0, 0, 1, 2)])
    links = sparse.csr_matrix((np.ones(len(start)), (start, end)), shape=(count, count))
    links.data[:] = 1  # an edge of two faces counts once
    degree = np.asarray(links.sum(1)).ravel()
    mean = sparse.diags(1 / np.maximum(degree, 1)) @ links
    vertices = vertices_of(mesh)
    for share in shares:
        vertices = vertices + share * np.where(degree[:, None] > 0, mean @ vertices - vertices, 0)
    return vertices
