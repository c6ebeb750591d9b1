"""How figures look: readable in print, by colour-blind readers, and the same bytes on every run.

Colours are those of Okabe and Ito, "Color Universal Design", 2008; every series also has its own marker and dash, so
no figure depends on colour.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
HATCHES = ("", "////", "....", "xxxx")
WIDTH = 7.2  # inches: the text width of a two-column page
GREY = "#6b6b6b"
RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "hatch.linewidth": 0.6,
    "figure.constrained_layout.w_pad": 0.06,
    "figure.constrained_layout.h_pad": 0.06,
    "savefig.dpi": 200,
    "svg.hashsalt": "genprint",
}
WRITTEN = ("WebP",)
DATED = {"svg": "Date", "png": "Software", "pdf": "CreationDate"}
"""What of a file's metadata would differ from day to day, or from library to library."""
Table = Any
"""A pandas table; pandas ships no types."""


@dataclass(frozen=True)
class Look:
    """How one series is told apart: by colour, by marker, by dash, and by hatch where it is an area."""

    colour: str
    marker: str
    dash: Any
    hatch: str


def looks(names: Iterable[str]) -> dict[str, Look]:
    """One look per distinct name, in order; the first seven colours are distinct, combinations never repeat early."""
    distinct = list(dict.fromkeys(names))
    return {
        name: Look(COLOURS[i % 7], MARKERS[i % 6], DASHES[i % 4], HATCHES[i % 4]) for i, name in enumerate(distinct)
    }


def spread(rows: Table, width: float = 0.4) -> Iterator[tuple[float, str, Table]]:
    """Offset in ±width/2, scheme and rows of each scheme, so that dots of one place do not cover each other."""
    groups = list(rows.groupby("scheme", sort=False))
    for index, (scheme, part) in enumerate(groups):
        yield width * (index - (len(groups) - 1) / 2) / max(1, len(groups) - 1), scheme, part


def arms(rows: Table, column: str) -> Any:
    """Lengths (2, n) of the interval's arms, for ``errorbar``."""
    middle, low, high = (rows[column + end].to_numpy(dtype=float) for end in ("", "_lo", "_hi"))
    return np.nan_to_num(np.clip(np.stack([middle - low, high - middle]), 0, None))


def floor(rows: Table) -> float:
    """Where an axis of bit accuracy begins: below chance, and below all ``rows`` with their intervals."""
    return min(0.4, float(rows[["bit_accuracy", "bit_accuracy_lo"]].min(axis=None)) - 0.03)


def band(axes: Axes, x: Any, rows: Table, column: str, look: Look) -> None:
    """A curve with its interval as a band; a single place gets a dot with an error bar."""
    style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "linestyle": look.dash}
    if len(rows) < 2:
        axes.errorbar(x, rows[column], yerr=arms(rows, column), elinewidth=1.1, **style)
        return
    axes.fill_between(x, rows[f"{column}_lo"], rows[f"{column}_hi"], color=look.colour, alpha=0.18, linewidth=0)
    axes.plot(x, rows[column], **style)


def grid(panels: int, *, columns: int, height: float, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """Small multiples that share the y axis; places that no panel needs stay empty."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width, height * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for spare in axes[panels:]:
        spare.remove()
    return figure, list(axes[:panels])


def legend(
    figure: Figure,
    series: dict[str, Look],
    names: Iterable[str],
    extra: Sequence[Line2D] = (),
    *,
    areas: bool = False,
) -> None:
    """One legend above everything, for which the figure grows: the series, when there are several, and ``extra``.

    Args:
        figure: what it belongs to.
        series: look of each series.
        names: series that occur.
        extra: further entries.
        areas: True when the series are bars instead of lines.
    """
    used = set(names)
    shown = {name: look for name, look in series.items() if name in used and len(used) > 1}
    wide = int((figure.get_figwidth() - 0.6) / 0.07)  # characters beside one handle
    named = {textwrap.fill(name, min(56, wide)): look for name, look in shown.items()}
    handles: list[Artist] = [_swatch(name, look) if areas else _stroke(name, look) for name, look in named.items()]
    handles += extra
    if handles:
        lines = [str(handle.get_label()).split("\n") for handle in handles]
        longest = max(len(line) for text in lines for line in text)
        columns = max(1, min(4, len(handles), int(figure.get_figwidth() / (0.5 + 0.07 * longest))))
        high = -(-sum(len(text) for text in lines) // columns)
        figure.set_figheight(figure.get_figheight() + 0.18 * high)
        figure.legend(handles=handles, loc="outside upper left", ncols=columns, borderpad=0.1, handlelength=2.4)


def _stroke(name: str, look: Look) -> Artist:
    style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "linestyle": look.dash}
    return Line2D([], [], label=name, **style)


def _swatch(name: str, look: Look) -> Artist:
    return Patch(facecolor=look.colour, hatch=look.hatch, edgecolor="white", label=name)


def label_corners(figure: Figure, axes: Axes, corners: Sequence[tuple[float, float, str]]) -> None:
    """Write a text left of each corner (x, y, text) of a falling step curve, where nothing else can be.

    Earlier corners go first; a text that would cover another one or leave the panel is left out.
    """
    figure.draw_without_rendering()
    frame, taken = axes.get_window_extent(), list[Any]()
    for x, y, text in corners:
        style: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "center", "fontsize": 8}
        note = axes.annotate(text, (x, y), xytext=(-6, 0), **style)
        note.set_in_layout(False)
        box = note.get_window_extent()
        if box.x0 < frame.x0 or box.y0 < frame.y0 or any(box.overlaps(other) for other in taken):
            note.remove()
        else:
            taken.append(box)


def words(name: str) -> str:
    """An attack's name in plain words.

    Example:
        >>> words("GaussianNoise"), words("JPEG"), words("weight-noise")
        ('Gaussian noise', 'JPEG', 'Weight noise')
    """
    if name in WRITTEN:
        return name
    text = re.sub(r"(?<=[a-z])(?=[A-Z])|[-_]", " ", name)
    plain = " ".join(part if part.isupper() else part.lower() for part in text.split())
    return plain[:1].upper() + plain[1:]


def setting(row: Table, unit: str = "") -> str:
    """An attack with its strength, such as ``JPEG 50``, or with the unit, too: ``JPEG, quality = 50``."""
    name = words(str(row["attack"]))
    if np.isnan(row["strength"]):
        return name
    return f"{name}, {unit} = {row['strength']:g}" if unit else f"{name} {row['strength']:g}"


def save(figure: Figure, path: Path) -> Path:
    """Write the figure, whole or not at all, with no date in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.lstrip(".")
    partial = path.with_name(f"{path.name}.part")
    figure.savefig(partial, format=kind, metadata={DATED[kind]: None})
    os.replace(partial, path)
    return path
