"""Tables of a comparison: queries on its run and on what is known of its trainings."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.drawing import Table
from bench.leaderboard import Score
from bench.protocol import UserError
from bench.report import Row, write_csv
from bench.results import Results

LOSSES = {"iou": (0.05, 0.15)}
"""Losses of paired fidelity at which schemes are told apart, where these are not decibels."""
DECIBELS = (3.0, 7.0)
TABLES = ("codecs", "curves", "heat", "capacity", "bits")


def about(folder: Path) -> dict[str, Any]:
    """Contents of ``compare.json``.

    Raises:
        UserError: when it is missing or no JSON.
    """
    path = folder / "compare.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: expected compare.json of a comparison, found: {error}") from error
    return found


def write_comparison(folder: Path) -> list[Path]:
    """Write ``codecs.csv``, ``curves.csv``, ``heat.csv``, ``capacity.csv`` and ``bits.csv`` from the folder's run."""
    info, results = about(folder), Results.load(folder / "run")
    board = pd.read_csv(folder / "run" / "leaderboard.csv").set_index("scheme")
    attacks = pd.read_csv(folder / "run" / "attacks.csv")
    members, metric = info["members"], info["paired_metric"]
    curves = _curves(members, board, attacks, metric)
    capacity = pd.read_csv(folder / "run" / "capacity.csv")
    tables = {
        "codecs": [_codec(member, board.loc[name], metric) for name, member in members.items()],
        "curves": curves,
        "heat": heat(curves, LOSSES.get(metric, DECIBELS)),
        "capacity": [_named(members[line["scheme"]]) | _rest(line) for line in capacity.to_dict("records")],
        "bits": [line for cell in results.cells for line in _bits(Score(cell, results), members)],
    }
    return [write_csv(tables[name], (), folder / f"{name}.csv") for name in TABLES]


def _named(member: Row) -> Row:
    return {key: member[key] for key in ("name", "modulation", "recipe", "seed")}


def _rest(line: Row) -> Row:
    return {key: value for key, value in line.items() if key != "scheme"}


def _codec(member: Row, line: Any, metric: str) -> Row:
    """How it was trained, what it costs, how it reads without attack."""
    measured = ("bits", "bit_accuracy", "bit_accuracy_lo", "bit_accuracy_hi", "identification", "identification_5")
    quality = ("capacity_users", "paired_value", "quality_metric", "quality_delta", "robustness_model")
    known = {key: line[key] for key in (*measured, *quality, "seconds_per_copy", "removable") if key in line}
    training = {key: value for key, value in member.items() if key not in ("scheme", "codec")}
    return training | {"paired_metric": metric} | known | {"scheme": member["scheme"], "codec": member["codec"]}


def _curves(members: dict[str, Row], board: Table, attacks: Table, metric: str) -> list[Row]:
    """One line per codec, attack and strength; strength 0 of each attack is no attack.

    ``loss`` is how much of the paired fidelity to the public decoder's output the attack cost, in units of the metric.
    """
    lines: list[Row] = []
    for (scheme, attack), part in attacks.groupby(["scheme", "attack"], sort=False):
        clean, member = board.loc[scheme], members[scheme]
        shared = _named(member) | {"attack": attack, "unit": part["unit"].iloc[0], "paired_metric": metric}
        lines.append(shared | {"strength": 0.0, "loss": 0.0} | _reading(clean) | {"paired": clean["paired_value"]})
        for line in part.to_dict("records"):
            loss = float(clean["paired_value"] - line[metric])
            point = {"strength": line["strength"], "loss": loss} | _reading(line) | {"paired": line[metric]}
            lines.append(
                shared | point | {"quality": line["quality"], "quality_unattacked": line["quality_unattacked"]}
            )
    return lines


def _reading(line: Any) -> Row:
    names = ("bit_accuracy", "identification", "white_box_bit_accuracy")
    every = [f"{name}{end}" for name in names for end in ("", "_lo", "_hi")]
    return {name: float(line[name]) for name in every if name in line and pd.notna(line[name])}


def heat(curves: Sequence[Row], losses: Sequence[float], attack: str = "WeightNoise") -> list[Row]:
    """Bit accuracy where an attack has cost so much paired fidelity, by modulation and recipe, mean over seeds.

    Linear between the strengths measured; NaN where none of them costs so much.
    """
    lines: list[Row] = []
    table = pd.DataFrame(curves)
    if table.empty:
        return lines
    for (name, modulation, recipe), part in table[table["attack"] == attack].groupby(
        ["name", "modulation", "recipe"], sort=False
    ):
        seeds = [each.sort_values("loss") for _, each in part.groupby("seed")]
        unharmed = part[part["strength"] == 0]
        clean, fidelity = float(unharmed["bit_accuracy"].mean()), float(unharmed["paired"].mean())
        row = {"name": name, "modulation": modulation, "recipe": recipe, "seeds": len(seeds)}
        row |= {"clean": clean, "paired": fidelity}
        for loss in losses:
            found = [_at(each, loss) for each in seeds]
            row |= {"paired_metric": part["paired_metric"].iloc[0], f"at_{loss:g}": float(np.mean(found))}
            row[f"spread_{loss:g}"] = float(np.ptp(found)) if len(found) > 1 else math.nan
        lines.append(row)
    return lines


def _at(curve: Table, loss: float) -> float:
    x, y = curve["loss"].to_numpy(float), curve["bit_accuracy"].to_numpy(float)
    return float(np.interp(loss, x, y)) if x.max() >= loss else math.nan


def _bits(score: Score, members: dict[str, Row]) -> list[Row]:
    """Accuracy of each bit without attack and under noise on the weights."""
    if score.summary["target"] != "none" and score.summary["attack"] != "WeightNoise":
        return []
    member, truth = members[score.summary["scheme"]], score.codes[score.groups.long()]
    right = ((score.soft > 0) == (truth > 0)) & (score.soft != 0)
    shared = _named(member) | {"attack": score.summary["attack"], "strength": float(score.summary["strength"])}
    return [shared | {"bit": bit, "accuracy": float(value)} for bit, value in enumerate(right.double().mean(0))]
