"""The map of robustness: a line for each category of attacks, a column for each scheme."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from bench.drawing import GREY, WIDTH, Table

CHANCE, PERFECT = 0.5, 1.0
COLOURS = matplotlib.colormaps["cividis"]
"""Runs from dark blue to yellow, the same for colour-blind readers and in grey; every cell also says its number."""
UPPER, LOWER = "bit_accuracy_auc", "worst_bit_accuracy"
MEANING = (
    "Bold and colour: mean over the qualities that are tolerated (0.5 is chance). Below: worst case within the bound. "
    "A dash: no attack stayed within it."
)
ROW, COLUMN = 0.36, (0.5, 0.9)  # inches: height of a line, narrowest and widest column


def categories(table: Table) -> Figure:
    """Area under attribution against quality, as colour and upper number, above the worst case within the bound.

    A cell without a number stands for attacks none of which stayed within the bound; an empty place for a category
    that the scheme did not meet.

    Args:
        table: ``robustness_categories.csv``.
    """
    places = list(dict.fromkeys(zip(table["target"], table["category"], strict=True)))
    schemes = list(dict.fromkeys(table["scheme"]))
    names = [f"All attacks on {target}s" if title == "all" else f"    {title}" for target, title in places]
    names = [name.replace("on contents", "on content").replace("on coalitions", "by coalitions") for name in names]
    wide = min(COLUMN[1], max(COLUMN[0], (WIDTH - 2.6) / len(schemes)))
    figure = Figure(figsize=(3.4 + wide * len(schemes), 1.1 + ROW * len(places)), layout="constrained")
    axes = figure.add_subplot()
    for _, row in table.iterrows():
        at = schemes.index(row["scheme"]), places.index((row["target"], row["category"]))
        _cell(axes, at, float(row[UPPER]), float(row[LOWER]))
    axes.set_xlim(-0.5, len(schemes) - 0.5)
    axes.set_ylim(len(places) - 0.5, -0.5)
    labels = [textwrap.fill(scheme, 30) for scheme in schemes]
    slanted: dict[str, Any] = {"rotation": 60, "ha": "left", "rotation_mode": "anchor"}
    style = slanted if max(map(len, labels)) > 12 * wide else {}
    axes.set_xticks(range(len(schemes)), labels, **style)
    axes.set_yticks(range(len(names)), names, ha="left")
    axes.tick_params(axis="both", length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.tick_params(axis="y", pad=7 + 5.2 * max(map(len, names)))
    for place, (_, title) in enumerate(places):
        if title == "all":
            axes.get_yticklabels()[place].set_fontweight("bold")
            axes.axhline(place - 0.5, color="black", linewidth=0.8)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    _scale(figure, axes)
    return figure


def _cell(axes: Axes, at: tuple[int, int], upper: float, lower: float) -> None:
    x, y = at
    known = np.isfinite(upper)
    level = Normalize(CHANCE, PERFECT, clip=True)(upper) if known else 0.0
    style: dict[str, Any] = {"facecolor": COLOURS(level)} if known else {"facecolor": "white", "hatch": "////"}
    axes.add_patch(matplotlib.patches.Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, edgecolor="#c0c0c0", **style))
    ink = "white" if known and level < 0.55 else "black"
    mark: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
    if not known:
        axes.text(x, y, "–", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5}, **mark)
        return
    axes.text(x, y - 0.17, f"{upper:.2f}", fontsize=8.5, fontweight="bold", **mark)
    axes.text(x, y + 0.24, f"{lower:.2f}", fontsize=7, **mark)


def _scale(figure: Figure, axes: Axes) -> None:
    values = matplotlib.cm.ScalarMappable(Normalize(CHANCE, PERFECT), COLOURS)
    figure.colorbar(values, ax=axes, location="bottom", aspect=30, fraction=0.04, pad=0.02, label="Bit accuracy")
    lines = textwrap.wrap(MEANING, int(14 * figure.get_figwidth()))
    figure.set_figheight(figure.get_figheight() + 0.13 * len(lines))
    figure.supxlabel("\n".join(lines), x=0.02, ha="left", fontsize=7.5, color=GREY)
