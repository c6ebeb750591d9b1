"""What attacks on meshes do is what they say."""

from __future__ import annotations

import math

import pytest
import torch

from attacks.shape3d import ConvexHull, Decimation, Draco, NonUniformScaling, SaveAsOBJ, SaveAsSTL, VertexQuantisation
from attacks.shape3d_chain import AssetChain, LaunderingChain, PoseChain, WearChain, chained
from attacks.shape3d_cutting import ComponentRemoval, HoleCutting, PointDropout
from attacks.shape3d_flips import EdgeFlip
from attacks.shape3d_gltf import QuantisedGLTF
from attacks.shape3d_meshes import face_areas, unit_normals
from attacks.shape3d_noise import NormalNoise, OutlierVertices
from attacks.shape3d_poisson import PoissonReconstruction
from attacks.shape3d_subdivision import LoopSubdivision, Subdivision
from attacks.shape3d_texture import TextureJPEG
from attacks.shape3d_views import VisualHull
from bench.protocol import ContentAttack, Mesh
from bench.rng import child, stream
from modalities.shape3d.fidelity import iou
from tests.meshes import area, body, brick, cube, same, sphere, volume

BALL, BRICK = sphere(), brick(20)


def attacked(attack: ContentAttack, mesh: Mesh = BRICK) -> Mesh:
    return attack([mesh], stream(0))[0]


def edges(mesh: Mesh) -> torch.Tensor:
    """Undirected edges, once for each face."""
    return torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]).sort(1)[0]


def closed(mesh: Mesh) -> bool:
    return bool((edges(mesh).unique(dim=0, return_counts=True)[1] == 2).all())


@pytest.mark.parametrize(
    "attack",
    [
        OutlierVertices(0),
        NormalNoise(0),
        NonUniformScaling(1),
        Subdivision(0),
        EdgeFlip(0),
        HoleCutting(0),
        ComponentRemoval(0),
        PointDropout(0),
        Decimation(1),
    ],
    ids=repr,
)
def test_no_strength_is_no_attack(attack: ContentAttack) -> None:
    assert same(attacked(attack), BRICK)


def joined(*meshes: Mesh) -> Mesh:
    starts = torch.tensor([0, *[len(mesh.vertices) for mesh in meshes]]).cumsum(0).tolist()
    faces = [mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)]
    return Mesh(torch.cat([m.vertices for m in meshes]), torch.cat(faces), torch.cat([m.colours for m in meshes]))


def shifted(mesh: Mesh, by: float) -> Mesh:
    return Mesh(mesh.vertices + by, mesh.faces, mesh.colours)


def test_so_many_vertices_become_outliers_and_a_stronger_attack_throws_the_same_and_more() -> None:
    few, many = (
        (attacked(OutlierVertices(s), BALL).vertices != BALL.vertices).any(1).nonzero()[:, 0] for s in (0.01, 0.05)
    )
    assert len(few) == round(0.01 * len(BALL.vertices)) and set(few.tolist()) < set(many.tolist())
    far = (attacked(OutlierVertices(0.5), BALL).vertices - BALL.vertices).norm(dim=1)
    assert float(far[far > 0].square().mean()) == pytest.approx(3 * (0.05 * 1.6 * 3**0.5) ** 2, rel=0.1)


def test_noise_along_normals_has_the_deviation_that_it_says_and_none_aside() -> None:
    moved = (attacked(NormalNoise(0.01), BALL).vertices - BALL.vertices).double()
    normals = torch.from_numpy(unit_normals(BALL.vertices.double().numpy(), BALL.faces.numpy()))
    along = (moved * normals).sum(1)
    assert float(along.std()) == pytest.approx(0.01 * 1.6 * 3**0.5, rel=0.05)
    assert float((moved - along[:, None] * normals).abs().max()) < 1e-6


def test_scales_differ_by_the_factor_and_the_volume_stays() -> None:
    longer = attacked(NonUniformScaling(1.5), BALL)
    sides = longer.vertices.amax(0) - longer.vertices.amin(0)
    assert float(sides.amax() / sides.amin()) == pytest.approx(1.5, rel=1e-4)
    assert volume(longer) == pytest.approx(volume(BALL), rel=1e-4)


@pytest.mark.parametrize("times", [0.3, 0.7, 1.3])
def test_a_share_of_the_triangles_is_split_and_no_gap_opens(times: float) -> None:
    fine = attacked(Subdivision(times))
    assert closed(fine) and volume(fine) == pytest.approx(volume(BRICK), rel=1e-5)
    assert area(fine) == pytest.approx(area(BRICK), rel=1e-5)
    whole = len(BRICK.faces) * 4 ** int(times)
    assert whole * (1 + 3 * (times % 1)) <= len(fine.faces) < 4 * whole


