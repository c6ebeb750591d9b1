"""A mesh attack that saves the colours of a surface as a JPEG texture."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image
from torch import Generator

from attacks.grids import Card, Grid
from attacks.limits import check_strength
from attacks.shape3d_listing import OURS, mesh_family
from attacks.shape3d_meshes import Array, made, mesh_by_mesh
from bench.protocol import Mesh, Target

TILE = 8
"""Pixels along a side of a triangle's place in the texture."""
PAD = 2
"""Of them, beyond its corners on either side, as baking tools leave, lest neighbours bleed into it."""


@dataclass(frozen=True)
class TextureJPEG:
    """Bake the colours into a texture, save that as JPEG, and paint the vertices from it again.

    Every triangle has a square tile of its own, in the order of the faces, row by row, as in MeshLab's trivial
    per-triangle parametrisation; a vertex takes the mean of what its triangles show at its corner.

    Attributes:
        quality: of JPEG, 1 to 100; lower is stronger.
    """

    quality: int = 50
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 100)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes in the colours that the texture has after compression."""

        def repainted(mesh: Mesh) -> Mesh:
            faces, old = mesh.faces.numpy(), mesh.colours.numpy().astype(np.float64)
            corners = _read(self._saved(_baked(old[faces])), len(faces))
            uses = np.bincount(faces.reshape(-1), minlength=len(old))
            total = np.stack(
                [np.bincount(faces.reshape(-1), channel, len(old)) for channel in corners.reshape(-1, 3).T], 1
            )
            colours = np.where(uses[:, None] > 0, total / np.maximum(uses, 1)[:, None], old)
            return made(mesh.vertices.numpy(), faces, colours)

        return mesh_by_mesh(content, repainted)

    def _saved(self, texture: Array) -> Array:
        file = io.BytesIO()
        Image.fromarray(texture.clip(0, 255).round().astype(np.uint8)).save(file, "JPEG", quality=self.quality)
        with Image.open(file) as found:
            return np.asarray(found, np.float64)


def _baked(corners: Array) -> Array:
    """Texture (H, H, 3) of faces whose corners have colours (F, 3, 3), continued linearly over their tiles."""
    side = math.ceil(math.sqrt(len(corners)))
    steps = (np.arange(TILE) - PAD) / (TILE - 1 - 2 * PAD)
    weights = np.stack(np.broadcast_arrays(1 - steps[:, None] - steps, steps[:, None], steps[None]), -1)
    tiles = np.zeros((side * side, TILE, TILE, 3))
    tiles[: len(corners)] = np.einsum("ijk,fkc->fijc", weights, corners).clip(0, 255)
    tiles[len(corners) :] = tiles[len(corners) - 1]
    return tiles.reshape(side, side, TILE, TILE, 3).swapaxes(1, 2).reshape(side * TILE, side * TILE, 3)


def _read(texture: Array, count: int) -> Array:
    """Colours (F, 3, 3) at the corners of the first ``count`` tiles."""
    side = len(texture) // TILE
    tiles = texture.reshape(side, TILE, side, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)[:count]
    return np.stack([tiles[:, PAD, PAD], tiles[:, -1 - PAD, PAD], tiles[:, PAD, -1 - PAD]], 1)


FAMILIES = (
    mesh_family(
        "texture-jpeg",
        lambda s: TextureJPEG(int(s)),
        Grid((90, 80, 50, 25, 10), 2, "quality"),
        Card("Saves the colours as a JPEG texture, as asset pipelines do.", OURS),
        standard=(),
    ),
)
