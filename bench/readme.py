"""Tables of a run in a Markdown page: ``python -m bench.readme leaderboards/image/reference README.md``.

A page names its tables by comments with the modality, such as ``<!-- image leaderboard:begin -->`` and
``<!-- image leaderboard:end -->``. ``python -m bench.readme leaderboards`` writes the one that sets modalities side by
side, between ``<!-- modalities:begin -->`` and ``<!-- modalities:end -->``; ``leaderboards/image/comparison`` fills
``<!-- image comparison:begin -->``.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer

from bench.compare_tables import LOSSES, about
from bench.folders import replacing
from bench.printed import read_csv
from bench.protocol import UserError
from bench.report import SHOWN, Row, heading, markdown, short


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
    """Every attack and strength of a results folder, a column of bit accuracies for each scheme, as Markdown.

    Of coalitions the cell also says which share was caught. The paired metric is that of the first scheme.

    Raises:
        UserError: when the folder holds no leaderboard with a line, which names the paired metric.
    """
    lines, board = read_csv(folder / "attacks.csv"), _board(folder)
    schemes, metric = [line["scheme"] for line in board], board[0]["paired_metric"]
    by_place = {(line["attack"], line["target"], line["strength"], line["scheme"]): line for line in lines}
    rows = []
    for place in dict.fromkeys(key[:3] for key in by_place):
        own = [by_place.get((*place, scheme), {}) for scheme in schemes]
        rows.append([*map(short, place), *map(_read, own), short(own[0].get(metric)), short(own[0].get("items"))])
    heads = ["attack", "target", "strength", *schemes, metric, "items"]
    return "\n".join(markdown(heads, rows))


def _read(line: Row) -> str:
    """Bit accuracy under an attack, and who of a coalition was caught."""
    if not line:
        return "–"
    caught = f", caught {short(line['caught'])}" if line["target"] == "coalition" else ""
    return _cell(line, "bit_accuracy") + caught


def side_by_side(root: Path) -> str:
    """One scheme in every modality's reference run below ``root``, one column each, as Markdown.

    Of those that all of them have, the one that reads most bits, mean over modalities.

    Raises:
        UserError: when there is no such run, or no such scheme.
    """
    runs = {path.parent.parent.name: path.parent for path in sorted(root.glob("*/reference/leaderboard.csv"))}
    if not runs:
        raise UserError(f"{root}: expected folders such as image/reference with a leaderboard, found none")
    boards = [{line["scheme"]: line for line in _board(folder)} for folder in runs.values()]
    shared = [scheme for scheme in boards[0] if all(scheme in board for board in boards)]
    if not shared:
        raise UserError(f"{root}: expected a scheme that all of {', '.join(runs)} have, found none")
    best = max(shared, key=lambda scheme: fmean(board[scheme]["bit_accuracy"] for board in boards))
    tables = [read_csv(folder / "attacks.csv") for folder in runs.values()]
    columns = [_column(board[best], table) for board, table in zip(boards, tables, strict=True)]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    return "\n".join(markdown(["", *runs], rows))


def comparison(folder: Path) -> str:
    """Who was compared and what is left of the bits where decoders' weights are noisy, one line each, as Markdown.

    Where noise costs so much fidelity is read between the strengths, mean over seeds; the rest is the first seed's.
    """
    curves = [row for row in read_csv(folder / "curves.csv") if row["attack"] == "WeightNoise" and row["seed"] == 0]
    heat = {row["name"]: row for row in read_csv(folder / "heat.csv")}
    noises = sorted({row["strength"] for row in curves if row["strength"]})
    losses = [name for name in next(iter(heat.values()), {}) if name.startswith("at_")]
    trained = [row for row in read_csv(folder / "codecs.csv") if row["seed"] == 0]
    metric = trained[0]["paired_metric"]
    unit = "" if metric in LOSSES else " dB"
    rows = []
    for line in trained:
        own = {row["strength"]: row for row in curves if row["name"] == line["name"]}
        noisy = [_cell(own[noise], "bit_accuracy") if noise in own else "–" for noise in noises]
        lost = [short(heat.get(line["name"], {}).get(loss)) for loss in losses]
        rows.append([line["name"], short(line["paired_value"]), _cell(line, "bit_accuracy"), *noisy, *lost])
    heads = ["", metric, "bit accuracy", *(f"noise {noise:g}" for noise in noises)]
    heads += [f"where it costs {loss.removeprefix('at_')}{unit}" for loss in losses]
    return "\n".join(markdown(heads, rows))


def _column(line: Row, attacked: list[Row]) -> dict[str, str]:
    """What :func:`side_by_side` says of one run, by name."""

    def under(attack: str, strength: float) -> str:
        own = [row for row in attacked if row["scheme"] == line["scheme"] and row["attack"] == attack]
        found = [row for row in own if row["strength"] == strength]
        return _cell(found[0], "bit_accuracy") if found else "–"

    change = line["quality_delta"] / line["quality_original"]
    return {
        "scheme": str(line["scheme"]),
        "generator": str(line["generator"]),
        "bits": str(line["bits"]),
        "bit accuracy": _cell(line, "bit_accuracy"),
        f"identified among {line['identification_n']}": _cell(line, "identification"),
        "by 5 items": _cell(line, "identification_5"),
        "paired fidelity": f"{line['paired_metric']} {short(line['paired_value'])}",
        "Fréchet distance": f"{line['quality_metric']} {change:+.1%}",
        "mean under content attacks": short(line["robustness_content"]),
        "mean under model attacks": short(line["robustness_model"]),
        "weights with noise of 5 % of their deviation": under("WeightNoise", 0.05),
        "of 10 %": under("WeightNoise", 0.1),
        "of 20 %": under("WeightNoise", 0.2),
        "weights of two users averaged": under("AverageWeights", 2),
        "FPR ≤": short(line["fpr_upper"]),
        "users × items": f"{line['users']} × {line['items']}",
    }


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
    if not (folder / "leaderboard.csv").is_file() and list(folder.glob("*/reference")):
        return _replaced(page, "modalities", side_by_side(folder))
    if (folder / "compare.json").is_file():
        return _replaced(page, f"{about(folder)['modality']} {folder.name}", comparison(folder))
    modality = _board(folder)[0]["modality"]
    named = [name for name in TABLES if f"<!-- {modality} {name}:" in page]
    if not named:
        raise UserError(f"page: expected a comment such as <!-- {modality} {next(iter(TABLES))}:begin -->, found none")
    for name in named:
        page = _replaced(page, f"{modality} {name}", TABLES[name](folder))
    return page


def _replaced(page: str, name: str, content: str) -> str:
    """``page`` with what stands between the two comments of a table replaced."""
    begin, end = (f"<!-- {name}:{place} -->" for place in ("begin", "end"))
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise UserError(f"page: expected one {begin} and one {end} after it, found another number or order")
    return f"{page[: page.index(begin)]}{begin}\n{content}\n{end}{page[page.index(end) + len(end) :]}"


def main(
    folder: Annotated[Path, typer.Argument(help="A results folder, a comparison, or what holds all modalities'.")],
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
