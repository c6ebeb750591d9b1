"""Features of rendered views: of which pictures, by which network, under which name."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from attacks.shape3d import ColourDrop, Reordering, Similarity, VertexNoise
from bench.metrics.frechet import frechet_distance
from bench.protocol import Mesh, UserError
from bench.rng import stream
from bench.selection import with_features
from modalities.image import Image
from modalities.image.perceptual import inception
from modalities.shape3d import Shape3D, views
from modalities.shape3d.pictures import rendered
from modalities.shape3d.views import VIEWS
from tests.meshes import brick, cube, empty

BRICK = brick(12)
BY_VIEWS = Shape3D().with_features("views")


def test_features_are_the_mean_over_six_pictures_by_the_image_modality_s_network() -> None:
    meshes = [BRICK, empty(), cube()]
    found = BY_VIEWS.features(meshes)
    assert found.shape == (3, 1280) and found.dtype == torch.float32
    assert bool(found[1].isnan().all()) and bool(found[[0, 2]].isfinite().all())
    for mesh, feature in ((BRICK, found[0]), (cube(), found[2])):
        pictures = torch.cat([rendered([mesh], turn, tilt) for turn, tilt in VIEWS])
        assert torch.allclose(Image().features(pictures).mean(0), feature, atol=1e-4), "a mesh is judged alone"


def test_every_view_shows_another_side() -> None:
    """Of a body without symmetry."""
    odd = Mesh(BRICK.vertices + 0.2 * BRICK.vertices[:, [1, 2, 0]].square(), BRICK.faces, BRICK.colours)
    pictures = torch.cat([rendered([odd], turn, tilt) for turn, tilt in VIEWS]).float().flatten(1)
    apart = torch.cdist(pictures, pictures) / pictures.shape[1] ** 0.5  # root mean square, in grey levels
    assert float((apart + 255 * torch.eye(6)).min()) > 10


def test_neither_order_nor_place_nor_size_matters_and_colour_does() -> None:
    plain = BY_VIEWS.features([BRICK])
    far, shuffled, grey = (attack([BRICK], stream(0)) for attack in (Similarity(), Reordering(), ColourDrop()))
    change = [float((BY_VIEWS.features(meshes) - plain).norm()) for meshes in (far, shuffled, grey)]
    assert change[2] > 1 and max(change[:2]) < change[2] / 20


def test_another_renderer_can_draw() -> None:
    asked: list[tuple[float, float]] = []

    def flat(meshes: object, turn: float, tilt: float) -> Tensor:
        asked.append((turn, tilt))
        return torch.full((2, 3, 8, 8), len(asked), dtype=torch.uint8)

    found = views.features([BRICK, cube()], lambda x: x.float().mean((2, 3)), draw=flat)
    assert asked == list(VIEWS) and torch.equal(found, torch.full((2, 3), 3.5))


def test_the_name_says_the_network() -> None:
    assert with_features(Shape3D(), "default") == Shape3D() == BY_VIEWS.with_features("default")
    assert Shape3D().quality_metric == "fd_pointnet_ldraw"
    assert with_features(Shape3D(), "views").quality_metric == "fd_views_mobilenetv2"
    with pytest.raises(UserError, match="features 'vggish': expected default, views, inception"):
        with_features(Shape3D(), "vggish")
    with pytest.raises(UserError, match="features 'views': expected default or inception"):
        with_features(Image(), "views")


def test_inception_is_the_image_modality_s_and_is_not_called_fid(monkeypatch: pytest.MonkeyPatch) -> None:
    inception.cache_clear()
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(UserError, match="features inception: install torch-fidelity"):
        Shape3D().with_features("inception")
    monkeypatch.setattr("modalities.image.inception", lambda: torch.nn.Flatten())
    judged = Shape3D().with_features("inception")
    assert judged.quality_metric == "fd_views_inception"
    pictures = torch.stack([rendered([BRICK], turn, tilt)[0] for turn, tilt in VIEWS])
    assert torch.allclose(judged.features([BRICK])[0], (pictures.float() / 255).mean(0).flatten(), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("attack", "least"), [(VertexNoise(0.005), 1.5), (ColourDrop(), 1.1)], ids=repr)
def test_the_mean_shows_damage_as_well_as_a_row_per_view(attack: VertexNoise | ColourDrop, least: float) -> None:
    """Distance of 24 damaged parts to 24 others over that of the same ones undamaged."""
    parts = Shape3D().reference(48)
    order = torch.randperm(48, generator=stream(0, "h")).tolist()
    real, others = [parts[i] for i in order[:24]], [parts[i] for i in order[24:]]
    rows = [_rows(meshes) for meshes in (real, others, attack(others, stream(0)))]
    mean = [frechet_distance(rows[0].mean(1), each.mean(1)) for each in rows[1:]]
    pooled = [frechet_distance(rows[0], each) for each in rows[1:]]
    assert mean[1] / mean[0] > least and mean[1] / mean[0] > pooled[1] / pooled[0]
    found = torch.cat(rows[:2])
    within, total = found.var(1, correction=0).sum(-1).mean(), found.flatten(0, 1).var(0, correction=0).sum()
    assert 0.25 < float(within / total) < 0.45, "share of the variance that lies between views of one part"


def _rows(meshes: list[Mesh]) -> Tensor:
    seen = torch.cat([rendered(meshes, turn, tilt) for turn, tilt in VIEWS])
    with torch.inference_mode():
        return Image().features(seen).unflatten(0, (len(VIEWS), -1)).transpose(0, 1)
