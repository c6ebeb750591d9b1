"""What docs/generators.md says was tested is a test, and is run for that very line."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest

from tests.pages import DOCS, read_table

PLACE = re.compile(r"`tests/([\w/]+)\.py::(test_\w+)`")
MODELS = {name: row for name, row in read_table("generators.md").items() if len(row) == 6}


def words() -> dict[str, list[Any]]:
    """The tests that each word of the last column stands for."""
    lines = (DOCS / "generators.md").read_text(encoding="utf-8").splitlines()
    found = {match[1]: PLACE.findall(line) for line in lines if (match := re.match(r"\| \*([a-z ]+)\* \|", line))}
    return {
        word: [getattr(importlib.import_module(f"tests.{place.replace('/', '.')}"), test) for place, test in places]
        for word, places in found.items()
    }


def names(test: Any) -> set[str]:
    """What a test is parametrised with."""
    values = [value for mark in test.pytestmark if mark.name == "parametrize" for value in mark.args[1]]
    return {str(getattr(value, "values", (value,))[0]) for value in values if not isinstance(value, dict)}


def test_every_word_has_its_tests() -> None:
    assert set(words()) == {"form", "gradients", "export", "run", "full size"}
    assert all(tests for tests in words().values())
    assert len(MODELS) == 22


@pytest.mark.parametrize("name", MODELS)
def test_what_a_line_says_was_tested_is_a_test_of_it(name: str) -> None:
    told, held = MODELS[name][-1].split(", "), words()
    claimed = [word for word in told if word in held]
    assert {"form", "export", "run"} <= set(claimed), "nothing is listed that was not loaded, exported and run"
    for word in claimed:
        assert any(name in names(test) for test in held[word]), f"{word} is not tested of {name}"


@pytest.mark.parametrize("word", words())
def test_what_was_tested_is_told(word: str) -> None:
    tested = set().union(*(names(test) for test in words()[word])) & set(MODELS)
    assert tested == {name for name, row in MODELS.items() if word in row[-1].split(", ")}
