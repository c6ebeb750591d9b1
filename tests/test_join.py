"""Runs of one scheme each, joined, are the run of all of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.__main__ import app
from bench.join import join
from bench.presets import Plan
from bench.protocol import UserError
from bench.results import read_info
from bench.rng import stream
from bench.run import run
from tests.toy import Toy, ToyGenerator, ToyNoise, ToyScheme, ToyWeightNoise

PLAN = Plan("smoke", 4, 2, 2, 0, 4, True, public_items=8)
TABLES = ("leaderboard.csv", "attacks.csv", "capacity.csv", "robustness.csv", "robustness_categories.csv", "report.md")
DEPTHS = {"deep": 0.06, "shallow": 0.01}


def measured(folder: Path, *names: str) -> Path:
    """A run of toy schemes."""
    modality, generator = Toy(), ToyGenerator()
    fits = {name: ToyScheme(depth=DEPTHS[name]).fit(modality, generator, stream(0, "fit", name)) for name in names}
    attacks = [ToyNoise(0.05), ToyNoise(0.2), ToyWeightNoise()]
    run(modality=modality, generator=generator, codecs=fits, attacks=attacks, plan=PLAN, folder=folder)
    return folder


def untimed(path: Path) -> list[list[str]]:
    """A table's cells, heads included, without what a clock told; a page's lines."""
    rows = [line.split(",") for line in path.read_text().splitlines()]
    kept = [place for place, head in enumerate(rows[0]) if not head.startswith("seconds")]
    return [[row[place] for place in kept] for row in rows] if path.suffix == ".csv" else rows


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of both, and one of each; read them, do not write into them."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENPRINT_CACHE", str(place / "cache"))
        measured(place / "both", "shallow", "deep")
        for name in DEPTHS:
            measured(place / name, name)
    return place


def test_joined_is_as_run_together(runs: Path, tmp_path: Path) -> None:
    join([runs / "shallow", runs / "deep"], tmp_path)
    for name in TABLES:
        assert untimed(tmp_path / name) == untimed(runs / "both" / name)
    joined, together = read_info(tmp_path), read_info(runs / "both")
    assert {name for name in joined if joined[name] != together.get(name)} <= {"seconds", "joined", "git"}
    assert [part["schemes"] for part in joined["joined"]] == [["shallow"], ["deep"]]
    spent = [read_info(runs / name)["seconds"]["total"] for name in DEPTHS]
    assert joined["seconds"]["total"] == pytest.approx(sum(spent))


def test_a_folder_grows_in_place_and_keeps_its_sheets(runs: Path, tmp_path: Path) -> None:
    board = tmp_path / "board"
    for name, place in (("deep", board), ("shallow", tmp_path / "new")):
        shutil.copytree(runs / name, place, ignore=shutil.ignore_patterns("cells", "rows.parquet"))
        (place / "figures").mkdir()
        (place / "figures" / f"sheet_{name}.png").write_bytes(name.encode())
    join([board, tmp_path / "new"], board)
    assert untimed(board / "leaderboard.csv") == untimed(runs / "both" / "leaderboard.csv")
    assert {path.name: path.read_text() for path in (board / "figures").iterdir()} == {
        "sheet_deep.png": "deep",
        "sheet_shallow.png": "shallow",
    }
    info = read_info(board)
    assert [part["schemes"] for part in info["joined"]] == [["deep"], ["shallow"]], "a third would be added to these"


def changed(source: Path, place: Path, name: str, value: Any) -> Path:
    """A copy of a run's tables with one fact changed."""
    shutil.copytree(source, place, ignore=shutil.ignore_patterns("cells", "rows.parquet"))
    info = read_info(place)
    info["plan" if name in info["plan"] else name] = info["plan"] | {name: value} if name in info["plan"] else value
    (place / "run.json").write_text(json.dumps(info))
    return place


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("users", 5, "expected plan: users 4 as in the first run, found 5"),
        ("generator", "another", "expected generator 'toy' as in the first run, found 'another'"),
        ("finished", False, "expected a finished run, found one that was stopped"),
        ("attacks", [], "expected the same attacks as in the first run, these differ: ToyNoise(std=0.05), "),
    ],
)
def test_runs_of_other_boards_are_refused(runs: Path, tmp_path: Path, name: str, value: Any, told: str) -> None:
    other = changed(runs / "shallow", tmp_path / "other", name, value)
    refused = CliRunner().invoke(app, ["join", str(runs / "deep"), str(other), "--out", str(tmp_path / "out")])
    assert refused.exit_code == 2 and told in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_device_may_differ(runs: Path, tmp_path: Path) -> None:
    join([runs / "deep", changed(runs / "shallow", tmp_path / "other", "device", "cuda")], tmp_path / "out")


def test_another_generator_of_the_same_name_is_refused(runs: Path, tmp_path: Path) -> None:
    other = changed(runs / "shallow", tmp_path / "other", "preset", "smoke")
    table = other / "leaderboard.csv"
    heads, line = (row.split(",") for row in table.read_text().splitlines())
    place = heads.index("quality_original")
    line[place] = f"{float(line[place]) * 1.01:g}"
    table.write_text(",".join(heads) + "\n" + ",".join(line) + "\n")
    with pytest.raises(UserError, match=r"of unmarked content as in the first run, found .*: another generator"):
        join([runs / "deep", other], tmp_path / "out")


def test_what_is_there_is_not_lost(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="scheme 'deep': expected it in one run, found it in"):
        join([runs / "deep", runs / "both"], tmp_path / "out")
    with pytest.raises(UserError, match="expected a folder of tables only, found the rows of a run"):
        join([runs / "deep", runs / "shallow"], runs / "deep")
    with pytest.raises(UserError, match=r"capacity\.csv: expected a table of a finished run, found none"):
        shutil.copytree(runs / "shallow", tmp_path / "cut", ignore=shutil.ignore_patterns("capacity.csv"))
        join([runs / "deep", tmp_path / "cut"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
