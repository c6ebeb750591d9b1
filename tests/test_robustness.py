"""Areas, worst cases and ranks on cases small enough to reckon by hand, and what must be true of any."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.robustness import (
    Bounds,
    Point,
    area,
    at_level,
    attack_lines,
    category_lines,
    curve,
    quality_left,
    scheme_columns,
    worst,
)

BOUNDS = Bounds("iou", content=0.75, model=0.75, quality=0.25)
CLEAN: dict[str, Any] = {
    **{"scheme": "A", "bit_accuracy": 1.0, "bit_accuracy_lo": 0.98, "bit_accuracy_hi": 1.0, "paired_value": 0.95},
    **{"identification": 0.9, "identification_lo": 0.8, "identification_hi": 0.96},
}


def line(quality: float, accuracy: float, attack: str = "Noise", target: str = "content") -> dict[str, Any]:
    """A line of ``attacks.csv`` with an IoU that leaves ``quality``."""
    spread = {"bit_accuracy": accuracy, "bit_accuracy_lo": accuracy - 0.04, "bit_accuracy_hi": accuracy + 0.02}
    rates = {"identification": 2 * accuracy - 1, "identification_lo": None, "identification_hi": None}
    named = {"scheme": "A", "attack": attack, "target": target, "strength": 1 - quality, "unit": "std", "repr": attack}
    content = {"iou": 0.75 + quality / 4}
    model = {"iou": 0.75 + quality / 5, "quality": 100 + 25 * (1 - quality), "quality_unattacked": 100.0}
    measured = content if target == "content" else model
    return named | spread | rates | measured | {"within_bound": quality >= 0, "users": 8}


def points(*pairs: tuple[float, float]) -> list[Point]:
    return curve([line(quality, accuracy) for quality, accuracy in pairs], CLEAN, BOUNDS)


def test_the_area_by_hand() -> None:
    """Undamaged down to 0.75, then 0.9, from 0.5 on 0.8; what lies beyond the bound does not count."""
    found = area(points((0.75, 0.9), (0.5, 0.8), (-0.2, 0.5)), "bit_accuracy")
    assert found.mean == pytest.approx(0.25 * 1.0 + 0.25 * 0.9 + 0.5 * 0.8)
    assert found.lo == pytest.approx(0.25 * 0.98 + 0.25 * 0.86 + 0.5 * 0.76)
    assert found.hi == pytest.approx(0.25 * 1.0 + 0.25 * 0.92 + 0.5 * 0.82)
    rate = area(points((0.75, 0.9), (0.5, 0.8), (-0.2, 0.5)), "identification")
    assert rate.mean == pytest.approx(0.25 * 0.9 + 0.25 * 0.8 + 0.5 * 0.6) and math.isnan(rate.lo)


def test_an_attacker_takes_the_better_of_two_strengths() -> None:
    assert area(points((0.75, 0.6), (0.5, 0.8)), "bit_accuracy").mean == pytest.approx(0.25 + 0.75 * 0.6)
    assert area(points((0.75, 1.0)), "bit_accuracy").mean == 1, "what does nothing takes nothing"


def test_an_attack_that_never_reaches_the_bound_keeps_its_last_step_and_has_no_value_there() -> None:
    short = points((0.75, 0.9), (0.5, 0.8))
    assert area(short, "bit_accuracy").mean == pytest.approx(0.25 + 0.25 * 0.9 + 0.5 * 0.8)
    assert at_level(short, 0.5) == pytest.approx(0.8)
    assert math.isnan(at_level(short, 0.25)) and math.isnan(at_level(short, 0.0))


def test_an_attack_that_is_always_beyond_the_bound_has_no_area() -> None:
    beyond = points((-0.1, 0.6), (-1.0, 0.5))
    assert math.isnan(area(beyond, "bit_accuracy").mean) and worst(beyond[1:]) is None
    assert at_level(beyond, 0.0) == pytest.approx(0.6 + 0.4 * 0.1 / 1.1), "between the first strength and no attack"


def test_values_between_strengths_are_linear() -> None:
    held = points((0.8, 0.9), (0.4, 0.7))
    assert at_level(held, 0.5) == pytest.approx(0.75)
    assert at_level(held, 0.9) == pytest.approx(0.95), "half way to no attack"
    assert math.isnan(at_level(points((0.4, 0.7)), 0.5)), "a single strength is no curve"


@pytest.mark.parametrize("missing", ["iou", "bit_accuracy"])
def test_what_was_not_measured_is_left_out(missing: str) -> None:
    lines = [line(0.75, 0.9), line(0.5, 0.6) | {missing: None, "within_bound": missing != "iou"}, line(0.25, 0.8)]
    held = curve(lines, CLEAN, BOUNDS)
    assert area(held, "bit_accuracy").mean == pytest.approx(0.25 + 0.5 * 0.9 + 0.25 * 0.8)
    assert at_level(held, 0.5) == pytest.approx(0.85)
    found = worst(held)
    assert found is not None and found.line is lines[2]
    unknown = curve([lines[1]], CLEAN, BOUNDS)
    assert math.isnan(area(unknown, "bit_accuracy").mean)


def test_decibels_count_as_amplitude_of_the_error() -> None:
    bounds = Bounds("psnr", content=20.0, model=20.0, quality=0.25)
    left = [quality_left({"target": "content", "psnr": value}, {}, bounds) for value in (math.inf, 40, 26.0206, 20, 14)]
    assert left == pytest.approx([1, 0.9, 0.5, 0, -0.9953], abs=1e-4)


@pytest.mark.parametrize(
    ("iou", "distance", "expected"), [(0.85, 100.0, 0.5), (0.95, 120.0, 0.2), (0.99, 90.0, 1.0), (0.85, 130.0, -0.2)]
)
def test_of_a_decoder_the_worse_of_both_qualities_counts(iou: float, distance: float, expected: float) -> None:
    attacked = {"target": "model", "iou": iou, "quality": distance, "quality_unattacked": 100.0}
    assert quality_left(attacked, CLEAN, BOUNDS) == pytest.approx(expected)


def test_there_is_no_quality_left_where_the_fingerprint_alone_is_beyond_the_bound() -> None:
    assert math.isnan(quality_left(line(0.5, 0.9, target="model"), CLEAN | {"paired_value": 0.7}, BOUNDS))
    assert math.isnan(quality_left(line(0.5, 0.9, target="model") | {"quality": None}, CLEAN, BOUNDS))


def test_the_worst_case_is_the_lowest_within_the_bound() -> None:
    found = worst(points((0.75, 0.9), (0.5, 0.6), (0.25, 0.7), (-0.2, 0.5)))
    assert found is not None and (found.line["bit_accuracy"], found.quality) == (0.6, 0.5)
    nothing = worst(points((0.5, 1.1)))
    assert nothing is not None and nothing.line is CLEAN, "doing nothing is an attack"


HELD: list[dict[str, Any]] = [
    *(line(0.75, 0.9, "Mild"), line(0.0, 0.8, "Mild")),
    *(line(0.75, 0.8, "Hard"), line(0.25, 0.6, "Hard")),
    *(line(0.9, 0.9, "Short"), line(0.75, 0.55, "Short")),
    line(0.4, 0.7, "Once"),
    *(line(0.5, 0.95, "Weights", "model"), line(-0.5, 0.6, "Weights", "model")),
    *(line(0.9, 0.75, "Merge", "coalition") | {"caught": 0.5}, line(0.8, 0.8, "Merge", "coalition") | {"caught": 0.25}),
    line(0.9, 0.5, "Frame", "framing") | {"framed": 1.0},
]
CATEGORIES = {"Mild": "noise", "Hard": "noise", "Short": "filters", "Once": "filters", "Weights": "noise on weights"}
CATEGORIES |= {"Merge": "coalitions", "Frame": "framing"}


def test_ranks_at_equal_quality_by_hand() -> None:
    lines = {each["attack"]: each for each in attack_lines(HELD, CLEAN, BOUNDS, CATEGORIES)}
    assert list(lines) == ["Mild", "Hard", "Short", "Once", "Weights", "Merge"], "a framed user lost nothing"
    at = {name: [each[f"damage_at_{level}"] for level in (75, 50, 25, 0)] for name, each in lines.items()}
    assert at["Mild"] == pytest.approx([0.1, 0.1 + 0.1 / 3, 0.1 + 0.2 / 3, 0.2])
    assert at["Hard"] == pytest.approx([0.2, 0.3, 0.4, math.nan], nan_ok=True)
    assert at["Short"] == pytest.approx([0.45, *[math.nan] * 3], nan_ok=True)
    assert at["Weights"] == pytest.approx([0.025, 0.05, 0.1375, 0.225])
    ranks = {name: [each[f"rank_at_{level}"] for level in (75, 50, 25, 0)] for name, each in lines.items()}
    assert ranks["Short"] == [1, None, None, None] and ranks["Once"] == [None] * 4
    assert ranks["Hard"] == [2, 1, 1, None] and ranks["Mild"] == [3, 2, 2, 1]
    assert ranks["Weights"] == [1] * 4, "decoders are ranked among themselves"
    assert (lines["Weights"]["strengths"], lines["Weights"]["usable"]) == (2, 1)
    assert lines["Hard"]["quality_strongest"] == pytest.approx(0.25)


def test_equal_damage_has_equal_rank() -> None:
    pair = [line(q, a, name) for name in ("One", "Two") for q, a in ((0.9, 0.9), (0.4, 0.7))]
    ranks = [each["rank_at_50"] for each in attack_lines(pair, CLEAN, BOUNDS, {"One": "x", "Two": "x"})]
    assert ranks == [1, 1]


def test_categories_join_the_attacks_of_one_attacker() -> None:
    lines = {(each["target"], each["category"]): each for each in category_lines(HELD, CLEAN, BOUNDS, CATEGORIES)}
    assert list(lines) == [
        *(("content", "all"), ("content", "noise"), ("content", "filters")),
        *(("model", "all"), ("model", "noise on weights"), ("coalition", "all"), ("coalition", "coalitions")),
    ]
    noise = lines["content", "noise"]
    assert noise["bit_accuracy_auc"] == pytest.approx(0.25 + 0.5 * 0.8 + 0.25 * 0.6)
    assert (noise["worst_attack"], noise["worst_bit_accuracy"], noise["attacks"]) == ("Hard", 0.6, 2)
    everything = lines["content", "all"]
    assert everything["bit_accuracy_auc"] == pytest.approx(0.1 + 0.15 * 0.9 + 0.75 * 0.55)
    merge = lines["coalition", "all"]
    assert (merge["worst_caught"], merge["worst_bit_accuracy"]) == (0.25, 0.8), "caught less, not read less"


def test_columns_of_the_leaderboard() -> None:
    found = scheme_columns(HELD, CLEAN, BOUNDS)
    assert found["worst_attack"] == found["robustness_content_worst_attack"] == "Short (0.25 std)"
    assert found["worst_attribution"] == 0.55 and found["robustness_coalition_worst"] == 0.25
    assert found["robustness_model_auc"] == pytest.approx(0.5 + 0.5 * 0.95)
    assert found["robustness_auc"] == found["robustness_content_auc"], "the model attack is the weaker one everywhere"
    empty = scheme_columns([each for each in HELD if each["target"] == "model"], CLEAN, BOUNDS)
    assert empty["robustness_content_auc"] is None and empty["robustness_coalition_worst"] is None
    assert list(empty) == list(found)


Curve = list[tuple[float, float]]
QUALITY = st.floats(-1, 1)
ACCURACY = st.floats(0.4, 1)
CURVES = st.lists(st.tuples(QUALITY, ACCURACY), min_size=1, max_size=8)


def bit_area(pairs: Curve) -> float:
    return area(points(*pairs), "bit_accuracy").mean


@given(CURVES, st.data())
def test_a_stronger_fingerprint_has_a_larger_area(pairs: Curve, data: st.DataObject) -> None:
    """Every strength leaves as many bits or more: so does the area. It lies between worst case and no attack."""
    better = [(q, data.draw(st.floats(a, 1))) for q, a in pairs]
    if all(q < 0 for q, _ in pairs):
        assert math.isnan(bit_area(pairs)) and math.isnan(bit_area(better))
        return
    assert bit_area(better) >= bit_area(pairs) - 1e-12
    lowest = worst(points(*pairs))
    assert lowest is not None
    assert lowest.value("bit_accuracy") - 1e-12 <= bit_area(pairs) <= 1 + 1e-12


@given(CURVES, CURVES)
def test_one_more_attack_never_helps_the_scheme(pairs: Curve, more: Curve) -> None:
    if any(q >= 0 for q, _ in pairs):
        assert bit_area([*pairs, *more]) <= bit_area(pairs) + 1e-12
