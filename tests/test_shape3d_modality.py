"""The 3D modality: what is published and seen, fidelity, pictures, and the augmentations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.shape3d import (
    ColourDrop,
    Decimation,
    Draco,
    Reordering,
    Similarity,
    VertexNoise,
    VoxelRemesh,
)
from attacks.shape3d_pose import MeshRotation
from attacks.shape3d_subdivision import Subdivision
from bench.protocol import ContentAttack, Mesh, Modality, UserError
from bench.rng import stream
from modalities.shape3d import LEVELS, Shape3D, augmentation, fidelity
from modalities.shape3d.cloud import feet, normals_of, sampled_surface
from modalities.shape3d.grids import CELL, TRUNCATION, points, sampled
from modalities.shape3d.poses import Principal
from modalities.shape3d.solid import OFFSET, as_field, normalised, voxelised
from modalities.shape3d.surface import released
from modalities.shape3d.voxels import Frame, observed, smoothed
from tests.meshes import area, brick, cube, empty, sphere, volume

SHAPE = Shape3D()
BRICK, BALL = brick(40), sphere(cells=32)


def fields() -> Tensor:
    """Exact fields of a ball of radius 0.7 and of a box, painted by place."""
    place = points()
    ball = 0.7 - place.norm(dim=1)
    box = -(place.abs() - torch.tensor([0.8, 0.4, 0.5])).amax(1)
    distance = torch.stack([ball, box])[:, None] / TRUNCATION
    paint = (place.T[None] + 1).expand(2, -1, -1) / 2
    return torch.cat([distance, paint], 1).view(2, 4, 32, 32, 32)


FIELDS = fields()
MESHES = SHAPE.release(FIELDS)


def test_shape3d_is_a_modality() -> None:
    assert isinstance(SHAPE, Modality)
    assert (SHAPE.name, SHAPE.quality_metric, SHAPE.paired_metric) == ("3d", "fd_pointnet_ldraw", "iou")


def test_without_weights_the_message_says_how_to_make_them(tmp_path: Path) -> None:
    from modalities.shape3d import grid_generator

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid_generator, "EMBEDDED", tmp_path / "ldraw32")
        with pytest.raises(UserError, match=r"expected ldraw32/ in the installation; run `make embedded MODALITY=3d`"):
            SHAPE.generator(None)


# Releasing


def test_a_released_ball_has_the_volume_and_area_of_one_and_is_closed() -> None:
    ball = MESHES[0]
    assert volume(ball) == pytest.approx(4 / 3 * torch.pi * 0.7**3, rel=0.01), "and looks outward"
    assert area(ball) == pytest.approx(4 * torch.pi * 0.7**2, rel=0.01)
    assert float((ball.vertices.norm(dim=1) - 0.7).abs().max()) < 0.1 * CELL
    edges = torch.cat([ball.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])]).sort(1)[0]
    assert (edges.unique(dim=0, return_counts=True)[1] == 2).all(), "watertight"
    assert float((ball.colours.float() / 255 - (ball.vertices + 1) / 2).abs().max()) < 0.005, "painted by place"


def test_a_field_that_touches_the_border_is_closed_there_and_an_empty_one_has_no_faces() -> None:
    full = FIELDS[:1].clone()
    full[:, 0] = 1
    (block,) = SHAPE.release(full)
    assert volume(block) == pytest.approx(8, rel=0.1)
    for value in (-1.0, float("nan")):
        full[:, 0] = value
        assert not len(SHAPE.release(full)[0].faces)
    assert torch.equal(SHAPE.observe([empty()])[0, 0], torch.full((32, 32, 32), -LEVELS[0]))
    assert not SHAPE.observe([empty()])[0, 1:].any()


def test_soft_release_is_observing_what_was_released_with_a_gradient() -> None:
    field = FIELDS.clone().requires_grad_()
    soft, hard = SHAPE.soft_release(field), SHAPE.observe(MESHES)
    assert torch.allclose(soft, hard, atol=1e-5)
    # Raising the distances inflates a body: where the filling rises, and by how much, is known for a ball.
    (gradient,) = torch.autograd.grad(soft[:, 0].sum(), field)
    assert bool(gradient.isfinite().all())
    near = (FIELDS[:, 0].abs() * TRUNCATION) < 2 * CELL
    assert float(gradient[:, 0].sum()) > 0 and not gradient[:, 0][~near].any()


def test_the_soft_twin_moves_as_the_mesh_does() -> None:
    """A ball that grows in its frame is the same to readers; a bump is not, and its gradient says where it is."""
    place = points()
    bump = torch.exp(-((place - torch.tensor([0.4, 0.4, 0.4])).square().sum(1)) / 0.02).view(32, 32, 32)
    step = 0.1
    changed = FIELDS[:1].clone()
    changed[:, 0] += step * bump
    actual = SHAPE.observe(SHAPE.release(changed))[:, 0] - SHAPE.observe(MESHES[:1])[:, 0]
    field = FIELDS[:1].clone().requires_grad_()
    weights = torch.randn(actual.shape, generator=stream(0, "weights")).abs()
    (gradient,) = torch.autograd.grad((SHAPE.soft_release(field)[:, 0] * weights).sum(), field)
    predicted = float((gradient[0, 0] * bump).sum()) * step
    assert predicted == pytest.approx(float((actual * weights).sum()), rel=0.35)


def test_colours_are_not_pushed_beyond_what_a_mesh_can_have() -> None:
    """Where a ball is whiter than white, less is a change that a loss can ask for, and more is none."""
    field = FIELDS[:1].clone()
    field[:, 1:] = torch.tensor([1.5, -0.5, 0.5]).view(1, 3, 1, 1, 1)
    assert torch.equal(SHAPE.soft_release(field), SHAPE.soft_release(field.clone().clamp(max=1.0)))
    found = []
    for sign in (1.0, -1.0):
        leaf = field.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((sign * SHAPE.soft_release(leaf)[:, 1:]).sum(), leaf)
        found.append(gradient[0, 1:].abs().amax((1, 2, 3)) > 0)
    assert [each.tolist() for each in found] == [[True, False, True], [False, True, True]]


# Seeing

SAME_SURFACE = [Reordering(), Subdivision(1), Similarity(10)]


@pytest.mark.parametrize("attack", SAME_SURFACE, ids=repr)
def test_vertices_triangles_size_and_place_are_not_seen(attack: ContentAttack) -> None:
    seen, again = SHAPE.observe([BRICK]), SHAPE.observe(attack([BRICK], stream(0)))
    off = (seen - again).abs() / LEVELS[0]
    assert float(off.max()) < 0.2 and float(off.mean()) < 1e-4, "but for lines that graze an edge"


@pytest.mark.parametrize("name", ["a.glb", "a.ply", "a.obj", "a.STL"])
def test_the_file_format_is_not_seen(tmp_path: Path, name: str) -> None:
    SHAPE.save([BRICK], tmp_path / name)
    again = SHAPE.load(tmp_path / name)
    SHAPE.check(again)
    seen, reseen = SHAPE.observe([BRICK]), SHAPE.observe(again)
    assert float((seen[:, 0] - reseen[:, 0]).abs().mean()) < 1e-4
    if not name.lower().endswith("stl"):
        assert float((seen - reseen).abs().mean()) < 1e-3
        assert float((again[0].colours.float() - BRICK.colours.float()).abs().max()) <= 1
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing half-written stays behind"


@pytest.mark.parametrize("attack", [Decimation(0.3), VoxelRemesh(64), Draco(11)], ids=repr)
def test_another_mesh_of_the_same_body_is_seen_alike(attack: ContentAttack) -> None:
    seen, again = SHAPE.observe([BRICK]), SHAPE.observe(attack([BRICK], stream(0)))
    assert float((seen[:, 0] - again[:, 0]).square().mean().sqrt()) < 0.06 * LEVELS[0]
    other = SHAPE.observe([BALL])
    assert float((seen[:, 0] - other[:, 0]).square().mean().sqrt()) > 0.5 * LEVELS[0]


def test_an_inverted_mesh_is_seen_as_it_was() -> None:
    inverted = Mesh(BRICK.vertices, BRICK.faces.flip(1), BRICK.colours)
    assert torch.allclose(SHAPE.observe([inverted]), SHAPE.observe([BRICK]), atol=1e-4)


def test_vertices_that_no_face_uses_are_not_seen() -> None:
    loose = Mesh(
        torch.cat([BRICK.vertices, torch.full((1, 3), 50.0)]),
        BRICK.faces,
        BRICK.colours[[*range(len(BRICK.vertices)), 0]],
    )
    assert torch.equal(SHAPE.observe([loose]), SHAPE.observe([BRICK]))


def test_colours_are_seen_at_the_surface_only() -> None:
    seen = observed(BALL)
    distance = 0.85 - points().norm(dim=1).view(32, 32, 32)
    assert not seen[1:, distance.abs() > 3.5 * CELL].any()
    at_surface = distance.abs() < 0.3 * CELL
    expected = (points().T.view(3, 32, 32, 32) * 0.8 / 0.85)[:, at_surface] / 2
    assert float((seen[1:, at_surface] - expected).abs().max()) < 0.1
    assert float(seen[0].min()) == -1 and float(seen[0].max()) == 1
    grey = observed(ColourDrop()([BALL], stream(0))[0])
    assert torch.equal(grey[0], seen[0]) and float(grey[1:].abs().max()) < 0.003


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_distances_near_a_wall_are_exact(share: float) -> None:
    """Where a share of a cell is filled, and all of the one before it, 1, 2, 1 gives a half and half of the share."""
    wall = (29 + share) * CELL - 1
    seen = observed(Mesh(cube(2 * wall).vertices, cube().faces, cube().colours), Frame(np.zeros(3), 1.0))
    assert seen[0, 28:32, 16, 16].tolist() == pytest.approx([(share + 1) / 2, share - 0.5, share / 2 - 1, -1], abs=0.01)


def test_smoothing_is_1_2_1_along_each_axis() -> None:
    x = torch.randn(2, 3, 6, 5, 4, generator=stream(0))
    line = torch.tensor([0.25, 0.5, 0.25])
    kernel = torch.einsum("i,j,k->ijk", line, line, line)[None, None]
    expected = F.conv3d(x.flatten(0, 1)[:, None], kernel, padding=1).view_as(x)
    assert torch.allclose(smoothed(x), expected, atol=1e-6)


def test_sampling_a_grid_at_its_own_points_gives_its_values() -> None:
    grid = torch.randn(1, 2, 32, 32, 32, generator=stream(0))
    assert torch.allclose(sampled(grid, points()[None]).view_as(grid), grid, atol=1e-4)


# Checking


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (BRICK, "expected a list of meshes, found Mesh"),
        ([BRICK.vertices], "expected a list of meshes, found ['Tensor']"),
        ([empty()], "expected at least 4 triangles, found 0"),
        ([Mesh(BRICK.vertices, BRICK.faces[:1], BRICK.colours)], "expected at least 4 triangles, found 1"),
        ([Mesh(BRICK.vertices.double(), BRICK.faces, BRICK.colours)], "found torch.float64, torch.int64, torch.uint8"),
        ([Mesh(BRICK.vertices, BRICK.faces, BRICK.colours[:5])], "(5, 3))"),
        ([Mesh(BRICK.vertices, BRICK.faces + 99_999, BRICK.colours)], "vertices, found one of vertex"),
        (
            [Mesh(BRICK.vertices * torch.nan, BRICK.faces, BRICK.colours)],
            "expected finite vertices, found NaN or infinity",
        ),
        ([Mesh(BRICK.vertices * torch.tensor([1, 0, 1]), BRICK.faces, BRICK.colours)], "a body, found a flat mesh"),
    ],
)
def test_check_names_both_sides(content: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        SHAPE.check(content)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_check_lets_meshes_pass() -> None:
    SHAPE.check([BRICK, BALL, *MESHES, cube()])


# Fidelity


def test_equal_meshes_are_perfect_and_a_resampled_surface_is_not_punished() -> None:
    """Points against points would have a floor of about a hundredth of the diagonal; against surfaces there is none."""
    found = fidelity.paired([BRICK, BRICK], [BRICK, Subdivision(1)([BRICK], stream(0))[0]])
    assert set(found) == {"iou", "chamfer", "f_score", "normals", "colour_psnr"}
    assert torch.allclose(found["iou"], torch.ones(2), atol=1e-3) and torch.allclose(
        found["chamfer"], torch.zeros(2), atol=1e-4
    )
    assert found["f_score"].tolist() == [1, 1] and float(found["normals"].min()) > 0.98
    cloud, other = (sampled_surface(BRICK, 1024, stream(seed)).points for seed in (0, 1))
    floor = torch.cdist(cloud, other).amin(1).mean() / 1.9
    assert float(floor) > 0.01


@pytest.mark.parametrize("thickness", [0.02, 0.05])
def test_chamfer_and_iou_of_concentric_cubes(thickness: float) -> None:
    """Not normalised apart: both hold a small cube far away, which fixes the frame."""

    def pair(side: float) -> Mesh:
        anchor = cube(0.1)
        vertices = torch.cat([cube(side).vertices, anchor.vertices + 1.0, anchor.vertices - 1.0])
        faces = torch.cat([anchor.faces + 8 * i for i in range(3)])
        return Mesh(vertices, faces, torch.full((24, 3), 100, dtype=torch.uint8))

    found = fidelity.paired([pair(1.0)], [pair(1.0 + 2 * thickness)])
    small, large = 1 + 2 * 0.1**3, (1 + 2 * thickness) ** 3 + 2 * 0.1**3
    assert float(found["iou"]) == pytest.approx(small / large, abs=0.03)
    share = 6 / (6 + 2 * 6 * 0.01)
    assert float(found["chamfer"]) == pytest.approx(100 * thickness * share / (2.1 * 3**0.5), rel=0.1)
    assert float(found["normals"]) > 0.9 and float(found["colour_psnr"]) == pytest.approx(60, abs=1e-3)


def test_fidelity_falls_with_damage_and_meshes_without_surface_score_worst() -> None:
    near, far = (VertexNoise(level)([BRICK], stream(0))[0] for level in (0.002, 0.02))
    found = fidelity.paired([BRICK] * 2, [near, far])
    assert found["iou"][0] > found["iou"][1] and found["chamfer"][0] < found["chamfer"][1]
    assert found["f_score"][0] > found["f_score"][1] and found["normals"][0] > found["normals"][1]
    assert {name: float(value) for name, value in fidelity.paired([BRICK], [empty()]).items()} == fidelity.WORST
    with pytest.raises(UserError, match="found 1 and 2"):
        fidelity.paired([BRICK], [BRICK, BRICK])


def test_points_lie_on_the_surface_evenly() -> None:
    cloud = sampled_surface(BALL, 4096, stream(0))
    assert float((cloud.points.norm(dim=1) - 0.8).abs().max()) < 0.02
    outward = (cloud.normals * cloud.points).sum(1) / 0.8
    assert float(outward.min()) > 0.5 and float(outward.mean()) > 0.98
    assert float(cloud.points.mean(0).norm()) < 0.05
    assert float((cloud.colours - (cloud.points + 1) / 2).abs().max()) < 0.02
    found = feet(cloud.points * 1.25, BALL)
    assert torch.allclose(found.distance, torch.full((4096,), 0.2), atol=0.02)
    assert float(normals_of(BALL)[1].sum()) == pytest.approx(area(BALL), rel=1e-5)
    with pytest.raises(ValueError, match="without area"):
        sampled_surface(empty(), 8, stream(0))


def test_perceptual_loss_is_a_distance_with_a_gradient() -> None:
    a, b = SHAPE.observe([BRICK, BALL]), SHAPE.observe(VertexNoise(0.01)([BRICK, BALL], stream(0))).requires_grad_()
    assert not SHAPE.perceptual_loss(a, a).any()
    loss = SHAPE.perceptual_loss(a, b)
    (gradient,) = torch.autograd.grad(loss.sum(), b)
    assert loss.shape == (2,) and bool((loss > 0).all()) and bool(gradient.isfinite().all()) and bool(gradient.any())


# Solids from heaps of triangles


def test_a_soup_of_triangles_becomes_a_closed_solid_half_a_cell_thicker() -> None:
    mesh = cube(1.0)
    order = torch.randperm(12, generator=stream(0))
    faces = torch.where(torch.arange(12)[:, None] % 2 == 0, mesh.faces[order], mesh.faces[order].flip(1))  # either way
    distance, nearest = voxelised(normalised(mesh.vertices[faces].double().numpy()))
    beyond = points().abs() - (0.85 - OFFSET)  # of the cube itself; what is added to it has round edges
    exact = (OFFSET - beyond.clamp_min(0).norm(dim=1) - beyond.amax(1).clamp_max(0)) / TRUNCATION
    found = torch.from_numpy(distance).flatten()
    assert float((found - exact)[exact.abs() < 0.9].abs().max()) < 0.02
    assert (nearest >= 0).mean() > 0.3 and set(nearest[nearest >= 0].tolist()) <= set(range(12))


def test_a_cup_upside_down_is_filled_and_an_upright_one_is_not() -> None:
    walls = cube(1.0)
    bottom = (walls.vertices[walls.faces][:, :, 1] < 0).all(1)
    open_below = walls.vertices[walls.faces[~bottom]].double().numpy()
    assert voxelised(normalised(open_below))[0][16, 16, 16] == 1
    open_above = open_below * (1, -1, 1)
    assert voxelised(normalised(open_above))[0][16, 20, 16] == -1


def test_a_sheet_half_way_between_cells_gets_thick() -> None:
    square = cube(1.0).vertices[cube().faces[:2]].double().numpy()  # at one x
    inside = voxelised(normalised(square))[0] > 0
    assert inside.any((1, 2)).nonzero()[0].tolist() == [15, 16] and inside.sum() > 2 * 25**2


def test_a_published_mesh_goes_back_to_its_field() -> None:
    field = as_field(MESHES[0])
    exact = ((0.85 - points().norm(dim=1)) / TRUNCATION).clamp(-1, 1).view(32, 32, 32)
    assert float((field[0] - exact).abs().max()) < 0.05
    again = released(field)
    assert fidelity.iou(MESHES[0], again) > 0.97
    assert (as_field(empty())[0] == -1).all()


# Pictures


def test_pictures_show_the_shape_on_white_in_its_colours() -> None:
    red = Mesh(BALL.vertices, BALL.faces, torch.tensor([[200, 0, 0]], dtype=torch.uint8).expand(len(BALL.vertices), 3))
    picture = SHAPE.picture([red, empty()])
    assert picture.shape == (2, 3, 128, 128) and picture.dtype == torch.uint8
    assert (picture[1] == 255).all() and (picture[0, :, :5] == 255).all()
    disc = (picture[0, 1] < 128).float().mean()
    assert float(disc) == pytest.approx(torch.pi * (0.85 / 1.45) ** 2 / 4, rel=0.05)
    assert picture[0, 0, 64, 64] > 100 and picture[0, 1, 64, 64] == 0


def test_up_is_up() -> None:
    tall = Mesh(BALL.vertices * torch.tensor([0.2, 1, 0.2]), BALL.faces, BALL.colours)
    rows, columns = (
        (SHAPE.picture([tall])[0] < 250).any(0).any(1).sum(),
        (SHAPE.picture([tall])[0] < 250).any(0).any(0).sum(),
    )
    assert rows > 2.5 * columns


def test_the_difference_is_red_where_it_is() -> None:
    moved = Mesh(BRICK.vertices + torch.tensor([0.1, 0, 0]) * (BRICK.vertices[:, :1] > 0.7), BRICK.faces, BRICK.colours)
    name, (painted,) = SHAPE.difference([BRICK], [BRICK])
    assert "1 %" in name and (painted.colours == 255).all()
    _, (painted,) = SHAPE.difference([BRICK], [moved])
    assert (painted.colours[:, 1] < 128).any() and (painted.colours[:, 0] == 255).all()


# Augmentation


@pytest.mark.parametrize("distortion", augmentation.DISTORTIONS, ids=lambda f: f.__name__.strip("_"))
def test_every_distortion(distortion: Any) -> None:
    x = (SHAPE.observe([BRICK, BALL]) / torch.tensor(LEVELS).view(4, 1, 1, 1)).requires_grad_()
    before = x.detach().clone()
    changed = [distortion(x, stream(seed, "draw")) for seed in range(3)]
    assert torch.equal(changed[0], distortion(x, stream(0, "draw"))), "same stream, same damage"
    assert torch.equal(x, before), "the input was modified in place"
    assert not torch.equal(changed[0], changed[1]), "the strength is drawn"
    for y in changed:
        assert y.shape == x.shape and bool(y.isfinite().all()) and not torch.equal(y, x)
        (gradient,) = torch.autograd.grad((y * y.detach()).sum(), x)
        assert bool(gradient.isfinite().all()) and bool(gradient.any())
        assert y[:, 0, 0].mean().item() == pytest.approx(-1, abs=0.05), "outside stays outside"


def test_augment_leaves_a_third_alone_and_the_stream_alone_decides() -> None:
    x, state = SHAPE.observe([BALL]), torch.get_rng_state()
    results = [SHAPE.augment(x, stream(seed, "augment")) for seed in range(60)]
    kept = sum(torch.allclose(y, x, atol=1e-6) for y in results) / 60
    assert kept == pytest.approx(1 / 3, abs=4 * (2 / 9 / 60) ** 0.5)
    assert torch.equal(SHAPE.augment(x, stream(7, "augment")), results[7])
    assert torch.equal(torch.get_rng_state(), state)


def test_turning_the_grid_is_turning_the_mesh() -> None:
    """A quarter around the upright axis, of a shape that is not symmetric."""
    turn = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    odd = Mesh(
        BRICK.vertices * torch.tensor([1, 1, 0.5]) + 0.3 * BRICK.vertices[:, :1] * torch.tensor([0, 1.0, 0]),
        BRICK.faces,
        BRICK.colours,
    )
    turned = observed(Mesh(odd.vertices @ turn.T, odd.faces, odd.colours))
    # What is seen at a place comes from the place that the turn takes there; torch counts places as z, y, x.
    back = turn.T.flip(0, 1)
    moved = augmentation.moved(observed(odd)[None], torch.cat([back, torch.zeros(3, 1)], 1))[0]
    assert float((turned - moved).abs().mean()) < 0.01 < float((turned - observed(odd)).abs().mean())
    drawn = augmentation._rotation(observed(odd)[None], stream(0))
    assert float((drawn[:, 0].sum() - observed(odd)[0].sum()).abs()) < 0.1 * float((observed(odd)[0] + 1).sum())


def test_in_principal_axes_a_turned_mesh_looks_the_same() -> None:
    # Not symmetric: a ball on one end of a bar, whose axes and tails are all unlike.
    bar = brick(40)
    ball = Mesh(BALL.vertices * 0.4 + torch.tensor([0.7, 0.3, 0.2]), BALL.faces + len(bar.vertices), BALL.colours)
    both = Mesh(
        *(torch.cat(each) for each in zip(*((m.vertices, m.faces, m.colours) for m in (bar, ball)), strict=True))
    )
    turned = MeshRotation(77.0)([both], stream(0))
    principal, plain = Principal(), SHAPE
    kept = (principal.observe([both]) - principal.observe(turned)).abs().mean()
    assert float(kept) < 0.2 * float((plain.observe([both]) - plain.observe(turned)).abs().mean())
    field = FIELDS[1:].clone().requires_grad_()
    principal.soft_release(field).square().sum().backward()
    assert field.grad is not None and bool(field.grad.isfinite().all()) and float(field.grad.abs().max()) > 0
    assert torch.allclose(principal.soft_release(FIELDS), principal.observe(MESHES), atol=1e-5)
