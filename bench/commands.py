"""The commands of ``python -m bench``. Names end here: everything below works on objects."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench import printed
from bench.engine import pick_device, set_up
from bench.planning import adjusted, told
from bench.presets import PRESETS, Plan
from bench.progress import shown
from bench.protocol import Attack, Generator, Modality, Scheme, UserError
from bench.registry import lookup, unknown
from bench.report import for_json
from bench.rng import stream
from bench.selection import (
    available,
    continued,
    default_codec_path,
    find_attacks,
    find_codecs,
    find_modality,
    find_scheme,
    find_suite,
    load_generator,
    matched,
    modality_names,
    suite_entries,
    with_features,
)

KINDS = ("modalities", "schemes", "attacks", "suites", "presets")

ModalityName = Annotated[str, typer.Option(help="A name that `list modalities` prints, or package.module:Class.")]
Spec = Annotated[
    str | None,
    typer.Option(
        help="Hub id, folder, .pt2 file or package.module:Class; settings may follow: FOLDER?dtype=bfloat16&size=512; "
        "default the embedded generator."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...; auto takes CUDA when there is one.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout; messages go to stderr.")]
Folder = Annotated[Path, typer.Argument(help="A results folder.")]


def run(
    modality: ModalityName,
    preset: Annotated[str, typer.Option(help="A name that `list presets` prints.")] = "quick",
    generator: Spec = None,
    scheme: Annotated[
        list[str] | None, typer.Option(help="Name, package.module:Class or codec file; repeatable; default all.")
    ] = None,
    attack: Annotated[
        list[str] | None, typer.Option(help="Name or package.module:Class; repeatable; default the preset's.")
    ] = None,
    suite: Annotated[str | None, typer.Option(help="A name that `list suites` prints; instead of --attack.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Results folder; default leaderboards/<modality>/<preset>[-<suite>].")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the run.")] = 0,
    users: Annotated[int | None, typer.Option(help="Instead of the preset's number of users.")] = None,
    items: Annotated[int | None, typer.Option(help="Instead of the preset's items per user.")] = None,
    device: Device = "auto",
    features: Annotated[
        str, typer.Option(help="Features of the quality metric: default, inception, vggish or views.")
    ] = "default",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fingerprint, attack, read, and write the leaderboard. A stopped run goes on with the same command."""
    from bench.figures import draw
    from bench.run import run as run_benchmark
    from bench.samples import write_sheets

    if suite and attack:
        raise UserError(f"suite {suite!r}: expected no --attack beside it, found {', '.join(attack)}")
    plan = plan_of(preset, seed=seed, users=users, items=items, device=device)
    console = Console(stderr=True)
    with shown(console, quiet=quiet):
        medium = with_features(find_modality(modality), features)
        source = load_generator(medium, generator, device)
        medium = matched(medium, source)
        codecs = find_codecs(medium, source, scheme or [], plan)
        attacks = _attacks(medium, source, plan, suite, attack or [])
        folder = out or Path("leaderboards") / medium.name / "-".join(filter(None, (plan.name, suite)))
        results = run_benchmark(
            modality=medium, generator=source, codecs=codecs, attacks=attacks, plan=plan, folder=folder
        )
        drawn = write_sheets(medium, source, codecs, attacks, plan, folder) + draw(folder)
    if as_json:
        print_json(printed.summary(results.info, folder, drawn))
    elif not quiet:
        printed.board(printed.console(), results.info, folder)
        printed.stages(printed.console(), results.info)
        printed.paths(printed.console(), [*printed.tables(folder), *drawn])


def _attacks(
    modality: Modality, generator: Generator, plan: Plan, suite: str | None, names: Sequence[str]
) -> list[Attack]:
    if suite is not None:
        return find_suite(modality, generator, suite, plan)
    return find_attacks(modality, generator, names, plan)


