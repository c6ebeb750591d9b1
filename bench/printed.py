"""What the commands print at the end: tables for people, and the same facts for machines."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from bench.inspection import Entry
from bench.protocol import UserError
from bench.report import SHOWN, Row, heading, short

FILES = (
    *("leaderboard.csv", "attacks.csv", "capacity.csv", "robustness.csv", "robustness_categories.csv"),
    *("rows.parquet", "run.json", "report.md"),
)
BRIEF = {
    "attacks": ["name", "modality", "target", "strengths", "unit", "source", "available"],
    "presets": ["name", "users", "items", "model_users", "coalitions", "full_grid", "only"],
}
WIDTH = 160


def read_csv(path: Path) -> list[Row]:
    """Lines of one of our tables, with numbers as numbers and None for what is empty.

    Raises:
        UserError: when the file is not there.
    """
    return [{name: _value(text) for name, text in line.items()} for line in read_letters(path)]


def read_letters(path: Path) -> list[dict[str, str]]:
    """The same lines letter by letter, for a table that is written again with more in it.

    Raises:
        UserError: when the file is not there.
    """
    if not path.is_file():
        raise UserError(f"{path}: expected a table of a finished run, found none")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _value(text: str) -> Any:
    if text in ("", "True", "False"):
        return {"": None, "True": True, "False": False}[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def console() -> Console:
    """Standard output, as wide as the terminal; wide enough for our tables where there is none."""
    made = Console()
    return made if made.is_terminal else Console(width=WIDTH)


def board(to: Console, info: Mapping[str, Any], folder: Path) -> None:
    """Print the leaderboard of a results folder, turned on its side where the terminal is too narrow for it."""
    lines = read_csv(folder / "leaderboard.csv")
    state = "" if info["finished"] else " (not finished)"
    title = f"{info['modality']}, {info['generator']}, preset {info['preset']}{state}"
    heads = [heading(name, info) for name in SHOWN]
    cells = [[_with_interval(line, name) for name in SHOWN] for line in lines]
    wide = _table(title, heads, cells)
    fits = Measurement.get(to, to.options.update(width=10_000), wide).maximum <= to.width
    to.print(wide if fits else _table(title, [""] * (1 + len(lines)), list(zip(heads, *cells, strict=True))))


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=any(heads))
    for index, head in enumerate(heads):
        table.add_column(head, justify="left" if index == 0 or head == "scheme" else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _with_interval(line: Row, name: str) -> str:
    low, high = line.get(f"{name}_lo"), line.get(f"{name}_hi")
    if low is None or high is None:
        return short(line[name])
    return f"{short(line[name])}\n{low:.3g}…{high:.3g}"


def traces(to: Console, rows: Sequence[Sequence[str]]) -> None:
    """Print who is named by each file."""
    to.print(_table("", ["file", "made by", "bits that match", "nearest user", "by chance"], rows))


def tree(to: Console, title: str, entries: Sequence[Entry]) -> None:
    """Print the modules of a decoder, each below the one that holds it."""
    rows = [
        [
            "  " * (entry.depth - 1) + entry.path.rpartition(".")[2],
            entry.kind,
            "×".join(map(str, entry.shape)),
            f"{entry.parameters:,}",
            entry.state,
        ]
        for entry in entries
    ]
    to.print(_table(title, ["module", "kind", "weight", "parameters", "fingerprint"], rows))


def stages(to: Console, info: Mapping[str, Any]) -> None:
    """Print where the time went."""
    told = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in info["seconds"].items())
    to.print(told, markup=False, highlight=False, soft_wrap=True)


def facts(to: Console, info: Mapping[str, Any]) -> None:
    """Print how a run was made."""
    git, versions = info["git"], ", ".join(f"{name} {found}" for name, found in info["versions"].items() if found)
    dirty = " with changes" if git["dirty"] else ""
    lines = {
        "plan": ", ".join(f"{name} {value}" for name, value in info["plan"].items()),
        "schemes": ", ".join(f"{name} ({about['bits']} bits)" for name, about in info["schemes"].items()),
        "attacks": ", ".join(info["attacks"]) or "none",
        "code": f"version {info['version']}, commit {git['commit']}{dirty}",
        "libraries": versions,
        "device": info["device"],
    }
    for name, text in lines.items():
        to.print(f"{name}: {text}", markup=False, highlight=False, soft_wrap=True)
    if info["finished"]:
        stages(to, info)


def listing(to: Console, kind: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Print a list of objects as a table; of presets, what tells them apart."""
    heads = BRIEF.get(kind) or list(entries[0] if entries else ())
    to.print(_table(kind, heads, [[_plain(entry[name]) for name in heads] for entry in entries]))


def _plain(value: object) -> str:
    return ", ".join(map(short, value)) if isinstance(value, tuple | list) else short(value)


def tables(folder: Path) -> list[Path]:
    """Files of a results folder beside its figures and cells."""
    return [folder / name for name in FILES if (folder / name).is_file()]


def paths(to: Console, written: Iterable[Path]) -> None:
    """Print what was written, one path per line."""
    for path in written:
        to.print(str(path), markup=False, highlight=False, soft_wrap=True)


def summary(info: Mapping[str, Any], folder: Path, drawn: Sequence[Path]) -> Row:
    """The outcome of a run for machines."""
    return {
        "folder": str(folder),
        "finished": info["finished"],
        "leaderboard": read_csv(folder / "leaderboard.csv"),
        "files": [str(path) for path in [*tables(folder), *drawn]],
        "seconds": info.get("seconds"),
    }
