"""How meshes look on a comparison sheet: seen along a diagonal from above, lit from beside the eye."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.metrics.solids import Array, crossings
from bench.protocol import Mesh
from modalities.shape3d.voxels import frame_of

SIDE = 128
TURN, TILT = math.radians(35), math.radians(25)
"""Of the eye: around the upright axis, and above the ground."""
LIGHT = np.array([0.35, 0.6, 0.72])
AMBIENT = 0.35
GROUND = 255
FINER = 2
"""Lines per pixel and axis."""
HALF = 1.45
"""Of a picture's side, in normalised coordinates: all of a mesh shows from wherever it is seen."""
Indices = NDArray[np.int64]


def rendered(meshes: Sequence[Mesh], turn: float = TURN, tilt: float = TILT) -> Tensor:
    """Pictures of meshes, centred and at one size, on white: uint8 (B, 3, 128, 128).

    Args:
        meshes: any.
        turn: angle of the eye around the y axis, in radians.
        tilt: angle of the eye above the horizon, in radians.
    """
    return torch.stack([_picture(mesh, turn, tilt) for mesh in meshes])


def seen(mesh: Mesh, turn: float, tilt: float) -> Array:
    """Triangles (F, 3, 3) before the eye, in units of half a picture: to the right, up, and towards the eye."""
    centre, scale, _ = frame_of(mesh)
    corners = ((mesh.vertices.numpy().astype(np.float64) - centre) * scale) @ _view(turn, tilt).T
    shown: Array = corners[mesh.faces.numpy()] / HALF
    return shown


def painted(mesh: Mesh, triangles: Array, pixel: Indices, owner: Indices, weights: Array) -> Tensor:
    """A picture uint8 (3, 128, 128) of what is in front.

    Args:
        mesh: that is seen.
        triangles: as :func:`seen` returns them.
        pixel: those that show something, row by row on a canvas of 256 × 256, (N,).
        owner: the triangle that each shows, (N,).
        weights: barycentric, of the place that it shows, (N, 3).
    """
    lines = SIDE * FINER
    colours = mesh.colours.numpy()[mesh.faces.numpy()[owner]]
    canvas = np.full((lines * lines, 3), float(GROUND))
    canvas[pixel] = (weights[..., None] * colours).sum(1) * _light(triangles[owner])[:, None]
    pixels = canvas.reshape(SIDE, FINER, SIDE, FINER, 3).mean((1, 3))
    return torch.from_numpy(pixels.clip(0, 255).round().astype(np.uint8)).permute(2, 0, 1)


def _view(turn: float, tilt: float) -> Array:
    """Rows: right, up, towards the eye."""
    around = np.array(
        [[math.cos(turn), 0, -math.sin(turn)], [0, 1, 0], [math.sin(turn), 0, math.cos(turn)]], np.float64
    )
    above = np.array([[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]], np.float64)
    view: Array = above @ around
    return view


def _picture(mesh: Mesh, turn: float, tilt: float) -> Tensor:
    """One picture (3, 128, 128) uint8: of all crossings on a line the one nearest to the eye shows."""
    lines, triangles = SIDE * FINER, seen(mesh, turn, tilt)
    found = crossings((triangles[..., :2] + 1) * (lines / 2) - 0.5, lines)
    depth = (found.weights * triangles[found.owner, :, 2]).sum(1)
    pixel = (lines - 1 - found.line[:, 1]) * lines + found.line[:, 0]
    order = np.lexsort((depth, pixel))
    front = order[np.r_[pixel[order][1:] != pixel[order][:-1], True]] if len(order) else order
    return painted(mesh, triangles, pixel[front], found.owner[front], found.weights[front])


def _light(triangles: Array) -> Array:
    """Brightness of faces (N,): Lambert's law on the side that is seen, with some light from everywhere."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals *= np.where(normals[:, 2:] < 0, -1, 1) / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
    lit: Array = AMBIENT + (1 - AMBIENT) * (normals @ (LIGHT / np.linalg.norm(LIGHT))).clip(0, 1)
    return lit
