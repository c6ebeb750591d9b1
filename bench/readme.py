"""The leaderboard in a Markdown page: ``python -m bench.readme leaderboards/image/reference README.md``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from bench.printed import read_csv
from bench.protocol import UserError
from bench.report import SHOWN, Row, heading, short
from bench.results import replacing

BEGIN, END = "<!-- leaderboard:begin -->", "<!-- leaderboard:end -->"


def table(folder: Path) -> str:
    """The leaderboard of a results folder as Markdown, with the size of the run below it.

    Needs ``leaderboard.csv`` only.

    Raises:
        UserError: when the folder holds no leaderboard with a line.
    """
    lines = read_csv(folder / "leaderboard.csv")
    if not lines:
        raise UserError(f"{folder / 'leaderboard.csv'}: expected at least one scheme, found none")
    first = lines[0]
    heads = [heading(name, first) for name in SHOWN]
    rows = [heads, ["---"] * len(heads), *([_cell(line, name) for name in SHOWN] for line in lines)]
    size = (
        f"{first['modality']}, generator {first['generator']}, preset {first['preset']}: {first['users']} users × "
        f"{first['items']} items, identified among {first['identification_n']}, {first['negatives']} negatives, "
        f"version {first['version']}. Brackets: 95 % intervals, clustered by user."
    )
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", size])


def _cell(line: Row, name: str) -> str:
    low, high = line.get(f"{name}_lo"), line.get(f"{name}_hi")
    if low is None or high is None:
        return short(line[name])
    return f"{short(line[name])} [{low:.3g}, {high:.3g}]"


def inserted(page: str, content: str) -> str:
    """``page`` with everything between the two markers replaced.

    Raises:
        UserError: when the page has not exactly one pair of markers.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise UserError(f"page: expected one {BEGIN} and one {END} after it, found another number or order")
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{content}\n{END}", page, flags=re.DOTALL)


def main(
    folder: Annotated[Path, typer.Argument(help="A results folder.")],
    page: Annotated[Path, typer.Argument(help="A Markdown page with the two markers.")] = Path("README.md"),
) -> None:
    """Write the leaderboard of FOLDER between the markers of PAGE."""
    try:
        changed = inserted(page.read_text(encoding="utf-8"), table(folder))
        with replacing(page) as partial:
            partial.write_text(changed, encoding="utf-8")
    except (UserError, OSError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
