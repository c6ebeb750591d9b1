"""The pages of attacks say what the phone book and the committed measurements say, and the measurements are true."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from attacks import LISTED, families
from bench.__main__ import app
from bench.attack_effects import Stand, effects, shown_strengths, table_path, timed, weight_change
from bench.attack_page import stand_for
from bench.attack_pages import DOCS, category, file_of, modalities, of_modality, pages, sheet_of
from bench.attack_rivals import RIVALS
from bench.attack_sheets import sheet
from bench.protocol import Clips, UserError
from bench.selection import missing
from tests.pictures import PICTURES

MEASURED = [name for name in modalities() if table_path(name).is_file()]
LARGEST_MEGABYTES = 4


@pytest.mark.parametrize("name", pages())
def test_a_page_is_what_cards_and_measurements_make(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run `python -m bench.attack_page write`"


def test_every_attack_stands_on_the_index_and_on_its_page() -> None:
    listed = json.loads(CliRunner().invoke(app, ["list", "attacks", "--json"]).stdout)
    index = (DOCS / "attacks.md").read_text(encoding="utf-8")
    for each in listed:
        page = (DOCS / file_of(each["modality"])).read_text(encoding="utf-8")
        (row,) = re.findall(rf"^\| `{each['name']}` \| (.*)$", page, re.MULTILINE)
        assert each["card"] in row and each["unit"] in row and each["source"] in row
        assert len(re.findall(rf"^\| `{each['name']}` \| \[", index, re.MULTILINE)) == 1


def test_every_modality_and_weights_are_measured() -> None:
    assert set(MEASURED) == {"image", "audio", "3d", "any"}


@pytest.mark.parametrize("modality", MEASURED)
def test_what_is_measured_belongs_to_the_grids(modality: str) -> None:
    found, held = effects(modality), {family.name: family for family in of_modality(modality)}
    assert set(found) <= set(held)
    for name, rows in found.items():
        strengths = [row["strength"] for row in rows if row["strength"] is not None]
        assert strengths == [s for s in shown_strengths(held[name]) if s in strengths]
        assert all(row["per_second"] > 0 and row["items"] > 0 for row in rows if row["strength"] is not None)
        assert bool(strengths) != any(row["lacks"] for row in rows), "measured, or said why not"
    content = [family.name for family in held.values() if family.target == "content"]
    assert set(content) <= set(found), "every content attack is measured, or says what it lacks"


def test_every_sheet_is_shown_once_and_together_they_are_small() -> None:
    sheets = {path.relative_to(DOCS).as_posix() for path in (DOCS / "attacks").iterdir()}
    shown = re.findall(r"\]\((attacks/[^)]+)\)", "\n".join(pages().values()))
    assert sorted(shown) == sorted(sheets)
    assert sum((DOCS / name).stat().st_size for name in sheets) < LARGEST_MEGABYTES * 1e6


def close(found: dict[str, Any], row: dict[str, Any]) -> None:
    keys = [key for key in found if key not in ("attack", "per_second", "items", "strength")]
    assert keys
    for key in keys:
        assert found[key] == pytest.approx(row[key], rel=0.02, abs=2e-3), key


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stand:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENPRINT_CACHE", str(tmp_path_factory.mktemp("cache")))
        return stand_for("image")[0]


@pytest.mark.parametrize("name", ["jpeg", "gaussian-noise", "rotation", "collage"])
def test_measuring_an_image_attack_again_gives_what_is_committed(name: str, image: Stand) -> None:
    family = families(LISTED)[name]
    for row in effects("image")[name]:
        close(image.row(family, row["strength"]), row)


@pytest.mark.parametrize("name", ["weight-noise", "magnitude-pruning", "average-weights"])
def test_measuring_a_weight_attack_again_gives_what_is_committed(name: str, image: Stand) -> None:
    row = effects("any")[name][0]
    close(image.row(families(LISTED)[name], row["strength"]), row)


@pytest.mark.parametrize("name", ["white-noise", "mp3", "time-shift"])
def test_measuring_an_audio_attack_again_gives_what_is_committed(name: str, image: Stand) -> None:
    from modalities.audio import Audio

    family, medium = families(LISTED)[name], Audio()
    stand = Stand(replace(image.engine, modality=medium))  # the generator takes long to load and is not needed
    for row in effects("audio")[name]:
        close(stand.row(family, row["strength"]), row)


@pytest.mark.parametrize("name", ["vertex-noise", "voxel-remesh", "visual-hull", "texture-jpeg", "asset-chain"])
def test_measuring_an_attack_on_meshes_again_gives_what_is_committed(name: str, image: Stand) -> None:
    from modalities.shape3d import Shape3D

    stand = Stand(replace(image.engine, modality=Shape3D()))  # the generator takes long to load and is not needed
    for row in effects("3d")[name]:
        close(stand.row(families(LISTED)[name], row["strength"]), row)


def test_attacks_that_need_a_codec_say_so_where_there_is_none(image: Stand) -> None:
    bare = Stand(image.engine)
    with pytest.raises(UserError, match=r"^attacks on 'image': expected a fitted codec, found none$"):
        bare.row(families(LISTED)["weight-noise"], 0.01)


def test_the_change_of_weights_is_what_was_changed() -> None:
    before = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)).requires_grad_(False)
    nn.init.ones_(before[0].weight), nn.init.ones_(before[1].weight)
    after = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)).requires_grad_(False)
    after[0].weight.fill_(1.0)
    after[1].weight.fill_(1.0)
    after[1].weight[0] = 0.0  # 4 of 32 weights
    found = weight_change(before, after)
    assert found == pytest.approx({"relative_change": (4 / 32) ** 0.5, "largest_layer": 0.5, "zeroed": 4 / 32})


def test_the_fastest_repetition_counts() -> None:
    calls: list[int] = []
    made, seconds = timed(lambda: calls.append(sum(range(20_000))) or len(calls))
    assert made == len(calls) > 1 and 0 < seconds < 0.2


def test_a_sheet_has_a_line_for_each_attack(tmp_path: Path) -> None:
    from PIL import Image

    line = {"original": PICTURES[:2], "1": PICTURES[2:]}
    with Image.open(sheet({"one": line, "two": line}, tmp_path / "sheet.webp")) as picture:
        assert picture.size == (170 + 2 * (256 + 6), 2 * (128 + 18 + 6))


def test_categories_are_few_and_named_in_words() -> None:
    for modality in modalities():
        titles = {category(family) for family in of_modality(modality)}
        assert len(titles) <= 14 and not any("_" in title for title in titles)
        assert len({sheet_of(modality, title) for title in titles}) == len(titles)


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_makes_content_of_the_same_kind(name: str) -> None:
    family = families(LISTED)[name]
    assert missing(family) is None
    content: Any = PICTURES[:2]
    if family.modality == "audio":
        wave = torch.sin(torch.arange(16_384) / 7)[None, None].repeat(2, 1, 1) * 0.5
        content = Clips.from_unit(wave, 16_000)
    made = RIVALS[name](content, family.severity(3))
    before, after = (getattr(each, "samples", each) for each in (content, made))
    assert after.shape == before.shape and after.dtype == before.dtype and not torch.equal(after, before)


def test_the_list_can_be_of_one_modality_and_shows_what_was_measured() -> None:
    listed = json.loads(CliRunner().invoke(app, ["list", "attacks", "--modality", "audio", "--json"]).stdout)
    assert {each["modality"] for each in listed} == {"audio", "any"}
    (mp3,) = (each for each in listed if each["name"] == "mp3")
    assert [row["strength"] for row in mp3["measured"]] == shown_strengths(families(LISTED)["mp3"])
    assert all(row["mel"] > 0 for row in mp3["measured"])
    wrong = CliRunner().invoke(app, ["list", "attacks", "--modality", "sound"])
    assert wrong.exit_code == 2 and "unknown modality 'sound'" in wrong.stderr
    none = CliRunner().invoke(app, ["list", "presets", "--modality", "audio"])
    assert none.exit_code == 2 and none.stderr == "error: list presets: expected no --modality, found 'audio'\n"
