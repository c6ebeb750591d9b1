"""The README keeps its word: its code runs, its table is the committed run, its links and commands exist."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.__main__ import app
from bench.compare_tables import TABLES as COMPARED_TABLES
from bench.printed import read_csv
from bench.protocol import UserError
from bench.readme import attacks, inserted, side_by_side, table
from bench.report import SHOWN
from bench.results_commands import COMMITTED

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
REFERENCES = {folder.parent.name: folder for folder in sorted((ROOT / "leaderboards").glob("*/reference"))}
EVERYONE = sorted((ROOT / "leaderboards").glob("*/all"))
COMPARISONS = [path for name in COMMITTED[2:] for path in sorted((ROOT / "leaderboards").glob(f"*/{name}"))]
CODE = dict(re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^\.venv/bin/python -m bench (.* my_.*)$", README, re.MULTILINE)
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """A folder that can be imported from, with the README's code in it; drawing is tested elsewhere."""
    for name, text in CODE.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("bench.figures.draw", lambda folder: [])
    monkeypatch.setattr("bench.figures.sheet", lambda rows, path: path)
    return tmp_path


def test_there_is_a_committed_run() -> None:
    assert {"3d", "audio", "image"} <= set(REFERENCES), "run `make leaderboards`"
    assert {folder.parent.name for folder in EVERYONE} == set(REFERENCES)


@pytest.mark.parametrize("modality", REFERENCES)
def test_the_tables_are_the_committed_run(modality: str) -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / f"results-{modality}.md"):
        text = page.read_text(encoding="utf-8")
        assert inserted(text, REFERENCES[modality]) == text, "run `.venv/bin/python -m bench.readme` on the reference"


@pytest.mark.parametrize("folder", EVERYONE, ids=lambda folder: folder.parent.name)
def test_everyone_is_on_the_board_of_all(folder: Path) -> None:
    page = (ROOT / "docs" / "leaderboards.md").read_text(encoding="utf-8")
    assert inserted(page, folder) == page, "run `.venv/bin/python -m bench.readme` on the board"
    modality, schemes = folder.parent.name, {line["scheme"] for line in read_csv(folder / "leaderboard.csv")}
    shipped = {path.stem.partition("-")[2] for path in (ROOT / "schemes" / "zoo" / modality).glob("*.safetensors")}
    assert shipped | {"additive", "uchida"} <= schemes


def test_the_modalities_side_by_side_are_the_committed_runs() -> None:
    assert inserted(README, ROOT / "leaderboards") == README, "run `.venv/bin/python -m bench.readme leaderboards`"


@pytest.mark.parametrize("folder", COMPARISONS, ids=lambda folder: f"{folder.parent.name} {folder.name}")
def test_the_answer_is_that_of_the_committed_comparisons(folder: Path) -> None:
    begin = f"<!-- {folder.parent.name} {folder.name}:begin -->"
    (page,) = (text for text in (each.read_text(encoding="utf-8") for each in DOCS) if begin in text)
    assert inserted(page, folder) == page, "run `.venv/bin/python -m bench.readme` on the comparison"
    assert {path.name for path in folder.glob("*.csv")} == {f"{name}.csv" for name in COMPARED_TABLES}
    assert (folder / "figures" / "bit_accuracy.pdf").is_file()


def targets(modality: str) -> dict[str, str]:
    """What the hand-written table of targets says was measured, by name."""
    page = (ROOT / "docs" / f"results-{modality}.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| ([^|]+?) \|[^|]*\| ([^|]+?) \|[^|]*\|[^|]*\|$", page, re.MULTILINE))


FIDELITY = {
    "image": {"PSNR to the original decoder's output": "psnr", "LPIPS (AlexNet) to it": "lpips_alex"},
    "audio": {"SI-SDR to the original decoder's output": "si_sdr", "ViSQOL beside it": "opinion"},
    "3d": {"IoU with the original decoder's mesh": "iou", "PSNR of colours": "colour_psnr"},
}