def test_loop_subdivision_smooths_a_closed_surface() -> None:
    smooth = attacked(LoopSubdivision(1.0), cube())
    assert len(smooth.faces) == 4 * 12 and closed(smooth)
    assert 0.45 < volume(smooth) < 0.9, "corners of a cube are cut"
    ball = attacked(LoopSubdivision(0.25), BALL)
    assert len(ball.faces) >= len(BALL.faces) and volume(ball) == pytest.approx(volume(BALL), rel=0.03)


def test_loop_subdivision_has_the_weights_of_its_papers() -> None:
    """At a vertex of a regular patch 5/8 of it and 1/16 of each neighbour; on a border 3/4 and 1/8."""
    fan = [(0, 0, 5.0), *[(math.cos(k * math.pi / 3), math.sin(k * math.pi / 3), 0) for k in range(6)]]
    faces = torch.tensor([[0, k + 1, (k + 1) % 6 + 1] for k in range(6)])
    found = attacked(LoopSubdivision(1.0), Mesh(torch.tensor(fan), faces, torch.zeros(7, 3, dtype=torch.uint8)))
    assert float(found.vertices[0, 2]) == pytest.approx(5 * 5 / 8)
    expected = 3 / 4 * torch.tensor(fan[1]) + (torch.tensor(fan[2]) + torch.tensor(fan[6])) / 8
    assert torch.allclose(found.vertices[1], expected, atol=1e-6)
    heights = sorted(found.vertices[7:, 2].tolist())
    assert heights == pytest.approx([0.0] * 6 + [5 * 3 / 8] * 6), "middles of edges: half on a border, else 3/8 and 1/8"


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_that_share_of_the_edges_is_flipped(share: float) -> None:
    other = attacked(EdgeFlip(share), BALL)
    old, new = ({tuple(edge) for edge in edges(mesh).tolist()} for mesh in (BALL, other))
    assert len(new - old) == pytest.approx(share * len(old), abs=1) and len(new) == len(old)
    assert torch.equal(other.vertices, BALL.vertices) and closed(other)
    assert volume(other) == pytest.approx(volume(BALL), rel=0.01)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_holes_take_that_share_of_the_faces(share: float) -> None:
    cut = attacked(HoleCutting(share))
    assert len(cut.faces) == len(BRICK.faces) - round(share * len(BRICK.faces))
    ends, count = edges(cut).unique(dim=0, return_counts=True)
    assert 0 < int((count == 1).sum()) < 0.1 * len(ends), "a few round borders"


def test_loose_parts_go_first_and_that_much_of_the_area_goes() -> None:
    crumbs = joined(shifted(sphere(0.1, 40), 2.0), BALL, shifted(sphere(0.2, 40), -2.0))
    light = area(sphere(0.1, 40)) + area(sphere(0.2, 40))
    left = attacked(ComponentRemoval(light / area(crumbs) + 1e-4), crumbs)
    assert area(left) == pytest.approx(area(BALL), rel=0.01)
    assert float(left.vertices[left.faces.unique()].abs().max()) < 1
    for share in (0.1, 0.3):
        cut = attacked(ComponentRemoval(share))
        assert 1 - area(cut) / area(BRICK) == pytest.approx(share, abs=2 * face_areas(BRICK).max() / area(BRICK))
    corners = BRICK.vertices[BRICK.faces].view(-1, 3)
    soup = Mesh(corners, torch.arange(len(corners)).view(-1, 3), torch.zeros_like(corners, dtype=torch.uint8))
    left = attacked(ComponentRemoval(0.2), soup)
    sides = left.vertices[left.faces].mean(1).amax(0) - left.vertices[left.faces].mean(1).amin(0)
    assert float(sides[0]) < 1.4 and float(sides[2]) > 0.9, "triangles at one place are connected: an end goes"


def test_that_share_of_the_vertices_is_dropped() -> None:
    thin = attacked(PointDropout(0.1), BALL)
    kept = 1 - len(thin.faces.unique()) / len(BALL.vertices)
    assert kept == pytest.approx(0.1, abs=0.02) and len(thin.faces) == pytest.approx(0.73 * len(BALL.faces), rel=0.05)


def test_poisson_finds_the_solid_again_and_closes_it() -> None:
    for mesh in (BALL, BRICK, attacked(HoleCutting(0.05))):
        again = attacked(PoissonReconstruction(48), mesh)
        assert closed(again)
    assert volume(attacked(PoissonReconstruction(48), BALL)) == pytest.approx(volume(BALL), rel=0.02)
    assert iou(attacked(PoissonReconstruction(48)), BRICK) > 0.93
    away = attacked(PoissonReconstruction(48), shifted(BALL, 7.0))
    assert float(away.vertices.mean(0).sub(7).abs().max()) < 0.01


