"""Mesh attacks that write a file and read it again."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator

from attacks.limits import check_strength
from attacks.shape3d_meshes import made, mesh_by_mesh, vertices_of
from bench.protocol import Mesh, Target

GREY = 128


@dataclass(frozen=True)
class Draco:
    """Compress with Draco, which quantises coordinates and orders vertices anew.

    Attributes:
        bits: of a coordinate; lower is stronger.
    """

    bits: int = 11
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 30)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes, compressed and opened again."""
        import DracoPy

        def reopened(mesh: Mesh) -> Mesh:
            file = DracoPy.encode(
                mesh.vertices.numpy(),
                mesh.faces.numpy().astype(np.uint32),
                quantization_bits=self.bits,
                compression_level=7,
                colors=np.ascontiguousarray(mesh.colours.numpy()),
            )
            found = DracoPy.decode(file)
            return made(found.points, found.faces, found.colors) if len(found.faces) else mesh

        return mesh_by_mesh(content, reopened)


@dataclass(frozen=True)
class SaveAsOBJ:
    """Write as Wavefront OBJ, which is text, and read it again.

    Attributes:
        digits: behind the point of every coordinate; fewer is stronger.
    """

    digits: int = 4
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 12)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes, written and opened again."""
        import trimesh

        def reopened(mesh: Mesh) -> Mesh:
            body = trimesh.Trimesh(
                mesh.vertices.numpy(), mesh.faces.numpy(), vertex_colors=mesh.colours.numpy(), process=False
            )
            text = str(body.export(file_type="obj", include_normals=False, digits=self.digits))
            found: Any = trimesh.load_mesh(io.StringIO(text), file_type="obj", process=False, skip_materials=True)
            return made(found.vertices, found.faces, np.asarray(found.visual.vertex_colors)[:, :3])

        return mesh_by_mesh(content, reopened)


@dataclass(frozen=True)
class SaveAsSTL:
    """Write as binary STL, three corners per triangle and no colours, and read it again."""

    target: ClassVar[Target] = "content"

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Grey meshes in which no two triangles share a vertex."""

        def reopened(mesh: Mesh) -> Mesh:
            corners = vertices_of(mesh)[mesh.faces.numpy()].reshape(-1, 3)
            faces = torch.arange(len(corners)).view(-1, 3).numpy()
            return made(corners, faces, np.full(corners.shape, GREY))

        return mesh_by_mesh(content, reopened)
