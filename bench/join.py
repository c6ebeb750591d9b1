"""A leaderboard grows: the schemes of runs with the same settings in one folder of tables, none measured again."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.columns import ATTACKS, CAPACITY, LEADERBOARD
from bench.derived import derive
from bench.leaderboard import ranked
from bench.printed import read_letters
from bench.protocol import UserError
from bench.report import Row, write_csv
from bench.results import read_info, write_json

SAME = (
    "version",
    "modality",
    "generator",
    "quality_metric",
    "paired_metric",
    "kernel_metric",
    "preset",
    "seed",
)
"""Facts of ``run.json`` in which runs that are joined have to agree, beside plan and attacks."""
FREE = ("device", "batch")
"""Numbers of a plan that change no result beyond rounding."""
OWN = ("git", "versions", "device", "seconds")
"""Facts that each of the runs keeps, under ``joined``."""
APART = 1e-3
"""Largest relative difference of the unmarked content's Fréchet distance: the same generator on two processors."""


def join(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write the tables of all schemes of ``folders`` into ``out``, ranked together.

    Reads ``run.json``, ``leaderboard.csv``, ``attacks.csv`` and ``capacity.csv``, so folders without rows will do.
    Every number stays as it stands there, since no scheme's depends on which others ran.

    Args:
        folders: finished runs; the first may be ``out`` itself.
        out: folder of tables, made when missing.

    Returns:
        The tables written.

    Raises:
        UserError: when runs differ in more than their schemes, a scheme is in two of them, or ``out`` holds rows.
    """
    infos = [_finished(folder) for folder in folders]
    for folder, info in zip(folders[1:], infos[1:], strict=True):
        _check_same(infos[0], info, folder)
    boards, attacks, capacity = (
        [read_letters(folder / f"{name}.csv") for folder in folders] for name in ("leaderboard", "attacks", "capacity")
    )
    _check_content(boards, folders)
    if (out / "rows.parquet").exists() or (out / "cells").exists():
        raise UserError(f"{out}: expected a folder of tables only, found the rows of a run; choose another with --out")
    out.mkdir(parents=True, exist_ok=True)
    board = ranked(line for each in boards for line in each)
    tables = [
        write_csv(board, LEADERBOARD, out / "leaderboard.csv"),
        write_csv([line for each in attacks for line in each], ATTACKS, out / "attacks.csv"),
        write_csv([line for each in capacity for line in each], CAPACITY, out / "capacity.csv"),
    ]
    write_json(_together(infos), out / "run.json")
    _copy_sheets(folders, out)
    return [*tables, *derive(out)]


def _finished(folder: Path) -> dict[str, Any]:
    info = read_info(folder)
    if not info["finished"]:
        raise UserError(f"{folder}: expected a finished run, found one that was stopped; the same command finishes it")
    return info


def _check_same(first: dict[str, Any], other: dict[str, Any], folder: Path) -> None:
    """Refuse runs that are not of one board."""
    pairs = {name: (first.get(name), other.get(name)) for name in SAME}
    plans = [{name: value for name, value in info["plan"].items() if name not in FREE} for info in (first, other)]
    pairs |= {f"plan: {name}": (plans[0].get(name), plans[1].get(name)) for name in plans[0] | plans[1]}
    for name, (expected, found) in pairs.items():
        if expected != found:
            raise UserError(f"{folder}: expected {name} {expected!r} as in the first run, found {found!r}")
    if changed := sorted(set(first["attacks"]) ^ set(other["attacks"])):
        raise UserError(f"{folder}: expected the same attacks as in the first run, these differ: {', '.join(changed)}")


def _check_content(boards: Sequence[Sequence[Row]], folders: Sequence[Path]) -> None:
    """Refuse a scheme that is there twice, and runs of which one has another generator by the same name."""
    seen: dict[str, Path] = {}
    for lines, folder in zip(boards, folders, strict=True):
        for line in lines:
            if line["scheme"] in seen:
                raise UserError(
                    f"scheme {line['scheme']!r}: expected it in one run, found it in {seen[line['scheme']]} too"
                )
            seen[line["scheme"]] = folder
            found, expected = (float(each["quality_original"] or "nan") for each in (line, boards[0][0]))
            if abs(found - expected) > APART * abs(expected):
                raise UserError(
                    f"{folder}: expected {line['quality_metric']} {expected:g} of unmarked content as in the first "
                    f"run, found {found:g}: another generator, or other features"
                )


def _together(infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """``run.json`` of all schemes; how each run was made stands under ``joined``."""
    parts = [part for info in infos for part in info.get("joined", [_own(info)])]
    schemes = {name: about for info in infos for name, about in info["schemes"].items()}
    cells = [key for info in infos for key in info["cells"]]
    stages = {name for part in parts for name in part["seconds"]}
    seconds = {name: math.fsum(part["seconds"].get(name, 0.0) for part in parts) for name in sorted(stages)}
    return infos[0] | {"schemes": schemes, "cells": cells, "seconds": seconds, "joined": parts}


def _own(info: dict[str, Any]) -> dict[str, Any]:
    return {"schemes": list(info["schemes"])} | {name: info[name] for name in OWN}


def _copy_sheets(folders: Sequence[Path], out: Path) -> None:
    """The pictures that only a run can draw."""
    (out / "figures").mkdir(exist_ok=True)
    for folder in folders:
        if folder.resolve() != out.resolve():
            for sheet in sorted((folder / "figures").glob("sheet_*.png")):
                shutil.copyfile(sheet, out / "figures" / sheet.name)
