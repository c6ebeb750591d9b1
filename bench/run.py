"""Algorithm 1: give every user a fingerprinted decoder, publish, attack, read, and decide who made it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import __version__
from bench.cells import Subject, describe
from bench.digest import codec_digest, digest_of, generator_digest, plain_repr, source_digest
from bench.engine import Engine, pick_device, report
from bench.environment import environment
from bench.ground import Ground
from bench.leaderboard import write_tables
from bench.presets import Plan, within
from bench.protocol import Attack, Codec, Generator, Modality, UserError
from bench.results import FORMAT, Cell, Results, Store, write_json

DETERMINES = ("users", "items", "model_users", "coalitions", "negatives", "registered", "fpr", "seed", "public_items")
"""Numbers of the plan that a cell depends on."""


def run(
    *,
    modality: Modality,
    generator: Generator,
    codecs: Mapping[str, Codec],
    attacks: Sequence[Attack],
    plan: Plan,
    folder: Path,
) -> Results:
    """Measure every codec under no attack and under each attack, and write the leaderboard.

    Cells that ``folder`` already holds are not measured again, so a run that was stopped goes on where it was, and
    ends with the same bytes. Progress goes to the ``genprint`` log.

    Args:
        modality: what an item is.
        generator: what is fingerprinted.
        codecs: fitted to ``generator``, by the name that the tables use.
        attacks: content, model and coalition attacks.
        plan: the numbers, see ``bench.presets.PRESETS``.
        folder: for the results; made when missing.

    Raises:
        UserError: when ``folder`` cannot be used, or there is nothing to measure.
    """
    if not codecs:
        raise UserError("run: expected at least one codec, found none")
    began, plan = time.perf_counter(), plan.bounded(modality)
    engine = Engine(modality, generator, pick_device(plan.device), plan.batch)
    ground, attacks = Ground(engine, plan), within(plan, list(dict.fromkeys(attacks)))
    keys = {name: _keys(ground, name, codec, attacks) for name, codec in codecs.items()}
    info = _info(ground, codecs, attacks) | {"cells": [key for names in keys.values() for key in names]}
    store = Store.open(folder)
    write_json(info, folder / "run.json")

    cells: list[Cell] = []
    for name, codec in codecs.items():
        subject = Subject(name, codec, ground)
        for attack, key in zip((None, *attacks), keys[name], strict=True):
            report("cells", len(cells), len(info["cells"]))
            cells.append(_cell(subject, attack, key, store))
    report("cells", len(cells), len(cells))

    with engine.clock.time("tables"):
        results = Results(folder, plan, info, tuple(cells))
        results.save_rows()
        write_tables(results)
    info = _finished(info, engine, cells, time.perf_counter() - began)
    write_json(info, folder / "run.json")
    return dataclasses.replace(results, info=info)


def _cell(subject: Subject, attack: Attack | None, key: str, store: Store) -> Cell:
    """The stored cell, or a new one."""
    if (cell := store.read(key)) is None:
        with subject.engine.clock.time(f"{describe(attack)['target']} cells"):
            cell = subject.measure(attack)
        cell = store.write(key, cell)
    return cell


def _finished(info: dict[str, Any], engine: Engine, cells: Sequence[Cell], total: float) -> dict[str, Any]:
    """``info`` with the wall time of each stage of this process, and of all cells when they were measured."""
    seconds = dict(engine.clock.seconds) | {"total": total}
    seconds["measuring all cells"] = sum(cell.summary["wall_seconds"] for cell in cells)
    return info | {"finished": True, "seconds": {stage: round(value, 3) for stage, value in seconds.items()}}


def _keys(ground: Ground, scheme: str, codec: Codec, attacks: Sequence[Attack]) -> list[str]:
    """Name of each cell of a codec: the hash of everything that determines it, the attack's own code included."""
    engine, plan = ground.engine, dataclasses.asdict(ground.plan)
    shared = {
        "format": FORMAT,
        "version": __version__,
        "modality": [engine.modality.name, plain_repr(engine.modality), engine.modality.quality_metric],
        "generator": generator_digest(engine.generator),
        "scheme": scheme,
        "codec": codec_digest(codec),
        "code": source_digest(engine.modality, engine.generator, codec),
        "plan": {name: plan[name] for name in DETERMINES},
    }
    named = [("none", ""), *((plain_repr(attack), source_digest(attack), *_rival(attack, codec)) for attack in attacks)]
    return [digest_of(shared | {"attack": attack}) for attack in named]


def _rival(attack: Attack, codec: Codec) -> list[str]:
    """Hash of the codec that the attacker fitted, for an attack that uses it."""
    rival: Codec | None = getattr(codec, "rival", None)
    return [codec_digest(rival)] if rival is not None and getattr(attack, "uses_rival", False) else []


def _info(ground: Ground, codecs: Mapping[str, Codec], attacks: Sequence[Attack]) -> dict[str, Any]:
    modality, generator = ground.engine.modality, ground.engine.generator
    return {
        "format": FORMAT,
        "version": __version__,
        "finished": False,
        "modality": modality.name,
        "generator": generator.name,
        "quality_metric": modality.quality_metric,
        "paired_metric": modality.paired_metric,
        "kernel_metric": getattr(modality, "kernel_metric", "kid"),
        "preset": ground.plan.name,
        "seed": ground.plan.seed,
        "plan": dataclasses.asdict(ground.plan),
        "schemes": {name: _about(codec) for name, codec in codecs.items()},
        "attacks": [plain_repr(attack) for attack in attacks],
        **environment(ground.engine.device),
    }


def _about(codec: Codec) -> dict[str, Any]:
    kind = type(codec)
    return {"codec": f"{kind.__module__}:{kind.__qualname__}", "bits": codec.bits, "sha256": codec_digest(codec)}