@pytest.mark.parametrize("modality", REFERENCES)
def test_the_targets_are_compared_with_the_committed_run(modality: str) -> None:
    line = next(each for each in read_csv(REFERENCES[modality] / "leaderboard.csv") if each["scheme"] == "wouaf")
    rows = targets(modality)
    measured = {
        "bit accuracy": f"{line['bit_accuracy']:.4g} [{line['bit_accuracy_lo']:.4g}, {line['bit_accuracy_hi']:.4g}]",
        "whole code right": f"{line['word_accuracy']:.4g}",
        **{name: f"{line[key]:.4g}" for name, key in FIDELITY[modality].items()},
        f"`{line['quality_metric']}` of the original": f"{line['quality_original']:.4g}",
        "fit": f"{line['fit_seconds'] / 60:.3g} min",
        "`modulate`, median": f"{1000 * line['seconds_per_copy']:.2g} ms",
    }
    assert {name: rows[name] for name in measured} == measured
    assert rows["its change"].startswith(f"{line['quality_delta']:.4g} [")


def test_each_kind_is_shown_in_fifteen_lines() -> None:
    assert list(CODE) == ["my_attack", "my_scheme", "my_generator"]
    for name, text in CODE.items():
        lines = [line for line in text.splitlines() if line.strip()]
        assert len(lines) <= 15, f"{name} has {len(lines)} lines"
        assert max(map(len, lines)) <= 120
        assert not re.search(r"^\s*(from|import) (bench|attacks|schemes|modalities)", text, re.MULTILINE)


def smoke(command: str, modality: str, out: Path) -> dict[str, Any]:
    """The leaderboard's line of a README command, made small."""
    words = command.replace("--modality image", f"--modality {modality}").split()
    size = ["--preset", "smoke", "--users", "3", "--items", "2", "--json", "--out", str(out)]
    result = CliRunner().invoke(app, [*words, *size])
    assert result.exit_code == 0, result.output
    (only,) = json.loads(result.stdout)["leaderboard"]
    return dict(only)


def test_there_is_one_command_for_each_kind() -> None:
    assert [re.findall(r"--(\w+) my_", command) for command in COMMANDS] == [
        ["attack"],
        ["scheme"],
        ["generator", "scheme"],
    ]


def test_the_code_runs_in_the_toy_modality(written: Path) -> None:
    """All three at once: the commands of the attack and of the scheme alone need the embedded generator."""
    attack = " ".join(COMMANDS[0].split()[-2:])
    found = smoke(f"{COMMANDS[2]} {attack}", "tests.test_examples:Pictures64", written / "out")
    assert found["scheme"] == "SpreadSpectrum" and found["generator"] == "mosaic"
    assert found["bit_accuracy"] > 0.95 and found["robustness_content"] > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run_as_they_stand(written: Path, command: str) -> None:
    more = "" if "--scheme" in command else " --scheme my_scheme:SpreadSpectrum"
    found = smoke(command + more, "image", written / "out")
    assert found["bit_accuracy"] > 0.9


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.name)
def test_make_targets_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z]+)", text)) | set(re.findall(r"^make ([a-z]+)", text, re.MULTILINE))
    assert named <= TARGETS


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.name)
def test_no_number_is_left_to_be_filled_in(page: Path) -> None:
    assert "TODO" not in page.read_text(encoding="utf-8")


