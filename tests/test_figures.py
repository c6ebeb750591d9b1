"""Figures: right values at right places, what a table lacks is left out, and the same bytes every time."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

from bench import drawing, figures
from bench.protocol import UserError

GRIDS = {
    ("JPEG", "content", "quality"): (90.0, 50.0, 10.0),
    ("GaussianNoise", "content", "std"): (0.02, 0.1),
    ("HorizontalFlip", "content", ""): (math.nan,),
    ("WeightNoise", "model", "std over each tensor's own"): (0.01, 0.1),
    ("AverageWeights", "coalition", "users"): (2.0, 3.0),
}


def attacks(schemes: tuple[str, ...]) -> pd.DataFrame:
    rows = []
    for scheme in schemes:
        for (attack, target, unit), strengths in GRIDS.items():
            for index, strength in enumerate(strengths):
                accuracy, identified = 0.98 - 0.2 * index, 0.9 - 0.4 * index
                row = {"scheme": scheme, "attack": attack, "target": target, "strength": strength, "unit": unit}
                row |= {
                    "bit_accuracy": accuracy,
                    "bit_accuracy_lo": accuracy - 0.02,
                    "bit_accuracy_hi": accuracy + 0.02,
                }
                row |= {"identification": identified, "identification_lo": identified - 0.1, "psnr": 35.0 - 8 * index}
                row |= {
                    "identification_hi": identified + 0.1,
                    "quality": 12.0 + 5 * index if target == "model" else None,
                }
                row |= {"caught": 1 - 0.5 * index, "framed": 0.01} if target == "coalition" else {}
                rows.append(row)
    return pd.DataFrame(rows)


def capacity(schemes: tuple[str, ...]) -> pd.DataFrame:
    rows = [
        (scheme, items, 10**power, 0.99 - 0.1 * power / items, power < 4)
        for scheme in schemes
        for items in (1, 5, 20)
        for power in range(6)
    ]
    table = pd.DataFrame(rows, columns=["scheme", "items", "registered", "identification", "resolvable"])
    table.loc[~table["resolvable"], "identification"] = math.nan
    return table.assign(lo=table["identification"] - 0.02, hi=table["identification"] + 0.02)


def leaderboard(schemes: tuple[str, ...]) -> pd.DataFrame:
    numbers = {"identification": 0.97, "bit_accuracy": 0.99, "quality_metric": "fd_test", "quality_fingerprinted": 11.0}
    scores = {"robustness_content": 0.8, "robustness_content_worst": 0.6, "robustness_model": math.nan}
    return pd.DataFrame([{"scheme": scheme, **numbers, **scores} for scheme in schemes])


def results(folder: Path, *schemes: str) -> Path:
    folder.mkdir(exist_ok=True)
    for table in (leaderboard, attacks, capacity):
        table(schemes).to_csv(folder / f"{table.__name__}.csv", index=False)
    return folder


def names(written: list[Path]) -> set[str]:
    return {path.stem for path in written}


ALL = {
    *("scores", "capacity", "robustness_content", "robustness_model", "robustness_coalition"),
    *("quality_content", "quality_model"),
}


def test_every_figure_is_written_as_svg_and_png(tmp_path: Path) -> None:
    written = figures.draw(results(tmp_path / "run", "A"))
    assert names(written) == ALL
    assert {path.name for path in (tmp_path / "run" / "figures").iterdir()} == {
        f"{name}.{suffix}" for name in ALL for suffix in ("svg", "png")
    }


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    folders = [results(tmp_path / name, "A", "B(bits=32)") for name in ("one", "two")]
    for folder in folders:
        (folder / "attacks.csv").unlink()
    one, two = ([path.read_bytes() for path in figures.draw(folder)] for folder in folders)
    assert len(one) == 4
    assert one == two


def test_svg_holds_no_date(tmp_path: Path) -> None:
    folder = results(tmp_path / "run", "A")
    (folder / "attacks.csv").unlink()
    (folder / "leaderboard.csv").unlink()
    svg = next(path for path in figures.draw(folder) if path.suffix == ".svg").read_text()
    assert "<svg" in svg
    assert "dc:date" not in svg


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ({"none"}, {"scores", "capacity"}),
        ({"none", "content"}, {"scores", "capacity", "robustness_content", "quality_content"}),
        ({"coalition"}, {"scores", "capacity", "robustness_coalition"}),
    ],
)
def test_axes_that_were_not_run_have_no_figure(tmp_path: Path, keep: set[str], expected: set[str]) -> None:
    folder = results(tmp_path / "run", "A")
    table = pd.read_csv(folder / "attacks.csv")
    table[table["target"].isin(keep)].to_csv(folder / "attacks.csv", index=False)
    assert names(figures.draw(folder)) == expected


def test_unmeasured_damage_has_no_trade_off(tmp_path: Path) -> None:
    folder = results(tmp_path / "run", "A")
    pd.read_csv(folder / "attacks.csv").drop(columns=["psnr", "quality"]).to_csv(folder / "attacks.csv", index=False)
    assert names(figures.draw(folder)) == ALL - {"quality_content", "quality_model"}


def test_an_empty_folder_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"expected leaderboard\.csv, .*, robustness_categories\.csv, found none",
    ):
        figures.draw(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a,b\n"1,2\n'])
def test_a_broken_table_is_the_users_mistake(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "capacity.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"capacity\.csv: expected") as caught:
        figures.draw(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    folder = results(tmp_path / "run", "A")
    pd.read_csv(folder / "capacity.csv").drop(columns="registered").to_csv(folder / "capacity.csv", index=False)
    with pytest.raises(UserError, match=r"expected the columns registered, found scheme, items"):
        figures.draw(folder)


def test_curves_pass_through_the_table_mildest_first() -> None:
    table = attacks(("A", "B"))
    figure = figures.robustness(table[table["target"] == "content"], drawing.looks(["A", "B"]))
    jpeg, noise, flip = figure.axes
    curve = next(line for line in jpeg.lines if len(line.get_xdata()) == 3)
    assert [label.get_text() for label in jpeg.get_xticklabels()] == ["90", "50", "10"]
    np.testing.assert_allclose(curve.get_ydata(), [0.98, 0.78, 0.58])
    assert len(jpeg.collections) == 2, "one interval band for each scheme"
    assert [label.get_text() for label in flip.get_xticklabels()] == ["applied"]
    assert noise.get_xlabel() == "std"
    assert jpeg.get_ylim() == noise.get_ylim() == (0.4, 1.02)


def test_no_curve_leaves_its_axes() -> None:
    table = attacks(("A",))
    table.loc[table["strength"] == 10, "bit_accuracy"] = 0.25
    for part in (table, table.drop_duplicates("attack", keep="last")):
        (axes, *_) = figures.robustness(part, drawing.looks(["A"])).axes
        low = axes.get_ylim() if part is table else axes.get_xlim()
        assert low[0] == 0.22


def test_single_strengths_become_dots_with_arms() -> None:
    table = attacks(("A",)).drop_duplicates("attack")
    figure = figures.robustness(table, drawing.looks(["A"]))
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:3] == ["JPEG, quality = 90", "Gaussian noise, std = 0.02", "Horizontal flip"]
    (bars,) = axes.containers
    (arms,) = bars.lines[2]
    assert list(bars.lines[0].get_xdata()) == pytest.approx([0.98] * len(GRIDS))
    assert [point[0] for point in arms.get_segments()[0]] == pytest.approx([0.96, 1.0])


def test_the_trade_off_line_is_the_worst_case_so_far() -> None:
    table = attacks(("A",))
    table = table[table["target"] == "content"].assign(
        psnr=[30.0, 20.0, 25.0, 40.0, 10.0, math.inf], identification=[0.5, 0.7, 0.2, 0.9, 0.1, 0.0]
    )
    figure = figures.trade_off(table, leaderboard(("A",)), drawing.looks(["A"]), "psnr")
    (axes,) = figure.axes
    line = next(line for line in axes.lines if line.get_drawstyle() == "steps-post")
    np.testing.assert_array_equal(line.get_xdata(), [40, 30, 25, 20, 10])
    np.testing.assert_array_equal(line.get_ydata(), [0.9, 0.5, 0.2, 0.2, 0.1])
    left, right = axes.get_xlim()
    assert left > right, "damage grows to the right"


def test_capacity_stops_where_no_threshold_exists() -> None:
    figure = figures.capacities(capacity(("A",)), drawing.looks(["A"]))
    (axes,) = figure.axes
    curves = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert [list(curve.get_xdata()) for curve in curves] == [[1, 10, 100, 1000]] * 3
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [1000] * 3
    assert len(figures.capacities(capacity(("A", "B")), drawing.looks(["A", "B"])).axes) == 3


def test_scores_say_what_was_not_run() -> None:
    board = leaderboard(("A", "B"))
    board.loc[0, "robustness_model"] = 0.7
    (axes,) = figures.scores(board, drawing.looks(["A", "B"])).axes
    assert [text.get_text() for text in axes.texts] == [
        "0.97",
        "0.99",
        "0.80",
        "0.70",
        "0.97",
        "0.99",
        "0.80",
        "not run",
    ]
    assert len(axes.get_yticklabels()) == 4, "coalitions have no column here"


@pytest.mark.parametrize("count", [1, 2, 7])
def test_text_lies_within_the_figure(count: int) -> None:
    schemes = tuple(f"Scheme{index}(bits=32, modulation=Something(depth=0.2), layers='all')" for index in range(count))
    table, series = attacks(schemes), drawing.looks(schemes)
    content, coalition = (table[table["target"] == target] for target in ("content", "coalition"))
    with matplotlib.rc_context(drawing.RC):
        drawn = [
            figures.robustness(content, series),
            figures.robustness(content.drop_duplicates(["scheme", "attack"]), series),
            figures.coalitions(coalition, series),
            figures.capacities(capacity(schemes), series),
            figures.trade_off(content, leaderboard(schemes), series, "psnr"),
            figures.scores(leaderboard(schemes), series),
        ]
        for figure in drawn:
            figure.draw_without_rendering()
            box, tight = figure.bbox, figure.get_tightbbox().transformed(figure.dpi_scale_trans)
            assert (box.x0 - 1 <= tight.x0) and (tight.x1 <= box.x1 + 1), "something is clipped sideways"
            assert (box.y0 - 1 <= tight.y0) and (tight.y1 <= box.y1 + 1), "something is clipped above or below"


def test_looks_differ_in_shape_not_only_in_colour() -> None:
    series = drawing.looks([f"scheme {index}" for index in range(12)])
    assert len({(look.marker, look.dash) for look in series.values()}) == 12
    assert len({look.colour for look in list(series.values())[:7]}) == 7
