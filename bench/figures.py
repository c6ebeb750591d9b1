"""Figures of a results folder: queries on its CSV files, as SVG and PNG whose bytes depend on the tables only."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from torch import Tensor

from bench import drawing, heat_map
from bench.drawing import GREY, RC, WIDTH, Look, Table
from bench.protocol import UserError
from bench.robustness import SHARES, TARGETS

COLUMNS = {
    "leaderboard": ("scheme", "identification", "quality_metric", "quality_fingerprinted"),
    "attacks": (
        *("scheme", "attack", "target", "strength", "unit", "bit_accuracy", "bit_accuracy_lo", "bit_accuracy_hi"),
        *("identification", "identification_lo", "identification_hi"),
    ),
    "capacity": ("scheme", "items", "registered", "identification", "lo", "hi", "resolvable"),
    "robustness_categories": ("scheme", "target", "category", heat_map.UPPER, heat_map.LOWER),
}
SCORES = {
    "identification": "No attack: users identified",
    "bit_accuracy": "No attack: bit accuracy",
    "robustness_content": "Content attacks: bit accuracy",
    "robustness_model": "Model attacks: bit accuracy",
    "robustness_coalition": "Coalitions: colluders caught",
}


def draw(folder: Path) -> list[Path]:
    """Draw every figure that the tables of ``folder`` allow.

    Args:
        folder: results folder with the tables named in ``COLUMNS``; a missing table or an axis that was not run
            leaves its figures out.

    Returns:
        The files written under ``folder/figures``: each figure as SVG and as PNG.

    Raises:
        UserError: when no table is there, or one is broken or lacks a column.
    """
    board, attacks, capacity, groups = (_read(folder / f"{name}.csv", columns) for name, columns in COLUMNS.items())
    if board.empty and attacks.empty and capacity.empty and groups.empty:
        raise UserError(f"{folder}: expected {', '.join(f'{name}.csv' for name in COLUMNS)}, found none with rows")
    series = drawing.looks(name for table in (board, attacks, capacity) for name in table["scheme"])
    attacks["unit"] = attacks["unit"].fillna("").replace("none", "")
    content, model, coalition = (attacks[attacks["target"] == name] for name in TARGETS)
    paired = str(board["paired_metric"].iloc[0]) if len(board) and "paired_metric" in board else "psnr"
    damage = "quality" if _has(model, "quality") else paired
    plans: dict[str, tuple[bool, Callable[[], Figure]]] = {
        "scores": (not board.empty, lambda: scores(board, series)),
        "robustness_content": (_has(content, "bit_accuracy"), lambda: robustness(content, series)),
        "robustness_model": (_has(model, "bit_accuracy"), lambda: robustness(model, series)),
        "robustness_coalition": (_has(coalition, "caught"), lambda: coalitions(coalition, series)),
        "capacity": (_has(capacity, "identification"), lambda: capacities(capacity, series)),
        "robustness_categories": (not groups.empty, lambda: heat_map.categories(groups)),
        "quality_content": (_has(content, paired), lambda: trade_off(content, board, series, paired)),
        "quality_model": (_has(model, damage), lambda: trade_off(model, board, series, damage)),
    }
    written: list[Path] = []
    with matplotlib.rc_context(RC):
        for name, (possible, plot) in plans.items():
            if possible:
                figure = plot()
                written += [drawing.save(figure, folder / "figures" / f"{name}.{suffix}") for suffix in ("svg", "png")]
    return written


def _read(path: Path, columns: tuple[str, ...]) -> Table:
    if not path.is_file():
        return pd.DataFrame(columns=list(columns))
    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a CSV table with a header, found {error}") from error
    if missing := [column for column in columns if column not in table]:
        raise UserError(f"{path}: expected the columns {', '.join(missing)}, found {', '.join(table.columns)}")
    return table


def _has(table: Table, column: str) -> bool:
    """Whether ``column`` exists and holds a finite number."""
    return column in table and bool(np.isfinite(pd.to_numeric(table[column], errors="coerce")).any())


def robustness(attacks: Table, series: dict[str, Look]) -> Figure:
    """Bit accuracy against nominal strength, one panel per attack; a dot plot when no attack has two strengths.

    Strengths keep the order of the rows, which is that of the attack's grid: mildest first.
    """
    if attacks.groupby("attack")["strength"].nunique().max() < 2:
        return _dots(attacks, series)
    groups, floor = list(attacks.groupby("attack", sort=False)), drawing.floor(attacks)
    figure, panels = drawing.grid(len(groups), columns=4, height=1.5)
    for (name, part), axes in zip(groups, panels, strict=True):
        order = {strength: place for place, strength in enumerate(dict.fromkeys(part["strength"].dropna()))}
        places = part.assign(place=part["strength"].map(order).fillna(0))
        for offset, scheme, rows in drawing.spread(places, width=0.3 if len(order) < 2 else 0):
            rows = rows.sort_values("place")
            drawing.band(axes, rows["place"] + offset, rows, "bit_accuracy", series[scheme])
        axes.set_title(textwrap.fill(drawing.words(str(name)), 24), loc="left")
        axes.set_xticks(range(max(1, len(order))), [_tick(strength) for strength in order] or ["applied"])
        axes.set_xlim(*((-0.3, len(order) - 0.7) if len(order) > 1 else (-1, 1)))
        axes.set_xlabel(textwrap.fill(part["unit"].iloc[0], 24))
        axes.axhline(0.5, color=GREY, linewidth=0.9, linestyle=":")
        axes.set_ylim(floor, 1.02)
    figure.supxlabel("Strength, mildest on the left (dotted line: chance)", fontsize=RC["font.size"])
    figure.supylabel("Bit accuracy", fontsize=RC["font.size"])
    drawing.legend(figure, series, attacks["scheme"])
    return figure


def _dots(attacks: Table, series: dict[str, Look]) -> Figure:
    """One row per attack, with the interval of each scheme."""
    first = attacks.drop_duplicates("attack")
    names = list(first["attack"])
    labels = [textwrap.fill(drawing.setting(row, row["unit"]), 36) for _, row in first.iterrows()]
    height = max(0.16 + 0.08 * attacks["scheme"].nunique(), 0.32 * any("\n" in label for label in labels))
    figure = Figure(figsize=(WIDTH * 0.8, 0.6 + height * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for offset, scheme, rows in drawing.spread(attacks):
        y = [names.index(name) + offset for name in rows["attack"]]
        look, lengths = series[scheme], drawing.arms(rows, "bit_accuracy")
        axes.errorbar(rows["bit_accuracy"], y, xerr=lengths, fmt=look.marker, color=look.colour, elinewidth=1.1)
    axes.set_yticks(range(len(names)), labels)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(drawing.floor(attacks), 1.015)
    axes.axvline(0.5, color=GREY, linewidth=0.9, linestyle=":")
    axes.set_xlabel("Bit accuracy, 95 % interval (dotted: chance)")
    drawing.legend(figure, series, attacks["scheme"])
    return figure


def coalitions(attacks: Table, series: dict[str, Look]) -> Figure:
    """How often a colluder is caught, and an innocent framed, against the size of the coalition."""
    groups = list(attacks.groupby("attack", sort=False))
    figure, panels = drawing.grid(len(groups), columns=3, height=2.2, width=max(3.4, min(WIDTH, 2.6 * len(groups))))
    for (name, part), axes in zip(groups, panels, strict=True):
        for scheme, rows in part.sort_values("strength").groupby("scheme", sort=False):
            look = series[scheme]
            axes.plot(rows["strength"], rows["caught"], look.marker, color=look.colour, linestyle=look.dash)
            if _has(rows, "framed"):
                axes.plot(rows["strength"], rows["framed"], look.marker, color=look.colour, mfc="white", linestyle=":")
        axes.set_title(drawing.words(str(name)), loc="left")
        axes.set_xticks(sorted(set(part["strength"])))
        axes.margins(x=0.1)
        axes.set(ylim=(-0.04, 1.04), xlabel="Users in the coalition")
    panels[0].set_ylabel("Rate")
    meaning = [
        Line2D([], [], color=GREY, marker="o", label="colluder caught"),
        Line2D([], [], color=GREY, marker="o", mfc="white", linestyle=":", label="innocent framed"),
    ]
    drawing.legend(figure, series, attacks["scheme"], meaning)
    return figure


def capacities(capacity: Table, series: dict[str, Look]) -> Figure:
    """Identification against the number of registered users, log scale, by how many items are read together."""
    pooled = {items: f"{items} item{'s' * (items > 1)}" for items in sorted(set(capacity["items"]))}
    capacity = capacity.sort_values(["items", "registered"]).assign(pool=lambda table: table["items"].map(pooled))
    single = capacity["scheme"].nunique() == 1
    panel, line = ("scheme", "pool") if single else ("pool", "scheme")
    lines = drawing.looks(pooled.values()) if single else series
    groups = list(capacity.groupby(panel, sort=False))
    figure, panels = drawing.grid(len(groups), columns=3, height=2.5, width=WIDTH * (0.65 if single else 1))
    for (name, part), axes in zip(groups, panels, strict=True):
        for key, rows in part.groupby(line, sort=False):
            known = rows[rows["resolvable"].astype(bool) & rows["identification"].notna()]
            named = known.rename(columns={"lo": "identification_lo", "hi": "identification_hi"})
            drawing.band(axes, known["registered"], named, "identification", lines[key])
            if 0 < len(known) < len(rows):
                last = known.iloc[-1]
                axes.plot(last["registered"], last["identification"], "kx", markersize=8, zorder=4)
        axes.set_title("" if single else f"{name} read together" * (name != "1 item") or str(name), loc="left")
        axes.set_xscale("log")
        axes.set_xlim(0.7, capacity["registered"].max() * 1.5)
        axes.set_ylim(-0.04, 1.04)
        axes.axhline(0.95, color=GREY, linewidth=0.9, linestyle=":")
        axes.set_xlabel("Registered users")
    panels[0].set_ylabel("Users identified (dotted: 95 %)")
    ended = not capacity["resolvable"].astype(bool).all()
    cross = [Line2D([], [], color="black", marker="x", markersize=8, linestyle="", label="no valid threshold beyond")]
    drawing.legend(figure, lines, capacity[line], cross * ended)
    return figure


def _tick(strength: float) -> str:
    """Thousands as k, so that neighbours keep apart."""
    return f"{strength / 1000:g}k" if abs(strength) >= 1000 else f"{strength:g}"


def trade_off(attacks: Table, board: Table, series: dict[str, Look], damage: str) -> Figure:
    """Identification against the damage that each attack did; the line is the worst case up to that damage.

    Args:
        attacks: rows of one target.
        board: the leaderboard, for the name of the quality metric and the unattacked quality.
        series: look of each scheme.
        damage: a paired metric such as ``psnr`` (lower is more damage), or ``quality``, a Fréchet distance.
    """
    figure = Figure(figsize=(WIDTH * 0.75, 3.2), layout="constrained")
    axes = figure.add_subplot()
    rising = damage == "quality"
    corners: list[tuple[float, float, str]] = []
    attacks = attacks[np.isfinite(attacks[damage]) & attacks["identification"].notna()]
    for scheme, rows in attacks.sort_values(damage, ascending=rising).groupby("scheme", sort=False):
        look, worst = series[scheme], rows["identification"].cummin()
        x, y, lengths = rows[damage], rows["identification"], drawing.arms(rows, "identification")
        axes.errorbar(x, y, lengths, fmt=look.marker, color=look.colour, alpha=0.5, elinewidth=0.8)
        axes.step(rows[damage], worst, where="post", color=look.colour, linestyle=look.dash)
        fresh = rows[worst.diff().fillna(worst.iloc[0] - 1) < -0.06]
        corners += [(row[damage], row["identification"], drawing.setting(row)) for _, row in fresh.iterrows()]
    _damage_axis(axes, board, attacks, damage, series)
    axes.margins(x=0.1)
    axes.set_ylim(-0.06, 1.06)
    axes.set_ylabel("Users identified")
    meaning = [Line2D([], [], color=GREY, label="worst attack up to that damage")]
    drawing.legend(figure, series, attacks["scheme"], meaning)
    drawing.label_corners(figure, axes, corners if attacks["scheme"].nunique() == 1 else [])
    return figure


def _damage_axis(axes: Axes, board: Table, attacks: Table, damage: str, series: dict[str, Look]) -> None:
    """Damage grows to the right; dotted lines show the quality without an attack."""
    if damage != "quality":
        axes.invert_xaxis()
        unit = "" if damage in SHARES else " (dB)"
        axes.set_xlabel(f"{damage.upper().replace('_', '-')} after the attack{unit}; damage grows to the right")
        return
    metric = f" ({board['quality_metric'].iloc[0]})" if len(board) else ""
    axes.set_xlabel(f"Fréchet distance{metric} after the attack; dotted: without attack")
    if "quality_unattacked" in attacks:  # of the same items: distances at different n cannot be compared
        for scheme, quality in attacks.groupby("scheme")["quality_unattacked"].first().items():
            axes.axvline(quality, color=series[scheme].colour, linewidth=0.9, linestyle=":")


def scores(board: Table, series: dict[str, Look]) -> Figure:
    """Bars of the leaderboard's scores in 0 … 1, with the worst bit accuracy as a black line."""
    bars = {key: label for key, label in SCORES.items() if _has(board, key)}
    thick = 0.8 / len(board)
    figure = Figure(figsize=(WIDTH * 0.75, 0.7 + len(bars) * max(0.34, 0.2 * len(board))), layout="constrained")
    axes = figure.add_subplot()
    for index, (_, row) in enumerate(board.iterrows()):
        look = series[row["scheme"]]
        places = np.arange(len(bars)) + (index - (len(board) - 1) / 2) * thick
        axes.barh(places, row[list(bars)].astype(float), 0.9 * thick, color=look.colour, hatch=look.hatch, ec="white")
        for place, key in zip(places, bars, strict=True):
            value, worst = float(row[key]), float(row.get(f"{key}_worst", math.nan))
            shown = ("not run", 0.0) if math.isnan(value) else (f"{value:.2f}", value)
            axes.text(shown[1] + 0.01, place, shown[0], va="center", fontsize=8)
            axes.vlines(worst, place - 0.45 * thick, place + 0.45 * thick, color="black", linewidth=2)
    axes.set_yticks(range(len(bars)), list(bars.values()))
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set(xlim=(0, 1.08), xticks=np.linspace(0, 1, 6))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("Black line: worst attack within the quality bound")
    drawing.legend(figure, series, board["scheme"], areas=True)
    return figure


def sheet(rows: Mapping[str, Tensor], path: Path) -> Path:
    """Write a contact sheet: a line of pictures for each name.

    Args:
        rows: name to pictures, uint8 (B, 3, H, W) with one B; the first eight are shown.
        path: file to write; its suffix names the format.

    Raises:
        ValueError: when the numbers of pictures differ.
    """
    counts = {name: len(pictures) for name, pictures in rows.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"sheet: expected rows of equal length, found {counts}")
    columns = min(8, *counts.values())
    with matplotlib.rc_context({**RC, "axes.grid": False}):
        tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.01, wspace=0.02, hspace=0.02)
        figure = Figure(figsize=(1.2 + 0.78 * columns, 0.78 * len(rows)), layout=tight)
        panels = figure.subplots(len(rows), columns, squeeze=False)
        for (name, pictures), line in zip(rows.items(), panels, strict=True):
            for picture, axes in zip(pictures, line, strict=False):
                axes.imshow(picture.permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            line[0].set_ylabel(name.replace("(", "\n(", 1), rotation=0, ha="right", va="center")
        return drawing.save(figure, path)
