"""Writes the pages of attacks in ``docs/``.

``python -m bench.attack_page measure --modality image`` measures attacks and draws what they do, ``libraries`` compares
their speed with that of other libraries, and ``write`` writes the pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from bench.attack_effects import FIRST, Stand, effects, measured, shown_strengths, table_path
from bench.attack_pages import DOCS, SCHEME, grouped, modalities, of_modality, pages, sheet_of
from bench.attack_rivals import RIVALS, compared
from bench.attack_sheets import Line, sheet
from bench.cells import Subject
from bench.engine import Engine, pick_device
from bench.ground import Ground
from bench.presets import Plan
from bench.protocol import AttackFamily, UserError
from bench.report import Row, short, write_csv
from bench.selection import find_codecs, find_modality, held_families, load_generator, matched, missing

PLAN = Plan("effects", 10, 4, 1, 1, 4, True, registered=100, public_items=64, device="cpu")
PICTURES = {"image": 2}
"""Items on a sheet, of modalities whose items are small; else one."""
COMPARED = {"image": 64, "audio": 8}
"""Items that attacks are compared with libraries on."""


def stand_for(modality: str) -> tuple[Stand, list[AttackFamily]]:
    """What attacks of a modality are measured on, and the attacks with the generator's own networks."""
    medium = find_modality("image" if modality == "any" else modality)
    source = load_generator(medium, None, "cpu")
    medium = matched(medium, source)
    engine = Engine(medium, source, pick_device("cpu"), PLAN.batch)
    held = [family for family in held_families(medium, source).values() if family.modality == modality]
    if not any(_asks(family) for family in held):
        return Stand(engine), held
    (codec,) = find_codecs(medium, source, [SCHEME], PLAN).values()
    return Stand(engine, Subject(SCHEME, codec, Ground(engine, PLAN))), held


def _asks(family: AttackFamily) -> bool:
    """Whether an attack needs a fitted codec: to have something to act on, or to ask."""
    return family.target != "content" or hasattr(family.make(family.strengths[0]), "armed")


def draw(stand: Stand, modality: str, held: Sequence[AttackFamily]) -> list[Path]:
    """Write a sheet for each category of the content attacks that were measured."""
    picture, count = getattr(stand.engine.modality, "picture", None), PICTURES.get(modality, 1)
    if picture is None:
        return []
    original, written = picture(stand.content[:count]), []
    for title, part in grouped(held).items():
        lines: dict[str, Line] = {}
        for family in part:
            after = {s: stand.shown[family.name, s] for s in shown_strengths(family) if (family.name, s) in stand.shown}
            if after:
                panels = {short(strength): picture(items[:count]) for strength, items in after.items()}
                lines[_label(family)] = {"original": original, **panels}
        if lines:
            written.append(sheet(lines, DOCS / sheet_of(modality, title)))
    return written


def _label(family: AttackFamily) -> str:
    """Name and unit in short lines."""
    words, lines = family.unit.replace(",", ", ").split(), [family.name]
    for word in words if family.unit != "none" else ():
        if len(lines) > 1 and len(lines[-1]) + len(word) < 22:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


Names = Annotated[list[str] | None, typer.Option("--attack", help="Only this one; repeatable; sheets stay.")]


@app.command()
def measure(
    modality: Annotated[str, typer.Option(help="image, audio, 3d, or any for attacks on weights.")],
    attack: Names = None,
) -> None:
    """Measure the attacks of a modality, and draw its sheets."""
    if modality not in modalities():
        raise typer.BadParameter(f"expected one of {', '.join(modalities())}, found {modality}")
    torch.set_num_threads(1)
    try:
        stand, held = stand_for(modality)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    rows: list[Row] = []
    chosen = [family for family in held if not attack or family.name in attack]
    for row in measured(stand, chosen, missing):
        typer.echo(f"{row['attack']} {row.get('strength', row.get('lacks'))}", err=True)
        rows.append(row)
    order = [family.name for family in of_modality(modality)]
    typer.echo(str(write_csv(_replaced(rows, modality, order), FIRST, table_path(modality))))
    for path in [] if attack else draw(stand, modality, held):
        typer.echo(str(path))


def _replaced(rows: Sequence[Row], table: str, order: Sequence[str]) -> list[Row]:
    """A table's rows with those of newly measured attacks instead of the old ones, in the order of the names."""
    new = {row["attack"] for row in rows}
    kept = [row for name, old in effects(table).items() if name not in new and name in order for row in old]
    return sorted([*kept, *rows], key=lambda row: order.index(row["attack"]))


@app.command()
def libraries(attack: Names = None) -> None:
    """Measure the attacks that another library has, too, beside a loop over it."""
    torch.set_num_threads(1)
    held = {family.name: family for name in COMPARED for family in of_modality(name)}
    contents = {name: find_modality(name).reference(COMPARED[name]) for name in COMPARED}
    rows: list[Row] = []
    for name in [name for name in RIVALS if not attack or name in attack]:
        rows.append(compared(held[name], contents[held[name].modality]))
        typer.echo(f"{name} {rows[-1]['times']:.2f}", err=True)
    typer.echo(str(write_csv(_replaced(rows, "libraries", list(RIVALS)), FIRST[:1], table_path("libraries"))))


@app.command()
def write() -> None:
    """Write the pages from the cards and the measured tables."""
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
        typer.echo(str(DOCS / name))


if __name__ == "__main__":
    app()
