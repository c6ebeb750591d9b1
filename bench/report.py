"""How tables leave the program: CSV with fixed formatting, Markdown, JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.folders import replacing

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


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]
