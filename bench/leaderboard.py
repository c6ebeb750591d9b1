"""The tables: every number is a query on the cells of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.calibration import NullCheck, check_null, false_positive_bound, threshold
from bench.codebook import code_book
from bench.columns import ATTACKS, CAPACITY, LEADERBOARD
from bench.derived import derive
from bench.metrics.attribution import hard_matches, identify, pool
from bench.metrics.capacity import SIZES, capacity_users, identification_curve
from bench.metrics.collusion import expected_match
from bench.metrics.intervals import Interval, clustered, clustered_rate
from bench.report import Row, write_csv
from bench.results import Cell, Results
from bench.rng import stream
from bench.rows import MORE, SCHEMA, column, soft_bits
from bench.white_box import white_box_columns

POOLS = (1, 5, 20)
"""Items of one user that are read together."""

NOTHING = Interval(math.nan, math.nan, math.nan)


class Score:
    """Statistics of one cell.

    Args:
        cell: what was measured.
        results: the run that it belongs to.
    """

    def __init__(self, cell: Cell, results: Results) -> None:
        self.summary, self.results, self.plan = cell.summary, results, results.plan
        self.codes = code_book(self.plan, cell.summary["scheme"], cell.summary["bits"])
        self.tau = threshold(cell.summary["bits"], len(self.codes), self.plan.fpr)
        negative = column(cell.rows, "is_negative")
        self.rows, self.negatives = cell.rows.filter(pa.array(~negative)), cell.rows.filter(pa.array(negative))

    @cached_property
    def soft(self) -> Tensor:
        """Soft bits (n, bits) of fingerprinted items."""
        return soft_bits(self.rows)

    @cached_property
    def groups(self) -> Tensor:
        """What an interval resamples, (n,): the user, or the coalition."""
        return torch.from_numpy(column(self.rows, "group"))

    @cached_property
    def bit_accuracy(self) -> Interval:
        """Mean over items, with an interval clustered by user."""
        rng = stream(self.plan.seed, "interval", self.summary["scheme"], self.summary["repr"])
        return clustered(column(self.rows, "bit_accuracy"), self.groups, rng=rng)

    def identification(self, size: int = 1) -> Interval:
        """Rate of correct identification with ``size`` items read together; NaN where nothing can be decided.

        For a coalition, correct means that the accused is a member.
        """
        if self.tau is None:
            return NOTHING
        if size == 1:
            return clustered_rate(column(self.rows, "correct").astype(int), self.groups)
        if self.summary["target"] == "coalition" or size > self.plan.items:
            return NOTHING
        soft, users = pool(self.soft, self.groups.tolist(), size)
        return clustered_rate(identify(soft, users, self.codes, self.tau).correct.long(), users)

    def verdicts(self) -> tuple[float, float]:
        """Coalitions and forgers, all items read together: rates of a caught colluder, and of a framed innocent."""
        if self.tau is None:
            return math.nan, math.nan
        soft, groups = pool(self.soft, self.groups.tolist(), self.plan.items)
        matches = hard_matches(soft, self.codes)
        accused = matches.argmax(1)[matches.max(1).values >= self.tau].tolist()
        judged = groups[matches.max(1).values >= self.tau].tolist()
        members = dict(zip(self.groups.tolist(), self.rows["members"].to_pylist(), strict=True))
        caught = sum(user in members[group] for user, group in zip(accused, judged, strict=True))
        if self.summary["target"] == "framing":  # whoever is accused did nothing, and the forger is not registered
            return math.nan, len(accused) / len(groups)
        return caught / len(groups), (len(accused) - caught) / len(groups)

    @property
    def colluders(self) -> int:
        """Members of each coalition; 0 when the attack is none."""
        members = self.rows["members"] if self.summary["target"] == "coalition" else []
        return len(members[0]) if len(members) else 0

    def false_positives(self) -> tuple[float, float]:
        """Share of negatives that some registered user is accused of, and its upper 95 % bound."""
        trials = self.negatives.num_rows
        if self.tau is None or not trials:
            return math.nan, math.nan
        events = int(column(self.negatives, "accepted").sum())
        return events / trials, false_positive_bound(events, trials)

    def distortions(self) -> dict[str, float]:
        """Mean of every fidelity column over fingerprinted items."""
        known = {*SCHEMA.names, *MORE.names}
        return {name: _mean(column(self.rows, name)) for name in self.rows.column_names if name not in known}

    def within_bound(self) -> bool:
        """Whether the attack left the content, or the model, good enough to count as a removal; see ``Plan``."""
        paired = self.distortions().get(self.results.info["paired_metric"], math.nan)
        content = self.summary["target"] == "content"
        bound = self.plan.content_bound if content else self.plan.model_bound
        if bound is None or not paired >= bound:
            return False
        allowed = 1 + self.plan.model_quality_bound
        return content or bool(self.summary["quality"] <= allowed * self.summary["quality_unattacked"])

    def null(self) -> NullCheck:
        """What the reader says about content without a fingerprint."""
        return check_null(soft_bits(self.negatives), self.codes, self.plan.fpr)


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else math.nan


def attack_row(score: Score) -> Row:
    """One line of ``attacks.csv``."""
    summary, info = score.summary, score.results.info
    single, five, twenty = (score.identification(size) for size in POOLS)
    accusing, kernel = summary["target"] in ("coalition", "framing"), info.get("kernel_metric", "kid")
    caught, framed = score.verdicts() if accusing else (math.nan, math.nan)
    fpr, fpr_upper = score.false_positives()
    return {
        "scheme": summary["scheme"],
        "modality": info["modality"],
        "generator": info["generator"],
        "attack": summary["attack"],
        "target": summary["target"],
        "strength": summary["strength"],
        "unit": summary["unit"],
        **_spread("bit_accuracy", score.bit_accuracy),
        **_spread("identification", single),
        "identification_n": len(score.codes),
        "identification_5": five.mean,
        "identification_20": twenty.mean,
        "caught": caught,
        "framed": framed,
        "bit_accuracy_majority": expected_match(score.colluders) if score.colluders else math.nan,
        "fpr": fpr,
        "fpr_upper": fpr_upper,
        "negatives": score.negatives.num_rows,
        **score.distortions(),
        "quality_metric": info["quality_metric"],
        "quality": summary.get("quality"),
        "quality_unattacked": summary.get("quality_unattacked"),
        kernel: summary.get(kernel),
        "within_bound": score.within_bound(),
        "users": len(set(score.groups.tolist())),
        "items": len(score.groups),
        "seconds": summary["seconds"],
        "repr": summary["repr"],
        **white_box_columns(summary, score.plan.seed),
    }


def _spread(name: str, interval: Interval) -> Row:
    return {name: interval.mean, f"{name}_lo": interval.lo, f"{name}_hi": interval.hi}


def robustness(lines: Sequence[Row], column: str) -> float | None:
    """Mean over attacks of ``column``, each attack first averaged over its strengths; None when no attack ran."""
    attacks = dict.fromkeys(line["attack"] for line in lines)
    values = [fmean(line[column] for line in lines if line["attack"] == name) for name in attacks]
    return fmean(values) if values else None


def worst(lines: Sequence[Row], clean: float) -> float | None:
    """Lowest bit accuracy that an attack within the bound reaches; doing nothing is one, so never above ``clean``."""
    return min([clean, *(line["bit_accuracy"] for line in lines if line["within_bound"])]) if lines else None


def leaderboard_row(score: Score, lines: Sequence[Row]) -> Row:
    """One line of ``leaderboard.csv``, without its rank.

    Args:
        score: the scheme's cell without attack.
        lines: the scheme's lines of ``attacks.csv``.
    """
    summary, info, clean = score.summary, score.results.info, score.bit_accuracy
    content, model, coalition = (
        [line for line in lines if line["target"] == target] for target in ("content", "model", "coalition")
    )
    users = torch.from_numpy(column(score.rows, "user")).long()
    return {
        "scheme": summary["scheme"],
        "modality": info["modality"],
        "generator": info["generator"],
        "bits": summary["bits"],
        **_spread("bit_accuracy", clean),
        **_spread("identification", score.identification()),
        "identification_n": len(score.codes),
        "capacity_users": capacity_users(score.soft, score.codes[users], users, fpr=score.plan.fpr),
        "quality_metric": info["quality_metric"],
        **{name: value for name, value in summary.items() if name.startswith(("quality_", "kid_", "kad_"))},
        "paired_metric": info["paired_metric"],
        "paired_value": score.distortions().get(info["paired_metric"]),
        "robustness_content": robustness(content, "bit_accuracy"),
        "robustness_content_worst": worst(content, clean.mean),
        "robustness_model": robustness(model, "bit_accuracy"),
        "robustness_model_worst": worst(model, clean.mean),
        "robustness_coalition": robustness(coalition, "caught"),
        "users": score.plan.users,
        "items": score.plan.items,
        "preset": score.plan.name,
        "version": info["version"],
        **_details(score),
        **white_box_columns(summary, score.plan.seed),
        **{name: value for name, value in summary.items() if name.startswith("opinion")},
    }


def _details(score: Score) -> Row:
    """What is told about a scheme beside its scores."""
    null = score.null()
    return {
        **{name: score.summary[name] for name in ("seconds_per_copy", "fit_seconds", "removable")},
        "identification_5": score.identification(5).mean,
        "identification_20": score.identification(20).mean,
        "word_accuracy": float(np.mean(column(score.rows, "bit_accuracy") == 1)),
        **score.distortions(),
        "fpr": null.empirical_fpr,
        "fpr_upper": null.fpr_upper,
        "negatives": null.n,
        "null_max_abs_bias": null.max_abs_bias,
        "null_max_abs_bias_expected": null.max_abs_bias_expected,
        "null_mean_abs_correlation": null.mean_abs_correlation,
        "null_max_abs_correlation": null.max_abs_correlation,
    }


def ranked(lines: Iterable[Row]) -> list[Row]:
    """Lines by identification, then bit accuracy, best first, with their rank; an empty identification comes last."""

    def key(line: Row) -> tuple[float, float]:
        identification = math.nan if line["identification"] == "" else float(line["identification"])
        return (math.inf if math.isnan(identification) else -identification, -float(line["bit_accuracy"]))

    return [{**line, "rank": place} for place, line in enumerate(sorted(lines, key=key), start=1)]


def capacity_rows(score: Score) -> list[Row]:
    """Lines of ``capacity.csv`` of one scheme: identification among 1 to 10^9 users, 1, 5 and 20 items pooled."""
    lines: list[Row] = []
    for size in POOLS:
        soft, users = pool(score.soft, score.groups.tolist(), size)
        if not len(users):
            continue
        rng = stream(score.plan.seed, "capacity", score.summary["scheme"], size)
        fixed: Row = {"scheme": score.summary["scheme"], "items": size, "users": len(set(users.tolist()))}
        for point in identification_curve(soft, score.codes[users], users, SIZES, score.plan.fpr, rng):
            lines.append(fixed | point._asdict() | {"resolvable": point.tau is not None})
    return lines


def write_tables(results: Results) -> list[Path]:
    """Write ``leaderboard.csv``, ``attacks.csv`` and ``capacity.csv`` from the cells, and what follows from them.

    A scheme whose cell without attack is not measured yet is left out.
    """
    scores = [Score(cell, results) for cell in results.cells]
    clean = [score for score in scores if score.summary["target"] == "none"]
    attacked = [attack_row(score) for score in scores if score.summary["target"] != "none"]
    board = ranked(
        leaderboard_row(score, [line for line in attacked if line["scheme"] == score.summary["scheme"]])
        for score in clean
    )
    capacity = [line for score in clean for line in capacity_rows(score)]
    folder = results.folder
    write_csv(board, LEADERBOARD, folder / "leaderboard.csv")
    tables = [
        write_csv(attacked, ATTACKS, folder / "attacks.csv"),
        write_csv(capacity, CAPACITY, folder / "capacity.csv"),
    ]
    return [*tables, *derive(folder)]
