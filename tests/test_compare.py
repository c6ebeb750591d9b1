"""The comparison: trained once, attacked by the harness, told in tables that agree with the run, drawn for paper."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from bench.__main__ import app
from bench.compare import SIZES, learning
from bench.compare_figures import COLUMN, PAGE, draw_comparison, over_seeds, shown_names
from bench.compare_tables import TABLES, heat, write_comparison
from bench.protocol import UserError
from bench.readme import comparison, inserted
from schemes.compared import RECIPES, REPEATED, contestants, sized
from schemes.weight_modulation import WeightModulation

MODALITY = ("--modality", "tests.toy:Toy", "--generator", "tests.test_weight_modulation:PaintGenerator")


def compared(folder: Path, *words: str) -> Any:
    command = ["compare", *MODALITY, "--preset", "smoke", "--out", str(folder), "--steps", "20", "--json", *words]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison, of two seeds of amplitude; read it, do not write into it."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENPRINT_CACHE", str(folder / "cache"))
        told = compared(
            folder / "out", "--seeds", "2", "--only", "amplitude", "--only", "uchida", "--only", "normalisation"
        )
    assert len(told["left_out"]) == 1 and told["left_out"][0].startswith("normalisation: decoder Sequential: expected")
    return folder / "out"


def table(folder: Path, name: str) -> Any:
    return pd.read_csv(folder / f"{name}.csv")


def test_all_entrants_are_trained_alike() -> None:
    every = contestants(500, 64, 29.0)
    assert set(REPEATED) <= set(every) and set(SIZES["smoke"].only) <= set(every)
    trained = [each.scheme for each in every.values() if isinstance(each.scheme, WeightModulation)]
    assert len(trained) > 30
    assert {(each.recipe.steps, each.recipe.pool, each.recipe.psnr_db) for each in trained} == {(500, 64, 29.0)}
    assert len({each.reader for each in trained}) == 1, "one capacity of readers"
    plain = every["amplitude"].scheme
    for name in RECIPES:
        other = every["amplitude" if name == "plain" else f"amplitude+{name}"].scheme
        differing = [
            field.name
            for field in dataclasses.fields(other)
            if getattr(other, field.name) != getattr(plain, field.name)
        ]
        assert differing == ([] if name == "plain" else ["recipe"])
    assert len({(each.modulation, each.recipe) for each in every.values()}) == len(every), "one place in the heat map"
    assert sized(every["amplitude"].scheme, 7, 8, 20.0).recipe.psnr_db == 20


def test_losses_are_those_of_the_same_items() -> None:
    assert all(size.plan.users == size.plan.model_users for size in SIZES.values())


def test_tables_tell_what_the_run_holds(smoke: Path) -> None:
    board, attacks = (pd.read_csv(smoke / "run" / f"{name}.csv") for name in ("leaderboard", "attacks"))
    codecs, curves, bits = (table(smoke, name) for name in ("codecs", "curves", "bits"))
    assert list(zip(codecs["name"], codecs["seed"], strict=True)) == [("amplitude", 0), ("amplitude", 1), ("uchida", 0)]
    assert codecs["energy_per_bit"].between(1e-6, 1).all() and (codecs["changed_bytes"] > 0).all()
    for row in codecs.to_dict("records"):
        line = board[board["scheme"] == f"{row['name']}@{row['seed']}"].iloc[0]
        assert row["bit_accuracy"] == line["bit_accuracy"] and row["paired_value"] == line["paired_value"]
        assert row["device"].startswith("cpu") and (smoke / "codecs" / row["codec"]).is_file()
    assert len(curves) == len(attacks) + 3 * attacks["attack"].nunique(), "and no attack, for each attack"
    for row in attacks.to_dict("records"):
        name, _, seed = row["scheme"].partition("@")
        same = (curves["name"] == name) & (curves["seed"] == int(seed)) & (curves["attack"] == row["attack"])
        (point,) = curves[same & (curves["strength"] == row["strength"])].to_dict("records")
        clean = board[board["scheme"] == row["scheme"]].iloc[0]
        assert point["bit_accuracy"] == row["bit_accuracy"]
        assert point["loss"] == pytest.approx(clean["paired_value"] - row["psnr"], abs=1e-3)
        assert point["white_box_bit_accuracy"] == row["white_box_bit_accuracy"], "Uchida and amplitude are read so"
    means = bits[bits["attack"] == "none"].groupby(["name", "seed"])["accuracy"].mean()
    for row in codecs.to_dict("records"):
        assert means[row["name"], row["seed"]] == pytest.approx(row["bit_accuracy"], abs=1e-5)


def test_a_second_call_trains_and_measures_nothing(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    before = {name: (smoke / f"{name}.csv").read_bytes() for name in TABLES}
    cells = {path: path.stat().st_mtime_ns for path in (*smoke.glob("codecs/*"), *smoke.glob("run/cells/*"))}
    assert len(cells) >= 6 + 15

    def refuse(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(WeightModulation, "fit", refuse)
    compared(smoke, "--seeds", "2", "--only", "amplitude", "--only", "uchida")
    assert {path: path.stat().st_mtime_ns for path in cells} == cells
    assert {name: (smoke / f"{name}.csv").read_bytes() for name in TABLES} == before


def test_figures_have_the_widths_of_columns_embedded_fonts_and_their_numbers(smoke: Path, tmp_path: Path) -> None:
    names = {path.stem for path in (smoke / "figures").glob("*.pdf")}
    assert names == {"bit_accuracy", "identification", "weight_noise", "heat", "capacity", "cost", "bits"}
    for name in names:
        pdf, shown = (smoke / "figures" / f"{name}.pdf").read_bytes(), table(smoke / "figures", name)
        width = float(pdf.split(b"/MediaBox [ 0 0 ")[1].split()[0]) / 72
        assert any(width == pytest.approx(each, abs=0.01) for each in (COLUMN, PAGE))
        assert b"/FontFile2" in pdf and b"/Type3" not in pdf, "whole TrueType fonts"
        assert len(shown) and (smoke / "figures" / f"{name}.png").stat().st_size
    for name in TABLES:
        (tmp_path / f"{name}.csv").write_bytes((smoke / f"{name}.csv").read_bytes())
    again = {path.name: path.read_bytes() for path in draw_comparison(tmp_path)}
    assert all((smoke / "figures" / name).read_bytes() == data for name, data in again.items()), "the tables are enough"


def test_recipes_go_on_from_the_plain_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENPRINT_CACHE", str(tmp_path / "cache"))
    words = ["fit", *MODALITY, "--scheme", "wouaf", "--steps", "100", "--batch", "4", "--quiet"]
    assert CliRunner().invoke(app, words).exit_code == 0
    entrants = ("amplitude", "amplitude+noise", "amplitude-48", "low-rank")
    only = [word for name in entrants for word in ("--only", name)]
    told = compared(tmp_path / "out", "--continued", *only, "--steps", "100", "--attack", "interpolation")
    assert [line.split(":")[0] for line in told["left_out"]] == ["amplitude-48", "low-rank"]
    members = json.loads((tmp_path / "out" / "compare.json").read_text())["members"]
    assert list(members) == ["amplitude@0", "amplitude+noise@0"]
    assert list(table(tmp_path / "out", "curves")["attack"].unique()) == ["WeightNoise", "Interpolation"]
    assert all(each["scheme"].startswith("Continued(") for each in members.values())
    for each in members.values():
        with safe_open(tmp_path / "out" / "codecs" / each["codec"], "pt") as file:
            assert [row["step"] for row in json.loads(file.metadata()["log"])] == [100, 200]
    told = compared(tmp_path / "kept", "--kept", *only, "--attack", "interpolation")
    assert [line.split(":")[0] for line in told["left_out"]] == ["amplitude+noise", "amplitude-48", "low-rank"]
    (member,) = json.loads((tmp_path / "kept" / "compare.json").read_text())["members"].values()
    assert member["scheme"] == "Kept(name='wouaf')" and member["name"] == "amplitude"
    (codec,) = (tmp_path / "kept" / "codecs").glob("*.safetensors")
    (fitted,) = (tmp_path / "cache" / "codecs").rglob("*.safetensors")
    ours, theirs = load_file(codec), load_file(fitted)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours), "as it was"


def curve(name: str, points: list[tuple[float, float]], seed: int = 0) -> list[dict[str, Any]]:
    shared = {"name": name, "modulation": name, "recipe": "plain", "seed": seed, "attack": "WeightNoise"}
    return [
        shared | {"paired_metric": "psnr", "strength": float(i), "loss": loss, "bit_accuracy": accuracy, "paired": 31.0}
        for i, (loss, accuracy) in enumerate(points)
    ]


def test_a_page_shows_who_was_compared(smoke: Path) -> None:
    page = "before <!-- toy out:begin -->old<!-- toy out:end --> after"
    heads, _, first, second = comparison(smoke).splitlines()
    codecs = table(smoke, "codecs")
    assert heads.startswith("|  | psnr | bit accuracy | noise 0.1 | noise 0.5 | where it costs 3 dB |")
    assert first.startswith(f"| amplitude | {codecs['paired_value'][0]:.4g} | {codecs['bit_accuracy'][0]:.4g} [")
    assert second.startswith("| uchida | ") and heads.count("|") == first.count("|") == second.count("|")
    assert inserted(page, smoke) == page.replace("old", f"\n{comparison(smoke)}\n")
    with pytest.raises(UserError, match="one <!-- toy out:begin -->"):
        inserted("", smoke)


def test_heat_is_read_between_strengths_and_never_beyond() -> None:
    lines = heat(
        [
            *curve("a", [(0, 1.0), (2, 0.9), (4, 0.7)]),
            *curve("a", [(0, 0.98), (4, 0.78)], 1),
            *curve("b", [(0, 1), (2, 1)]),
        ],
        (3.0, 7.0),
    )
    assert [line["name"] for line in lines] == ["a", "b"] and [line["seeds"] for line in lines] == [2, 1]
    assert lines[0]["at_3"] == pytest.approx((0.8 + 0.83) / 2) and lines[0]["spread_3"] == pytest.approx(0.03)
    assert lines[0]["clean"] == pytest.approx(0.99)
    assert all(math.isnan(value) for value in (lines[0]["at_7"], lines[1]["at_3"]))


def test_who_is_drawn_is_decided_by_what_survives() -> None:
    rows = [
        ("amplitude", 0.6),
        ("amplitude+noise", 0.7),
        *((f"m{i}", 0.9 - i / 100) for i in range(9)),
        ("x", math.nan),
    ]
    names = shown_names({"heat": pd.DataFrame([{"name": n, "clean": 0.9, "at_3": v} for n, v in rows])})
    assert names == ["amplitude", "amplitude+noise", "m0", "m1", "m2", "m3", "m4"]
    seeds = pd.DataFrame({"k": [1, 1], "loss": [2, 4], "v": [0.8, 0.9], "v_lo": [0.7, 0.8], "v_hi": [0.85, 0.95]})
    (row,) = over_seeds(seeds, "v", ["k"]).to_dict("records")
    assert row == pytest.approx({"k": 1, "loss": 3, "v": 0.85, "v_lo": 0.7, "v_hi": 0.95})


def test_learning_is_the_first_time_that_a_level_was_reached() -> None:
    log = [{"step": 100 * i, "bit_accuracy": a, "seconds": 7.0 * i} for i, a in enumerate((0.5, 0.91, 0.85, 0.95))]
    assert learning(json.dumps(log)) == {
        "steps_to_90": 100,
        "seconds_to_90": 7.0,
        "steps_to_99": None,
        "seconds_to_99": None,
    }


def test_what_is_no_comparison_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"expected compare\.json of a comparison, found: "):
        write_comparison(tmp_path)
    with pytest.raises(UserError, match=r"codecs\.csv: expected a table of a comparison, found: "):
        draw_comparison(tmp_path)
    for words in (("--only", "amplitud"), ("--attack", "weight-nois")):
        result = CliRunner().invoke(app, ["compare", *MODALITY, *words])
        assert result.exit_code == 2 and f"'{words[1]}': did you mean '{words[1]}e'?" in result.stderr
    monkeypatch.setenv("GENPRINT_CACHE", str(tmp_path))
    for words, told in (
        (("--kept", "--continued"), "expected --kept or --continued, found both"),
        (("--kept", "--only", "low-rank"), "expected an entrant with a codec, found none: low-rank: scheme 'low-rank'"),
        (("--steps", "-3"), "steps: expected at least 0, found -3"),
        (("--psnr-db", "nan"), "psnr-db: expected at least 1, found nan"),
    ):
        result = CliRunner().invoke(app, ["compare", *MODALITY, *words])
        assert result.exit_code == 2 and told in result.stderr


def test_figures_of_all_committed_results(smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "leaderboards" / "toy" / "comparison"
    target.mkdir(parents=True)
    for name in (*(f"{each}.csv" for each in TABLES), "compare.json"):
        (target / name).write_bytes((smoke / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["figures", "--json"])
    assert result.exit_code == 0 and len(json.loads(result.stdout)) == 21
    monkeypatch.chdir(target)
    assert CliRunner().invoke(app, ["figures"]).exit_code == 2
