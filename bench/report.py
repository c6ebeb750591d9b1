"""How tables leave the program: CSV with fixed formatting, a Markdown page, JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.presets import Plan
from bench.results import replacing
from bench.robustness import LEVELS, TARGETS

Row = dict[str, Any]

SHOWN = {
    "rank": "rank",
    "scheme": "scheme",
    "bits": "bits",
    "bit_accuracy": "bit accuracy",
    "identification": "identified",
    "identification_5": "by 5 items",
    "capacity_users": "users at 95 %",
    "fpr_upper": "FPR ≤",
    "paired_value": "paired",
    "quality_delta": "quality change",
    "robustness_content": "content attacks",
    "robustness_model": "model attacks",
    "robustness_coalition": "caught colluders",
}
"""Columns of the table that a person reads, with their headings."""


def write_csv(lines: Sequence[Row], first: Sequence[str], path: Path) -> Path:
    """Write a table, atomically; floats with six significant digits, unknown values empty.

    Args:
        lines: one mapping per line.
        first: columns that are always there, in this order; the others follow as they appear.
        path: file to write.
    """
    columns = list(dict.fromkeys([*first, *(name for line in lines for name in line)]))
    rows = [columns, *([_cell(line.get(name)) for name in columns] for line in lines)]
    with replacing(path) as partial:
        partial.write_text("".join(",".join(map(_quoted, row)) + "\n" for row in rows), encoding="utf-8", newline="")
    return path


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text


def short(value: object) -> str:
    """A value as the printed tables show it: an em dash for what is not known, four digits for a float."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def heading(column: str, info: Mapping[str, Any]) -> str:
    """Heading of a column of :data:`SHOWN`, naming the run's own metrics."""
    named = {"paired_value": info["paired_metric"], "quality_delta": f"Δ {info['quality_metric']}"}
    return str(named.get(column, SHOWN[column]))


def for_json(value: Any) -> Any:
    """``value`` with what JSON cannot say (NaN, infinity) as null, at any depth."""
    if isinstance(value, Mapping):
        return {key: for_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [for_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_report(
    folder: Path,
    info: Mapping[str, Any],
    board: Sequence[Row],
    attacked: Sequence[Row],
    robust: tuple[Sequence[Row], Sequence[Row]],
) -> Path:
    """Write ``report.md``: the leaderboard, the strongest attacks, robustness, and the check of the null hypothesis.

    Args:
        folder: of the run.
        info: what its ``run.json`` holds.
        board: lines of the leaderboard.
        attacked: lines of ``attacks.csv``.
        robust: lines of ``robustness.csv`` and of ``robustness_categories.csv``.
    """
    plan, path = Plan.from_dict(info["plan"]), folder / "report.md"
    lines = [
        f"# Leaderboard: {info['modality']}, {info['generator']}, preset {plan.name}",
        "",
        f"{plan.users} users with {plan.items} items each, {plan.registered} registered, false positives at most "
        f"{plan.fpr:g} over all of them, seed {plan.seed}, version {info['version']}. Intervals (95 %, by user) are in "
        "`leaderboard.csv` and `attacks.csv`.",
        "",
        *markdown([heading(name, info) for name in SHOWN], [[short(line[name]) for name in SHOWN] for line in board]),
        *_strongest(board, attacked),
        *_robustness_section(*robust),
        *_null_section(board),
    ]
    with replacing(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _strongest(board: Sequence[Row], attacked: Sequence[Row], count: int = 3) -> list[str]:
    """The attacks that cost each scheme most while they stay within the bound on quality."""
    rows: list[list[str]] = []
    for line in board:
        own = [each for each in attacked if each["scheme"] == line["scheme"] and each["target"] != "framing"]
        able = [each for each in own if each["within_bound"]]
        for each in sorted(able, key=lambda each: each["bit_accuracy"])[:count]:
            known = not math.isnan(each["strength"])
            name = f"{each['attack']} ({short(each['strength'])} {each['unit']})" if known else each["attack"]
            rows.append([line["scheme"], name, short(each["bit_accuracy"]), short(each["identification"])])
    if not rows:
        return []
    title = "## Strongest attacks that stay within the quality bound"
    return ["", title, "", *markdown(["scheme", "attack", "bit accuracy", "identified"], rows)]


def _robustness_section(by_attack: Sequence[Row], by_category: Sequence[Row]) -> list[str]:
    """Areas and worst cases by category, and every attack at equal quality, the most harmful of each target first."""
    if not by_attack:
        return []
    text = (
        "Attribution is bit accuracy from chance (0) to all bits right (1), quality 1 without an attack and 0 at the "
        "bound. *Area* is the mean attribution over that range for an attacker who picks the worst setting that keeps "
        "a quality; *covered* the share of the range that the settings span; *worst* the lowest attribution within the "
        "bound. In brackets: rank among the attacks on the same target at that quality; – where no setting reaches it."
    )
    shared = [
        [*(str(row[name]) for name in ("scheme", "target", "category", "attacks"))]
        + [short(row[name]) for name in ("area", "covered", "worst", "worst_attack")]
        for row in by_category
    ]
    order = sorted(by_attack, key=lambda row: (row["scheme"], TARGETS.index(row["target"]), _last(row["rank"])))
    each = [
        [
            *(str(row[name]) for name in ("scheme", "attack", "target")),
            *(short(row[name]) for name in ("area", "covered", "worst")),
            *(_placed(row, level) for level in LEVELS),
        ]
        for row in order
    ]
    levels = [f"at {level:g}" if level else "at the bound" for level in LEVELS.values()]
    return [
        *("", "## Robustness at equal quality", "", text, "", "![by category](figures/robustness_map.png)", ""),
        *markdown(["scheme", "target", "category", "attacks", "area", "covered", "worst", "by"], shared),
        *("", *markdown(["scheme", "attack", "target", "area", "covered", "worst", *levels], each)),
    ]


def _last(place: float) -> float:
    return math.inf if math.isnan(place) else place


def _placed(row: Row, level: str) -> str:
    value, place = row[f"attribution_{level}"], row[f"rank_{level}"]
    return short(value) if math.isnan(value) else f"{short(value)} ({place})"


def _null_section(board: Sequence[Row]) -> list[str]:
    heads = ["scheme", "negatives", "false positives", "upper 95 %", "largest bit bias", "expected", "mean correlation"]
    names = ("negatives", "fpr", "fpr_upper", "null_max_abs_bias", "null_max_abs_bias_expected")
    rows = [
        [str(line["scheme"]), *(short(line[name]) for name in (*names, "null_mean_abs_correlation"))] for line in board
    ]
    text = "Unfingerprinted and real content, read like everything else; *expected* is what fair independent bits show."
    return ["", "## Check of the null hypothesis", "", text, "", *markdown(heads, rows)]


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]
