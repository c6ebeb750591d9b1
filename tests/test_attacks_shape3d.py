from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Callable

import pytest
import torch

from attacks import ATTACKS, LISTED, families, families_for
from attacks.shape3d import (
    Affine,
    ColourDrop,
    ColourLevels,
    ColourNoise,
    Decimation,
    Draco,
    IsotropicRemesh,
    LaplacianSmoothing,
    MeshCrop,
    MeshRegeneration,
    MeshRotation,
    NonUniformScaling,
    PointReconstruction,
    Reordering,
    SaveAsOBJ,
    Similarity,
    TaubinSmoothing,
    VertexNoise,
    VertexQuantisation,
    VoxelRemesh,
)
from attacks.shape3d_chain import AssetChain
from attacks.shape3d_cutting import ComponentRemoval, HoleCutting, PointDropout
from attacks.shape3d_flips import EdgeFlip
from attacks.shape3d_gltf import QuantisedGLTF
from attacks.shape3d_noise import NormalNoise, OutlierVertices
from attacks.shape3d_poisson import PoissonReconstruction
from attacks.shape3d_subdivision import LoopSubdivision, Subdivision
from attacks.shape3d_texture import TextureJPEG
from attacks.shape3d_views import VisualHull
from attacks.suites import strengths_in
from attacks.tools import Tools
from bench.naming import attack_name, attack_strength
from bench.protocol import AttackFamily, ContentAttack, Mesh, UserError
from bench.rng import stream
from modalities.shape3d.fidelity import paired
from tests.meshes import area, brick, cube, empty, same, sphere, volume


def softened(content: list[Mesh]) -> list[Mesh]:
    """Stands in for an autoencoder."""
    return LaplacianSmoothing(3)(content, stream(0))


BRICK = brick(20)
FAMILIES = [f for f in families_for("3d", Tools(reconstruct=softened)).values() if f.target == "content"]
QUICK = [pytest.param(f.make(f.strengths[f.quick]), id=f.name) for f in FAMILIES]
EVERY = [pytest.param(f.make(s), id=f"{f.name}-{s:g}") for f in FAMILIES for s in f.strengths]
FLAT = Mesh(
    torch.rand(9, 3, generator=stream(0)) * torch.tensor([1.0, 0, 1]), cube().faces[:4], cube().colours[[0] * 9]
)


PLAIN = ("reordering", "colour-drop", "save-as-stl", "convex-hull")
"""They have no strength."""


def distance(a: Mesh, b: Mesh) -> float:
    """How far two meshes are apart in surface, volume and colours, about 0 to 3."""
    found = {name: float(values[0]) for name, values in paired([a], [b]).items()}
    return found["chamfer"] / 10 + (1 - found["iou"]) + 10 ** (-found["colour_psnr"] / 20)


@pytest.mark.parametrize("attack", EVERY)
def test_attack_contract(attack: ContentAttack) -> None:
    assert isinstance(attack, ContentAttack) and attack.target == "content"
    assert dataclasses.is_dataclass(attack) and hash(attack) == hash(dataclasses.replace(attack))
    content = [BRICK, empty()]
    before = [Mesh(m.vertices.clone(), m.faces.clone(), m.colours.clone()) for m in content]
    once, again = attack(content, stream(0)), attack(content, stream(0))
    assert isinstance(once, list) and len(once) == 2
    assert all(same(a, b) for a, b in zip(once, again, strict=True)), "same stream, same damage"
    assert all(same(a, b) for a, b in zip(content, before, strict=True)), "the input was modified in place"
    assert not same(once[0], BRICK) and not len(once[1].faces)
    assert (once[0].vertices.dtype, once[0].faces.dtype) == (torch.float32, torch.int64)
    assert once[0].colours.dtype == torch.uint8 and len(once[0].colours) == len(once[0].vertices)
    assert bool(once[0].vertices.isfinite().all()) and len(once[0].faces) >= 4
    assert int(once[0].faces.min()) >= 0 and int(once[0].faces.max()) < len(once[0].vertices)


@pytest.mark.parametrize("attack", QUICK)
def test_odd_meshes_are_attacked_without_an_error(attack: ContentAttack) -> None:
    """Twelve triangles, a sheet, and vertices that no face uses."""
    loose = Mesh(torch.cat([cube().vertices, torch.full((2, 3), 9.0)]), cube().faces, cube().colours[[0] * 10])
    for mesh in attack([cube(), FLAT, loose], stream(0)):
        assert bool(mesh.vertices[mesh.faces.unique()].isfinite().all())


