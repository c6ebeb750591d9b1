"""Editing what an attack is made of makes new cells; editing anything else leaves them valid."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from attacks import ATTACKS
from bench.digest import source_digest
from tests import toy
from tests.toy import ToyNoise

FILES = {
    "attacks/__init__.py": "from attacks import blur, fog\n",
    "attacks/blur.py": "from attacks.kernels import gaussian\nclass Blur: pass\n",
    "attacks/kernels.py": "import attacks.deep.grid\nfrom math import exp\ngaussian = exp\n",
    "attacks/deep/__init__.py": "",
    "attacks/deep/grid.py": "from attacks import blur  # a circle\nSTEP = 1\n",
    "attacks/fog.py": "class Fog: pass\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of attacks of another name and place, while the test runs."""
    for name, text in FILES.items():
        file = tmp_path / name.replace("attacks", "storm", 1)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("attacks", "storm"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("bench.digest.FOLLOWED", ("storm",))
    yield tmp_path / "storm"
    for name in [name for name in sys.modules if name.partition(".")[0] == "storm"]:
        del sys.modules[name]


@pytest.mark.parametrize("edited", ["blur.py", "kernels.py", "deep/grid.py", "fog.py"])
def test_an_edited_helper_makes_new_cells_at_any_depth_and_only_for_who_imports_it(package: Path, edited: str) -> None:
    blur, fog = import_module("storm.blur").Blur(), import_module("storm.fog").Fog()
    before = source_digest(blur), source_digest(fog)
    (package / edited).write_text((package / edited).read_text() + "# another comment\n")
    assert (source_digest(blur) != before[0]) == (edited != "fog.py")
    assert (source_digest(fog) != before[1]) == (edited == "fog.py")
    (package / edited).write_text((package / edited).read_text().removesuffix("# another comment\n"))
    assert (source_digest(blur), source_digest(fog)) == before


def test_every_attack_of_ours_depends_on_the_check_of_its_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    attacks = [family.make(family.strengths[0]) for family in ATTACKS.values()]
    attacks = [attack for attack in attacks if hasattr(attack, "__post_init__")]
    before, read = [source_digest(attack) for attack in attacks], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path.name == "limits.py"))
    assert not set(before) & {source_digest(attack) for attack in attacks}


def test_outside_attacks_are_hashed_by_their_own_file() -> None:
    assert source_digest(ToyNoise()) == hashlib.sha256(Path(toy.__file__).read_bytes()).hexdigest()
