"""What every attack on images must be: seeded, of one form in and out, monotone, and described."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from typing import Any

import pytest
import torch

from attacks import ATTACKS, LISTED, families, families_for
from attacks.image import JPEG, HorizontalFlip, Regeneration
from bench.naming import attack_name, attack_strength
from bench.protocol import AttackFamily, ContentAttack
from bench.rng import stream
from bench.selection import available
from tests.pictures import BATCHES, PICTURES, TOOLS, ToyAccess, psnr, smooth

EVERY = [family for family in families_for("image", TOOLS).values() if family.target == "content"]
FAMILIES = [family for family in EVERY if available(family)]
PLAIN = ("horizontal-flip", "vertical-flip")
"""They have no strength."""
ACCESS: Any = ToyAccess()


def made(family: AttackFamily, strength: float) -> ContentAttack:
    """The attack of one strength, with what it needs of a scheme."""
    attack: Any = family.make(strength)
    if family.name == "square":
        attack = dataclasses.replace(attack, queries=8)
    if family.name == "pgd-surrogate":
        attack = dataclasses.replace(attack, training=3, items=16)
    if hasattr(attack, "steps"):
        attack = dataclasses.replace(attack, steps=5)
    armed: ContentAttack = attack.armed(ACCESS, stream(0, "armed")) if hasattr(attack, "armed") else attack
    return armed


def chosen(family: AttackFamily) -> set[float]:
    """All strengths of the everyday attacks, two of the others."""
    every = "quick" in family.suites
    return {*family.strengths} if every else {family.strengths[family.quick], family.strengths[-1]}


CELLS = [pytest.param(f, s, id=f"{f.name}-{s:g}") for f in FAMILIES for s in sorted(chosen(f))]


@pytest.mark.parametrize(("family", "strength"), CELLS)
def test_attack_contract(family: AttackFamily, strength: float) -> None:
    attack = made(family, strength)
    assert isinstance(attack, ContentAttack) and attack.target == "content"
    assert dataclasses.is_dataclass(attack) and hash(attack) == hash(dataclasses.replace(attack))
    for name, content in BATCHES.items():
        before = content.clone()
        once, again = attack(content, stream(0)), attack(content, stream(0))
        assert once.shape == content.shape and once.dtype == torch.uint8 and once.is_contiguous()
        assert torch.equal(once, again), "same stream, same damage"
        assert torch.equal(content, before), "the input was modified in place"
        assert name == "tiny" or not torch.equal(once, content), "the attack did nothing"
    other = torch.cat([BATCHES["wide"][:1], 255 - BATCHES["wide"][1:]])
    assert torch.equal(attack(other, stream(0))[0], attack(BATCHES["wide"], stream(0))[0]), "a neighbour"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_stronger_attack_does_more_damage(family: AttackFamily) -> None:
    values = [psnr(made(family, strength)(PICTURES, stream(0)), PICTURES) for strength in family.strengths]
    assert all(after < before + 0.5 for before, after in itertools.pairwise(values)), values
    assert len(values) == 1 or values[-1] < values[0] - 1, values


@pytest.mark.parametrize("family", families_for("image", TOOLS).values(), ids=lambda family: family.name)
def test_a_family_lists_what_it_makes(family: AttackFamily) -> None:
    assert 0 <= family.quick < len(family.strengths)
    assert len(set(family.strengths)) == len(family.strengths)
    assert set(family.standard) <= set(family.strengths) and set(family.suites) <= {"quick", "standard"}
    for strength in family.strengths:
        attack = family.make(strength)
        assert attack.target == family.target
        assert repr(attack) == repr(family.make(float(strength))), "one attack, two names"
        assert attack_strength(attack) == strength or family.name in PLAIN
    if family.target != "content":
        return  # a switch of one class is a family of its own there, and names tell
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", attack_name(attack))
    assert family.name in (words.lower(), attack_name(attack).lower())


@pytest.mark.parametrize("family", EVERY, ids=lambda family: family.name)
def test_a_family_has_a_card(family: AttackFamily) -> None:
    assert re.fullmatch(r"[A-Z].{15,110}\.", family.card) and family.source and family.needs
    assert len(family.strengths) >= 4 or family.name in (*PLAIN, "regeneration")


def test_the_phone_book() -> None:
    assert "regeneration" not in ATTACKS and "regeneration" in families(TOOLS)
    assert all(name == family.name for name, family in ATTACKS.items())
    assert {family.target for family in ATTACKS.values()} == {"content", "model", "coalition", "framing"}
    assert {family.modality for family in families_for("image").values()} == {"image", "any"}
    assert "audio-regeneration" not in families_for("image", TOOLS)
    assert len(EVERY) >= 60 and {family.name for family in EVERY} == {
        family.name for family in families(LISTED).values() if family.modality == "image" and family.target == "content"
    }


def test_the_everyday_attacks_run_in_every_suite_and_the_costly_ones_only_when_asked() -> None:
    standard = {family.name: len(family.standard or family.strengths) for family in EVERY if family.suites}
    everyday = {family.name for family in EVERY if "quick" in family.suites}
    assert len(everyday) == 16 and not [family for family in EVERY if "quick" in family.suites and family.standard]
    assert len(standard) - len(everyday) <= 12
    costly = ("bm3d", "non-local-means", "square", "rinsing", "neural-codec", "pgd-embedding", "pgd-surrogate")
    assert not set(costly) & set(standard)


def test_names_and_strengths() -> None:
    assert attack_name(JPEG(50)) == "JPEG" and attack_strength(JPEG(50)) == 50
    assert math.isnan(attack_strength(HorizontalFlip()))
    assert repr(Regeneration(2, smooth)) == "Regeneration(passes=2)"
    assert Regeneration(2, smooth) == Regeneration(2, lambda x: x) != Regeneration(1, smooth)