def test_outlines_fill_what_they_do_not_show() -> None:
    ball = attacked(VisualHull(32), BALL)
    assert closed(ball) and volume(ball) == pytest.approx(volume(BALL), rel=0.06)

    def bowl(x: torch.Tensor) -> torch.Tensor:
        import numpy as np

        inner = np.linalg.norm(x - np.array([0, 0.4, 0]), axis=-1) - 0.6
        return np.maximum(np.linalg.norm(x, axis=-1) - 0.8, -inner)

    hollow = body(bowl)  # type: ignore[arg-type]
    assert volume(hollow) < 0.75 * volume(attacked(VisualHull(64), hollow)), "a hollow is in no outline"
    assert volume(attacked(VisualHull(4))) > volume(attacked(VisualHull(32))) > 0.99 * volume(BRICK)


def test_a_texture_of_high_quality_keeps_the_colours_and_a_poor_one_does_not() -> None:
    fine, poor = ((attacked(TextureJPEG(q)).colours.float() - BRICK.colours.float()).abs().mean() for q in (95, 5))
    assert float(fine) < 3 < float(poor)
    assert torch.equal(attacked(TextureJPEG(5)).faces, BRICK.faces)
    grey = Mesh(BRICK.vertices, BRICK.faces, torch.full_like(BRICK.colours, 128))
    assert torch.equal(attacked(TextureJPEG(10), grey).colours, grey.colours)


def test_a_quantised_file_is_on_the_lattice_and_opens_with_its_colours() -> None:
    grey = Mesh(BRICK.vertices, BRICK.faces, torch.full_like(BRICK.colours, 9))
    assert len(attacked(QuantisedGLTF(4), grey).vertices) < len(BRICK.vertices), "equal ones become one"
    found, rounded = attacked(QuantisedGLTF(4)), attacked(VertexQuantisation(4))
    assert len(found.faces) < len(BRICK.faces), "those without an area go"
    apart = torch.cdist(found.vertices.double(), rounded.vertices.double())
    nearest = apart.amin(1)
    assert float(nearest.max()) < 1e-5
    assert volume(found) == pytest.approx(volume(rounded), rel=1e-4)
    fine = attacked(QuantisedGLTF(16))
    assert len(fine.faces) == len(BRICK.faces)
    order, other = (
        mesh.vertices[:, 0] + 2.3 * mesh.vertices[:, 1] + 5.7 * mesh.vertices[:, 2] for mesh in (fine, BRICK)
    )
    assert torch.equal(fine.colours[order.argsort()], BRICK.colours[other.argsort()])


@pytest.mark.parametrize("chain", [PoseChain, WearChain, AssetChain, LaunderingChain])
def test_a_chain_is_its_links_in_a_row(chain: type[PoseChain]) -> None:
    links, rng = chain(2.0).links(), stream(0)
    assert len(links) >= 3
    by_hand, streams = [BRICK], [child(rng, "link", index) for index in range(len(links))]
    for link, own in zip(links, streams, strict=True):
        by_hand = link(by_hand, own)
    assert same(attacked(chain(2.0)), by_hand[0]) and same(chained([BRICK], links, stream(0))[0], by_hand[0])


def test_a_convex_hull_is_convex_and_around_everything() -> None:
    hull = attacked(ConvexHull())
    a, b, c = hull.vertices.double()[hull.faces].unbind(1)
    normals = torch.linalg.cross(b - a, c - a)
    heights = (normals * a).sum(1, keepdim=True) - normals @ BRICK.vertices.double().T
    wide = normals.norm(dim=1) > 1e-6
    assert float((heights / normals.norm(dim=1, keepdim=True))[wide].min()) > -1e-5
    assert volume(hull) > volume(BRICK)


def test_files() -> None:
    text = attacked(SaveAsOBJ(3))
    assert torch.equal(text.faces, BRICK.faces) and float((text.vertices - BRICK.vertices).abs().max()) < 6e-4
    assert float((text.colours.float() - BRICK.colours.float()).abs().max()) <= 1
    soup = attacked(SaveAsSTL())
    assert len(soup.vertices) == 3 * len(BRICK.faces) and torch.equal(
        soup.vertices[soup.faces], BRICK.vertices[BRICK.faces]
    )
    assert float((attacked(Draco(8)).vertices.amax(0) - BRICK.vertices.amax(0)).abs().max()) < 1.6 / 255
