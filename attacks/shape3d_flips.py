"""A mesh attack that keeps the vertices and connects them differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Generator

from attacks.grids import Card, Grid
from attacks.limits import check_strength
from attacks.shape3d_listing import OURS, mesh_family
from attacks.shape3d_meshes import Array, Faces, mesh_by_mesh, vertices_of
from bench.protocol import Mesh, Target

ROUNDS = 12
STEEPEST = 0.1
"""Least cosine between a new face and the two that it replaces: sharper edges stay, as a modeller would keep them."""


@dataclass(frozen=True)
class EdgeFlip:
    """Replace edges between two triangles by the other diagonal: the same vertices, another triangulation.

    An edge is flipped once at most, and only where the new one is no old one and no face turns over, so that closed
    meshes stay closed; see Hoppe et al., "Mesh Optimization", SIGGRAPH 1993, section 4.

    Attributes:
        share: of the edges between two faces, as far as so many can be flipped; higher is stronger.
    """

    share: float = 0.2
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes of as many faces, between the same vertices."""
        return mesh_by_mesh(content, lambda mesh: self._flipped(mesh, rng))

    def _flipped(self, mesh: Mesh, rng: Generator) -> Mesh:
        faces, places = mesh.faces.numpy().copy(), vertices_of(mesh)
        made: Faces = np.zeros(0, np.int64)
        wanted = -1
        for _ in range(ROUNDS):
            keys, pair = _shared(faces, len(places))
            wanted = round(self.share * len(pair)) if wanted < 0 else wanted
            priority = torch.rand(len(pair), generator=rng, dtype=torch.float64).numpy()
            quad = _quads(faces, pair)
            new = _key(quad[:, 2], quad[:, 3], len(places))
            old = _key(quad[:, 0], quad[:, 1], len(places))
            able = ~np.isin(new, keys) & ~np.isin(old, made) & (quad[:, 2] != quad[:, 3]) & _flat(places, quad)
            chosen = _apart(pair // 3, np.where(able, priority, np.inf), len(faces))
            chosen = chosen[np.unique(new[chosen], return_index=True)[1]]
            chosen = chosen[np.argsort(priority[chosen])][: wanted - len(made)]
            if not len(chosen):
                break
            a, b, c, d = quad[chosen].T
            faces[pair[chosen, 0] // 3], faces[pair[chosen, 1] // 3] = np.stack([c, a, d], 1), np.stack([d, b, c], 1)
            made = np.concatenate([made, new[chosen]])
        return Mesh(mesh.vertices, torch.from_numpy(faces), mesh.colours)


def _key(start: Faces, end: Faces, count: int) -> Faces:
    """One number for each undirected edge."""
    return np.minimum(start, end) * count + np.maximum(start, end)


def _shared(faces: Faces, count: int) -> tuple[Faces, Faces]:
    """Keys of all edges (3 F,), and the two half edges (E, 2) of each that runs both ways once.

    Half edge 3 f + k runs from corner k of face f to the next.
    """
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    keys = _key(start, end, count)
    order = np.argsort(keys, kind="stable")
    _, first, uses = np.unique(keys[order], return_index=True, return_counts=True)
    pair = np.stack([order[first[uses == 2]], order[first[uses == 2] + 1]], 1)
    return keys, pair[start[pair[:, 0]] == end[pair[:, 1]]]


def _quads(faces: Faces, pair: Faces) -> Faces:
    """Both ends of each edge, and the corners across it in its first and its second face, (E, 4)."""
    face, corner = pair // 3, pair % 3
    one, other = faces[face[:, 0]], faces[face[:, 1]]
    rows = np.arange(len(pair))
    a, b, c = (one[rows, (corner[:, 0] + k) % 3] for k in range(3))
    return np.stack([a, b, c, other[rows, (corner[:, 1] + 2) % 3]], 1)


def _flat(places: Array, quad: Faces) -> Array:
    """Whether the faces on either side of the other diagonal look where the old ones do."""
    a, b, c, d = (places[quad[:, k]] for k in range(4))
    old = _unit(np.cross(b - a, c - a)) + _unit(np.cross(a - b, d - b))
    news = (_unit(np.cross(a - c, d - c)), _unit(np.cross(b - d, c - d)))
    length = np.linalg.norm(old, axis=1).clip(1e-30)
    able: Array = np.minimum(*((new * old).sum(1) / length for new in news)) > STEEPEST
    return able


def _unit(vectors: Array) -> Array:
    unit: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-30)
    return unit


def _apart(face: Faces, priority: Array, count: int) -> Faces:
    """Numbers of edges that come first in both of their faces, (E, 2); no two share one."""
    best = np.full(count, np.inf)
    np.minimum.at(best, face.reshape(-1), np.repeat(priority, 2))
    return np.flatnonzero(np.isfinite(priority) & (best[face] == priority[:, None]).all(1))


FAMILIES = (
    mesh_family(
        "edge-flip",
        EdgeFlip,
        Grid((0.05, 0.1, 0.2, 0.4), 2, "share of the edges"),
        Card("Triangulates the same vertices anew.", OURS),
        standard=(0.2,),
    ),
)
