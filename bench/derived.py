"""What follows from the tables of a results folder without its cells: robustness, and the report for people."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.attack_pages import category_of
from bench.columns import CATEGORIES, LEADERBOARD, ROBUSTNESS
from bench.folders import replacing
from bench.printed import read_csv, read_letters
from bench.report import SHOWN as BOARD
from bench.report import Row, heading, markdown, short, write_csv
from bench.results import read_info
from bench.robustness import LEVELS, SHARES, Bounds, attack_lines, category_lines, scheme_columns, setting

MOST = 10
"""Attacks of each scheme and target that the report ranks; ``robustness.csv`` has all."""
TOLD = (
    "Quality is 1 as without an attack and 0 at the bound: {bounds}. *Area* is the mean bit accuracy (chance 0.5) over "
    "that range, of an attacker who takes the best measured strength for each quality; *worst case* the lowest one "
    "within the bound. `docs/statistics.md` has the definitions, `robustness.csv` every attack, "
    "`robustness_categories.csv` the numbers of the figure."
)


def derive(folder: Path) -> list[Path]:
    """Add the robustness columns to ``leaderboard.csv``; write the tables of robustness and ``report.md``.

    Reads ``run.json``, ``leaderboard.csv`` and ``attacks.csv`` only, so a folder without rows will do, and a second
    time changes nothing.

    Returns:
        The files written.

    Raises:
        UserError: when one of them is missing.
    """
    info, attacked = read_info(folder), read_csv(folder / "attacks.csv")
    board, bounds = read_csv(folder / "leaderboard.csv"), Bounds.of(info)
    categories = {name: category_of(name, info["modality"]) for name in {line["attack"] for line in attacked}}
    by_attack, by_category, columns = list[Row](), list[Row](), list[Row]()
    for clean in board:
        own = [line for line in attacked if line["scheme"] == clean["scheme"]]
        by_attack += attack_lines(own, clean, bounds, categories)
        by_category += category_lines(own, clean, bounds, categories)
        columns.append(scheme_columns(own, clean, bounds))
    return [
        _widened(folder / "leaderboard.csv", columns),
        write_csv(by_attack, ROBUSTNESS, folder / "robustness.csv"),
        write_csv(by_category, CATEGORIES, folder / "robustness_categories.csv"),
        write_report(folder, board, by_attack, by_category),
    ]


def _widened(path: Path, columns: Sequence[Row]) -> Path:
    """The table with more columns; what it held stays as it stood, letter by letter."""
    return write_csv([line | more for line, more in zip(read_letters(path), columns, strict=True)], LEADERBOARD, path)


def write_report(folder: Path, board: Sequence[Row], by_attack: Sequence[Row], by_category: Sequence[Row]) -> Path:
    """Write ``report.md``: the leaderboard, robustness, and the check of the null hypothesis.

    Args:
        folder: results folder, with ``run.json``.
        board: lines of ``leaderboard.csv``.
        by_attack: lines of ``robustness.csv``.
        by_category: lines of ``robustness_categories.csv``.
    """
    info, path = read_info(folder), folder / "report.md"
    plan = info["plan"]
    lines = [
        f"# Leaderboard: {info['modality']}, {info['generator']}, preset {plan['name']}",
        "",
        f"{plan['users']} users with {plan['items']} items each, {plan['registered']} registered, false positives at "
        f"most {plan['fpr']:g} over all of them, seed {plan['seed']}, version {info['version']}. Intervals (95 %, by "
        "user) are in `leaderboard.csv` and `attacks.csv`.",
        "",
        *markdown([heading(name, info) for name in BOARD], [[short(line[name]) for name in BOARD] for line in board]),
        *(_robustness(info, by_attack, by_category) if by_attack else []),
        *_null_section(board),
    ]
    with replacing(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _robustness(info: Mapping[str, Any], by_attack: Sequence[Row], by_category: Sequence[Row]) -> list[str]:
    plan, metric = info["plan"], info["paired_metric"]
    unit = "" if metric in SHARES else " dB"
    bounds = (
        f"{metric} {short(plan['content_bound'])}{unit} to unattacked content; for decoders {metric} "
        f"{short(plan['model_bound'])}{unit} to the public decoder's output, and {100 * plan['model_quality_bound']:g} "
        f"% more {info['quality_metric']}"
    )
    summary = [line for line in by_category if line["category"] == "all"]
    return [
        *("", "## Robustness", "", TOLD.format(bounds=bounds), ""),
        *markdown(list(SUMMARY), [[show(line) for show in SUMMARY.values()] for line in summary]),
        *("", "![area and worst case by category](figures/robustness_categories.svg)", ""),
        *_matrix(by_category),
        *_ranking(by_attack),
    ]


def _with_interval(line: Row, name: str) -> str:
    low, high = line.get(f"{name}_lo"), line.get(f"{name}_hi")
    known = short(low) != "–" and short(high) != "–"
    return f"{short(line.get(name))} [{low:.3g}, {high:.3g}]" if known else short(line.get(name))


SUMMARY: dict[str, Callable[[Row], str]] = {
    "scheme": lambda line: str(line["scheme"]),
    "target": lambda line: str(line["target"]),
    "attacks": lambda line: f"{line['usable']} of {line['attacks']}",
    "area": lambda line: _with_interval(line, "bit_accuracy_auc"),
    "area, identified": lambda line: _with_interval(line, "identification_auc"),
    "worst case": lambda line: setting(line) or "–",
    "quality": lambda line: short(line.get("worst_quality")),
    "bit accuracy": lambda line: _with_interval(line, "worst_bit_accuracy"),
    "identified": lambda line: _with_interval(line, "worst_identification"),
}
"""Columns of the first table, by heading; *attacks* counts those with a strength within the bound."""


def _matrix(lines: Sequence[Row]) -> list[str]:
    """Area and worst case, a line for each category and a column for each scheme."""
    schemes = list(dict.fromkeys(line["scheme"] for line in lines))
    places = list(dict.fromkeys((line["target"], line["category"]) for line in lines))
    cells = {
        (line["target"], line["category"], line["scheme"]): f"{short(line.get('bit_accuracy_auc'))} / "
        f"{short(line.get('worst_bit_accuracy'))}"
        for line in lines
    }
    rows = [[*place, *(cells.get((*place, scheme), "–") for scheme in schemes)] for place in places]
    return markdown(["target", "category: area / worst case", *schemes], rows)


def _ranking(lines: Sequence[Row]) -> list[str]:
    """The attacks that do most damage at the middle quality, then those that never get down to it."""
    middle = f"rank_at_{100 * LEVELS[1]:g}"
    rows: list[list[str]] = []
    for scheme, target in dict.fromkeys((line["scheme"], line["target"]) for line in lines):
        own = [line for line in lines if (line["scheme"], line["target"]) == (scheme, target)]
        ranked = sorted((line for line in own if line[middle]), key=lambda line: int(line[middle]))
        others = [line for line in own if not line[middle] and line["usable"]]
        others.sort(key=lambda line: float(line["bit_accuracy_auc"]))
        for line in (*ranked[:MOST], *others[:MOST]):
            numbers = [f"{line['bit_accuracy_auc']:.3f}" if line["usable"] else "–"]
            numbers += [_damage(line, level) for level in LEVELS]
            reach = f"{line['quality_mildest']:.2f} to {line['quality_strongest']:.2f}"
            rows.append([scheme, target, str(line[middle] or "–"), line["attack"], *numbers, reach])
    heads = ["scheme", "target", "rank", "attack", "area", *(f"damage at quality {level:g}" for level in LEVELS)]
    text = (
        "Damage is the loss of bit accuracy, linear between measured strengths; ≈ marks qualities above that of the "
        "mildest one, where the other end is no attack. *Not reached*: no strength gets down to that quality; nothing "
        f"is extrapolated. Up to {MOST} attacks of each target, ranked at quality {LEVELS[1]:g}, and as many of those "
        "without a rank."
    )
    return ["", "### Attacks at equal quality", "", text, "", *markdown([*heads, "qualities measured"], rows)]


def _damage(line: Row, level: float) -> str:
    damage = line[f"damage_at_{100 * level:g}"]
    if math.isnan(damage):
        return "one strength" if line["strengths"] == 1 else "not reached"
    return f"≈ {damage:.3f}" if level > line["quality_mildest"] else f"{damage:.3f}"


def _null_section(board: Sequence[Row]) -> list[str]:
    heads = ["scheme", "negatives", "false positives", "upper 95 %", "largest bit bias", "expected", "mean correlation"]
    names = ("negatives", "fpr", "fpr_upper", "null_max_abs_bias", "null_max_abs_bias_expected")
    rows = [[line["scheme"], *(short(line[name]) for name in (*names, "null_mean_abs_correlation"))] for line in board]
    text = "Unfingerprinted and real content, read like everything else; *expected* is what fair independent bits show."
    return ["", "## Check of the null hypothesis", "", text, "", *markdown(heads, rows)]
