"""What follows from the tables of a folder: whole runs, the committed ones, the figure, the command."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from typer.testing import CliRunner

from bench import drawing, heat_map
from bench.__main__ import app
from bench.attack_pages import category_of
from bench.derived import derive
from bench.printed import read_csv
from bench.results import read_info
from bench.rng import stream
from bench.robustness import Bounds, quality_left
from tests.conftest import Bench
from tests.toy import Toy, ToyGenerator, ToyNoise, ToyScheme

ROOT = Path(__file__).resolve().parent.parent
REFERENCES = {folder.parent.name: folder for folder in sorted((ROOT / "leaderboards").glob("*/reference"))}
TABLES = ("leaderboard.csv", "attacks.csv", "run.json")
WRITTEN = ("leaderboard.csv", "robustness.csv", "robustness_categories.csv", "report.md")


@pytest.fixture
def bare(toy_folder: Path, tmp_path: Path) -> Path:
    """A folder with no more than its measured tables."""
    for name in TABLES:
        shutil.copy(toy_folder / name, tmp_path / name)
    return tmp_path


def test_tables_are_enough_and_twice_is_once(bare: Path, toy_folder: Path) -> None:
    assert [path.name for path in derive(bare)] == list(WRITTEN)
    once = {name: (bare / name).read_bytes() for name in WRITTEN}
    assert once == {name: (toy_folder / name).read_bytes() for name in WRITTEN}, "the run itself wrote the same"
    derive(bare)
    assert once == {name: (bare / name).read_bytes() for name in WRITTEN}


def test_the_command_writes_tables_report_and_figures(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.figures.draw", lambda folder: [folder / "figures" / "scores.svg"])
    result = CliRunner().invoke(app, ["report", str(bare), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == [*(str(bare / name) for name in WRITTEN), str(bare / "figures" / "scores.svg")]
    (bare / "attacks.csv").unlink()
    refused = CliRunner().invoke(app, ["report", str(bare)])
    assert refused.exit_code == 2 and "attacks.csv: expected a table of a finished run, found none" in refused.stderr


def test_a_toy_run_by_hand(toy_folder: Path) -> None:
    """White noise of known power: 0.05 leaves half of the tolerated error of 20 dB, and all bits."""
    noise, weights, merged = read_csv(toy_folder / "robustness.csv")
    mild, _, _, coalition = read_csv(toy_folder / "attacks.csv")
    assert (noise["strengths"], noise["usable"], noise["category"]) == (2, 1, "other")
    assert noise["quality_mildest"] == pytest.approx(0.5, abs=0.02) and noise["quality_strongest"] < -2
    assert noise["bit_accuracy_auc"] == pytest.approx(
        1 - (1 - mild["bit_accuracy"]) * noise["quality_mildest"], abs=1e-5
    )
    assert noise["damage_at_0"] > noise["damage_at_50"] >= 0 and weights["damage_at_50"] is None
    assert (merged["target"], merged["worst_caught"]) == ("coalition", coalition["caught"])
    report = (toy_folder / "report.md").read_text()
    assert "psnr 20 dB to unattacked content" in report and "figures/robustness_categories.svg" in report
    assert "one strength" in report


def test_without_attacks_there_is_no_robustness(toy: Bench, tmp_path: Path) -> None:
    toy(tmp_path / "out", attacks=[])
    (line,) = read_csv(tmp_path / "out" / "leaderboard.csv")
    assert line["robustness_auc"] is None and line["worst_attack"] is None
    assert read_csv(tmp_path / "out" / "robustness.csv") == []
    assert "## Robustness" not in (tmp_path / "out" / "report.md").read_text()


def test_a_deeper_fingerprint_has_a_larger_area(cache: Path, tmp_path: Path) -> None:
    """The same noise and the same latents; only the depth of the mark differs."""
    attacks = [ToyNoise(std) for std in (0.02, 0.05, 0.09)]
    found: list[dict[str, float]] = []
    for depth in (0.003, 0.008, 0.02):
        codec = ToyScheme(depth=depth).fit(Toy(), ToyGenerator(), stream(0, "fit", "ToyScheme"))
        Bench(Toy(), ToyGenerator(), codec)(tmp_path / str(depth), attacks=attacks)
        found += read_csv(tmp_path / str(depth) / "leaderboard.csv")
    shallow, middle, deep = (line["robustness_content_auc"] for line in found)
    assert 0.5 < shallow < middle < deep < 1
    assert [line["robustness_auc"] for line in found] == [shallow, middle, deep], "no decoder was attacked"


@pytest.mark.parametrize("modality", REFERENCES)
def test_the_committed_runs_hold_what_follows_from_their_tables(modality: str, tmp_path: Path) -> None:
    for name in TABLES:
        shutil.copy(REFERENCES[modality] / name, tmp_path / name)
    derive(tmp_path)
    for name in WRITTEN:
        assert (tmp_path / name).read_bytes() == (REFERENCES[modality] / name).read_bytes(), "run `bench report`"


@pytest.mark.parametrize("modality", REFERENCES)
def test_quality_is_left_just_where_the_run_says_within_the_bound(modality: str) -> None:
    folder = REFERENCES[modality]
    bounds, clean = (
        Bounds.of(read_info(folder)),
        {line["scheme"]: line for line in read_csv(folder / "leaderboard.csv")},
    )
    lines = read_csv(folder / "attacks.csv")
    left = [quality_left(line, clean[line["scheme"]], bounds) for line in lines]
    assert [quality >= 0 for quality in left] == [line["within_bound"] for line in lines]
    assert not any(map(math.isnan, left)) and {True, False} == {line["within_bound"] for line in lines}


@pytest.mark.parametrize("modality", REFERENCES)
def test_the_worst_case_is_that_of_the_leaderboard(modality: str) -> None:
    for line in read_csv(REFERENCES[modality] / "leaderboard.csv"):
        both = (line["robustness_content_worst"], line["robustness_model_worst"])
        assert line["worst_attribution"] == min(both)
        assert line["robustness_auc"] <= min(line["robustness_content_auc"], line["robustness_model_auc"])
        assert line["robustness_auc_lo"] <= line["robustness_auc"] <= line["robustness_auc_hi"]


@pytest.mark.parametrize("modality", REFERENCES)
def test_every_attack_of_a_committed_run_has_a_category(modality: str) -> None:
    lines = read_csv(REFERENCES[modality] / "robustness.csv")
    assert not {line["attack"] for line in lines if line["category"] == "other"}


def test_categories_are_those_of_the_pages() -> None:
    assert category_of("JPEG", "image") == "compression"
    assert category_of("WeightNoise, kernels only", "audio") == "noise on weights"
    assert category_of("WeightQuantization, per channel", "3d") == "compression of weights"
    assert category_of("AverageWeights", "toy") == "coalitions"
    assert category_of("JPEG", "audio") == category_of("Posterised", "image") == "other"


# --- the figure


@pytest.fixture
def table() -> pd.DataFrame:
    """Two schemes; the second never met filters, and none of its attacks on noise stayed within the bound."""
    rows = [
        ("A", "content", "all", 0.91, 0.52),
        ("A", "content", "noise", 0.95, 0.61),
        ("A", "content", "filters", 0.75, 0.52),
        ("A", "coalition", "all", 0.65, 0.63),
        ("B", "content", "all", 0.456, 0.441),
        ("B", "content", "noise", math.nan, math.nan),
    ]
    return pd.DataFrame(rows, columns=["scheme", "target", "category", heat_map.UPPER, heat_map.LOWER])


@pytest.fixture
def looks() -> Iterator[None]:
    with matplotlib.rc_context(drawing.RC):
        yield


@pytest.mark.usefixtures("looks")
def test_the_cells_are_the_table(table: pd.DataFrame) -> None:
    axes = heat_map.categories(table).axes[0]
    shown = [text.get_text() for text in axes.texts]
    assert shown == ["0.91", "0.52", "0.95", "0.61", "0.75", "0.52", "0.65", "0.63", "0.46", "0.44", "–"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["A", "B"]
    names = [label.get_text().strip() for label in axes.get_yticklabels()]
    assert names == ["All attacks on content", "noise", "filters", "All attacks by coalitions"]
    places = {(round(patch.get_center()[0]), round(patch.get_center()[1])) for patch in axes.patches}
    assert places == {(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)}, "what was not met has no cell"
    first, *_ = axes.patches
    assert first.get_facecolor() == heat_map.COLOURS((0.91 - 0.5) / 0.5)


@pytest.mark.usefixtures("looks")
@pytest.mark.parametrize("count", [1, 16])
def test_the_map_fits_its_page(table: pd.DataFrame, count: int) -> None:
    many = [table.assign(scheme=table["scheme"] + f"-modulation-with-a-long-name-{index}") for index in range(count)]
    figure = heat_map.categories(pd.concat(many))
    figure.draw_without_rendering()
    box, tight = figure.bbox, figure.get_tightbbox().transformed(figure.dpi_scale_trans)
    assert box.x0 - 1 <= tight.x0 and tight.x1 <= box.x1 + 1, "something is clipped sideways"
    assert box.y0 - 1 <= tight.y0 and tight.y1 <= box.y1 + 1, "something is clipped above or below"


def test_a_whole_run_says_what_the_figure_draws(cache: Path, tmp_path: Path) -> None:
    words = ["--modality", "tests.toy:Toy", "--scheme", "tests.toy:ToyScheme", "--preset", "smoke", "--quiet"]
    chosen = ["--attack", "tests.toy:ToyNoise", "--attack", "tests.toy:ToyAverage"]
    result = CliRunner().invoke(app, ["run", *words, *chosen, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    for name in (*WRITTEN, "figures/robustness_categories.svg", "figures/robustness_categories.png"):
        assert (tmp_path / name).stat().st_size, name
    assert {line["category"] for line in read_csv(tmp_path / "robustness_categories.csv")} == {"all", "other"}
