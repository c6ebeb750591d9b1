"""How tables leave the program: CSV with fixed formatting, a Markdown page, JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.calibration import NullCheck
from bench.results import Results, replacing

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
    results: Results, board: Sequence[Row], attacked: Sequence[Row], nulls: Mapping[str, NullCheck]
) -> Path:
    """Write ``report.md``: the leaderboard, the strongest attacks, and the check of the null hypothesis."""
    info, plan = results.info, results.plan
    path = results.folder / "report.md"
    lines = [
        f"# Leaderboard: {info['modality']}, {info['generator']}, preset {plan.name}",
        "",
        f"{plan.users} users with {plan.items} items each, {plan.registered} registered, false positives at most "
        f"{plan.fpr:g} over all of them, seed {plan.seed}, version {info['version']}. Intervals (95 %, by user) are in "
        "`leaderboard.csv` and `attacks.csv`.",
        "",
        *markdown([heading(name, info) for name in SHOWN], [[short(line[name]) for name in SHOWN] for line in board]),
        *_strongest(board, attacked),
        *_null_section(nulls),
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


def _null_section(nulls: Mapping[str, NullCheck]) -> list[str]:
    heads = ["scheme", "negatives", "false positives", "upper 95 %", "largest bit bias", "expected", "mean correlation"]
    rows = [
        [scheme]
        + [short(value) for value in (null.n, null.empirical_fpr, null.fpr_upper, null.max_abs_bias)]
        + [short(null.max_abs_bias_expected), short(null.mean_abs_correlation)]
        for scheme, null in nulls.items()
    ]
    text = "Unfingerprinted and real content, read like everything else; *expected* is what fair independent bits show."
    return ["", "## Check of the null hypothesis", "", text, "", *markdown(heads, rows)]


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]
