"""Signed distance and colour on a grid: of a heap of triangles, made solid, and of a published mesh.

Triangles of real models are a soup: one-sided sheets, holes, interpenetrating pieces, either orientation. What is made
of it here is the set of points within about half a cell of any triangle, with everything that is cut off from outside,
and with the hollow under it filled: always closed, and never thinner than a cell. Bricks are hollow from below; walls
of one or two cells are all that a grid this coarse would show of that.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from bench.protocol import Mesh
from modalities.shape3d.cloud import feet
from modalities.shape3d.grids import CELL, EXTENT, SIDE, TRUNCATION, points
from modalities.shape3d.voxels import frame_of, volumes

OFFSET = 0.55 * CELL
"""Thickness added on either side. From half a cell on no path from cell to neighbour crosses a surface unseen; a little
more, since a sheet half-way between cells would else be nowhere thicker than nothing."""
FLAT = NDArray[np.float32]


def normalised(corners: NDArray[np.float64]) -> FLAT:
    """Triangles (N, 3, 3), centred and scaled so that the solid's longest side has half length ``EXTENT``."""
    low, high = corners.min((0, 1)), corners.max((0, 1))
    scale = (EXTENT - OFFSET) / max(float((high - low).max()) / 2, 1e-9)
    placed: FLAT = ((corners - (low + high) / 2) * scale).astype(np.float32)
    return placed


def voxelised(corners: FLAT) -> tuple[FLAT, NDArray[np.int64]]:
    """Signed distance and nearest triangle of a normalised heap of triangles (N, 3, 3).

    Returns:
        Distances (32, 32, 32) in units of the truncation, positive inside, within ±1; and the index of the triangle
        nearest to each cell, -1 beyond the truncation.
    """
    import point_cloud_utils as pcu  # a compiled package, needed to build the data set only

    vertices = np.ascontiguousarray(corners.reshape(-1, 3))
    faces = np.arange(len(vertices), dtype=np.int32).reshape(-1, 3)
    coarse = _distances(pcu, points(SIDE // 2).numpy(), vertices, faces)[0]
    reach = TRUNCATION + OFFSET + CELL * 3**0.5 / 2  # from a coarse centre to its eight fine ones
    near = (coarse < reach).reshape([SIDE // 2] * 3).repeat(2, 0).repeat(2, 1).repeat(2, 2).ravel()
    where = points().numpy()
    distance, nearest = np.full(SIDE**3, 9.0, np.float32), np.full(SIDE**3, -1)
    foot = where.copy()
    distance[near], nearest[near], foot[near] = _distances(pcu, where[near], vertices, faces)
    inside = _inside(distance, where - foot)
    exact = (np.where(inside, distance, -distance) + OFFSET).reshape([SIDE] * 3)
    nearest[distance > TRUNCATION + OFFSET] = -1
    return _filled(exact.astype(np.float32)), nearest.reshape([SIDE] * 3)


def _filled(exact: FLAT) -> FLAT:
    """Signed distance (32, 32, 32) in units of the truncation, with what is open downwards only filled.

    Where filling moved the surface, and around what it buried, distances are those between cells; elsewhere they stay.
    """
    solid = exact > 0
    blocked = [np.logical_or.accumulate(solid, axis) for axis in (0, 2)]
    blocked += [np.flip(np.logical_or.accumulate(np.flip(solid, axis), axis), axis) for axis in (0, 1, 2)]
    solid = solid | np.logical_and.reduce(blocked)
    steps = np.where(solid, ndimage.distance_transform_edt(solid), -ndimage.distance_transform_edt(~solid))
    counted = (steps - np.sign(steps) / 2) * CELL
    signed = np.where(np.abs(exact - counted) < 0.75 * CELL, exact, counted)
    filled: FLAT = np.clip(signed / TRUNCATION, -1, 1).astype(np.float32)
    return filled


def _distances(
    pcu: object, where: FLAT, vertices: FLAT, faces: NDArray[np.int32]
) -> tuple[FLAT, NDArray[np.int64], FLAT]:
    """Distance, nearest triangle and nearest point of each place (M, 3)."""
    distance, face, weights = pcu.closest_points_on_mesh(where, vertices, faces)  # type: ignore[attr-defined]
    weights = np.where(np.isfinite(weights), weights, 1 / 3)  # a triangle without area has none
    return distance, face, (vertices[faces[face]] * weights[..., None]).sum(1)


def _inside(distance: FLAT, away: FLAT) -> NDArray[np.bool_]:
    """Which cells are cut off from outside by cells within ``OFFSET`` of a triangle, (32³,).

    Those walls themselves belong to the side on which the cell beyond them, seen from the triangle, lies.

    Args:
        distance: to the nearest triangle, (32³,).
        away: from the nearest point of it, (32³, 3).
    """
    wall = distance <= OFFSET
    outside, _ = ndimage.label(~wall.reshape([SIDE] * 3))
    enclosed = (outside != outside[0, 0, 0]).ravel() & ~wall
    where = points().numpy()[wall]
    direction = away[wall] / np.maximum(np.linalg.norm(away[wall], axis=1, keepdims=True), 1e-9)
    beyond = np.clip(((where + 1.25 * CELL * direction + 1) / CELL).astype(int), 0, SIDE - 1)
    inside: NDArray[np.bool_] = enclosed.copy()
    inside[wall] = enclosed[np.ravel_multi_index(tuple(beyond.T), [SIDE] * 3)]
    return inside


def as_field(mesh: Mesh) -> Tensor:
    """Field (4, 32, 32, 32) of a mesh, normalised, as the autoencoder was trained on; outside of it the mean colour.

    Distances are exact; whether a cell is inside is what the lines of :mod:`modalities.shape3d.voxels` say.
    """
    if not len(mesh.faces):
        return torch.cat([torch.full((1, SIDE, SIDE, SIDE), -1.0), torch.full((3, SIDE, SIDE, SIDE), 0.5)])
    frame = frame_of(mesh)
    own = (mesh.vertices.double() - torch.from_numpy(frame.centre)) * frame.scale
    filled, density, _ = volumes(mesh)
    sign = torch.from_numpy(np.where(filled > 0.5, 1.0, -1.0)).float().ravel()
    near = torch.from_numpy(ndimage.binary_dilation(density > 0, iterations=3).ravel())
    found = feet(points()[near], Mesh(own.float(), mesh.faces, mesh.colours))
    field = torch.cat([sign[None], found.colours.mean(0)[:, None].expand(3, len(sign))]).clone()
    field[0, near] = (sign[near] * found.distance / TRUNCATION).clamp(-1, 1)
    field[1:, near] = found.colours.T
    return field.view(4, SIDE, SIDE, SIDE)
