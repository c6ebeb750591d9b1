"""Mesh attacks that refine the triangles of a surface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Generator, Tensor

from attacks.grids import Card, Grid
from attacks.limits import check_strength
from attacks.shape3d_listing import BENCHMARK, mesh_family
from attacks.shape3d_meshes import Array, Faces, made, mesh_by_mesh, vertices_of
from attacks.shape3d_remesh import Decimation
from bench.protocol import Mesh, Target

MOST_FACES = 2_000_000
"""No subdivision goes beyond it."""


@dataclass(frozen=True)
class Subdivision:
    """Split triangles into four at the middles of their edges; the surface stays where it is.

    A fraction splits so many of the triangles, drawn at random; those beside them are divided into two to four, so that
    no gap opens.

    Attributes:
        times: how often, above whole numbers a share of the triangles; higher is stronger.
    """

    times: float = 1.0
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 6)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes of four times as many faces, or more, as long as there are no more than two million."""

        def divided(mesh: Mesh) -> Mesh:
            whole = int(self.times)
            for share in (*[1.0] * whole, self.times - whole):
                order = torch.randperm(len(mesh.faces), generator=rng) if share < 1 else torch.arange(len(mesh.faces))
                chosen = order[: round(share * len(mesh.faces))]
                mesh = _split(mesh, chosen) if 4 * len(mesh.faces) <= MOST_FACES and len(chosen) else mesh
            return mesh

        return mesh_by_mesh(content, divided)


@dataclass(frozen=True)
class LoopSubdivision:
    """Decimate to a control mesh, and make a smooth surface of it by Loop's subdivision.

    Loop, "Smooth Subdivision Surfaces Based on Triangles", University of Utah, 1987, with the weights of Warren and the
    boundary rule of Hoppe et al., SIGGRAPH 1994; once at least, and until there are as many faces as before.

    Attributes:
        keep_ratio: share of the faces that the control mesh has; lower is stronger.
    """

    keep_ratio: float = 0.5
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0.001, 1)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Smooth meshes of at least as many faces."""
        coarse = Decimation(self.keep_ratio)(content, rng)
        return [self._smooth(control, len(mesh.faces)) for control, mesh in zip(coarse, content, strict=True)]

    def _smooth(self, mesh: Mesh, wanted: int) -> Mesh:
        if not len(mesh.faces):
            return mesh
        mesh = _loop(mesh)
        while len(mesh.faces) < wanted:
            mesh = _loop(mesh)
        return mesh


def _edges(faces: Tensor) -> tuple[Tensor, Tensor]:
    """Edges (E, 2), and which one follows each corner of each face, (3, F)."""
    a, b, c = faces.T
    ends = torch.cat([torch.stack(pair, 1) for pair in ((a, b), (b, c), (c, a))]).sort(1)[0]
    size = int(faces.max()) + 1
    keys, which = (ends[:, 0] * size + ends[:, 1]).unique(return_inverse=True)
    return torch.stack([keys // size, keys % size], 1), which.view(3, -1)


def _quartered(faces: Tensor, middles: Tensor) -> Tensor:
    """Four faces for each, (4 F, 3), from the vertices in the middles of their edges, (3, F)."""
    (a, b, c), (ab, bc, ca) = faces.T, middles
    return torch.cat([torch.stack(corner, 1) for corner in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])


def _split(mesh: Mesh, chosen: Tensor) -> Mesh:
    edges, which = _edges(mesh.faces)
    cut = torch.zeros(len(edges), dtype=torch.bool)
    cut[which[:, chosen].reshape(-1)] = True
    place = torch.where(cut, len(mesh.vertices) + cut.long().cumsum(0) - 1, -1)
    middles = place[which]
    whole = (middles < 0).all(0)
    faces = torch.cat([mesh.faces[whole], *_divided(mesh.faces[~whole], middles[:, ~whole])])
    new = mesh.vertices[edges[cut]].double().mean(1).float()
    colours = mesh.colours[edges[cut]].float().mean(1).round().to(torch.uint8)
    return Mesh(torch.cat([mesh.vertices, new]), faces, torch.cat([mesh.colours, colours]))


def _divided(faces: Tensor, middles: Tensor) -> list[Tensor]:
    """Faces (N, 3) of those (F, 3) with one, two or three cut edges; ``middles`` (3, F) is -1 where none is cut."""
    count = (middles >= 0).sum(0)
    parts = [_quartered(faces[count == 3], middles[:, count == 3])]
    for number in (1, 2):
        of = count == number
        some, own = faces[of], middles[:, of]
        odd = own >= 0 if number == 1 else own < 0
        first = odd.long().argmax(0)  # turned so that the edge that differs from the others comes first
        turn = (first[:, None] + torch.arange(3)) % 3
        (a, b, c), (ab, bc, ca) = some.gather(1, turn).T, own.T.gather(1, turn).T
        pieces = ((a, ab, c), (ab, b, c)) if number == 1 else ((a, b, bc), (a, bc, ca), (ca, bc, c))
        parts += [torch.stack(piece, 1) for piece in pieces]
    return parts


def _loop(mesh: Mesh) -> Mesh:
    """One step of Loop's subdivision, on places and colours alike."""
    edges, which = _edges(mesh.faces)
    values = np.concatenate([vertices_of(mesh), mesh.colours.numpy().astype(np.float64)], 1)
    ends, owner = edges.numpy(), which.numpy()
    opposite = mesh.faces.numpy()[:, [2, 0, 1]].T  # of the edge that follows each corner
    inner = np.bincount(owner.reshape(-1), minlength=len(ends)) == 2
    across = _summed(owner.reshape(-1), opposite.reshape(-1), (len(ends), len(values))) @ values
    middle = values[ends].sum(1)
    odd = np.where(inner[:, None], 3 / 8 * middle + across / 8, middle / 2)
    faces = _quartered(mesh.faces, which + len(values))
    found = np.concatenate([_even(values, ends, inner), odd])
    return made(found[:, :3], faces.numpy(), found[:, 3:])


