"""Robustness from the tables of a run: area under attribution against quality, worst case, attacks at equal quality.

The idea of ranking attacks by attribution *and* quality is that of An et al., "WAVES: Benchmarking the Robustness of
Image Watermarks", ICML 2024, arXiv:2401.08573. They normalise quality by quantiles over all attacked images; here the
ends are fixed, 1 without an attack and 0 at the stated utility bound, so that no number depends on the other attacks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.metrics.intervals import Interval
from bench.report import Row

LEVELS = (0.75, 0.5, 0.25, 0.0)
"""Qualities at which attacks are compared."""
ATTRIBUTIONS = ("bit_accuracy", "identification")
TARGETS = ("content", "model", "coalition")
"""Attacks that count; a framed user says nothing about removal."""
ALONE = ("content", "model")
"""What one user can do alone; coalitions have another attribution, so no score joins them."""
SHARES = ("iou", "ssim", "f_score", "normals")
"""Paired metrics that are 1 for equal items; all others are in dB, as the contract says."""
NOTHING = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Bounds:
    """How far an attack may go; see ``bench.presets.Plan``.

    Attributes:
        metric: the modality's paired metric.
        content: lowest value of it after an attack on content.
        model: and after one on a decoder.
        quality: share by which that may raise the Fréchet distance.
    """

    metric: str
    content: float
    model: float
    quality: float

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Bounds:
        """Those of a run, from its ``run.json``."""
        plan = info["plan"]
        content, model = (math.nan if plan[name] is None else plan[name] for name in ("content_bound", "model_bound"))
        return cls(info["paired_metric"], content, model, plan["model_quality_bound"])

    def error(self, value: float | None) -> float:
        """The paired metric as an error that is 0 for equal items: relative amplitude of a value in dB."""
        if value is None:
            return math.nan
        return 1 - value if self.metric in SHARES else 10 ** (-value / 20)


@dataclass(frozen=True)
class Point:
    """One strength of an attack, or none.

    Attributes:
        quality: 1 as without an attack, 0 at the bound, negative beyond it; NaN where it was not measured.
        usable: whether the attack stayed within the bound.
        line: its line of ``attacks.csv``, or the scheme's of ``leaderboard.csv``.
    """

    quality: float
    usable: bool
    line: Row

    def value(self, column: str) -> float:
        """A number of the line; NaN where it is empty."""
        found = self.line.get(column)
        return math.nan if found is None else float(found)

    def interval(self, column: str) -> Interval:
        """A number of the line with its bounds."""
        return Interval(*(self.value(f"{column}{end}") for end in ("", "_lo", "_hi")))


def quality_left(line: Row, clean: Row, bounds: Bounds) -> float:
    """Quality after an attack: 1 as without it, 0 at the bound, linear in the error between.

    For content, error is that of the attacked item to the unattacked one. For decoders it is that to the public
    decoder's output, which the fingerprint itself has too; the rise of the Fréchet distance is a second scale, and the
    lower one counts, as both bounds have to be kept.

    Returns:
        At most 1; NaN where a metric is missing, or the fingerprint alone is at or beyond the bound, unless the other
        scale is beyond it already: a ruined decoder may make what no Fréchet distance can be told of.
    """
    error = bounds.error(line.get(bounds.metric))
    if line["target"] == "content":
        return _share_left(error, 0.0, bounds.error(bounds.content))
    paired = _share_left(error, bounds.error(clean.get("paired_value")), bounds.error(bounds.model))
    distance, before = line.get("quality"), line.get("quality_unattacked")
    rise = math.nan
    if distance is not None and before is not None:
        rise = _share_left(distance, before, (1 + bounds.quality) * before)
    known = [part for part in (paired, rise) if not math.isnan(part)]
    return min(known) if len(known) == 2 or min(known, default=0.0) < 0 else math.nan


def _share_left(damage: float, before: float, bound: float) -> float:
    return min(1.0, (bound - damage) / (bound - before)) if before < bound else math.nan


def curve(lines: Iterable[Row], clean: Row, bounds: Bounds) -> list[Point]:
    """The point without attack, then one for each line of ``attacks.csv``."""
    none = Point(1.0, True, clean)
    return [none, *(Point(quality_left(line, clean, bounds), bool(line["within_bound"]), line) for line in lines)]


def area(points: Sequence[Point], column: str) -> Interval:
    """Mean attribution over the tolerated qualities, of an attacker who takes the best measured strength for each.

    With a budget that leaves quality t, that is the lowest value among points of at least this quality, no attack
    included; the area is the integral of that falling step function over t from 0 to 1. Nothing is interpolated and
    nothing beyond the bound counts; below the quality of the strongest strength the last step goes on, since the
    attacker can do no more than was measured.

    Args:
        points: of one or of several attacks, as :func:`curve` makes them; the first one is no attack.
        column: attribution.

    Returns:
        Area in the attribution's own unit. It is a weighted mean of points, and so are ``lo`` and ``hi`` of their
        bounds: a sum varies by no more than its parts together, so this is wide rather than narrow. NaN when no
        strength stays within the bound.
    """
    none, *rest = [point for point in points if point.usable and _known(point, column)] or [Point(math.nan, False, {})]
    if none is not points[0] or not rest:
        return NOTHING
    total, best, at = np.zeros(3), none, 1.0
    for point in sorted(rest, key=lambda point: -point.quality):
        place = max(0.0, point.quality)  # a usable one is below 0 by rounding only
        total += (at - place) * np.array(best.interval(column))
        best, at = min(best, point, key=lambda each: each.value(column)), place
    return Interval(*(float(part) for part in total + at * np.array(best.interval(column))))


def _known(point: Point, column: str) -> bool:
    return math.isfinite(point.quality) and math.isfinite(point.value(column))


def worst(points: Sequence[Point]) -> Point | None:
    """The usable point of lowest attribution: bit accuracy, for coalitions first of all the rate of a caught one."""
    able = [point for point in points if point.usable and math.isfinite(point.value("bit_accuracy"))]
    return min(able, key=lambda point: (point.line.get("caught") or 0.0, point.value("bit_accuracy")), default=None)


def at_level(points: Sequence[Point], level: float) -> float:
    """Bit accuracy at one quality, linear between the neighbouring points, of which no attack is one.

    Returns:
        NaN when no strength has so low a quality, or fewer than two strengths were measured: between all and nothing
        there is nothing to interpolate.
    """
    known = sorted((point.quality, point.value("bit_accuracy")) for point in points if _known(point, "bit_accuracy"))
    if len(known) < 3 or known[0][0] > level:
        return math.nan
    qualities, values = zip(*known, strict=True)
    return float(np.interp(level, qualities, values))


def attack_lines(attacked: Sequence[Row], clean: Row, bounds: Bounds, categories: Mapping[str, str]) -> list[Row]:
    """Lines of ``robustness.csv`` of one scheme, in the order of the run.

    Args:
        attacked: the scheme's lines of ``attacks.csv``.
        clean: its line of ``leaderboard.csv``.
        bounds: of the run.
        categories: heading of each attack, by name.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for line in attacked:
        if line["target"] in TARGETS:
            groups.setdefault((line["target"], line["attack"]), []).append(line)
    lines: list[Row] = []
    for (target, attack), own in groups.items():
        points = curve(own, clean, bounds)
        named = {"scheme": clean["scheme"], "target": target, "category": categories[attack], "attack": attack}
        lines.append(named | {"unit": own[0]["unit"]} | _attack(points))
    for target in TARGETS:
        _rank([line for line in lines if line["target"] == target])
    return lines


