"""The files of a results folder: columns, statistics, and what happens when they are not what they should be."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bench.columns import LEADERBOARD
from bench.folders import replacing
from bench.leaderboard import ranked, robustness, worst, write_tables
from bench.printed import read_csv
from bench.protocol import UserError
from bench.report import for_json, write_csv
from bench.results import FORMAT, Results, Store
from bench.rows import SCHEMA
from tests.conftest import PLAN, Bench
from tests.toy import ToyNoise

DESIGN_LEADERBOARD = (
    "rank, scheme, modality, generator, bits, bit_accuracy, bit_accuracy_lo, bit_accuracy_hi, identification, "
    "identification_n, capacity_users, fpr_upper, quality_metric, quality_original, quality_fingerprinted, "
    "quality_delta, paired_metric, paired_value, robustness_content, robustness_content_worst, robustness_model, "
    "robustness_model_worst, robustness_coalition, seconds_per_copy, fit_seconds, users, items, preset, version"
).split(", ")
DESIGN_ROWS = (
    "modality, generator, scheme, attack, target, strength, user, item, bits, matches, soft_score, rank, registered, "
    "p_value, is_negative"
).split(", ")


def board(folder: Path) -> dict[str, Any]:
    (line,) = read_csv(folder / "leaderboard.csv")
    return line


@pytest.fixture
def copied(toy_folder: Path, tmp_path: Path) -> Path:
    """A results folder that a test may change."""
    shutil.copytree(toy_folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_columns_are_those_of_the_contract(toy_folder: Path) -> None:
    with (toy_folder / "leaderboard.csv").open(newline="") as file:
        assert next(csv.reader(file))[: len(DESIGN_LEADERBOARD)] == DESIGN_LEADERBOARD == list(LEADERBOARD)
    names = pq.read_schema(toy_folder / "rows.parquet").names
    assert names[: len(DESIGN_ROWS)] == DESIGN_ROWS == SCHEMA.names
    assert names[len(DESIGN_ROWS) : len(DESIGN_ROWS) + 2] == ["psnr", "mse"], "distortion columns come next"


def test_leaderboard_tells_what_the_rows_hold(toy_folder: Path) -> None:
    line, rows = board(toy_folder), pq.read_table(toy_folder / "rows.parquet").to_pandas()
    clean = rows.query("target == 'none' and not is_negative")
    assert line["bit_accuracy"] == clean.bit_accuracy.mean() == 1
    assert line["identification"] == line["word_accuracy"] == 1
    assert line["paired_value"] == line["psnr"] == pytest.approx(clean.psnr.mean(), rel=1e-5)
    assert line["quality_delta"] == pytest.approx(line["quality_fingerprinted"] - line["quality_original"], rel=1e-4)
    assert line["capacity_users"] == 4294, "32 error-free bits carry no more users at a false-positive rate of 1e-6"
    assert (line["users"], line["items"], line["identification_n"]) == (5, 4, 100)
    assert line["fpr"] == 0 and line["fpr_upper"] == pytest.approx(1 - 0.05 ** (1 / 60), rel=1e-5), "0 of 60 negatives"
    assert line["fit_seconds"] is None and line["identification_5"] is None, "four items are no five"


def test_attack_lines_tell_what_the_rows_hold(toy_folder: Path) -> None:
    lines = {line["repr"]: line for line in read_csv(toy_folder / "attacks.csv")}
    rows = pq.read_table(toy_folder / "rows.parquet").to_pandas().query("not is_negative")
    assert list(lines) == json.loads((toy_folder / "run.json").read_text())["attacks"]
    for name, line in lines.items():
        own = rows[rows["repr"] == name]
        assert line["bit_accuracy"] == pytest.approx(own.bit_accuracy.mean(), rel=1e-5)
        assert line["identification"] == pytest.approx(own.correct.mean(), rel=1e-5)
        assert line["psnr"] == pytest.approx(own.psnr.mean(), rel=1e-5)
        assert line["bit_accuracy_lo"] <= line["bit_accuracy"] <= line["bit_accuracy_hi"]
    mild, strong, model, coalition = lines.values()
    assert (mild["unit"], mild["strength"], mild["negatives"]) == ("std", 0.05, 16)
    assert mild["within_bound"] and not strong["within_bound"]
    assert mild["psnr"] == pytest.approx(-20 * math.log10(0.05), abs=0.1), "noise of known power"
    assert model["quality"] > 0 and model["caught"] is None
    assert coalition["caught"] + coalition["framed"] <= 1


def test_a_leaderboard_can_be_computed_again(copied: Path) -> None:
    names = [f"{name}.csv" for name in ("leaderboard", "attacks", "capacity", "robustness", "robustness_categories")]
    names.append("report.md")
    before = {name: (copied / name).read_bytes() for name in names}
    for name in names:
        (copied / name).unlink()
    shutil.rmtree(copied / "cells")
    assert {path.name: path.read_bytes() for path in write_tables(Results.load(copied))} == before


def test_an_unfinished_run_has_a_leaderboard_of_its_cells(copied: Path) -> None:
    info = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(info | {"finished": False}))
    (copied / "rows.parquet").unlink()
    Store(copied).path(info["cells"][2]).unlink()
    results = Results.load(copied)
    assert [cell.summary["repr"] for cell in results.cells] == ["none", info["attacks"][0], *info["attacks"][2:]]
    write_tables(results)
    assert board(copied)["robustness_content"] > 0.99, "the strong noise is not in it"


def test_capacity_is_empty_where_no_threshold_exists(toy_folder: Path) -> None:
    lines = read_csv(toy_folder / "capacity.csv")
    assert [line["registered"] for line in lines] == [10**k for k in range(10)]
    for line in lines:
        assert line["resolvable"] == (line["registered"] <= 4294)
        assert (line["identification"] is None) != line["resolvable"]


def test_an_axis_that_did_not_run_is_empty(toy: Bench, tmp_path: Path) -> None:
    toy(tmp_path / "out", attacks=[ToyNoise()])
    line = board(tmp_path / "out")
    empty = [name for name in LEADERBOARD if line[name] is None]
    assert empty == ["robustness_model", "robustness_model_worst", "robustness_coalition", "fit_seconds"]
    toy(tmp_path / "clean", attacks=[])
    assert board(tmp_path / "clean")["robustness_content"] is None
    assert read_csv(tmp_path / "clean" / "attacks.csv") == []


def test_robustness_is_a_mean_over_attacks_not_over_strengths() -> None:
    strong = [{"attack": "A", "x": value, "bit_accuracy": value, "within_bound": value > 0.6} for value in (0.5, 0.7)]
    lines = [*strong, {"attack": "B", "x": 1.0, "bit_accuracy": 1.0, "within_bound": True}]
    assert robustness(lines, "x") == pytest.approx((0.6 + 1.0) / 2)
    assert worst(lines, 0.9) == 0.7, "0.5 costs too much quality to count"
    assert worst(lines[2:], 0.9) == 0.9, "doing nothing is an attack, too"
    assert robustness([], "x") is None and worst([], 0.9) is None


def test_rank_puts_the_undecidable_last() -> None:
    lines = [{"scheme": name, "identification": i, "bit_accuracy": b} for name, i, b in RANKED]
    assert [line["scheme"] for line in ranked(lines)] == ["sure", "tied", "weak", "unknown"]
    assert [line["rank"] for line in ranked(lines)] == [1, 2, 3, 4]


RANKED = (("unknown", math.nan, 1.0), ("weak", 0.1, 0.9), ("tied", 0.8, 0.9), ("sure", 0.8, 0.95))


def test_run_json_says_how_the_run_was_made(toy_folder: Path) -> None:
    info = json.loads((toy_folder / "run.json").read_text())
    assert info["format"] == FORMAT and info["finished"] and info["seed"] == PLAN.seed
    assert set(info["git"]) == {"commit", "dirty"} and info["versions"]["torch"] and info["device"].startswith("cpu")
    assert {"latents", "decode", "read", "content cells", "tables", "total"} <= set(info["seconds"])
    assert len(info["cells"]) == len(set(info["cells"])) == 1 + len(info["attacks"])
    assert info["schemes"]["ToyScheme"]["codec"] == "tests.toy:ToyCodec"


def test_csv_quotes_and_leaves_unknown_empty(tmp_path: Path) -> None:
    lines = [{"b": 1 / 3, "a": 'x "y", z'}, {"a": math.nan, "c": None, "d": True}]
    path = write_csv(lines, ["a"], tmp_path / "t.csv")
    assert path.read_bytes() == b'a,b,c,d\n"x ""y"", z",0.333333,,\n,,,True\n'
    assert read_csv(path)[0]["a"] == 'x "y", z'


def test_json_has_no_nan() -> None:
    assert for_json({"a": [math.nan, {"b": math.inf}], "c": (1, "x")}) == {"a": [None, {"b": None}], "c": [1, "x"]}


def test_a_failed_write_leaves_the_old_file_and_no_scratch(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_broken_cell_is_measured_again(toy: Bench, tmp_path: Path) -> None:
    info = toy(tmp_path / "out", attacks=[ToyNoise()]).info
    rows = (tmp_path / "out" / "rows.parquet").read_bytes()
    path = Store(tmp_path / "out").path(info["cells"][1])
    path.write_bytes(path.read_bytes()[:100])
    toy(tmp_path / "out", attacks=[ToyNoise()])
    table = pq.read_table(tmp_path / "out" / "rows.parquet")
    (tmp_path / "old.parquet").write_bytes(rows)
    old = pq.read_table(tmp_path / "old.parquet")
    assert table.replace_schema_metadata().equals(old.replace_schema_metadata())


@pytest.mark.parametrize(
    ("text", "found"),
    [('{"format": 0}', "found format 0"), ("[]", "found format None"), ("{", "no JSON")],
)
def test_a_folder_of_another_version_is_refused_and_left_alone(
    toy: Bench, tmp_path: Path, text: str, found: str
) -> None:
    (tmp_path / "run.json").write_text(text)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UserError, match=f"^results folder .*expected .*{found}"):
        toy(tmp_path)
    after = [path.name for path in tmp_path.iterdir() if path.name != "cache"]
    assert sorted(after) == before and (tmp_path / "run.json").read_text() == text


def test_an_unwritable_folder_is_refused(toy: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected to write there, found: Not a directory"):
        toy(tmp_path / "file" / "out")


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected run\.json of a run, found: No such file"):
        Results.load(tmp_path)
