"""The commands that read a results folder: ``leaderboard``, ``report``, ``figures``, ``show``."""

from __future__ import annotations

from bench import printed
from bench.commands import Folder, Json, print_json
from bench.results import Results, read_info


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


def figures(folder: Folder, as_json: Json = False) -> None:
    """Draw the figures of a results folder again from its tables."""
    from bench.figures import draw

    read_info(folder)
    drawn = draw(folder)
    if as_json:
        print_json([str(path) for path in drawn])
    else:
        printed.paths(printed.console(), drawn)


def show(folder: Folder, as_json: Json = False) -> None:
    """Print the leaderboard of a results folder, and how it was made."""
    info = read_info(folder)
    if as_json:
        print_json(printed.summary(info, folder, []) | {"run": info})
    else:
        printed.board(printed.console(), info, folder)
        printed.facts(printed.console(), info)