def fit(
    modality: ModalityName,
    scheme: Annotated[str, typer.Option(help="A name that `list schemes` prints, or package.module:Class.")],
    generator: Spec = None,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Codec file to write; default where `run` looks for it.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    steps: Annotated[int, typer.Option(help="Of the training, instead of the scheme's; 0 leaves them.")] = 0,
    batch: Annotated[int, typer.Option(help="Items per step, instead of the scheme's; 0 leaves them.")] = 0,
    psnr_db: Annotated[
        float, typer.Option(help="Fidelity to the public decoder's output, instead of the scheme's; 0 leaves it.")
    ] = 0.0,
    start: Annotated[
        str | None, typer.Option(help="Name or codec file to train on from, of the same modulation, bits and reader.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time three steps, tell what all take, keep nothing.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a scheme's codec for one generator and save it."""
    began, medium = time.perf_counter(), find_modality(modality)
    description = adjusted(find_scheme(scheme), steps, batch, psnr_db)
    source = load_generator(medium, generator, device)
    medium = matched(medium, source)
    trained = description if start is None else continued(description, start, medium, source)
    if dry_run:
        _rehearse(description, medium, source, as_json=as_json)
        return
    path = out or default_codec_path(scheme, medium, source)
    _check_writable(path)
    with shown(Console(stderr=True), quiet=quiet), contextlib.redirect_stdout(io.StringIO() if quiet else sys.stderr):
        codec = trained.fit(medium, source, stream(seed, "fit"))  # not by scheme: all train on the same latents
        codec.save(path)
    facts = {"codec": str(path), "bits": codec.bits, "seconds": round(time.perf_counter() - began, 1)}
    if as_json:
        print_json(facts)
    elif not quiet:
        printed.console().print(f"wrote {path} ({codec.bits} bits, {facts['seconds']} s)", markup=False, soft_wrap=True)


def _rehearse(description: Scheme, medium: Modality, source: Generator, *, as_json: bool) -> None:
    from schemes.rehearsal import rehearse

    with shown(Console(stderr=True), quiet=as_json):
        found = rehearse(description, medium, source, stream(0, "rehearsal"))
    if as_json:
        print_json(asdict(found) | {"seconds": found.seconds})
    else:
        printed.console().print(told(found), markup=False, highlight=False, soft_wrap=True)


def list_(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    modality: Annotated[
        str | None, typer.Option(help="Only what applies to this modality; for attacks, suites.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List what there is to choose from."""
    if kind not in KINDS:
        raise unknown("list", kind, KINDS)
    makers = (_modalities, _schemes, _attack_entries, suite_entries, _presets)
    entries = dict(zip(KINDS, makers, strict=True))[kind]()
    if modality is not None:
        entries = _of_modality(kind, modality, entries)
    if as_json:
        print_json(entries)
    else:
        printed.listing(printed.console(), kind, entries)


def _of_modality(kind: str, modality: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries of a modality, and those that apply to any."""
    if kind not in ("attacks", "suites"):
        raise UserError(f"list {kind}: expected no --modality, found {modality!r}")
    lookup("modality", modality, dict.fromkeys(modality_names()))
    return [entry for entry in entries if entry["modality"] in (modality, "any")]


def plan_of(preset: str, *, seed: int, users: int | None, items: int | None, device: str) -> Plan:
    """The preset with its numbers exchanged; also readies the device."""
    base = lookup("preset", preset, PRESETS)
    many = base.users if users is None else users
    plan = replace(
        base,
        users=many,
        items=base.items if items is None else items,
        registered=max(base.registered, many),
        seed=seed,
        device=device,
    )
    set_up(pick_device(device))
    return plan


def _check_writable(path: Path) -> None:
    """Find out before the training, not after it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / f".{path.name}.try").touch()
        (path.parent / f".{path.name}.try").unlink()
    except OSError as error:
        raise UserError(f"codec {path}: expected to write there, found: {error.strerror}") from error


def _modalities() -> list[dict[str, Any]]:
    from modalities import MODALITIES

    made = {name: factory() for name, factory in MODALITIES.items()}
    return [
        {"name": name, "quality_metric": each.quality_metric, "paired_metric": each.paired_metric}
        for name, each in made.items()
    ]


def _schemes() -> list[dict[str, Any]]:
    from schemes import SCHEMES

    return [{"name": name, "bits": scheme.bits, "repr": repr(scheme)} for name, scheme in SCHEMES.items()]


def _attack_entries() -> list[dict[str, Any]]:
    from attacks import LISTED, families
    from bench.attack_effects import damage

    listed = families(LISTED)
    fields = ("name", "modality", "target", "strengths", "unit", "source", "card", "needs")
    return [
        {field: getattr(family, field) for field in fields}
        | {"available": available(family), "measured": damage(family)}
        for family in listed.values()
    ]


def _presets() -> list[dict[str, Any]]:
    return [asdict(plan) for plan in PRESETS.values()]


def print_json(value: Any) -> None:
    """Write one JSON value and a line's end on standard output."""
    sys.stdout.write(json.dumps(for_json(value), allow_nan=False) + "\n")
