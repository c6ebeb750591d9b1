"""Paper figures of a comparison: one or two columns wide, PDF with embedded fonts, PNG, and what each shows as CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bench import drawing
from bench.compare_tables import DECIBELS, LOSSES, TABLES
from bench.drawing import GREY, RC, Look, Table
from bench.protocol import UserError

COLUMN, PAGE = 3.3, 6.9
"""Widths in inches: of one column and of the text."""
PAPER: Any = RC | {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.2,
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}
"""Type 42 puts whole TrueType fonts into the PDF, which publishers ask for."""
ALWAYS = ("amplitude", "amplitude+noise")
SHOWN = 7
"""Series in a figure of curves: :data:`ALWAYS`, and those that keep most at the first loss."""
METRICS = {"psnr": ("PSNR", " dB"), "si_sdr": ("SI-SDR", " dB"), "iou": ("IoU", "")}
"""How figures write a paired metric, and its unit."""

Plot = Callable[[dict[str, Table]], tuple[Figure, Table]]


def draw_comparison(folder: Path) -> list[Path]:
    """Draw the figures of a comparison from its tables, into ``folder / "figures"``.

    Raises:
        UserError: when a table is missing or empty.
    """
    tables: dict[str, Table] = {}
    for name in TABLES:
        try:
            tables[name] = pd.read_csv(folder / f"{name}.csv")
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / name}.csv: expected a table of a comparison, found: {error}") from error
    plots: dict[str, Plot] = {
        "bit_accuracy": lambda t: against_loss(t, "bit_accuracy", "Bit accuracy"),
        "identification": lambda t: against_loss(t, "identification", "Identified"),
        "weight_noise": weight_noise,
        "heat": heat_map,
        "capacity": capacity,
        "cost": cost,
        "bits": bits,
    }
    written: list[Path] = []
    with matplotlib.rc_context(PAPER):
        for name, plot in plots.items():
            figure, shown = plot(tables)
            path = folder / "figures" / name
            written += [drawing.save(figure, path.with_suffix(f".{kind}")) for kind in ("pdf", "png")]
            shown.to_csv(path.with_suffix(".csv"), index=False, float_format="%.6g", lineterminator="\n")
            written.append(path.with_suffix(".csv"))
    return written


def shown_names(tables: dict[str, Table]) -> list[str]:
    """Whose curves are drawn, best first after those that always are."""
    heat = tables["heat"]
    column = next(name for name in heat if name.startswith("at_"))
    best = heat.sort_values([column, "clean"], ascending=False, na_position="last", kind="stable")["name"]
    present = [name for name in ALWAYS if name in set(heat["name"])]
    return list(dict.fromkeys([*present, *best]))[:SHOWN]


def over_seeds(rows: Table, column: str, by: Sequence[str]) -> Table:
    """Mean of a column and of its loss over seeds; the band is from the lowest interval's end to the highest."""
    grouped = rows.groupby(list(by), sort=False)
    mean = grouped.agg({"loss": "mean", column: "mean", f"{column}_lo": "min", f"{column}_hi": "max"})
    return mean.reset_index()


def against_loss(tables: dict[str, Table], column: str, label: str) -> tuple[Figure, Table]:
    """A column against the paired fidelity that the attack costs, one panel for each attack."""
    names = shown_names(tables)
    rows = tables["curves"][tables["curves"]["name"].isin(names)]
    means = over_seeds(rows, column, ("attack", "name", "strength"))
    metric, attacks = str(rows["paired_metric"].iloc[0]), list(dict.fromkeys(means["attack"]))
    series = drawing.looks(names)
    figure, panels = drawing.grid(len(attacks), columns=3, height=1.6, width=PAGE)
    for attack, axes in zip(attacks, panels, strict=True):
        part = means[means["attack"] == attack]
        for name, look in series.items():
            line = part[part["name"] == name].sort_values("loss")
            drawing.band(axes, line["loss"], line, column, look)
        if column == "bit_accuracy":
            axes.axhline(0.5, color=GREY, linewidth=0.7, linestyle=":")
        axes.set_title(drawing.words(attack), loc="left")
        axes.set_ylim(*((0.45, 1.02) if column == "bit_accuracy" else (-0.03, 1.03)))
    title, unit = METRICS.get(metric, (metric, ""))
    figure.supxlabel(
        f"{title} that the attack costs{f' ({unit.strip()})' if unit else ''}", fontsize=PAPER["font.size"]
    )
    figure.supylabel(label, fontsize=PAPER["font.size"])
    _legend(figure, series)
    return figure, means


def weight_noise(tables: dict[str, Table]) -> tuple[Figure, Table]:
    """Bit accuracy against the relative standard deviation of noise on all weights."""
    names = shown_names(tables)
    rows = tables["curves"]
    rows = rows[rows["name"].isin(names) & (rows["attack"] == "WeightNoise")]
    means = over_seeds(rows, "bit_accuracy", ("name", "strength"))
    figure, (axes,) = drawing.grid(1, columns=1, height=1.9, width=COLUMN)
    series = drawing.looks(names)
    for name, look in series.items():
        line = means[means["name"] == name].sort_values("strength")
        drawing.band(axes, line["strength"], line, "bit_accuracy", look)
    axes.axhline(0.5, color=GREY, linewidth=0.7, linestyle=":")
    axes.set(xlabel="Noise over each tensor's spread", ylabel="Bit accuracy", ylim=(0.45, 1.02))
    _legend(figure, series)
    return figure, means


