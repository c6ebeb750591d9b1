"""Tables and the report that follow from ``leaderboard.csv`` and ``attacks.csv`` alone."""

from __future__ import annotations

import math
from pathlib import Path

from bench.categories import OTHER, listed
from bench.columns import ATTACKS, CATEGORIES, LEADERBOARD, ROBUSTNESS
from bench.presets import Plan
from bench.printed import read_csv
from bench.report import Row, write_csv, write_report
from bench.results import read_info
from bench.robustness import Bounds, attack_rows, category_rows, summary


def derive(folder: Path) -> list[Path]:
    """Write the robustness tables, ``report.md``, and what robustness adds to the two tables themselves.

    It reads the tables and not the rows, so that a run whose rows are not kept gets the same bytes. Attacks of a run
    that did not write their categories down get those of the phone book.

    Raises:
        UserError: when ``folder`` lacks ``run.json`` or a table.
    """
    info = read_info(folder)
    bounds = Bounds.of(Plan.from_dict(info["plan"]), info["paired_metric"])
    board, attacked = (_lines(folder / name) for name in ("leaderboard.csv", "attacks.csv"))
    known = info["categories"] if "categories" in info else listed(info["modality"])
    attacked = [line | {"category": known.get(line["attack"], OTHER)} for line in attacked]
    by_attack: list[Row] = []
    for line in board:
        own = [each for each in attacked if each["scheme"] == line["scheme"]]
        rows = attack_rows(line, own, bounds)
        line.update(summary(rows, own))
        by_attack += rows
    by_category = category_rows(by_attack)
    return [
        write_csv(board, LEADERBOARD, folder / "leaderboard.csv"),
        write_csv(attacked, ATTACKS, folder / "attacks.csv"),
        write_csv(by_attack, ROBUSTNESS, folder / "robustness.csv"),
        write_csv(by_category, CATEGORIES, folder / "robustness_categories.csv"),
        write_report(folder, info, board, attacked, (by_attack, by_category)),
    ]


def _lines(path: Path) -> list[Row]:
    """Lines of a table, with NaN for what is empty."""
    return [{name: math.nan if value is None else value for name, value in line.items()} for line in read_csv(path)]
