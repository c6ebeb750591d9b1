"""The figure that shows at a glance which kinds of attack a scheme withstands: ``robustness_map``."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.drawing import GREY, RC, WIDTH, Table

COLUMNS = ("scheme", "target", "category", "area", "worst")
PANELS = {"area": "Mean over qualities", "worst": "Worst within the bound"}
COLOURS = colormaps["cividis"]
"""Nuñez, Anderton, Renslow, PLOS ONE 2018: evenly lighter for readers with and without colour vision deficiency."""


def heat_map(categories: Table) -> Figure:
    """Attribution that attacks of each category leave each scheme, as colours with the numbers on them.

    Args:
        categories: ``robustness_categories.csv``.
    """
    rows = list(dict.fromkeys(zip(categories["target"], categories["category"], strict=True)))
    schemes = list(dict.fromkeys(categories["scheme"]))
    upright = len(schemes) > 1
    names = [textwrap.fill(scheme, 24 if upright else 40) for scheme in schemes]
    longest = max(len(line) for name in names for line in name.split("\n")) if upright else 0
    size = (WIDTH, 1.0 + 0.26 * len(rows) + 0.07 * longest)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True, squeeze=False)[0]
    for axes, (column, title) in zip(panels, PANELS.items(), strict=True):
        values = categories.pivot_table(index=["target", "category"], columns="scheme", values=column, dropna=False)
        _cells(axes, values.reindex(index=rows, columns=schemes).to_numpy(dtype=float))
        axes.set_title(title, loc="left")
        axes.set_xticks(np.arange(len(schemes)) + 0.5, names, rotation=90 if upright else 0)
        for place in range(1, len(rows)):
            if rows[place][0] != rows[place - 1][0]:
                axes.axhline(place, color="black", linewidth=1.6)
    panels[0].set_yticks(np.arange(len(rows)) + 0.5, [_label(*row) for row in rows])
    panels[0].invert_yaxis()
    figure.supxlabel(
        "Attribution left: 1 all bits right, 0 chance; –: nothing within the bound", fontsize=RC["font.size"]
    )
    return figure


def _label(target: str, category: str) -> str:
    """A category with what its attacks act on, where the name does not say so."""
    return category if target in category else f"{category} ({target})"


def _cells(axes: Axes, values: np.ndarray) -> None:
    """Coloured cells (rows, schemes) with their numbers; grey where there is none."""
    axes.pcolormesh(np.ma.masked_invalid(values), cmap=COLOURS, vmin=0, vmax=1, edgecolors="white", linewidth=1)
    axes.set_facecolor("#e4e4e4")
    for (row, column), value in np.ndenumerate(values):
        known = bool(np.isfinite(value))
        ink = GREY if not known else "white" if value < 0.5 else "black"
        axes.text(column + 0.5, row + 0.5, f"{value:.2f}" if known else "–", color=ink, ha="center", va="center")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