@pytest.mark.parametrize("attack", QUICK)
def test_a_mesh_does_not_depend_on_those_after_it(attack: ContentAttack) -> None:
    assert same(attack([BRICK], stream(0))[0], attack([BRICK, cube()], stream(0))[0])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_stronger_attack_does_more_damage(family: AttackFamily) -> None:
    if family.name in (*PLAIN, "subdivision", "similarity"):
        return  # they leave the surface as it is
    values = [distance(BRICK, family.make(strength)([BRICK], stream(0))[0]) for strength in family.strengths]
    assert all(after > before * 0.9 for before, after in itertools.pairwise(values)), values
    assert values[-1] > values[0], values


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_lists_what_it_makes(family: AttackFamily) -> None:
    assert family.modality == "3d" and 0 <= family.quick < len(family.strengths)
    assert len(set(family.strengths)) == len(family.strengths)
    for strength in family.strengths:
        attack = family.make(strength)
        assert repr(attack) == repr(family.make(float(strength))), "one attack, two names"
        assert attack_strength(attack) == strength or math.isnan(attack_strength(attack))
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", attack_name(attack))
    assert family.name == words.lower().replace("asobj", "as-obj")
    assert set(family.standard) <= set(family.strengths) and set(family.suites) <= {"quick", "standard"}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_has_a_card(family: AttackFamily) -> None:
    assert re.fullmatch(r"[A-Z].{15,110}\.", family.card) and family.source and family.needs
    assert len(family.strengths) >= 4 or family.name in (*PLAIN, "mesh-regeneration")


def test_suites_grow_and_standard_is_what_an_hour_allows() -> None:
    held = families_for("3d", LISTED)
    taken = {name: strengths_in(name, "3d", held) for name in ("quick", "standard", "all")}
    own = {
        suite: {name: s for name, s in found.items() if held[name].modality == "3d"} for suite, found in taken.items()
    }
    assert set(own["quick"]) < set(own["standard"]) < set(own["all"]) and len(own["all"]) >= 38
    assert 12 <= len(own["standard"]) <= 16 and sum(map(len, own["standard"].values())) <= 60
    assert all(len(strengths) == 1 for strengths in own["quick"].values())


def test_the_phone_book() -> None:
    assert {"rotation", "mesh-rotation", "colour-quantisation", "colour-levels"} <= set(ATTACKS)
    assert ATTACKS["rotation"].modality == "image" and "rotation" in families_for("image")
    assert "mesh-regeneration" not in ATTACKS and "mesh-regeneration" in families(LISTED)
    assert {family.modality for family in families_for("3d").values()} == {"3d", "any"}


BAD = [
    lambda: VertexNoise(math.nan),
    lambda: VertexQuantisation(0),
    lambda: LaplacianSmoothing(-1),
    lambda: TaubinSmoothing(10_001),
    lambda: Decimation(0),
    lambda: Subdivision(7),
    lambda: IsotropicRemesh(1.1),
    lambda: VoxelRemesh(3),
    lambda: PointReconstruction(10),
    lambda: MeshRotation(181),
    lambda: Similarity(0.5),
    lambda: Affine(-0.1),
    lambda: MeshCrop(0),
    lambda: ColourNoise(2),
    lambda: ColourLevels(1),
    lambda: Draco(31),
    lambda: SaveAsOBJ(0),
    lambda: MeshRegeneration(0, softened),
    lambda: OutlierVertices(-0.1),
    lambda: NormalNoise(math.inf),
    lambda: NonUniformScaling(0.9),
    lambda: PoissonReconstruction(3),
    lambda: LoopSubdivision(1.5),
    lambda: EdgeFlip(1.1),
    lambda: HoleCutting(1),
    lambda: ComponentRemoval(0.99),
    lambda: PointDropout(1),
    lambda: TextureJPEG(0),
    lambda: VisualHull(1),
    lambda: QuantisedGLTF(17),
    lambda: AssetChain(0),
]


@pytest.mark.parametrize("make", BAD)
def test_an_absurd_strength_is_refused_in_one_line(make: Callable[[], object]) -> None:
    with pytest.raises(UserError, match=r"^\w+\(.*\): the strength must .*, found .*$"):
        make()


def attacked(attack: ContentAttack, mesh: Mesh = BRICK) -> Mesh:
    return attack([mesh], stream(0))[0]


def test_noise_has_the_deviation_it_says() -> None:
    moved = attacked(VertexNoise(0.01), sphere()).vertices - sphere().vertices
    assert float(moved.std()) == pytest.approx(0.01 * 1.6 * 3**0.5, rel=0.03)


def test_quantised_coordinates_lie_on_a_lattice_of_that_many_bits() -> None:
    vertices = attacked(VertexQuantisation(4)).vertices
    spread = vertices.amax(0) - vertices.amin(0)
    steps = (vertices - vertices.amin(0)) / (1.6 / 15)
    assert float((steps - steps.round()).abs().max()) < 1e-3 and float(spread.max()) == pytest.approx(1.6, abs=1e-4)


def test_laplacian_smoothing_shrinks_and_taubin_does_not() -> None:
    ball = sphere()
    assert volume(attacked(LaplacianSmoothing(80), ball)) < 0.9 * volume(ball)
    assert volume(attacked(TaubinSmoothing(30), ball)) == pytest.approx(volume(ball), rel=0.02)
    rough = attacked(VertexNoise(0.01), ball)
    assert area(attacked(TaubinSmoothing(10), rough)) < 0.95 * area(rough), "and it smooths"


