"""`generate` and `trace`: an item of one user's copy, and the user it names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from bench.__main__ import app
from bench.codebook import code_book
from bench.presets import PRESETS
from bench.tracing import TOGETHER, trace
from tests.test_audio_files import BROKEN
from tests.toy import ToyCodec

TOY = ("--modality", "tests.toy:Toy", "--scheme", "tests.toy:ToyScheme")
PLAN = PRESETS["quick"]


@pytest.fixture(autouse=True)
def own_cache(cache: Path) -> None:
    """Every command here has a cache of its own."""


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words: object) -> str:
    result = invoke(*words)
    assert result.exit_code == 2 and result.stdout == "", result.output
    (line,) = result.stderr.splitlines()
    return str(line.removeprefix("error: "))


def made(path: Path, *words: object) -> Path:
    result = invoke("generate", *TOY, "--prompt", path.stem, "--out", path, *words)
    assert result.exit_code == 0, result.output
    return path


def traced(*words: object) -> list[dict[str, Any]]:
    result = invoke("trace", *TOY, *words, "--json")
    assert result.exit_code == 0, result.output
    return list(json.loads(result.stdout))


def test_a_file_names_the_user_whose_copy_made_it(tmp_path: Path) -> None:
    paths = [made(tmp_path / "new" / f"{user}", "--user", user) for user in (3, 31, 999)]
    for path, found in zip(paths, [traced(path) for path in paths], strict=True):
        (only,) = found
        assert only["user"] == only["nearest"] == int(path.stem) and only["source"] == str(path)
        assert only["matches"] >= only["threshold"] == 32 and only["p_value"] < 1e-9
    assert "user 31" in invoke("trace", *TOY, paths[1]).stdout


def test_what_the_public_decoder_made_names_nobody(tmp_path: Path) -> None:
    (only,) = traced(made(tmp_path / "public"))
    assert only["user"] is None and only["matches"] < only["threshold"]
    assert "nobody" in invoke("trace", *TOY, tmp_path / "public").stdout


def test_other_users_are_registered_under_another_seed(tmp_path: Path) -> None:
    path = made(tmp_path / "a", "--user", 3, "--seed", 1)
    assert traced(path, "--seed", 1)[0]["user"] == 3 and traced(path)[0]["user"] is None


def test_the_same_prompt_makes_the_same_bytes(tmp_path: Path) -> None:
    one, other = (made(tmp_path / folder / "a cat", "--user", 3) for folder in ("x", "y"))
    assert one.read_bytes() == other.read_bytes() != made(tmp_path / "a dog", "--user", 3).read_bytes()
    assert one.read_bytes() != made(tmp_path / "z" / "a cat", "--user", 4).read_bytes()


def test_files_are_read_together_too(tmp_path: Path) -> None:
    """Two items with wrong bits at different places name nobody alone, and their sum the right user."""
    codec = ToyCodec(torch.zeros(32, 1), 0.0)
    own = code_book(PLAN, "s", 32)[5].float() * 2 - 1
    wrong = [own.clone() for _ in range(2)]
    wrong[0][:3] *= -0.5
    wrong[1][10:13] *= -0.5
    alone, other, both = trace(codec, PLAN, "s", {"a": wrong[0], "b": wrong[1]})
    assert [alone.user, other.user, both.user] == [None, None, 5]
    assert [alone.nearest, other.nearest, both.source] == [5, 5, TOGETHER]
    assert [alone.matches, both.matches] == [29, 32]
    assert len(traced(*(made(tmp_path / f"{k}", "--user", 3) for k in (1, 2)))) == 3


def test_nobody_is_named_when_no_number_of_bits_is_enough() -> None:
    (only,) = trace(ToyCodec(torch.zeros(8, 1), 0.0), PLAN, "s", {"a": code_book(PLAN, "s", 8)[5].float() * 2 - 1})
    assert (only.threshold, only.matches, only.user) == (None, 8, None)


def test_mistakes_end_in_one_line_and_status_2(tmp_path: Path) -> None:
    path = made(tmp_path / "a")
    words = ("generate", *TOY, "--prompt", "a", "--out", tmp_path / "b")
    assert refused(*words, "--user", 1000) == "user: expected 0 to 999, found 1000"
    assert refused(*words, "--user", -1) == "user: expected 0 to 999, found -1"
    assert not (tmp_path / "b").exists()
    assert str(tmp_path / "gone") in refused("trace", *TOY, path, tmp_path / "gone")
    assert refused("trace", *TOY[:3], "nothing", path).startswith("unknown scheme 'nothing'")
    assert refused("trace", *TOY, path, "--preset", "huge").startswith("unknown preset 'huge'")


@pytest.mark.parametrize(("name", "write", "words"), BROKEN.values(), ids=BROKEN)
def test_bad_audio_ends_in_one_line_and_status_2(
    tmp_path: Path, name: str, write: Callable[[Path], Any], words: str
) -> None:
    write(tmp_path / name)
    line = refused("trace", "--modality", "audio", tmp_path / name)
    assert line.startswith(f"{tmp_path / name}: ") and "expected" in line