def _even(values: Array, ends: Faces, inner: NDArray[np.bool_]) -> Array:
    """Old vertices (V, 6) after a step; those where more than two open edges meet, or three faces at one, stay."""
    count = len(values)
    both = np.concatenate([ends, ends[:, ::-1]])
    border = np.concatenate([~inner, ~inner])
    open_ends, valence = np.bincount(both[border, 0], minlength=count), np.bincount(both[:, 0], minlength=count)
    around = _summed(both[:, 0], both[:, 1], (count, count)) @ values
    beside = _summed(both[border, 0], both[border, 1], (count, count)) @ values
    weight = np.where(valence == 3, 3 / 16, 3 / 8 / np.maximum(valence, 1))[:, None]
    smooth = (1 - valence[:, None] * weight) * values + weight * around
    edge = 3 / 4 * values + beside / 8
    at = open_ends[:, None]
    moved: Array = np.where((at == 0) & (valence[:, None] > 2), smooth, np.where(at == 2, edge, values))
    return moved


def _summed(rows: Faces, columns: Faces, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Matrix that adds up ``columns`` for each of ``rows``."""
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape)


FAMILIES = (
    mesh_family(
        "subdivision",
        Subdivision,
        Grid((0.25, 0.5, 1.0, 2.0), 2, "times"),
        Card("Splits the triangles, so that there are many more vertices and the same surface.", BENCHMARK),
        standard=(),
    ),
    mesh_family(
        "loop-subdivision",
        LoopSubdivision,
        Grid((1.0, 0.5, 0.25, 0.1), 1, "share of the faces in the control mesh"),
        Card("Models the shape anew as a smooth subdivision surface.", BENCHMARK),
        standard=(),
    ),
)
