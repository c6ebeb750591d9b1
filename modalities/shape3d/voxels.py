"""What readers see of a mesh: how much of each cell it fills, and the colour of its surface, on a grid.

By :mod:`bench.metrics.solids`, so that neither the order of vertices nor the triangles nor the file matter.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.metrics import solids
from bench.metrics.solids import Array, Volumes
from bench.protocol import Mesh
from modalities.shape3d.grids import CELL, EXTENT, SIDE

DENSE = 2.0
"""Surface, in smoothed line cuts per cell, from which on a cell's colour counts in full: that of a plane through it."""
_MEASURED: WeakKeyDictionary[Mesh, Volumes] = WeakKeyDictionary()


class Frame(NamedTuple):
    """Where a mesh lies: its normalised coordinates are ``(turn @ x - centre) * scale``.

    Attributes:
        centre: of its bounding box, (3,), after it was turned.
        scale: ``EXTENT`` over half of the longest side.
        turn: rotation (3, 3).
    """

    centre: Array
    scale: float
    turn: Array = np.eye(3)


def frame_of(mesh: Mesh, turn: Array | None = None) -> Frame:
    """The frame of the vertices that faces use, turned or as they are; the unit one for a mesh without faces."""
    if not len(mesh.faces):
        return Frame(np.zeros(3), EXTENT)
    turn = np.eye(3) if turn is None else turn
    used = np.zeros(len(mesh.vertices), bool)
    used[mesh.faces.numpy()] = True  # a tenth of the time of finding each once
    axes = turn @ mesh.vertices.numpy()[used].astype(np.float64).T  # numpy reduces a short axis slowly
    low, high = axes.min(1), axes.max(1)
    return Frame((low + high) / 2, EXTENT / max(float((high - low).max()) / 2, 1e-12), turn)


def observed(mesh: Mesh, frame: Frame | None = None) -> Tensor:
    """Grid (4, 32, 32, 32) of one mesh, float32.

    Args:
        mesh: any triangle mesh, watertight or not.
        frame: in which it is seen; its own when None.

    Returns:
        Channel 0 is a truncated signed distance: 1 inside, -1 outside, and in between, within one and a half cells of a
        surface, a rising function of the distance (the share of a cell that is filled, smoothed by 1, 2, 1). Channels 1
        to 3 are RGB minus one half at the surface, 0 away from it. All channels of a mesh without faces are -1 and 0.
    """
    filled, density, paint = volumes(mesh, frame)
    return seen(torch.from_numpy(np.concatenate([filled[None], density[None], paint])).float()[None])[0]


def seen(grids: Tensor) -> Tensor:
    """What :func:`observed` says of filled share, surface and paint, (B, 5, g, g, g): (B, 4, g, g, g)."""
    stacked = smoothed(grids)
    colour = stacked[:, 2:] / stacked[:, 1:2].clamp_min(1e-6) - 0.5
    return torch.cat([2 * stacked[:, :1] - 1, colour * (stacked[:, 1:2] / DENSE).clamp(max=1)], 1)


def volumes(mesh: Mesh, frame: Frame | None = None) -> Volumes:
    """Filled share, surface and paint of each of 32³ cells, in single precision, in a frame or the mesh's own.

    In its own frame a mesh is measured once: it is read, compared and, as an original, compared again and again.
    """
    if frame is None:
        if mesh not in _MEASURED:
            _MEASURED[mesh] = volumes(mesh, frame_of(mesh))
        return _MEASURED[mesh]
    centre, scale, turn = frame
    corners = ((mesh.vertices.numpy().astype(np.float64) @ turn.T - centre) * scale + 1) / CELL  # in cells
    faces = mesh.faces.numpy()
    found = solids.volumes(corners[faces], mesh.colours.numpy()[faces] / 255.0, SIDE)
    return Volumes(*(each.astype(np.float32) for each in found))


def smoothed(grids: Tensor) -> Tensor:
    """Grids (B, C, g, g, g) weighted 1, 2, 1 along each axis; a cell's missing neighbour is 0."""
    for axis in (2, 3, 4):
        padded = F.pad(grids, [int(axis == 4 - i // 2) for i in range(6)])
        count = grids.shape[axis]
        grids = 0.5 * grids + 0.25 * (padded.narrow(axis, 0, count) + padded.narrow(axis, 2, count))
    return grids
