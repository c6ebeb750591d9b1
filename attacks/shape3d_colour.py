"""Mesh attacks on vertex colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator

from attacks.limits import check_strength
from attacks.shape3d_meshes import mesh_by_mesh
from bench.protocol import Mesh, Target

GREY = 128


@dataclass(frozen=True)
class ColourNoise:
    """Add Gaussian noise to every vertex's colour.

    Attributes:
        std: standard deviation, in units of full brightness; higher is stronger.
    """

    std: float = 0.05
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes with noisy colours."""

        def noisy(mesh: Mesh) -> Mesh:
            noise = 255 * self.std * torch.randn(mesh.colours.shape, generator=rng)
            colours = (mesh.colours.float() + noise).clamp(0, 255).round().to(torch.uint8)
            return Mesh(mesh.vertices, mesh.faces, colours)

        return mesh_by_mesh(content, noisy)


@dataclass(frozen=True)
class ColourLevels:
    """Round each colour channel to a few equally spaced levels, darkest and brightest among them.

    Attributes:
        levels: how many; lower is stronger.
    """

    levels: int = 8
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 2, 256)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes with fewer colours."""
        step = 255 / (self.levels - 1)

        def rounded(mesh: Mesh) -> Mesh:
            colours = ((mesh.colours.float() / step).round() * step).round().to(torch.uint8)
            return Mesh(mesh.vertices, mesh.faces, colours)

        return mesh_by_mesh(content, rounded)


@dataclass(frozen=True)
class ColourDrop:
    """Paint everything mid-grey: geometry alone is left."""

    target: ClassVar[Target] = "content"

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Grey meshes."""
        return mesh_by_mesh(content, lambda m: Mesh(m.vertices, m.faces, torch.full_like(m.colours, GREY)))