def heat_map(tables: dict[str, Table]) -> tuple[Figure, Table]:
    """Bit accuracy at the first loss, modulations by recipes; empty where it was not reached or not trained."""
    heat = tables["heat"]
    column = next(name for name in heat if name.startswith("at_"))
    metric = str(heat["paired_metric"].iloc[0])
    first = LOSSES.get(metric, DECIBELS)[0]
    order = {axis: list(dict.fromkeys(heat[axis])) for axis in ("modulation", "recipe")}
    grid = heat.pivot_table(index="modulation", columns="recipe", values=column, dropna=False)
    grid = grid.reindex(index=order["modulation"], columns=order["recipe"])
    wide = PAGE if len(grid.columns) > 4 else COLUMN
    figure = Figure(figsize=(wide, 0.75 + 0.19 * len(grid)), layout="constrained")
    axes = figure.subplots()
    values = grid.to_numpy(float)
    picture = axes.imshow(values, vmin=0.5, vmax=1, cmap="cividis", aspect="auto")
    for (row, place), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "black" if value > 0.75 else "white"
            axes.text(place, row, f"{value:.3f}", ha="center", va="center", color=colour, fontsize=6)
    axes.set_xticks(
        range(len(grid.columns)),
        grid.columns,
        rotation=35,
        ha="right",
    )
    axes.set_yticks(range(len(grid)), grid.index)
    axes.grid(visible=False)
    figure.colorbar(picture, ax=axes, label="Bit accuracy", pad=0.01)
    title, unit = METRICS.get(metric, (metric, ""))
    axes.set_title(f"Weight noise that costs {first:g}{unit} of {title}", loc="left")
    return figure, heat


def capacity(tables: dict[str, Table]) -> tuple[Figure, Table]:
    """Identification among growing numbers of users, most items read together that were measured."""
    names, table = shown_names(tables), tables["capacity"]
    table = table[table["name"].isin(names) & (table["items"] == table["items"].max())]
    table = table[table["identification"].notna()]
    columns = {"identification": "mean", "lo": "min", "hi": "max"}
    means = table.groupby(["name", "items", "registered"], sort=False).agg(columns).reset_index()
    means = means.rename(columns={"lo": "identification_lo", "hi": "identification_hi"})
    figure, (axes,) = drawing.grid(1, columns=1, height=1.9, width=COLUMN)
    series = drawing.looks(names)
    for name, look in series.items():
        line = means[means["name"] == name]
        drawing.band(axes, line["registered"], line, "identification", look)
    axes.axhline(0.95, color=GREY, linewidth=0.7, linestyle=":")
    axes.set(xscale="log", xlabel="Registered users", ylabel="Identified", ylim=(-0.03, 1.03))
    together = table["items"].max()
    axes.set_title("Single items" if together == 1 else f"{together} items read together", loc="left")
    _legend(figure, series)
    return figure, means


def cost(tables: dict[str, Table]) -> tuple[Figure, Table]:
    """Seconds for one user's copy, and for the training, of every scheme."""
    columns = {"seconds_per_copy": "mean", "fit_seconds": "mean", "changed_bytes": "mean"}
    means = tables["codecs"].groupby("name", sort=False).agg(columns).reset_index()
    figure = Figure(figsize=(COLUMN, 0.7 + 0.13 * len(means)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(means))[::-1]
    for column, label, look in zip(
        ("seconds_per_copy", "fit_seconds"), ("copy", "training"), drawing.looks("ab").values(), strict=True
    ):
        values = means[column].clip(lower=1e-4)
        axes.scatter(values, places, color=look.colour, marker=look.marker, s=10, label=label)
    axes.set_yticks(places, means["name"])
    axes.set(xscale="log", xlabel="Seconds", ylim=(-0.8, len(means) - 0.2))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure, means


def bits(tables: dict[str, Table]) -> tuple[Figure, Table]:
    """Accuracy of each bit, the worst on the left: without attack, and under weight noise of the middle strength."""
    names, table = shown_names(tables), tables["bits"]
    noise = table["attack"] == "WeightNoise"
    strengths = sorted(table.loc[noise, "strength"].unique())
    middle = strengths[len(strengths) // 2]
    table = table[table["name"].isin(names) & (~noise | (table["strength"] == middle))]
    means = table.groupby(["name", "attack", "bit"], sort=False)["accuracy"].mean().reset_index()
    figure, panels = drawing.grid(2, columns=2, height=1.7, width=PAGE)
    series = drawing.looks(names)
    titles = {"none": "No attack", "WeightNoise": f"Weight noise {middle:g}"}
    for (attack, title), axes in zip(titles.items(), panels, strict=True):
        for name, look in series.items():
            values = np.sort(means[(means["name"] == name) & (means["attack"] == attack)]["accuracy"])
            axes.plot(np.arange(1, len(values) + 1), values, color=look.colour, linestyle=look.dash)
        axes.axhline(0.5, color=GREY, linewidth=0.7, linestyle=":")
        axes.set_title(title, loc="left")
        axes.set_xlabel("Bits, worst first")
    panels[0].set_ylabel("Accuracy of a bit")
    _legend(figure, series)
    return figure, means


def _legend(figure: Figure, series: dict[str, Look]) -> None:
    drawing.legend(figure, series, series)