def test_the_design_page_names_every_file_of_the_harness() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(bench/[\w/.]+)` \|", text, re.MULTILINE))
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "bench").rglob("*.py")}
    assert listed == files - {"bench/metrics/__init__.py"}


# --- the table's own code


def test_the_table_of_a_run(toy_folder: Path) -> None:
    heads, rule, row, empty, size = table(toy_folder).splitlines()
    assert heads.count("|") == rule.count("|") == row.count("|") == len(SHOWN) + 1
    assert "| psnr |" in heads and "| Δ fd_toy |" in heads and empty == ""
    assert "| ToyScheme |" in row and "| 1 [1, 1] |" in row
    assert "5 users × 4 items" in size and "identified among 100" in size


def test_the_attacks_of_a_run(toy_folder: Path) -> None:
    heads, rule, *rows = attacks(toy_folder).splitlines()
    assert heads == "| attack | target | strength | ToyScheme | psnr | items |"
    assert all(row.count("|") == 7 for row in (rule, *rows))
    lines = read_csv(toy_folder / "attacks.csv")
    assert [row.split(" | ")[0] for row in rows] == [f"| {line['attack']}" for line in lines]
    assert all((", caught " in row) == (line["target"] == "coalition") for row, line in zip(rows, lines, strict=True))


def test_the_attacks_of_two_schemes_stand_side_by_side(toy_folder: Path, tmp_path: Path) -> None:
    for name in ("leaderboard.csv", "attacks.csv"):
        heads, *lines = (toy_folder / name).read_text().splitlines()
        others = [line.replace("ToyScheme", "Other") for line in lines if ",ToyNoise,content," not in line]
        (tmp_path / name).write_text("\n".join([heads, *lines, *others]) + "\n")
    heads, _, *rows = attacks(tmp_path).splitlines()
    assert heads == "| attack | target | strength | ToyScheme | Other | psnr | items |"
    assert len(rows) == len(read_csv(toy_folder / "attacks.csv"))
    for row in rows:
        ours, theirs = row.split(" | ")[3:5]
        assert theirs == ("–" if row.startswith("| ToyNoise | content") else ours)


BEGIN, END = "<!-- toy leaderboard:begin -->", "<!-- toy leaderboard:end -->"


def test_inserting_twice_is_inserting_once(toy_folder: Path) -> None:
    page = f"before\n{BEGIN}\nold | \\1\n{END}\nafter\n"
    once = inserted(page, toy_folder)
    assert once == f"before\n{BEGIN}\n{table(toy_folder)}\n{END}\nafter\n"
    assert inserted(once, toy_folder) == once
    both = inserted(f"{once}<!-- toy attacks:begin --><!-- toy attacks:end -->", toy_folder)
    assert both.startswith(once) and attacks(toy_folder) in both


OTHER = "<!-- image leaderboard:begin --><!-- image leaderboard:end -->"


@pytest.mark.parametrize("page", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}", OTHER])
def test_a_page_without_its_place_is_refused(page: str, toy_folder: Path) -> None:
    with pytest.raises(UserError, match=r"expected (one|a comment such as) <!-- toy leaderboard:begin -->"):
        inserted(page, toy_folder)


def test_modalities_side_by_side(toy_folder: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        shutil.copytree(toy_folder, tmp_path / name / "reference")
    heads, _, *rows = side_by_side(tmp_path).splitlines()
    assert heads == "|  | first | second |"
    assert "| scheme | ToyScheme | ToyScheme |" in rows and "| bit accuracy | 1 [1, 1] | 1 [1, 1] |" in rows
    page = "before <!-- modalities:begin -->old<!-- modalities:end --> after"
    assert inserted(page, tmp_path).endswith("<!-- modalities:end --> after") and "old" not in inserted(page, tmp_path)
    with pytest.raises(UserError, match="expected folders such as image/reference"):
        side_by_side(tmp_path / "first")


def test_modalities_side_by_side_show_a_scheme_that_all_have(toy_folder: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        shutil.copytree(toy_folder, tmp_path / name / "reference")
    board = tmp_path / "first" / "reference" / "leaderboard.csv"
    heads, line = board.read_text().splitlines()
    board.write_text("\n".join([heads, line.replace("ToyScheme", "Alone"), line]) + "\n")
    assert "| scheme | ToyScheme | ToyScheme |" in side_by_side(tmp_path)
    board.write_text("\n".join([heads, line.replace("ToyScheme", "Alone")]) + "\n")
    with pytest.raises(UserError, match="expected a scheme that all of first, second have, found none"):
        side_by_side(tmp_path)


def test_a_folder_without_a_leaderboard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"leaderboard\.csv: expected a table of a finished run, found none"):
        table(tmp_path)
