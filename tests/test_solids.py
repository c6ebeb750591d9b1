"""Meshes on grids: volumes with a closed form, and what must not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.metrics.solids import Volumes, crossings, volumes
from bench.protocol import Mesh
from bench.rng import stream
from tests.meshes import brick, cube, sphere, volume

SIDE = 16


def seen(mesh: Mesh, shift: float = 0.0, rays: int = 2) -> Volumes:
    corners = (mesh.vertices.double().numpy() + 1.2 + shift) / 2.4 * SIDE
    faces = mesh.faces.numpy()
    return volumes(corners[faces], mesh.colours.numpy()[faces] / 255, SIDE, rays)


def filled(mesh: Mesh) -> float:
    return float(seen(mesh).filled.sum()) * (2.4 / SIDE) ** 3


def test_a_box_fills_exactly_the_cells_that_it_covers() -> None:
    """A cube over cells 4 to 11 along each axis, and 0.3 of a cell more along z."""
    corners = cube(8.0).vertices.double().numpy() + 8
    corners[:, 2] += 0.3 * (corners[:, 2] > 8)
    faces = cube().faces.numpy()
    found = volumes(corners[faces], np.ones((12, 3, 3)), SIDE).filled
    expected = np.zeros((SIDE, SIDE, SIDE))
    expected[4:12, 4:12, 4:12] = 1
    expected[4:12, 4:12, 12] = 0.3
    inside = np.ones((SIDE, SIDE, SIDE), bool)
    inside[[3, 4, 11, 12]], inside[:, [3, 4, 11, 12]] = False, False  # edges are rounded to half of the lines' spacing
    assert np.abs(found - expected)[inside].max() < 0.005 and np.abs(found - expected).max() < 0.3


@pytest.mark.parametrize("mesh", [sphere(), brick(), cube(1.3)], ids=["sphere", "brick", "cube"])
def test_the_filled_volume_is_the_meshes_volume(mesh: Mesh) -> None:
    assert filled(mesh) == pytest.approx(volume(mesh), rel=0.02)


def test_a_finer_bundle_of_lines_is_closer_to_the_volume_of_a_ball() -> None:
    exact = volume(sphere())
    assert seen(sphere(), rays=8).filled.sum() * (2.4 / SIDE) ** 3 == pytest.approx(exact, rel=5e-3)


def test_order_and_turning_inside_out_do_not_matter() -> None:
    mesh = brick()
    before = seen(mesh)
    order = torch.randperm(len(mesh.faces), generator=stream(0))
    again = seen(Mesh(mesh.vertices, mesh.faces[order].roll(1, 1), mesh.colours))
    inverted = seen(Mesh(mesh.vertices, mesh.faces.flip(1), mesh.colours))
    for other in (again, inverted):
        assert all(np.allclose(a, b, atol=1e-9) for a, b in zip(before, other, strict=True))


def test_a_hole_costs_only_the_lines_that_pass_through_it() -> None:
    mesh = brick()
    whole = seen(mesh).filled > 0.5
    top = mesh.vertices[mesh.faces].mean(1)[:, 1] > 0.6  # the lid of the stud
    open_ = seen(Mesh(mesh.vertices, mesh.faces[~top], mesh.colours)).filled > 0.5
    assert top.sum() > 20 and (whole == open_).mean() > 0.98
    assert open_.sum() > 0.9 * whole.sum()


def test_paint_is_the_colour_of_the_surface() -> None:
    found = seen(sphere())
    cell = np.argwhere(found.cuts > 2)
    shown = found.paint[:, *cell.T] / found.cuts[tuple(cell.T)]
    place = (cell + 0.5) / SIDE * 2.4 - 1.2
    assert np.abs(shown.T - (place + 1) / 2).max() < 2.4 / SIDE, "colours are places, to a cell"


def test_a_mesh_beyond_the_grid_is_cut_off_without_an_error() -> None:
    found = seen(cube(30.0))
    assert np.isfinite(found.filled).all() and found.filled.shape == (SIDE, SIDE, SIDE)
    nothing = volumes(np.zeros((0, 3, 3)), np.zeros((0, 3, 3)), SIDE)
    assert not nothing.filled.any() and not nothing.cuts.any()


def test_crossings_are_barycentric() -> None:
    flat = np.array([[[0.5, 0.5], [6.5, 0.5], [0.5, 6.5]]])
    found = crossings(flat, 8)
    assert sorted(map(tuple, found.line.tolist())) == [(x, y) for x in range(1, 6) for y in range(1, 7 - x)]
    assert np.allclose((found.weights[..., None] * flat[found.owner]).sum(1), found.line)
    assert (found.turn == 1).all() and (crossings(flat[:, ::-1], 8).turn == -1).all()
