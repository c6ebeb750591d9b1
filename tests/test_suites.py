"""Suites: what is in them, and how a run takes one."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from attacks import LISTED, families_for
from attacks.suites import OURS, PEERS, strengths_in
from bench import selection
from bench.__main__ import app
from bench.presets import PRESETS
from bench.protocol import UserError
from bench.selection import find_attacks, find_suite
from tests.toy import Toy, ToyGenerator

IMAGES: Any = replace(Toy(), name="image")
STANDARD = PRESETS["standard"]
EVERY = families_for("image", LISTED)


@pytest.mark.parametrize("name", PEERS)
def test_a_peers_suite_names_families_of_its_modality_and_strengths_that_they_take(name: str) -> None:
    suite = PEERS[name]
    families = families_for(suite.modality, LISTED)
    for key, strengths in suite.strengths.items():
        assert families[key].target == "content" and families[key].modality == suite.modality
        made = [repr(families[key].make(strength)) for strength in strengths]
        assert len(set(made)) == len(made) > 0
    assert not strengths_in(name, "3d", families)


def test_peers_have_the_strengths_that_they_publish() -> None:
    waves, omniseal = PEERS["waves"].strengths, PEERS["omniseal_image"].strengths
    assert waves["rotation"][-1] == 45 and waves["crop-resize"][-1] == 0.5 and waves["erasing"][-1] == 0.25
    assert waves["gaussian-noise"][-1] == 0.1 and waves["jpeg"][-1] == 10 and waves["gaussian-blur"][-1] == 20
    assert sorted(omniseal["jpeg"]) == [40, 50, 60, 70, 80, 90] and len(omniseal["perspective"]) == 8
    assert PEERS["stable_signature"].strengths["rotation"] == (25, 90)
    assert PEERS["wouaf"].strengths["gaussian-noise"] == (0.05, 0.1, 0.15, 0.2)


def test_our_suites_grow_and_hold_what_the_presets_take() -> None:
    quick, standard, every = (strengths_in(name, "image", EVERY) for name in OURS)
    assert set(quick) < set(standard) < set(every) == set(EVERY)
    assert all(len(strengths) == 1 for strengths in quick.values())
    assert all(set(strengths) <= set(every[key]) for key, strengths in standard.items())
    for name in ("quick", "standard"):
        taken = find_suite(IMAGES, ToyGenerator(), name, PRESETS[name])
        assert taken == find_attacks(IMAGES, ToyGenerator(), [], PRESETS[name])


def test_what_cannot_run_is_named_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "genprint")
    attacks = find_suite(IMAGES, ToyGenerator(), "waves", STANDARD)
    assert any("suite waves: left out rinsing: expected a diffusion generator" in line for line in caplog.messages)
    lacking = {"regeneration", "diffusion-regeneration", "rinsing", "pgd-embedding", "pgd-autoencoder"}
    assert len(attacks) == sum(len(v) for key, v in PEERS["waves"].strengths.items() if key not in lacking)


def test_a_suite_of_another_modality_is_refused() -> None:
    with pytest.raises(UserError, match=r"^suite 'waves': expected the modality 'image', found 'audio'$"):
        find_suite(replace(Toy(), name="audio"), ToyGenerator(), "waves", STANDARD)
    with pytest.raises(UserError, match=r"^unknown suite 'wave': did you mean 'waves'\? expected one of quick, "):
        find_suite(IMAGES, ToyGenerator(), "wave", STANDARD)


def test_the_command_line_takes_a_suite_or_attacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", "--modality", "tests.toy:Toy", "--scheme", "tests.toy:ToyScheme", "--preset", "smoke"]
    both = CliRunner().invoke(app, [*words, "--suite", "waves", "--attack", "jpeg"])
    assert both.exit_code == 2 and both.stderr == "error: suite 'waves': expected no --attack beside it, found jpeg\n"
    asked: list[str] = []
    monkeypatch.setattr("bench.commands.find_suite", lambda medium, source, name, plan: asked.append(name) or [])
    monkeypatch.setattr("bench.figures.draw", lambda folder: [])
    monkeypatch.setattr("bench.figures.sheet", lambda rows, path: path)
    monkeypatch.setenv("GENPRINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*words, "--suite", "waves", "--quiet"])
    assert (done.exit_code, asked) == (0, ["waves"]), done.output
    assert (tmp_path / "leaderboards" / "toy" / "smoke-waves" / "leaderboard.csv").is_file()


def test_suites_are_listed() -> None:
    entries = json.loads(CliRunner().invoke(app, ["list", "suites", "--json"]).stdout)
    assert {(entry["name"], entry["modality"]) for entry in entries} >= {("waves", "image"), ("all", "audio")}
    assert all(entry["cells"] >= entry["attacks"] > 0 and entry["about"] for entry in entries)
    assert selection.suite_entries() == entries
    assert "omniseal_image" in CliRunner().invoke(app, ["list", "suites"]).stdout