def _attack(points: Sequence[Point]) -> Row:
    own, clean = points[1:], points[0].value("bit_accuracy")
    qualities = [point.quality for point in own if math.isfinite(point.quality)]
    return {
        "strengths": len(own),
        "usable": sum(point.usable for point in own),
        "quality_mildest": max(qualities, default=math.nan),
        "quality_strongest": min(qualities, default=math.nan),
        **_areas(points),
        **_worst(worst(own)),
        **{f"damage_at_{level * 100:g}": clean - at_level(points, level) for level in LEVELS},
        "users": min(point.line["users"] for point in own),
    }


def _areas(points: Sequence[Point]) -> Row:
    found = {column: area(points, column) for column in ATTRIBUTIONS}
    return {
        f"{column}_auc{end}": value
        for column, interval in found.items()
        for end, value in zip(("", "_lo", "_hi"), interval, strict=True)
    }


def _worst(point: Point | None) -> Row:
    if point is None:
        return {}
    line = point.line
    attacking = "repr" in line
    columns = [f"{column}{end}" for column in ATTRIBUTIONS for end in ("", "_lo", "_hi")]
    return {
        "worst_attack": line["attack"] if attacking else "none",
        "worst_strength": line["strength"] if attacking else math.nan,
        "worst_unit": line["unit"] if attacking else "",
        "worst_quality": point.quality,
        **{f"worst_{column}": line.get(column) for column in columns},
        "worst_caught": line.get("caught"),
    }