@pytest.mark.parametrize("ratio", [0.7, 0.3, 0.1])
def test_decimation_keeps_that_share_of_the_faces_and_the_volume(ratio: float) -> None:
    simple = attacked(Decimation(ratio), sphere())
    assert len(simple.faces) == pytest.approx(ratio * len(sphere().faces), rel=0.05)
    assert volume(simple) == pytest.approx(volume(sphere()), rel=0.03)


def test_subdivision_leaves_the_surface_where_it_is() -> None:
    fine = attacked(Subdivision(2))
    assert len(fine.faces) == 16 * len(BRICK.faces)
    assert area(fine) == pytest.approx(area(BRICK), rel=1e-5) and volume(fine) == pytest.approx(volume(BRICK), rel=1e-5)
    edges = torch.cat([fine.faces[:, [0, 1]], fine.faces[:, [1, 2]], fine.faces[:, [2, 0]]]).sort(1)[0]
    assert (edges.unique(dim=0, return_counts=True)[1] == 2).all(), "closed as before"


@pytest.mark.parametrize(
    "attack", [IsotropicRemesh(0.25), VoxelRemesh(48), PointReconstruction(8192), Draco(11)], ids=repr
)
def test_a_new_mesh_of_the_same_body(attack: ContentAttack) -> None:
    new = attacked(attack)
    assert volume(new) == pytest.approx(volume(BRICK), rel=0.1)
    assert area(new) == pytest.approx(area(BRICK), rel=0.15)
    shown = (new.colours.float() / 127.5 - 1 - new.vertices).abs()
    assert float(shown[new.faces.unique()].mean()) < 0.1, "painted by place, as before"


def test_isotropic_triangles_are_more_even() -> None:
    def evenness(mesh: Mesh) -> float:
        a, b, c = mesh.vertices[mesh.faces].unbind(1)
        sides = torch.stack([(a - b).norm(dim=1), (b - c).norm(dim=1), (c - a).norm(dim=1)], 1)
        return float((sides.amin(1) / sides.amax(1).clamp_min(1e-9)).mean())

    assert evenness(attacked(IsotropicRemesh(0.25))) > evenness(BRICK)


@pytest.mark.parametrize("degrees", [5.0, 90.0])
def test_rotation_is_by_that_angle_and_keeps_distances(degrees: float) -> None:
    turned = attacked(MeshRotation(degrees))
    assert volume(turned) == pytest.approx(volume(BRICK), rel=1e-4)
    matrix = torch.linalg.lstsq(BRICK.vertices.double(), turned.vertices.double()).solution
    assert torch.allclose(matrix @ matrix.T, torch.eye(3, dtype=torch.float64), atol=1e-5)
    assert math.degrees(math.acos((float(matrix.trace()) - 1) / 2)) == pytest.approx(degrees, abs=1e-2)


def test_similarity_keeps_the_shape() -> None:
    moved = attacked(Similarity(10))
    scale = (volume(moved) / volume(BRICK)) ** (1 / 3)
    assert 0.1 <= scale <= 10 and scale != pytest.approx(1, abs=0.01)
    assert area(moved) == pytest.approx(scale**2 * area(BRICK), rel=1e-3)


def test_a_crop_keeps_that_share_on_one_side_of_a_plane() -> None:
    cut = attacked(MeshCrop(0.7))
    assert len(cut.faces) == round(0.7 * len(BRICK.faces))
    kept = {tuple(face) for face in cut.faces.tolist()}
    assert kept < {tuple(face) for face in BRICK.faces.tolist()}


def test_reordering_is_the_same_surface() -> None:
    other = attacked(Reordering())
    assert volume(other) == pytest.approx(volume(BRICK), rel=1e-6)
    ways = torch.randn(6, 5, generator=stream(1), dtype=torch.float64)
    a, b = (torch.cat([m.vertices, m.colours / 255], 1)[m.faces].double().mean(1) @ ways for m in (BRICK, other))
    assert torch.allclose(a.sort(0)[0], b.sort(0)[0], atol=1e-5), "the same triangles in the same colours"
    assert other.faces.unique().numel() == len(BRICK.vertices)


def test_colours() -> None:
    grey = Mesh(BRICK.vertices, BRICK.faces, torch.full_like(BRICK.colours, 128))
    noise = attacked(ColourNoise(0.1), grey).colours.float() - 128
    assert float(noise.std()) == pytest.approx(25.5, rel=0.06)
    assert attacked(ColourLevels(4)).colours.unique().tolist() == [0, 85, 170, 255]
    assert attacked(ColourDrop()).colours.unique().tolist() == [128]
    for attack in (ColourNoise(0.1), ColourLevels(4), ColourDrop()):
        assert torch.equal(attacked(attack).vertices, BRICK.vertices)


def test_regeneration_passes_through_its_tool() -> None:
    expected = softened(softened([BRICK]))[0]
    assert same(MeshRegeneration(2, softened)([BRICK], stream(0))[0], expected)
    assert repr(MeshRegeneration(2, softened)) == "MeshRegeneration(passes=2)"
    with pytest.raises(ValueError, match="reconstructed 0 meshes, expected 1"):
        MeshRegeneration(1, lambda meshes: [])([BRICK], stream(0))
