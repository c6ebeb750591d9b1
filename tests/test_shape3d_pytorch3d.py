"""PyTorch3D's definitions, written out, against our functions; and PyTorch3D itself, where it is there."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare, kstest

from bench.protocol import Mesh, UserError
from bench.rng import stream
from modalities.shape3d import fidelity, pictures, pytorch3d, sets, views
from modalities.shape3d.cloud import feet, sampled_surface
from modalities.shape3d.files import GREY
from tests.meshes import brick, cube, empty, same, sphere

Array = NDArray[np.float64]
SAMPLERS = ["ours", "pytorch3d"]


def skewed() -> Mesh:
    """A cube pulled into faces of very different sizes, each corner with a colour of its own."""
    corners = cube().vertices * torch.tensor([2.0, 0.5, 1.0]) + 0.3 * cube().vertices[:, [1, 2, 0]]
    return Mesh(corners, cube().faces, (torch.arange(24).view(8, 3) * 10).to(torch.uint8))


def of(name: str) -> Any:
    """Our module for a function, or the one that goes through PyTorch3D."""
    if name == "pytorch3d":
        pytest.importorskip("pytorch3d")
        return pytorch3d
    return SimpleNamespace(
        sampled_surface=sampled_surface, chamfer_matrix=sets.chamfer_matrix, rendered=pictures.rendered
    )


# Definitions, without any library for 3D


def chamfer_distance(a: Array, b: Array, normals_a: Array, normals_b: Array) -> tuple[float, float]:
    """Both terms of ``pytorch3d.loss.chamfer_distance`` with its defaults: squared distances, and 1 - |cosine|."""
    distance = normal = 0.0
    for here, there, own, others in ((a, b, normals_a, normals_b), (b, a, normals_b, normals_a)):
        apart = np.square(here[:, None] - there[None]).sum(-1)
        nearest = apart.argmin(1)
        distance += float(apart.min(1).mean())
        normal += float((1 - np.abs((own * others[nearest]).sum(-1))).mean())
    return distance, normal


def nearest_on_triangle(p: Array, a: Array, b: Array, c: Array) -> Array:
    """The foot inside, where there is one; else the nearest of the feet on the three edges."""
    normal = np.cross(b - a, c - a)
    foot = p - normal * ((p - a) @ normal) / (normal @ normal)
    sides = [np.cross(y - x, foot - x) @ normal for x, y in ((a, b), (b, c), (c, a))]
    if min(sides) >= 0:
        return foot
    edges = [x + (y - x) * np.clip((p - x) @ (y - x) / ((y - x) @ (y - x)), 0, 1) for x, y in ((a, b), (b, c), (c, a))]
    return min(edges, key=lambda q: float(((p - q) ** 2).sum()))


def areas(mesh: Mesh) -> Array:
    a, b, c = mesh.vertices.double()[mesh.faces].numpy().transpose(1, 0, 2)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def located(points: Array, mesh: Mesh) -> tuple[NDArray[np.int64], Array]:
    """The triangle that each point lies on, and its barycentric coordinates there."""
    corners = mesh.vertices.double()[mesh.faces].numpy()
    weights = np.stack([(points - a) @ np.linalg.pinv(np.stack([b - a, c - a])) for a, b, c in corners])
    weights = np.concatenate([1 - weights.sum(2, keepdims=True), weights], 2)  # (F, N, 3)
    beside = np.linalg.norm(points - np.einsum("fnk,fkx->fnx", weights, corners), axis=2)
    outside = (beside > 1e-5) | (weights.min(2) < -1e-5)
    face = outside.argmin(0)
    assert not outside.all(0).any(), "a point beside the surface"
    return face, weights[face, np.arange(len(points))]


# Ours, and PyTorch3D's, against them


@pytest.mark.parametrize("name", SAMPLERS)
def test_chamfer_is_the_published_one(name: str) -> None:
    a, b = torch.randn(2, 40, 3, generator=stream(0)), torch.randn(3, 25, 3, generator=stream(1))
    found = of(name).chamfer_matrix(a, b)
    assert found.shape == (2, 3) and found.dtype == torch.float64
    for i, one in enumerate(a.double().numpy()):
        for j, other in enumerate(b.double().numpy()):
            expected, _ = chamfer_distance(one, other, np.zeros_like(one), np.zeros_like(other))
            assert float(found[i, j]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_points_fall_on_faces_by_area_and_evenly_within(name: str) -> None:
    """A face is drawn by its area, a place by w = (1 - √u, √u (1 - v), √u v): then (1 - w₀)² is uniform, as v is."""
    mesh, count = skewed(), 4000
    cloud = of(name).sampled_surface(mesh, count, stream(0))
    face, weights = located(cloud.points.double().numpy(), mesh)
    share = areas(mesh) / areas(mesh).sum()
    assert share.max() > 3 * share.min()
    assert chisquare(np.bincount(face, minlength=12), count * share).pvalue > 1e-3
    inner = np.square(1 - weights[:, 0]).clip(0, 1)
    assert kstest(inner, "uniform").pvalue > 1e-3
    assert kstest((weights[:, 2] / (1 - weights[:, 0])).clip(0, 1), "uniform").pvalue > 1e-3
    colours = (mesh.colours[mesh.faces].double().numpy()[face] * weights[..., None]).sum(1) / 255
    assert np.abs(colours - cloud.colours.double().numpy()).max() < 1e-4
    a, b, c = mesh.vertices.double()[mesh.faces].numpy()[face].transpose(1, 0, 2)
    cross = np.cross(b - a, c - a)
    outward = cross / np.linalg.norm(cross, axis=1, keepdims=True)
    assert np.abs(outward - cloud.normals.double().numpy()).max() < 1e-5


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_stream_alone_decides_where_points_fall(name: str) -> None:
    state, sampler = torch.get_rng_state(), of(name).sampled_surface
    drawn = [sampler(cube(), 50, stream(seed)).points for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="without area"):
        sampler(empty(), 5, stream(0))


def test_nearest_points_are_those_of_every_triangle() -> None:
    mesh, points = skewed(), torch.randn(60, 3, generator=stream(2))
    found = feet(points, mesh)
    corners = mesh.vertices.double()[mesh.faces].numpy()
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    for p, distance, normal in zip(points.double().numpy(), found.distance, found.normals, strict=True):
        apart = np.array([np.linalg.norm(p - nearest_on_triangle(p, *triangle)) for triangle in corners])
        assert float(distance) == pytest.approx(apart.min(), abs=1e-5)
        near = np.flatnonzero(apart < apart.min() + 1e-5)  # several at an edge or a corner
        unit = cross[near] / np.linalg.norm(cross[near], axis=1, keepdims=True)
        assert np.abs(unit - normal.double().numpy()).max(1).min() < 1e-4


def pair() -> tuple[Mesh, Mesh]:
    """Two bodies of one frame that differ: a ball, and the same one dented to an egg on one side."""
    ball = sphere(cells=14)
    dented = ball.vertices * torch.where(ball.vertices[:, :1] > 0, torch.tensor([[1.0, 0.7, 1.0]]), torch.ones(1, 3))
    return ball, Mesh(dented, ball.faces, ball.colours)


def test_normal_consistency_is_one_minus_half_of_the_published_loss() -> None:
    """The loss sums both directions of 1 - |cosine| at the nearest sampled point; ours is taken at the nearest point of
    the surface, to which it comes the closer the more points there are."""
    a, b = pair()
    exact = float(fidelity.paired([a], [b])["normals"])
    gaps = []
    for count in (100, 1200):
        clouds = [sampled_surface(fidelity._normalised(mesh), count, stream(3)) for mesh in (a, b)]  # type: ignore[arg-type]
        points, normals = ([getattr(c, what).double().numpy() for c in clouds] for what in ("points", "normals"))
        _, loss = chamfer_distance(points[0], points[1], normals[0], normals[1])
        gaps.append(abs(1 - loss / 2 - exact))
    assert exact < 0.97 and gaps[1] < 0.01 < gaps[0]


def test_points_against_points_have_a_floor_and_points_against_a_surface_have_none() -> None:
    """Between two samplings of one mesh: it would hide every change that is smaller, and falls with √points only."""
    mesh = sphere(cells=14)
    nudged = Mesh(mesh.vertices * torch.tensor([1.0, 1.004, 1.0]), mesh.faces, mesh.colours)
    between = {}
    for count in (256, 1024, 4096):
        one, other, moved = (
            sampled_surface(each, count, stream(seed)).points for each, seed in ((mesh, 0), (mesh, 1), (nudged, 1))
        )
        between[count] = float(torch.cdist(one, other).amin(1).mean())
        assert float(feet(one, mesh).distance.mean()) < 1e-6, "no floor"
        assert float(feet(moved, mesh).distance.mean()) > 1e-3, "what was changed shows"
        if count == 1024:
            assert float(torch.cdist(one, moved).amin(1).mean()) == pytest.approx(between[count], rel=0.03), "hidden"
    assert between[256] / between[1024] == pytest.approx(2, rel=0.1)
    assert between[1024] / between[4096] == pytest.approx(2, rel=0.1)


# Without PyTorch3D


CALLS: list[Callable[[], object]] = [
    lambda: pytorch3d.to_meshes([cube()]),
    lambda: pytorch3d.chamfer_matrix(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)),
    lambda: pytorch3d.sampled_surface(cube(), 5, stream(0)),
    lambda: pytorch3d.rendered([cube()]),
    lambda: sets.compared([cube()] * 2, [brick(10)] * 2, chamfer=pytorch3d.chamfer_matrix),
    lambda: fidelity.paired([cube()], [cube()], sample=pytorch3d.sampled_surface),
    lambda: views.features([cube()], lambda x: x.flatten(1).float(), draw=pytorch3d.rendered),
]


@pytest.mark.parametrize("call", CALLS)
def test_without_it_one_line_says_how_to_build_it(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytorch3d, "find_spec", lambda _: None)
    with pytest.raises(
        UserError, match=r"^expected the module 'pytorch3d', found none; build it with `pip install --no"
    ):
        call()


def test_one_that_was_built_for_another_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise ImportError(f"undefined symbol in {name}")

    monkeypatch.setattr(pytorch3d, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(pytorch3d, "import_module", broken)
    with pytest.raises(
        UserError, match=r"does not work with torch .* \(undefined symbol in pytorch3d.structures\); build"
    ):
        pytorch3d.to_meshes([cube()])


def test_importing_ours_imports_nothing_of_theirs() -> None:
    loaded = "pytorch3d" in sys.modules
    importlib.reload(pytorch3d)
    assert ("pytorch3d" in sys.modules) == loaded


# Its own structures


def test_meshes_go_there_and_back() -> None:
    structures = pytest.importorskip("pytorch3d.structures")
    bodies = [skewed(), sphere(cells=10), brick(12)]
    batch = pytorch3d.to_meshes(bodies)
    assert isinstance(batch, structures.Meshes) and batch.num_faces_per_mesh().tolist() == [
        len(mesh.faces) for mesh in bodies
    ]
    assert all(same(a, b) for a, b in zip(bodies, pytorch3d.from_meshes(batch), strict=True))
    plain = pytorch3d.from_meshes(structures.Meshes(batch.verts_list(), batch.faces_list()))
    assert all((mesh.colours == GREY).all() for mesh in plain)


def test_colours_that_would_be_lost_are_refused() -> None:
    structures = pytest.importorskip("pytorch3d.structures")
    renderer = pytest.importorskip("pytorch3d.renderer")
    verts, faces = [cube().vertices], [cube().faces]
    wrapped = renderer.TexturesAtlas(torch.rand(1, 12, 2, 2, 3, generator=stream(0)))
    with pytest.raises(UserError, match="expected colours as TexturesVertex, found TexturesAtlas"):
        pytorch3d.from_meshes(structures.Meshes(verts, faces, textures=wrapped))
    many = renderer.TexturesVertex([torch.zeros(8, 5)])
    with pytest.raises(UserError, match=r"expected RGB of each vertex, found features of shape \[\(8, 5\)\]"):
        pytorch3d.from_meshes(structures.Meshes(verts, faces, textures=many))


def test_its_losses_are_the_definitions_above() -> None:
    loss = pytest.importorskip("pytorch3d.loss")
    a, b = (sampled_surface(mesh, 200, stream(5)) for mesh in pair())
    theirs = loss.chamfer_distance(a.points[None], b.points[None], x_normals=a.normals[None], y_normals=b.normals[None])
    ours = chamfer_distance(*(x.double().numpy() for x in (a.points, b.points, a.normals, b.normals)))
    assert [float(x) for x in theirs] == pytest.approx(ours, rel=1e-4)


def test_scores_through_it_are_ours() -> None:
    pytest.importorskip("pytorch3d")
    samples, real = [sphere(cells=10), cube()], [brick(12), cube(), skewed()]
    theirs, ours = sets.compared(samples, real, chamfer=pytorch3d.chamfer_matrix), sets.compared(samples, real)
    assert list(theirs) == pytest.approx(list(ours), rel=1e-4)
    a, b = ([mesh] for mesh in pair())
    through, own = fidelity.paired(a, b, sample=pytorch3d.sampled_surface), fidelity.paired(a, b)
    assert float(through["iou"]) == float(own["iou"])
    assert float(through["chamfer"]) == pytest.approx(float(own["chamfer"]), rel=0.1)
    assert float(through["normals"]) == pytest.approx(float(own["normals"]), abs=0.02)


def test_pictures_through_it_are_ours() -> None:
    pytest.importorskip("pytorch3d")
    bodies = [skewed(), empty()]
    theirs, ours = pytorch3d.rendered(bodies, 0.9, 0.4).int(), pictures.rendered(bodies, 0.9, 0.4).int()
    assert theirs.shape == ours.shape and torch.equal(theirs[1], ours[1])
    assert float(((theirs - ours).abs().amax(1) > 2).float().mean()) < 0.005, "pixels at edges only"
