"""The page of schemes is the phone book of schemes, and cites what the code cites."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bench
import schemes
from bench.commands import _schemes
from schemes import SCHEMES

ROOT = Path(bench.__file__).parent.parent
PAGE = (ROOT / "docs" / "schemes.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", PAGE, re.MULTILINE))
CODE = "\n".join(path.read_text(encoding="utf-8") for path in sorted(Path(schemes.__file__).parent.rglob("*.py")))


def test_every_scheme_has_one_row() -> None:
    assert len(re.findall(r"^\| `", PAGE, re.MULTILINE)) == len(ROWS)
    assert set(ROWS) == set(SCHEMES)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_row_says_formula_source_and_promise(name: str) -> None:
    cells = ROWS[name].split(" | ")
    assert len(cells) == 3 and all(cells)
    for identifier in re.findall(r"arXiv:[\d.]+\d", cells[1]):
        assert identifier in CODE, "a source that the code does not name"


def test_the_command_line_lists_them() -> None:
    assert [each["name"] for each in _schemes()] == list(SCHEMES)
    assert len({each["repr"] for each in _schemes()}) == len(SCHEMES)