def _rank(lines: Sequence[Row]) -> None:
    """Set each line's rank at every level, the most damage first; empty where the level is not reached."""
    for level in LEVELS:
        name = f"{level * 100:g}"
        known = [line[f"damage_at_{name}"] for line in lines]
        for line, own in zip(lines, known, strict=True):
            place = 1 + sum(other > own for other in known)
            line[f"rank_at_{name}"] = None if math.isnan(own) else place


def category_lines(attacked: Sequence[Row], clean: Row, bounds: Bounds, categories: Mapping[str, str]) -> list[Row]:
    """Lines of ``robustness_categories.csv`` of one scheme: all attacks of each target, then each category of it."""
    lines: list[Row] = []
    for target in TARGETS:
        own = [line for line in attacked if line["target"] == target]
        groups = {"all": own} if own else {}
        for line in own:
            groups.setdefault(categories[line["attack"]], []).append(line)
        for title, part in groups.items():
            lines.append({"scheme": clean["scheme"], "target": target, "category": title} | _group(part, clean, bounds))
    return lines


def _group(lines: Sequence[Row], clean: Row, bounds: Bounds) -> Row:
    points = curve(lines, clean, bounds)
    doing_nothing_counts = lines[0]["target"] != "coalition"  # nobody is caught where nobody was looked for
    usable = {line["attack"] for line in lines if line["within_bound"]}
    able = points if doing_nothing_counts else points[1:]
    return {
        "attacks": len({line["attack"] for line in lines}),
        "usable": len(usable),
        **_areas(points),
        **_worst(worst(able) if usable else None),
    }


def scheme_columns(attacked: Sequence[Row], clean: Row, bounds: Bounds) -> Row:
    """Columns of a scheme in ``leaderboard.csv``; empty for a target that was not run or has no usable attack."""
    found: Row = {}
    for prefix, targets in {"": ALONE, **{f"_{target}": (target,) for target in TARGETS}}.items():
        lines = [line for line in attacked if line["target"] in targets]
        group = _group(lines, clean, bounds) if lines else {}
        for end in ("", "_lo", "_hi"):
            found[f"robustness{prefix}_auc{end}"] = group.get(f"bit_accuracy_auc{end}")
        if prefix == "_coalition":
            found["robustness_coalition_worst"] = group.get("worst_caught")
        name = "worst_attack" if not prefix else f"robustness{prefix}_worst_attack"
        found[name] = setting(group)
        if not prefix:
            found["worst_attribution"] = group.get("worst_bit_accuracy")
    return found


def setting(line: Row) -> str | None:
    """The worst attack of a line of ours with its strength, such as ``JPEG (10 quality)``; None where there is none."""
    name, strength = line.get("worst_attack"), line.get("worst_strength")
    if name is None or strength is None or math.isnan(strength):
        return name
    return f"{name} ({strength:g} {line['worst_unit']})"
