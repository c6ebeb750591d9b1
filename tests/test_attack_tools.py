"""Which attacks there are with which tools, and how one that cannot run is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from attacks import ATTACKS, LISTED, Tools, families, families_for
from bench import selection
from bench.presets import PRESETS, attacks_of, sweep
from bench.protocol import AttackFamily, UserError
from bench.selection import available, find_attacks, missing
from tests.toy import Toy, ToyGenerator

JPEG = ATTACKS["jpeg"]


def names(family: AttackFamily) -> list[str]:
    return [repr(attack) for attack in sweep(family, full=True)]


def test_a_tool_brings_its_attacks_and_no_others() -> None:
    assert "regeneration" in families(Tools(reconstruct=lambda x: x)) and "regeneration" not in families()
    assert families() == {} | ATTACKS and set(ATTACKS) < set(families(LISTED))
    held = families_for("image", Tools(regenerate=lambda x, share, rng: x))
    assert "regeneration" not in held


def test_an_attack_that_only_stands_for_one_cannot_run() -> None:
    attack: Any = families(LISTED)["regeneration"].make(1)
    with pytest.raises(RuntimeError, match="only stands for one"):
        attack(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.Generator())


def test_what_an_attack_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = replace(JPEG, requires="no_such_module")
    assert missing(odd) == "expected the module 'no_such_module', found none; install it" and not available(odd)
    lacking = replace(JPEG, missing=lambda: "expected the file w.safetensors, found none; fetch it")
    assert not available(lacking) and available(replace(JPEG, missing=lambda: None)) and available(JPEG)
    plan = PRESETS["smoke"]
    monkeypatch.setattr(selection, "held_families", lambda modality, generator: {"jpeg": JPEG})
    with pytest.raises(UserError, match=r"attack 'regeneration': expected .*, found no such thing with 'toy'"):
        find_attacks(Toy(name="image"), ToyGenerator(), ["regeneration"], plan)
    monkeypatch.setattr("attacks.families_for", lambda modality, tools: {"jpeg": lacking})
    with pytest.raises(UserError, match=r"^attack 'jpeg': expected the file w\.safetensors, found none; fetch it$"):
        find_attacks(Toy(name="image"), ToyGenerator(), ["jpeg"], plan)


def test_a_family_says_which_suites_run_it_and_how_much_of_its_grid() -> None:
    cheap = replace(JPEG, suites=("standard",), standard=(80, 25))
    heavy = replace(JPEG, suites=())
    assert names(JPEG) == [f"JPEG(quality={q})" for q in (90, 80, 50, 25, 10)]
    assert names(cheap) == ["JPEG(quality=80)", "JPEG(quality=25)"]
    book = {"a": cheap, "b": heavy, "jpeg": JPEG}
    standard, quick, smoke = (attacks_of(PRESETS[name], book) for name in ("standard", "quick", "smoke"))
    assert len(standard) == 2 + 5 and len(quick) == 1 and len(smoke) == 1
    assert len(attacks_of(replace(PRESETS["standard"], only=("b",)), book)) == 5, "asked for by name"
