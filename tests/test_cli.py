"""The command line, on the toy modality: what it prints, what it writes, how it refuses."""

from __future__ import annotations

import io
import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from bench.__main__ import app
from bench.engine import report
from bench.planning import adjusted
from bench.presets import PRESETS
from bench.printed import FILES
from bench.progress import shown
from bench.protocol import UserError
from bench.registry import is_outside, lookup, outside
from schemes.weight_modulation import WeightModulation
from tests.toy import ToyGenerator

TOY = ("--modality", "tests.toy:Toy", "--scheme", "tests.toy:ToyScheme", "--preset", "smoke")
NOISE = ("--attack", "tests.toy:ToyNoise")


@pytest.fixture(autouse=True)
def own_cache(cache: Path) -> None:
    """Every command here has a cache of its own."""


def invoke(*words: str | Path | int) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words: str | Path | int) -> str:
    """The line of a refusal: one line on stderr, nothing on stdout, exit status 2."""
    result = invoke(*words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.fixture
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is tested elsewhere and takes seconds."""
    monkeypatch.setattr("bench.figures.draw", lambda folder: [folder / "figures" / "scores.svg"])
    monkeypatch.setattr("bench.figures.sheet", lambda rows, path: path)


@pytest.mark.usefixtures("quick_figures")
def test_run_ends_with_the_table_and_the_paths(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = invoke("run", *TOY, *NOISE, "--attack", "tests.toy:ToyAverage", "--out", out)
    assert result.exit_code == 0, result.output
    assert "ToyScheme" in result.stdout and "preset smoke" in result.stdout
    for name in FILES:
        assert str(out / name) in result.stdout.splitlines() and (out / name).stat().st_size
    assert str(out / "figures" / "sheet_ToyScheme.png") in result.stdout
    assert "\x1b" not in result.output, "no terminal, no escape sequences"


@pytest.mark.usefixtures("quick_figures")
def test_json_is_one_object_and_nothing_else(tmp_path: Path) -> None:
    result = invoke("run", *TOY, *NOISE, "--out", tmp_path, "--json", "--users", "3", "--items", "2", "--seed", "7")
    value = json.loads(result.stdout)
    assert result.exit_code == 0 and result.stdout.count("\n") == 1
    assert value["leaderboard"][0]["users"] == 3 and value["finished"] and value["folder"] == str(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 7


@pytest.mark.usefixtures("quick_figures")
def test_quiet_prints_nothing(tmp_path: Path) -> None:
    result = invoke("run", *TOY, *NOISE, "--out", tmp_path, "--quiet")
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.usefixtures("quick_figures")
def test_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke("run", *TOY, *NOISE, "--out", tmp_path, "--quiet").exit_code == 0
    before = (tmp_path / "leaderboard.csv").read_bytes()
    cells = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert invoke("run", *TOY, *NOISE, "--out", tmp_path, "--quiet").exit_code == 0
    assert (tmp_path / "leaderboard.csv").read_bytes() == before
    assert cells == {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}


@pytest.mark.usefixtures("quick_figures")
def test_an_interrupt_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ToyGenerator, "decode", interrupt)
    result = invoke("run", *TOY, *NOISE, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].startswith("stopped; what was measured is kept")


@pytest.mark.parametrize("command", ["show", "leaderboard"])
def test_a_results_folder_can_be_read_again(toy_folder: Path, tmp_path: Path, command: str) -> None:
    if command == "leaderboard":  # it writes
        import shutil

        toy_folder = Path(shutil.copytree(toy_folder, tmp_path / "copy"))
    result = invoke(command, toy_folder)
    assert result.exit_code == 0 and "ToyScheme" in result.stdout
    value = json.loads(invoke(command, toy_folder, "--json").stdout)
    assert value["leaderboard"][0]["bit_accuracy"] == 1


def test_show_says_how_it_was_made(toy_folder: Path) -> None:
    text = invoke("show", toy_folder).stdout
    for fact in ("users 5", "ToyNoise(std=0.05)", "libraries: python", "device: cpu"):
        assert fact in text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("run", *TOY[2:], "--modality", "imagee"),
            "unknown modality 'imagee': did you mean 'image'? expected one of ",
        ),
        (("run", *TOY[:4], "--preset", "qick"), "unknown preset 'qick': did you mean 'quick'? expected one of smoke, "),
        (("run", *TOY, "--users", "-3"), "users: expected 1 to 100000, found -3"),
        (("run", *TOY, "--items", "0"), "items: expected 1 to 10000, found 0"),
        (("run", *TOY, "--users", "99999999999"), "users: expected 1 to 100000, found 99999999999"),
        (("run", *TOY, "--device", "warp"), "device 'warp': expected auto, cpu or an available torch device"),
        (("run", *TOY, "--features", "incepton"), "unknown features 'incepton': did you mean 'inception'?"),
        (("run", *TOY, "--features", "inception"), "features 'inception': expected a modality that has them, found"),
        (("run", "--modality", "tests.toy:Toi", *TOY[2:]), "modality 'tests.toy:Toi': expected a class that can be"),
        (("run", "--modality", "no.such:Toy", *TOY[2:]), "modality 'no.such:Toy': expected a class that can be made"),
        (("run", "--modality", "tests.toy:ToyNoise", *TOY[2:]), "modality 'tests.toy:ToyNoise': expected the members"),
        (("run", *TOY[:2], "--scheme", "tests.toy:ToyNoise"), "scheme 'tests.toy:ToyNoise': expected the members of"),
        (("run", *TOY[:2], "--scheme", "gone.safetensors"), "codec gone.safetensors: expected a file, found none"),
        (("run", *TOY, "--attack", "weight-nois"), "unknown attack 'weight-nois': did you mean 'weight-noise'?"),
        (("list", "attaks"), "unknown list 'attaks': did you mean 'attacks'? expected one of modalities, schemes"),
        (("show", "nowhere"), "results folder nowhere: expected run.json of a run, found: No such file or directory"),
        (("leaderboard", "nowhere"), "results folder nowhere: expected run.json of a run, found: No such file"),
        (("figures", "nowhere"), "results folder nowhere: expected run.json of a run, found: No such file"),
    ],
)
def test_mistakes_are_refused_in_one_line(words: tuple[str, ...], line: str, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out") if words[0] == "run" else ()
    assert refused(*words, *out).startswith(line)
    assert not (tmp_path / "out").exists(), "something was half-written"


def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    line = refused("run", *TOY, *NOISE, "--out", tmp_path / "file", "--quiet")
    assert line == f"results folder {tmp_path / 'file'}: expected to write there, found: Not a directory"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": 99}')
    for words in (("run", *TOY, *NOISE, "--quiet", "--out"), ("show",), ("figures",), ("leaderboard",)):
        assert refused(*words, tmp_path).endswith("expected results of format 1, found format 99")
    assert not (tmp_path / "cells").exists()


def test_presets_are_listed() -> None:
    listed = json.loads(invoke("list", "presets", "--json").stdout)
    assert [each["name"] for each in listed] == ["smoke", "quick", "standard", "paper"] == list(PRESETS)
    assert listed[1]["users"] == 32 and listed[1]["items"] == 4
    assert "standard" in invoke("list", "presets").stdout


def test_attacks_are_listed_with_what_the_contract_names() -> None:
    listed = json.loads(invoke("list", "attacks", "--json").stdout)
    for each in listed:
        cells = ["name", "modality", "target", "strengths", "unit", "source", "card", "needs", "available", "measured"]
        assert list(each) == cells
        assert each["strengths"] and each["target"] in ("content", "model", "coalition", "framing")
    assert {"jpeg", "weight-noise", "average-weights"} <= {each["name"] for each in listed}


@pytest.mark.parametrize("kind", ["modalities", "schemes"])
def test_parts_are_listed(kind: str) -> None:
    listed = json.loads(invoke("list", kind, "--json").stdout)
    assert listed and all(each["name"] for each in listed)


def test_fit_writes_a_codec_and_refuses_before_it_trains(tmp_path: Path) -> None:
    path = tmp_path / "new" / "mine.safetensors"
    words = ("fit", "--modality", "tests.toy:Toy", "--scheme", "tests.toy:ToyScheme", "--out", path, "--json")
    facts = json.loads(invoke(*words).stdout)
    assert facts["codec"] == str(path) and facts["bits"] == 32 and path.stat().st_size
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    (tmp_path / "file").write_text("")
    assert refused(*words[:5], "--out", tmp_path / "file" / "x").startswith(
        f"codec {tmp_path / 'file' / 'x'}: expected"
    )


def test_a_fit_is_made_shorter_where_the_scheme_is_trained_in_steps() -> None:
    scheme = WeightModulation()
    assert adjusted(scheme, 0) is scheme
    assert adjusted(scheme, 7) == replace(scheme, recipe=replace(scheme.recipe, steps=7))
    assert refused("fit", "--modality", "tests.toy:Toy", "--scheme", "wouaf", "--steps", -1) == (
        "steps: expected at least 1, and finite, found -1"
    )
    assert refused("fit", "--modality", "tests.toy:Toy", "--scheme", "tests.toy:ToyScheme", "--steps", 7) == (
        "steps: expected a scheme whose training has it, found ToyScheme"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.b:C", True), ("a:C", True), ("jpeg", False), ("C:\\codec", False), ("a.b:", False), ("a-b:C", False)],
)
def test_names_from_outside_are_told_apart(name: str, expected: bool) -> None:
    assert is_outside(name) is expected


def test_lookup_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^unknown thing 'JPG': did you mean 'jpeg'\? expected one of jpeg, webp$"):
        lookup("thing", "JPG", {"jpeg": 1, "webp": 2})
    with pytest.raises(UserError, match=r"^unknown thing 'xyz': expected one of \(none\)$"):
        lookup("thing", "xyz", {})


def test_a_class_that_needs_arguments_is_refused() -> None:
    with pytest.raises(UserError, match=r"missing 2 required positional arguments"):
        outside("codec", "tests.toy:ToyCodec", object)


def test_lines_tell_only_of_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 4.0, 9.0, 20.0, 20.5, 30.0, 33.0])
    monkeypatch.setattr("bench.progress.time.monotonic", lambda: next(clock))
    console = Console(file=io.StringIO(), width=100)
    with shown(console, quiet=False):
        for done in (0, 1, 3, 4, 9):
            report("cells", done, 9)
        report("short", 0, 1)
        report("short", 1, 1)
        report("cells", 1, 9)
        report("cells", 2, 9)
        logging.getLogger("genprint").warning("left out [this]")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.splitlines() == [
        "cells 3/9 after 3 s, about 6 s left",
        "cells 9/9 after 9 s",
        "cells 2/9 after 3 s, about 10 s left",
        "left out [this]",
    ]


def test_bars_show_the_time_left_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with shown(console, quiet=False):
        report("cells", 0, 4)
        report("cells", 2, 4)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "cells" in text and re.search(r"2/4", text)


def test_quiet_progress_is_silent() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    with shown(console, quiet=True):
        report("cells", 1, 4)
        logging.getLogger("genprint").warning("nothing")
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
