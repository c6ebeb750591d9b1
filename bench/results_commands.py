"""The commands that read a results folder: ``leaderboard``, ``report``, ``figures``, ``join``, ``show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench import printed
from bench.commands import Folder, Json, print_json
from bench.protocol import UserError
from bench.results import Results, read_info

COMMITTED = ("reference", "all", "comparison", "comparison-equal", "comparison-held", "comparison-recipes")
"""Folders of each modality that belong to the repository."""


def leaderboard(folder: Folder, as_json: Json = False) -> None:
    """Compute the tables of a results folder again from its cells."""
    from bench.leaderboard import write_tables

    results = Results.load(folder)
    written = write_tables(results)
    if as_json:
        print_json(printed.summary(results.info, folder, []))
    else:
        printed.board(printed.console(), results.info, folder)
        printed.paths(printed.console(), written)


def report(folder: Folder, as_json: Json = False) -> None:
    """Write robustness, report and figures of a results folder again from its tables; rows are not needed."""
    from bench.derived import derive
    from bench.figures import draw

    written = [*derive(folder), *draw(folder)]
    if as_json:
        print_json([str(path) for path in written])
    else:
        printed.paths(printed.console(), written)


def figures(
    folder: Annotated[Path | None, typer.Argument(help="A results folder; default every committed one.")] = None,
    as_json: Json = False,
) -> None:
    """Draw the figures of a results folder, or of a comparison, again from its tables."""
    drawn = [path for each in ([folder] if folder else _committed()) for path in _drawn_again(each)]
    if as_json:
        print_json([str(path) for path in drawn])
    else:
        printed.paths(printed.console(), drawn)


def _committed() -> list[Path]:
    """Results folders that belong to the repository.

    Raises:
        UserError: when there is none here.
    """
    root = Path("leaderboards")
    found = [path for name in COMMITTED for path in sorted(root.glob(f"*/{name}"))]
    if not found:
        raise UserError(f"{root}: expected one of {', '.join(COMMITTED)} below a modality, found none")
    return found


def _drawn_again(folder: Path) -> list[Path]:
    if (folder / "compare.json").is_file():
        from bench.compare_figures import draw_comparison

        return draw_comparison(folder)
    read_info(folder)
    from bench.figures import draw

    return draw(folder)


def join(
    folders: Annotated[list[Path], typer.Argument(help="Results folders of runs that differ in their schemes only.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables of all; may be the first of them.")],
    as_json: Json = False,
) -> None:
    """Put the schemes of several runs on one leaderboard; nothing is measured again."""
    from bench.figures import draw
    from bench.join import join as joined

    written = [*joined(folders, out), *draw(out)]
    if as_json:
        print_json(printed.summary(read_info(out), out, written))
    else:
        printed.board(printed.console(), read_info(out), out)
        printed.paths(printed.console(), written)


def show(folder: Folder, as_json: Json = False) -> None:
    """Print the leaderboard of a results folder, and how it was made."""
    info = read_info(folder)
    if as_json:
        print_json(printed.summary(info, folder, []) | {"run": info})
    else:
        printed.board(printed.console(), info, folder)
        printed.facts(printed.console(), info)
