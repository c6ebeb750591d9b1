"""Set scores against their definitions, written out; and the category network's features."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from bench.protocol import UserError
from bench.rng import fenced, stream
from modalities.shape3d import Shape3D, perceptual
from modalities.shape3d.parts import largest_categories
from modalities.shape3d.perceptual import POINTS, WIDTH, PointNet, oriented_points
from modalities.shape3d.sets import chamfer_matrix, compared, scores
from tests.meshes import brick, cube, empty, sphere


def test_chamfer_is_the_sum_of_both_mean_squared_distances() -> None:
    a, b = torch.randn(3, 7, 3, generator=stream(0)), torch.randn(2, 5, 3, generator=stream(1))
    found = chamfer_matrix(a, b)
    for i, j in itertools.product(range(3), range(2)):
        apart = np.array([[((p - q) ** 2).sum() for q in b[j].double().numpy()] for p in a[i].double().numpy()])
        assert float(found[i, j]) == pytest.approx(apart.min(1).mean() + apart.min(0).mean(), rel=1e-9)
    line = torch.zeros(1, 2, 3), torch.tensor([[[3.0, 0, 0], [0, 4, 0]]])
    assert float(chamfer_matrix(*line)) == pytest.approx((9 + 9) / 2 + (9 + 16) / 2)


def test_scores_by_hand() -> None:
    """Samples at 0, 1 and 9 on a line; real shapes at 0.1, 5 and 9.2."""
    x, y = torch.tensor([0.0, 1.0, 9.0]), torch.tensor([0.1, 5.0, 9.2])
    between, within = (x[:, None] - y).abs(), ((x[:, None] - x).abs(), (y[:, None] - y).abs())
    found = scores(between, within)
    assert found.coverage == pytest.approx(2 / 3) and found.mmd == pytest.approx((0.1 + 4 + 0.2) / 3)
    # Nearest to 0 is 0.1, to 1 is 0.1 (0.9 away, 0 is 1.0), to 9 is 9.2; to 0.1 is 0, to 5 is 1 (4), to 9.2 is 9.
    assert found.nna == 0


def test_sets_of_the_same_shapes_and_of_others() -> None:
    bodies = [sphere(cells=12), brick(14), cube()]
    same = compared([*bodies, empty()], bodies)
    assert same.coverage == 1 and same.mmd < 0.01
    apart = compared([sphere(cells=12)] * 3, [cube(), cube()])
    assert apart.nna == 1 and apart.mmd > 0.01 > same.mmd


def test_points_are_normalised_and_oriented() -> None:
    x = oriented_points([sphere(0.3, 20), empty()], stream(0))
    assert x.shape == (2, 6, POINTS) and bool(x[1].isnan().all())
    assert float((x[0, :3].norm(dim=0) - 0.85).abs().max()) < 0.03
    assert float((x[0, :3] * x[0, 3:]).sum(0).min()) > 0.5
    assert oriented_points([], stream(0)).shape == (0, 6, POINTS)


def test_features_do_not_depend_on_the_order_of_points_and_are_nan_without_a_surface(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with fenced(0):
        network = PointNet(len(largest_categories()) + 1).eval()
    x = oriented_points([brick(14)], stream(0))
    order = torch.randperm(POINTS, generator=stream(1))
    assert torch.allclose(network.features(x), network.features(x[:, :, order]), atol=1e-6)
    monkeypatch.setattr(perceptual, "pointnet", lambda: network)
    found = Shape3D().features([brick(14), empty(), cube()])
    assert found.shape == (3, WIDTH) and found.dtype == torch.float32
    assert bool(found[1].isnan().all()) and bool(found[[0, 2]].isfinite().all())
    assert torch.allclose(Shape3D().features([cube()])[0], found[2], atol=1e-6), "a mesh is judged alone"


def test_without_weights_the_message_says_how_to_make_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    perceptual.pointnet.cache_clear()
    monkeypatch.setattr(perceptual, "WEIGHTS", tmp_path_factory.mktemp("none") / "absent.safetensors")
    with pytest.raises(UserError, match=r"PointNet weights: expected .*, found none; run `make embedded MODALITY=3d`"):
        Shape3D().features([cube()])
