"""Robustness as attribution against quality: areas, worst cases, and attacks ranked at equal quality.

An attacker who may lose only so much quality picks the setting that costs the fingerprint most. What is left of the
attribution is a curve over quality, and its area sums up an attack without a choice of strengths or of one threshold.
Attacks are compared by such curves in An et al., "WAVES", ICML 2024, arXiv:2401.08573; the axes here are those of
``docs/statistics.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from bench.presets import Plan

Row = dict[str, Any]

LEVELS = {"75": 0.75, "50": 0.5, "25": 0.25, "bound": 0.0}
"""Qualities at which attacks are compared, by the end of their columns' names."""
SHARES = ("iou", "ssim", "f_score", "normals")
"""Paired metrics that are 1 for equal items; all others are in dB."""
TARGETS = ("content", "model", "coalition")


def attribution(bit_accuracy: float) -> float:
    """Bit accuracy from chance (0) to all bits right (1); reading worse than chance is chance."""
    return max(0.0, 2 * bit_accuracy - 1)


def error(fidelity: float, metric: str) -> float:
    """What a paired metric says is wrong, 0 for equal items: the missing share, or from dB the relative amplitude."""
    return 1 - fidelity if metric in SHARES else 10 ** (-fidelity / 20)


@dataclass(frozen=True)
class Bounds:
    """How far a run lets an attack go; see ``Plan``.

    Attributes:
        metric: the paired metric.
        content: its bound for content attacks.
        model: its bound for model attacks and coalitions.
        distance: share by which their Fréchet distance may rise.
    """

    metric: str
    content: float
    model: float
    distance: float

    @classmethod
    def of(cls, plan: Plan, metric: str) -> Bounds:
        """Those of a plan; NaN where it states none."""
        content, model = (math.nan if bound is None else bound for bound in (plan.content_bound, plan.model_bound))
        return cls(metric, content, model, plan.model_quality_bound)

    def quality(self, line: Row, unattacked: float) -> float:
        """Quality that an attack leaves: 1 as without it, 0 at the bound, below 0 beyond; NaN where none is measured.

        Decoders have two bounds, and the nearer one counts. Their content differs from the public decoder's without
        an attack already, so there 1 is what the fingerprint alone leaves.

        Args:
            line: of ``attacks.csv``.
            unattacked: paired fidelity without an attack.
        """
        after = error(_number(line.get(self.metric)), self.metric)
        if line["target"] == "content":
            return 1 - after / error(self.content, self.metric)
        before, most = error(unattacked, self.metric), error(self.model, self.metric)
        paired = (most - after) / (most - before) if before < most else math.nan
        rise = _number(line.get("quality")) / _number(line.get("quality_unattacked")) - 1
        distance = 1 - rise / self.distance if self.distance > 0 else math.nan
        return math.nan if math.isnan(paired + distance) else min(1.0, paired, distance)


@dataclass(frozen=True)
class Curve:
    """Attribution that an attack leaves an attacker who keeps at least a given quality.

    Attributes:
        knots: (quality, attribution) from (1, that without an attack) on; both never rise.
    """

    knots: tuple[tuple[float, float], ...]

    @classmethod
    def through(cls, settings: Sequence[tuple[float, float]], clean: float, *, graded: bool) -> Curve:
        """The lowest attribution at each quality, of the settings and what lies between them.

        Args:
            settings: (quality, attribution) of each setting; one without a finite quality is passed over.
            clean: attribution without an attack.
            graded: True when the attack has a strength, so that milder settings lie between those measured.
        """
        knots, lowest = [(1.0, clean)], clean
        for quality, left in sorted(((min(1.0, q), a) for q, a in settings if math.isfinite(q)), reverse=True):
            if not graded:
                knots.append((quality, lowest))
            lowest = min(lowest, left)
            knots.append((quality, lowest))
        return cls(tuple(knots))

    def at(self, quality: float) -> float:
        """Attribution left at a quality; below the lowest one measured, that of the strongest setting."""
        for (above, left), (below, then) in pairwise(self.knots):
            if below < quality:
                return left + (then - left) * (above - quality) / (above - below)
        return self.knots[-1][1]

    @property
    def covered(self) -> float:
        """Share of the range from no damage to the bound that the settings span."""
        return 1 - max(0.0, self.knots[-1][0])

    @property
    def area(self) -> float:
        """Mean attribution over all qualities from 1 to 0, by the trapezoid rule, cut at 0."""
        within = [knot for knot in self.knots if knot[0] >= 0] + [(0.0, self.at(0.0))]
        return sum((above - below) * (left + then) / 2 for (above, left), (below, then) in pairwise(within))


