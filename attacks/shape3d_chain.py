"""Mesh attacks in a row, in five grades; each class says what its grades are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator

from attacks.grids import Card, Grid
from attacks.limits import check_strength
from attacks.shape3d_colour import ColourNoise
from attacks.shape3d_cutting import MeshCrop
from attacks.shape3d_files import Draco
from attacks.shape3d_gltf import QuantisedGLTF
from attacks.shape3d_listing import FUNC_EVADE, OURS, mesh_family
from attacks.shape3d_pose import MeshRotation, NonUniformScaling
from attacks.shape3d_remesh import Decimation
from attacks.shape3d_solid import VoxelRemesh
from attacks.shape3d_texture import TextureJPEG
from attacks.shape3d_vertices import LaplacianSmoothing, TaubinSmoothing, VertexNoise
from bench.protocol import ContentAttack, Mesh, Target
from bench.rng import child

GRADES = (1.0, 2.0, 3.0, 4.0, 5.0)


def chained(content: Sequence[Mesh], links: Sequence[ContentAttack], rng: Generator) -> list[Mesh]:
    """Meshes after one attack after the other, each mesh with streams of its own."""
    found = []
    for mesh in content:
        streams = [child(rng, "link", index) for index in range(len(links))]
        batch = [mesh]
        for link, own in zip(links, streams, strict=True):
            batch = link(batch, own)
        found += batch
    return found


@dataclass(frozen=True)
class PoseChain:
    """Grade g: turned by 6 g degrees, stretched by 1 + 0.04 g, and 3 g percent of the faces cut off.

    Attributes:
        grade: 1 to 5.
    """

    grade: float = 3.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 5)

    def links(self) -> tuple[ContentAttack, ...]:
        """The attacks in a row."""
        g = self.grade
        return MeshRotation(6 * g), NonUniformScaling(1 + 0.04 * g), MeshCrop(1 - 0.03 * g)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes after all three."""
        return chained(content, self.links(), rng)


@dataclass(frozen=True)
class WearChain:
    """Grade g: vertices moved by 0.001 g diagonals, smoothed 2 g times, colours disturbed by 0.02 g.

    Attributes:
        grade: 1 to 5.
    """

    grade: float = 3.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 5)

    def links(self) -> tuple[ContentAttack, ...]:
        """The attacks in a row."""
        g = self.grade
        return VertexNoise(0.001 * g), LaplacianSmoothing(round(2 * g)), ColourNoise(0.02 * g)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes after all three."""
        return chained(content, self.links(), rng)


@dataclass(frozen=True)
class AssetChain:
    """What a pipeline for games and web shops does: grade g keeps 1 - 0.15 g of the faces, then a texture and a file.

    JPEG of quality 100 - 16 g, and glTF with 13 - g bits.

    Attributes:
        grade: 1 to 5.
    """

    grade: float = 3.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 5)

    def links(self) -> tuple[ContentAttack, ...]:
        """The attacks in a row."""
        g = self.grade
        return Decimation(1 - 0.15 * g), TextureJPEG(round(100 - 16 * g)), QuantisedGLTF(round(13 - g))

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes after all three."""
        return chained(content, self.links(), rng)


@dataclass(frozen=True)
class LaunderingChain:
    """What somebody does who wants no trace left: grade g fills 112 - 16 g voxels and makes a new surface around them.

    That is smoothed 5 g times by Taubin's method, decimated to 1 - 0.15 g, and compressed by Draco with 13 - g bits.

    Attributes:
        grade: 1 to 5.
    """

    grade: float = 3.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 5)

    def links(self) -> tuple[ContentAttack, ...]:
        """The attacks in a row."""
        g = self.grade
        made_anew = (VoxelRemesh(round(112 - 16 * g)), TaubinSmoothing(round(5 * g)))
        return *made_anew, Decimation(1 - 0.15 * g), Draco(round(13 - g))

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes after all four."""
        return chained(content, self.links(), rng)


FAMILIES = (
    mesh_family(
        "pose-chain",
        PoseChain,
        Grid(GRADES, 2, "grade"),
        Card("Turns, stretches and crops the mesh, one after the other.", OURS),
        standard=(),
    ),
    mesh_family(
        "wear-chain",
        WearChain,
        Grid(GRADES, 2, "grade"),
        Card("Adds noise, smooths and disturbs the colours, one after the other.", OURS),
        standard=(),
    ),
    mesh_family(
        "asset-chain",
        AssetChain,
        Grid(GRADES, 2, "grade"),
        Card("Prepares the mesh for a game: decimated, textured with JPEG, quantised.", OURS),
        standard=(3.0, 5.0),
    ),
    mesh_family(
        "laundering-chain",
        LaunderingChain,
        Grid(GRADES, 2, "grade"),
        Card("Remeshes from voxels, smooths, decimates and compresses to leave no trace.", FUNC_EVADE),
        standard=(),
    ),
)
