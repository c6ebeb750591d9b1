"""``python -m bench compare``: which fingerprint survives attacks on the decoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench import printed
from bench.commands import Device, Json, ModalityName, Quiet, Spec, print_json
from bench.compare import SIZES, Bench, Size, compare
from bench.engine import pick_device, set_up
from bench.presets import Plan
from bench.progress import shown
from bench.protocol import Attack, Generator, Modality, Scheme, UserError
from bench.registry import lookup
from bench.selection import continued, find_modality, held_families, kept_codec, load_generator, matched


def compare_command(
    modality: ModalityName,
    preset: Annotated[str, typer.Option(help="smoke, quick or standard: how long trainings and runs are.")] = "quick",
    generator: Spec = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Entrants, such as low-rank+noise; repeatable; default the preset's.")
    ] = None,
    attack: Annotated[
        list[str] | None, typer.Option(help="Families beside weight-noise; repeatable; default the preset's.")
    ] = None,
    repeat: Annotated[
        list[str] | None, typer.Option(help="Entrants trained with several seeds beside amplitude; repeatable.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Of each training, instead of the preset's; 0 leaves them.")] = 0,
    seeds: Annotated[int, typer.Option(help="Trainings of repeated entrants; 0 leaves the preset's.")] = 0,
    go_on: Annotated[
        bool, typer.Option("--continued", help="Train on from the plain codecs that `run` finds; others are left out.")
    ] = False,
    kept: Annotated[
        bool, typer.Option("--kept", help="Train nothing: compare the codecs that `run` finds; others are left out.")
    ] = False,
    psnr_db: Annotated[float, typer.Option(help="Fidelity that all are trained to, PSNR.")] = 31.0,
    out: Annotated[
        Path | None, typer.Option(help="Folder; default leaderboards/<modality>/comparison[-<preset>].")
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train schemes and recipes to equal clean quality, attack their decoders, write tables and figures.

    A stopped comparison goes on with the same command: codecs that the folder holds are not trained again.
    """
    from bench.compare_figures import draw_comparison
    from bench.compare_tables import write_comparison
    from schemes import load_codec
    from schemes.compared import REPEATED, contestants

    for name, value, least in (("steps", steps, 0), ("seeds", seeds, 0), ("psnr-db", psnr_db, 1)):
        if not value >= least:
            raise UserError(f"{name}: expected at least {least}, found {value:g}")
    if kept and go_on:
        raise UserError("compare: expected --kept or --continued, found both")
    size = lookup("preset", preset, SIZES)
    every = contestants(steps or size.steps, size.pool, psnr_db)
    names = list(only or size.only or every)
    entrants = {name: lookup("entrant", name, every) for name in names}
    repeated = [name for name in (*REPEATED, *(repeat or ())) if lookup("entrant", name, every)]
    counts = dict.fromkeys(repeated, 1 if kept else seeds or size.seeds)
    plan = _plan(size, device)
    with shown(Console(stderr=True), quiet=quiet or as_json):
        medium = find_modality(modality)
        source = load_generator(medium, generator, device)
        medium = matched(medium, source)
        missing = _taken_up(entrants, medium, source, as_it_is=kept) if go_on or kept else []
        if missing and not entrants:
            raise UserError(f"compare: expected an entrant with a codec, found none: {missing[0]}")
        folder = out or Path("leaderboards") / medium.name / _folder_name(preset)
        bench = Bench(medium, source, folder, lambda path: load_codec(path, medium, source))
        left_out = missing + compare(bench, entrants, counts, _attacks(size, attack or [], medium, source), plan)
        written: list[Path] = write_comparison(folder) + draw_comparison(folder)
    if as_json:
        print_json({"folder": str(folder), "left_out": left_out, "files": [str(path) for path in written]})
    elif not quiet:
        for line in left_out:
            printed.console().print(f"left out {line}", markup=False, soft_wrap=True)
        printed.paths(printed.console(), written)


def _taken_up(entrants: dict[str, Any], modality: Modality, generator: Generator, *, as_it_is: bool) -> list[str]:
    """Let entrants be codecs that `run` finds, or go on from the one of their modulation if they are trained.

    Who has none is taken out, and told of.
    """
    from schemes.compared import Kept, scheme_name
    from schemes.weight_modulation import WeightModulation

    left_out = []
    for name, entrant in list(entrants.items()):
        start = scheme_name(entrant, plain=not as_it_is)
        try:
            if as_it_is:
                scheme: Scheme = Kept(start, kept_codec(start, modality, generator))
            elif isinstance(entrant.scheme, WeightModulation):
                scheme = continued(entrant.scheme, start, modality, generator)
            else:
                continue
            entrants[name] = entrant._replace(scheme=scheme)
        except UserError as error:
            left_out.append(f"{name}: {error}")
            del entrants[name]
    return left_out


def _folder_name(preset: str) -> str:
    return "comparison" if preset == "standard" else f"comparison-{preset}"


def _plan(size: Size, device: str) -> Plan:
    set_up(pick_device(device))
    return dataclasses.replace(size.plan, device=device)


def _attacks(size: Size, names: Sequence[str], modality: Modality, generator: Generator) -> list[Attack]:
    families: Any = held_families(modality, generator)
    named = ["weight-noise", *names] if names else list(size.attacks)
    chosen = {name: lookup("attack", name, size.attacks) for name in named}
    return [families[name].make(strength) for name, strengths in chosen.items() for strength in strengths]