def attack_rows(board: Row, lines: Sequence[Row], bounds: Bounds) -> list[Row]:
    """Lines of ``robustness.csv`` of one scheme, one per attack, with ranks among the attacks on the same target.

    Args:
        board: the scheme's line of the leaderboard.
        lines: its lines of ``attacks.csv``.
        bounds: of the run.
    """
    found: list[Row] = []
    for target in TARGETS:
        own = [line for line in lines if line["target"] == target]
        names = dict.fromkeys(line["attack"] for line in own)
        rows = [_attack_row(board, [line for line in own if line["attack"] == name], bounds) for name in names]
        for column in ("area", *(f"attribution_{name}" for name in LEVELS)):
            _rank(rows, column)
        found += rows
    return found


def _attack_row(board: Row, lines: Sequence[Row], bounds: Bounds) -> Row:
    clean, unattacked = attribution(board["bit_accuracy"]), _number(board["paired_value"])
    settings = [(bounds.quality(line, unattacked), attribution(line["bit_accuracy"])) for line in lines]
    graded = not any(math.isnan(_number(line["strength"])) for line in lines)
    curve, measured = Curve.through(settings, clean, graded=graded), [q for q, _ in settings if math.isfinite(q)]
    able = [line for line in lines if line["within_bound"]]
    strongest = min(able, key=lambda line: line["bit_accuracy"], default=None)
    most = attribution(strongest["bit_accuracy"]) if strongest else math.nan
    reached = {name: graded and bool(measured) and min(measured) <= level for name, level in LEVELS.items()}
    first = lines[0]
    return {
        "scheme": board["scheme"],
        "target": first["target"],
        "category": first["category"],
        "attack": first["attack"],
        "settings": len(lines),
        "unattacked": clean,
        "area": curve.area if measured else math.nan,
        "covered": curve.covered if measured else math.nan,
        "worst": min(clean, most) if strongest else math.nan,
        "worst_strength": _number(strongest["strength"]) if strongest else math.nan,
        **{f"attribution_{name}": curve.at(level) if reached[name] else math.nan for name, level in LEVELS.items()},
    }


def _rank(rows: Sequence[Row], column: str) -> None:
    """Add the place of each row that has a value, the lowest first; equal values share a place."""
    values = [row[column] for row in rows if not math.isnan(row[column])]
    for row in rows:
        place = 1 + sum(value < row[column] for value in values)
        row[column.replace("attribution", "rank").replace("area", "rank")] = (
            math.nan if math.isnan(row[column]) else place
        )


def category_rows(rows: Sequence[Row]) -> list[Row]:
    """Lines of ``robustness_categories.csv``: means and worst cases over the attacks of each category."""
    keys = dict.fromkeys((row["scheme"], row["target"], row["category"]) for row in rows)
    return [
        _category_row([row for row in rows if (row["scheme"], row["target"], row["category"]) == key]) for key in keys
    ]


def _category_row(rows: Sequence[Row]) -> Row:
    able = [row for row in rows if not math.isnan(row["worst"])]
    strongest = min(able, key=lambda row: row["worst"], default=None)
    return {
        **{name: rows[0][name] for name in ("scheme", "target", "category")},
        "attacks": len(rows),
        "area": _mean(rows, "area"),
        "covered": _mean(rows, "covered"),
        "worst": strongest["worst"] if strongest else math.nan,
        "worst_attack": strongest["attack"] if strongest else "",
    }


def _mean(rows: Sequence[Row], column: str) -> float:
    known = [row[column] for row in rows if not math.isnan(row[column])]
    return fmean(known) if known else math.nan


def summary(rows: Sequence[Row], lines: Sequence[Row]) -> Row:
    """What the leaderboard says of one scheme: mean areas, and the fewest colluders caught within the bound.

    Args:
        rows: the scheme's lines of ``robustness.csv``.
        lines: its lines of ``attacks.csv``.
    """
    means = {target: _mean([row for row in rows if row["target"] == target], "area") for target in TARGETS}
    merged = [line["caught"] for line in lines if line["target"] == "coalition" and line["within_bound"]]
    return {
        "robustness_area": (means["content"] + means["model"]) / 2,
        **{f"robustness_area_{target}": value for target, value in means.items()},
        "robustness_coalition_worst": min(merged, default=math.nan),
    }


def mean_over_attacks(lines: Sequence[Row], column: str) -> float | None:
    """Mean over attacks of ``column``, each attack first averaged over its strengths; None when no attack ran."""
    attacks = dict.fromkeys(line["attack"] for line in lines)
    values = [fmean(line[column] for line in lines if line["attack"] == name) for name in attacks]
    return fmean(values) if values else None


def worst(lines: Sequence[Row], clean: float) -> float | None:
    """Lowest bit accuracy that an attack within the bound reaches; doing nothing is one, so never above ``clean``."""
    return min([clean, *(line["bit_accuracy"] for line in lines if line["within_bound"])]) if lines else None


def _number(value: Any) -> float:
    return math.nan if value is None or value == "" else float(value)
