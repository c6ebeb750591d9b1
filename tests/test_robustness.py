"""Areas, worst cases and ranks against cases computed by hand, and the tables and the figure of a whole run."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import pytest
from typer.testing import CliRunner

from bench import drawing
from bench.__main__ import app
from bench.categories import category_of, listed
from bench.columns import CATEGORIES, LEADERBOARD, ROBUSTNESS
from bench.derived import derive
from bench.figures import draw
from bench.heat_map import PANELS, heat_map
from bench.presets import Plan
from bench.printed import read_csv
from bench.robustness import Bounds, Curve, attack_rows, attribution, category_rows, summary

ROOT = Path(__file__).resolve().parent.parent
RUNS = sorted((ROOT / "leaderboards").glob("*/reference"))
IOU = Bounds("iou", content=0.8, model=0.8, distance=0.25)
BOARD = {"scheme": "A", "bit_accuracy": 1.0, "paired_value": 0.9}


def line(attack: str, strength: float, accuracy: float, iou: float, target: str = "content") -> dict[str, Any]:
    about = {"scheme": "A", "target": target, "category": "kind", "attack": attack, "strength": strength}
    return about | {"bit_accuracy": accuracy, "iou": iou, "within_bound": iou >= 0.8}


def only(*lines: dict[str, Any]) -> dict[str, Any]:
    (row,) = attack_rows(BOARD, lines, IOU)
    return row


def test_attribution_starts_at_chance() -> None:
    assert [attribution(value) for value in (1.0, 0.75, 0.5, 0.4)] == [1.0, 0.5, 0.0, 0.0]


def test_the_area_is_the_trapezoids() -> None:
    """From (1, 1) over (0.5, 0.6) to the bound at (0, 0.2): 0.5 · 0.8 + 0.5 · 0.4."""
    row = only(line("Blur", 1.0, 0.8, 0.9), line("Blur", 2.0, 0.6, 0.8))
    assert row["area"] == pytest.approx(0.6) and row["covered"] == pytest.approx(1)
    assert row["worst"] == pytest.approx(0.2) and row["worst_strength"] == 2.0
    assert row["attribution_75"] == pytest.approx(0.8) and row["attribution_bound"] == pytest.approx(0.2)


def test_what_lies_beyond_the_bound_is_cut_off_there() -> None:
    """The last setting is as far beyond the bound as the first is within it: halfway between them lies the bound."""
    row = only(line("Blur", 1.0, 0.8, 0.9), line("Blur", 2.0, 0.5, 0.7))
    assert row["attribution_bound"] == pytest.approx((0.6 + 0.0) / 2)
    assert row["area"] == pytest.approx(0.5 * 0.8 + 0.5 * 0.45)
    assert row["worst"] == pytest.approx(0.6), "the worst case is measured, never interpolated"


def test_an_attack_that_never_reaches_the_bound_is_not_extrapolated() -> None:
    """An attacker with more quality to lose has nothing stronger: the last attribution counts on, 0.4 · 0.8 + 0.6²."""
    row = only(line("Blur", 1.0, 0.8, 0.92))
    assert row["covered"] == pytest.approx(0.4) and row["area"] == pytest.approx(0.4 * 0.8 + 0.6 * 0.6)
    assert row["attribution_75"] == pytest.approx(1 - 0.4 * 0.25 / 0.4)
    assert all(
        math.isnan(row[f"{what}_{level}"]) for what in ("attribution", "rank") for level in ("50", "25", "bound")
    )
    milder = only(line("Blur", 1.0, 0.8, 0.92), line("Blur", 0.5, 0.98, 0.99))
    assert milder["area"] < 1 and milder["covered"] == row["covered"]


def test_damage_without_any_loss_of_quality_leaves_nothing() -> None:
    row = only(line("Polarity", 1.0, 0.5, 1.0))
    assert row["area"] == row["covered"] == row["worst"] == 0


def test_without_a_strength_there_is_nothing_between() -> None:
    """A mirror cannot be applied by half: before its quality all is as without an attack, from there on as under it."""
    row = only(line("Flip", math.nan, 0.5, 0.9))
    assert row["area"] == pytest.approx(0.5) and math.isnan(row["attribution_75"])
    beyond = only(line("Flip", math.nan, 0.5, 0.7))
    assert beyond["area"] == 1 and math.isnan(beyond["worst"])


def test_the_attacker_never_picks_a_setting_that_does_less() -> None:
    row = only(line("Shift", 1.0, 0.6, 0.9), line("Shift", 2.0, 0.9, 0.8))
    assert row["attribution_bound"] == row["worst"] == pytest.approx(0.2)
    assert row["area"] == pytest.approx(0.5 * 0.6 + 0.5 * 0.2)


def test_unmeasured_quality_is_no_quality() -> None:
    row = only(line("Blur", 1.0, 0.8, math.nan))
    assert math.isnan(row["area"]) and math.isnan(row["rank"]) and math.isnan(row["worst"])
    both = only(line("Blur", 1.0, 0.8, 0.9), line("Blur", 2.0, 0.5, math.nan))
    assert both["area"] == only(line("Blur", 1.0, 0.8, 0.9))["area"] and both["settings"] == 2


def test_ranks_are_given_at_equal_quality() -> None:
    """Noise does most early and then stops; blur does most at the bound; both are ranked where both are measured."""
    rows = attack_rows(
        BOARD,
        [
            line("Noise", 1.0, 0.7, 0.92),
            line("Blur", 1.0, 0.9, 0.9),
            line("Blur", 2.0, 0.5, 0.8),
            line("Gain", 1.0, 1.0, 0.7),
            line("Prune", 0.5, 0.5, 0.9, "model") | {"quality": 1, "quality_unattacked": 1},
        ],
        IOU,
    )
    ranks = {row["attack"]: [row["rank_75"], row["rank_25"], row["rank_bound"], row["rank"]] for row in rows}
    assert ranks["Noise"][0] == 1 and ranks["Blur"][0] == 2 and ranks["Gain"][0] == 3
    assert math.isnan(ranks["Noise"][1]) and ranks["Blur"][1:3] == [1, 1] and ranks["Gain"][1:3] == [2, 2]
    assert (ranks["Noise"][3], ranks["Blur"][3], ranks["Gain"][3]) == (1, 2, 3)
    assert ranks["Prune"][3] == 1, "decoders have a ranking of their own"


def test_a_stronger_fingerprint_has_a_larger_area() -> None:
    weak = [line("Blur", 1.0, 0.7, 0.9), line("Blur", 2.0, 0.6, 0.75)]
    strong = [each | {"bit_accuracy": each["bit_accuracy"] + 0.1} for each in weak]
    assert only(*strong)["area"] > only(*weak)["area"]
    assert only(*strong)["attribution_bound"] > only(*weak)["attribution_bound"]


def test_decibels_count_as_amplitudes() -> None:
    """14 dB below the error of the bound is a fifth of its amplitude; 6 dB beyond it, twice."""
    decibels = Bounds("psnr", content=20.0, model=20.0, distance=0.25)
    quality = [
        decibels.quality({"target": "content", "psnr": value}, 30.0) for value in (math.inf, 20.0, 33.9794, 13.9794)
    ]
    assert quality == pytest.approx([1, 0, 0.8, -1], abs=1e-5)


def test_the_nearer_bound_of_a_decoder_counts() -> None:
    def quality(iou: float, rise: float) -> float:
        row = {"target": "model", "iou": iou, "quality": 100 * (1 + rise), "quality_unattacked": 100}
        return IOU.quality(row, 0.9)

    assert quality(0.9, 0) == 1, "what the fingerprint costs is no damage of the attack"
    assert quality(0.85, 0) == pytest.approx(0.5) and quality(0.9, 0.125) == pytest.approx(0.5)
    assert quality(0.85, 0.2) == pytest.approx(0.2) and quality(0.8, 0) == pytest.approx(0)
    assert quality(0.95, -0.1) == 1, "better than without the attack is no more than 1"
    assert math.isnan(quality(math.nan, 0)) and math.isnan(quality(0.9, math.nan))
    assert math.isnan(IOU.quality({"target": "model", "iou": 0.7, "quality": 1, "quality_unattacked": 1}, 0.75))


def test_categories_take_the_worst_and_the_mean() -> None:
    rows = attack_rows(BOARD, [line("Blur", 1.0, 0.8, 0.9), line("Noise", 1.0, 0.6, 0.8)], IOU)
    (kind,) = category_rows(rows)
    assert kind["attacks"] == 2 and kind["worst_attack"] == "Noise" and kind["worst"] == pytest.approx(0.2)
    assert kind["area"] == pytest.approx((rows[0]["area"] + rows[1]["area"]) / 2)


def test_the_leaderboard_needs_both_targets_and_knows_the_worst_coalition() -> None:
    content = [line("Blur", 1.0, 0.8, 0.9)]
    assert math.isnan(summary(attack_rows(BOARD, content, IOU), content)["robustness_area"])
    good = {"quality": 1.0, "quality_unattacked": 1.0}
    merged = [line("Mean", users, 0.7, iou, "coalition") | good | {"caught": c} for users, iou, c in COALITIONS]
    lines = [*content, line("Prune", 1.0, 0.5, 0.9, "model") | good, *merged]
    found = summary(attack_rows(BOARD, lines, IOU), lines)
    assert found["robustness_area"] == (found["robustness_area_content"] + found["robustness_area_model"]) / 2
    assert found["robustness_coalition_worst"] == 0.6, "the third one costs too much quality to count"


COALITIONS = ((2.0, 0.95, 0.8), (3.0, 0.95, 0.6), (5.0, 0.5, 0.1))


def test_the_curve_falls_and_passes_through_its_knots() -> None:
    curve = Curve.through([(0.2, 0.1), (0.6, 0.7), (0.6, 0.5), (math.nan, 0.0)], 0.9, graded=True)
    assert curve.knots == ((1.0, 0.9), (0.6, 0.7), (0.6, 0.5), (0.2, 0.1))
    assert [curve.at(q) for q in (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)] == pytest.approx([0.9, 0.8, 0.5, 0.3, 0.1, 0.1])


def test_attacks_know_their_category() -> None:
    names = listed("image")
    assert names["JPEG"] == "compression" and names["Rotation"] == "geometry and time"
    assert names["WeightNoise"] == "noise on weights" and names["AverageWeights"] == "coalitions"
    assert all(names.values()) and all(listed("3d").values()) and all(listed("audio").values())
    own = dataclasses.make_dataclass("Own", [("strength", float)], namespace={"category": "colour"})
    assert category_of(own(1.0)) == "colour" and category_of(object()) == "other"


# --- a whole run


def test_a_run_writes_tables_report_and_figure(toy_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_folder, tmp_path / "out")
    rows, kinds = (read_csv(toy_folder / f"{name}.csv") for name in ("robustness", "robustness_categories"))
    assert list(rows[0]) == list(ROBUSTNESS) and list(kinds[0]) == list(CATEGORIES)
    assert [(row["attack"], row["target"], row["settings"]) for row in rows] == [
        ("ToyNoise", "content", 2),
        ("ToyWeightNoise", "model", 1),
        ("ToyAverage", "coalition", 1),
    ]
    (board,) = read_csv(toy_folder / "leaderboard.csv")
    assert board["robustness_area_content"] == rows[0]["area"] and 0 < board["robustness_area"] <= 1
    report = (toy_folder / "report.md").read_text(encoding="utf-8")
    assert "## Robustness at equal quality" in report and "| ToyScheme | ToyNoise | content |" in report
    drawn = {path.name for path in draw(tmp_path / "out")}
    assert {"robustness_map.svg", "robustness_map.png"} <= drawn and "](figures/robustness_map.png)" in report


def test_the_tables_alone_give_the_same(toy_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_folder, tmp_path / "out")
    names = ("attacks.csv", "leaderboard.csv", "robustness.csv", "robustness_categories.csv", "report.md")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in names}
    (tmp_path / "out" / "rows.parquet").unlink()
    shutil.rmtree(tmp_path / "out" / "cells")
    for name in names[2:]:
        (tmp_path / "out" / name).unlink()
    found = CliRunner().invoke(app, ["leaderboard", str(tmp_path / "out"), "--from-tables", "--json"])
    assert found.exit_code == 0, found.output
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names} == before


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.parent.name)
def test_the_committed_robustness_follows_from_the_committed_tables(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "out")
    for path in derive(tmp_path / "out"):
        assert path.read_bytes() == (folder / path.name).read_bytes(), "run `bench leaderboard --from-tables`"


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.parent.name)
def test_the_axis_ends_where_attacks_stop_to_count(folder: Path) -> None:
    """On every committed line the quality is at least 0 exactly where the run called the attack within the bound."""
    info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    bounds = Bounds.of(Plan.from_dict(info["plan"]), info["paired_metric"])
    boards = {board["scheme"]: board for board in read_csv(folder / "leaderboard.csv")}
    for each in read_csv(folder / "attacks.csv"):
        if each["target"] != "framing":
            quality = bounds.quality(each, boards[each["scheme"]]["paired_value"])
            assert (quality >= 0) == each["within_bound"], each["repr"]


KINDS = pd.DataFrame(
    [
        {"scheme": scheme, "target": target, "category": category, "area": area, "worst": worst}
        for scheme, target, category, area, worst in (
            ("A", "content", "noise", 0.25, 0.125),
            ("A", "model", "noise on weights", 0.75, math.nan),
            ("B", "content", "noise", 0.5, 0.375),
        )
    ]
)


def test_the_figures_cells_are_the_table() -> None:
    panels = heat_map(KINDS).axes
    assert [axes.get_title(loc="left") for axes in panels] == list(PANELS.values())
    assert [[text.get_text() for text in axes.texts] for axes in panels] == [
        ["0.25", "0.50", "0.75", "–"],
        ["0.12", "0.38", "–", "–"],
    ]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == [
        "noise (content)",
        "noise on weights (model)",
    ]
    shown = panels[0].collections[0].get_array()
    assert shown.filled(-1).tolist() == [[0.25, 0.5], [0.75, -1]] and panels[0].get_ylim() == (2, 0)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_text_lies_within_the_figure(count: int) -> None:
    names = [f"Scheme{index}(bits=32, modulation=Something(depth=0.2), layers='all')" for index in range(count)]
    table = pd.concat([KINDS[KINDS["scheme"] == "A"].assign(scheme=name) for name in names])
    with matplotlib.rc_context(drawing.RC):
        figure = heat_map(table)
        figure.draw_without_rendering()
        box, tight = figure.bbox, figure.get_tightbbox().transformed(figure.dpi_scale_trans)
        assert box.x0 - 1 <= tight.x0 and tight.x1 <= box.x1 + 1 and box.y0 - 1 <= tight.y0 and tight.y1 <= box.y1 + 1


def test_the_contracts_columns_come_first() -> None:
    for folder in RUNS:
        (board, *_) = read_csv(folder / "leaderboard.csv")
        assert list(board)[: len(LEADERBOARD)] == list(LEADERBOARD) and board["robustness_area"] is not None
