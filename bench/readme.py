"""Tables of a run in a Markdown page: ``python -m bench.readme leaderboards/image/reference README.md``.

A page names its tables by comments with the modality, such as ``<!-- image leaderboard:begin -->`` and
``<!-- image leaderboard:end -->``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.printed import read_csv
from bench.protocol import UserError
from bench.report import SHOWN, Row, heading, markdown, short
from bench.results import replacing


def table(folder: Path) -> str:
    """The leaderboard of a results folder as Markdown, with the size of the run below it.

    Needs ``leaderboard.csv`` only.

    Raises:
        UserError: when the folder holds no leaderboard with a line.
    """
    lines = _board(folder)
    first = lines[0]
    heads = [heading(name, first) for name in SHOWN]
    rows = [[_cell(line, name) for name in SHOWN] for line in lines]
    size = (
        f"{first['modality']}, generator {first['generator']}, preset {first['preset']}: {first['users']} users × "
        f"{first['items']} items, identified among {first['identification_n']}, {first['negatives']} negatives, "
        f"version {first['version']}. Brackets: 95 % intervals, clustered by user."
    )
    return "\n".join([*markdown(heads, rows), "", size])


def attacks(folder: Path) -> str:
    """Every scheme, attack and strength of a results folder as Markdown.

    Raises:
        UserError: when the folder holds no leaderboard with a line, which names the paired metric.
    """
    lines, metric = read_csv(folder / "attacks.csv"), _board(folder)[0]["paired_metric"]
    columns = ["scheme", "attack", "target", "strength", "bit_accuracy", "identification", "caught", metric, "items"]
    heads = [SHOWN.get(name, name.replace("_", " ")) for name in columns]
    return "\n".join(markdown(heads, [[_cell(line, name) for name in columns] for line in lines]))


def _board(folder: Path) -> list[Row]:
    lines = read_csv(folder / "leaderboard.csv")
    if not lines:
        raise UserError(f"{folder / 'leaderboard.csv'}: expected at least one scheme, found none")
    return lines


def _cell(line: Row, name: str) -> str:
    low, high = line.get(f"{name}_lo"), line.get(f"{name}_hi")
    if low is None or high is None:
        return short(line[name])
    return f"{short(line[name])} [{low:.3g}, {high:.3g}]"


TABLES = {"leaderboard": table, "attacks": attacks}


def inserted(page: str, folder: Path) -> str:
    """``page`` with the tables that it names of a modality replaced by those of that modality's results folder.

    Raises:
        UserError: when the page names none, or one of them not by exactly one pair of comments.
    """
    modality = _board(folder)[0]["modality"]
    named = [name for name in TABLES if f"<!-- {modality} {name}:" in page]
    if not named:
        raise UserError(f"page: expected a comment such as <!-- {modality} {next(iter(TABLES))}:begin -->, found none")
    for name in named:
        begin, end = (f"<!-- {modality} {name}:{place} -->" for place in ("begin", "end"))
        if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
            raise UserError(f"page: expected one {begin} and one {end} after it, found another number or order")
        content = f"{begin}\n{TABLES[name](folder)}\n{end}"
        page = f"{page[: page.index(begin)]}{content}{page[page.index(end) + len(end) :]}"
    return page


def main(
    folder: Annotated[Path, typer.Argument(help="A results folder.")],
    page: Annotated[Path, typer.Argument(help="A Markdown page that names its tables.")] = Path("README.md"),
) -> None:
    """Write the tables of FOLDER into PAGE."""
    try:
        changed = inserted(page.read_text(encoding="utf-8"), folder)
        with replacing(page) as partial:
            partial.write_text(changed, encoding="utf-8")
    except (UserError, OSError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
