"""The embedded text-to-3D generator as it ships: captions, shapes, reconstruction, what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from bench.protocol import Mesh
from bench.rng import stream
from modalities.shape3d import Shape3D, data, perceptual
from modalities.shape3d.autoencoder import grid_iou
from modalities.shape3d.categories import largest_categories, truth
from modalities.shape3d.grid_generator import GridGenerator, load
from modalities.shape3d.parts import captions
from modalities.shape3d.text import tokens

ROOT = Path(__file__).resolve().parent.parent
SHAPE = Shape3D()
PROMPTS = ["red brick 2 x 4", "blue tile 2 x 2", "yellow plate 2 x 4", "green technic axle 6"]


@pytest.fixture(scope="module")
def generator() -> GridGenerator:
    return cast(GridGenerator, load(None, torch.device("cpu")))


@pytest.fixture(scope="module")
def meshes(generator: GridGenerator) -> list[Mesh]:
    with torch.no_grad():
        fields = generator.decode(generator.decoder, generator.latents(PROMPTS, stream(0, "latents")))
    return SHAPE.release(fields)


def test_the_tokenizer_tells_what_is_asked_for(generator: GridGenerator) -> None:
    known = captions("fit")
    ids, mask = tokens(generator.tokenizer, known)
    assert len({tuple(row) for row in ids.tolist()}) > 0.95 * len(set(known)), "a long tail of words is cut"
    assert int(mask.sum(1).min()) >= 2


def test_samples_are_bodies_of_the_asked_colour(meshes: list[Mesh]) -> None:
    SHAPE.check(meshes)
    means = [mesh.colours.float().mean(0) for mesh in meshes]
    assert means[0].argmax() == 0 and means[1].argmax() == 2 and means[3].argmax() == 1
    assert means[2][:2].min() > 1.5 * means[2][2], "yellow"


def test_flat_parts_are_flat_and_long_parts_long(meshes: list[Mesh]) -> None:
    sizes = [mesh.vertices.amax(0) - mesh.vertices.amin(0) for mesh in meshes]
    sides = [size.sort().values for size in sizes]
    assert sides[1][0] < 0.4 * sides[1][2] and sides[1][1] > 0.8 * sides[1][2], "a square tile"
    assert sides[3][1] < 0.5 * sides[3][2], "an axle"


def test_held_out_parts_are_restored(generator: GridGenerator) -> None:
    fields, _ = data.shipped("reference")
    with torch.no_grad():
        restored = generator.decode(generator.decoder, generator.encode(fields[::8]))
    assert float(grid_iou(restored, fields[::8]).mean()) > 0.85


def test_regeneration_keeps_the_shape_and_its_place(generator: GridGenerator, meshes: list[Mesh]) -> None:
    moved = [Mesh(3 * mesh.vertices + 5, mesh.faces, mesh.colours) for mesh in meshes]
    again = generator.reconstruct(moved)
    assert float(SHAPE.paired(moved, again)["iou"].mean()) > 0.75


def test_global_random_state_is_left_alone(generator: GridGenerator) -> None:
    before = torch.get_rng_state()
    generator.latents(PROMPTS[:1], stream(0, "latents"))
    load(None, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_category_network_names_real_parts() -> None:
    fields, chosen = data.shipped("reference")
    rows = [row for row, (part, _) in enumerate(chosen) if part.category in largest_categories()][:64]
    x = torch.cat([perceptual.oriented_points([mesh], stream(0, "features")) for mesh in SHAPE.release(fields[rows])])
    with torch.inference_mode():
        guesses = perceptual.pointnet()(x.nan_to_num(0.0)).argmax(1)
    right = guesses == truth([chosen[row][0] for row in rows])
    assert float(right.float().mean()) > 0.5, "chance is 0.09"


def test_what_the_results_page_says_of_the_generator_is_what_was_measured() -> None:
    page = (ROOT / "docs" / "results-3d.md").read_text(encoding="utf-8")
    report: dict[str, Any] = json.loads((ROOT / "docs" / "3d_generator.json").read_text(encoding="utf-8"))
    for name in ("reconstruction_iou_learned", "reconstruction_iou_held_out", "category_learned", "category_held_out"):
        found = report[name]
        shown = f"{found['mean']:.3g} [{found['lo']:.3g}, {found['hi']:.3g}] | {found['n']}"
        assert shown in page, f"{name}: {shown}"
    assert f"{report['category_network_on_real']['mean']:.3g} | {report['category_network_on_real']['n']}" in page
    assert f"{report['parameters'] / 1e6:.2f} M" in page
