"""The examples, run on the command line as a reader would run them, and held to the contracts."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner

from bench.__main__ import app
from bench.protocol import Codec, ContentAttack, Generator, Scheme
from bench.rng import stream
from examples.outside_attack import SaltAndPepper
from examples.outside_generator import Clouds
from examples.outside_scheme import SpreadSpectrum
from tests.toy import Toy, ToyGenerator

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
OURS = ("attacks", "bench", "modalities", "schemes", "tests")
ATTACK = ("--attack", "examples.outside_attack:SaltAndPepper")
SCHEME = ("--scheme", "examples.outside_scheme:SpreadSpectrum")
GENERATOR = ("--generator", "examples.outside_generator:Clouds")
SMOKE = ("--modality", "tests.test_examples:Pictures", "--preset", "smoke", "--json", "--users", "3", "--items", "2")


@dataclass(frozen=True)
class Pictures(Toy):
    """The toy modality for pictures of any size: readers see 16×16 pixels."""

    name: str = "image"

    def soft_release(self, field: Tensor) -> Tensor:
        return _seen(super().soft_release(field))

    def observe(self, content: Tensor) -> Tensor:
        return _seen(super().observe(content))


@dataclass(frozen=True)
class Pictures64(Toy):
    """The toy modality where readers see 64×64 pixels."""

    def observe(self, content: Tensor) -> Tensor:
        return F.interpolate(super().observe(content), (64, 64))


def _seen(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 16)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is tested elsewhere and takes seconds."""
    monkeypatch.setattr("bench.figures.draw", lambda folder: [])
    monkeypatch.setattr("bench.figures.sheet", lambda rows, path: path)


def line(*words: str | Path) -> dict[str, Any]:
    """The leaderboard's only line after a run."""
    result = CliRunner().invoke(app, ["run", *SMOKE, *map(str, words)])
    assert result.exit_code == 0, result.output
    (only,) = json.loads(result.stdout)["leaderboard"]
    return dict(only)


@pytest.mark.slow
def test_all_three_run_as_a_command(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "bench", "run", *SMOKE, *ATTACK, *SCHEME, *GENERATOR, "--out", str(tmp_path / "out")]
    environment = os.environ | {"GENPRINT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (only,) = json.loads(done.stdout)["leaderboard"]
    assert (only["scheme"], only["generator"], only["bits"]) == ("SpreadSpectrum", "clouds", 32)
    assert only["bit_accuracy"] > 0.99 and only["robustness_content"] > 0.75
    assert (tmp_path / "out" / "figures" / "sheet_SpreadSpectrum.png").stat().st_size


@pytest.mark.usefixtures("cache", "no_figures")
@pytest.mark.parametrize(
    ("words", "scheme", "generator"),
    [
        ((*ATTACK, "--scheme", "tests.toy:ToyScheme"), "ToyScheme", "toy"),
        ((*SCHEME, "--attack", "tests.toy:ToyNoise"), "SpreadSpectrum", "toy"),
        ((*GENERATOR, *SCHEME, "--attack", "tests.toy:ToyNoise"), "SpreadSpectrum", "clouds"),
    ],
    ids=["attack", "scheme", "generator"],
)
def test_each_works_with_parts_of_others(words: tuple[str, ...], scheme: str, generator: str, tmp_path: Path) -> None:
    found = line(*words, "--out", tmp_path)
    assert (found["scheme"], found["generator"]) == (scheme, generator)
    assert found["bit_accuracy"] > 0.95


@pytest.mark.usefixtures("cache", "no_figures")
def test_outside_and_own_attacks_meet_outside_parts(tmp_path: Path) -> None:
    attacks = (*ATTACK, "--attack", "jpeg", "--attack", "weight-noise", "--attack", "average-weights")
    found = line(*attacks, *SCHEME, *GENERATOR, "--out", tmp_path)
    assert 0.5 < found["robustness_content"] <= 1 and 0.5 < found["robustness_model"] <= 1


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_import_nothing_of_ours(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert not imported & set(OURS)


def test_examples_satisfy_the_contracts() -> None:
    assert len(EXAMPLES) == 3
    assert isinstance(SaltAndPepper(), ContentAttack)
    assert isinstance(Clouds(), Generator)
    assert isinstance(SpreadSpectrum(), Scheme)
    assert isinstance(SpreadSpectrum().fit(Toy(), ToyGenerator(), stream(0)), Codec)


def test_salt_and_pepper_hits_the_fraction_it_says() -> None:
    grey = torch.full((4, 3, 64, 64), 100, dtype=torch.uint8)
    once, again = (SaltAndPepper(0.1)(grey, stream(0, "attack")) for _ in range(2))
    assert torch.equal(once, again) and bool((grey == 100).all())
    hit = (once != grey).float().mean()
    assert float(hit) == pytest.approx(0.1, abs=4 * (0.1 * 0.9 / (4 * 64 * 64)) ** 0.5)
    assert bool(((once == grey) | (once == 0) | (once == 255)).all())
    assert torch.equal(SaltAndPepper(0.0)(grey, stream(0)), grey)
    with pytest.raises(ValueError, match=r"^density: expected 0 to 1, found 2$"):
        SaltAndPepper(2)


def test_spread_spectrum_keeps_the_keys_and_its_strength() -> None:
    generator = Clouds()
    codec = SpreadSpectrum(strength=0.02).fit(Toy(), generator, stream(0, "fit"))
    marked = codec.modulate(generator.decoder, torch.ones(32, dtype=torch.int64))
    assert list(marked.state_dict()) == list(generator.decoder.state_dict())
    latents = generator.latents(["a red cloud", "a blue cloud"], stream(0))
    change = generator.decode(marked, latents) - generator.decode(generator.decoder, latents)
    assert float(change.std()) == pytest.approx(0.02, rel=1e-3)
    clean = generator.decode(generator.decoder, generator.training_latents(256, stream(1)))
    assert float((codec.read(clean) > 0).float().mean()) == pytest.approx(0.5, abs=0.1), "no mark, no message"


def test_clouds_depend_on_the_prompt_and_the_stream_alone() -> None:
    one, other = Clouds(), Clouds()
    prompts = ["a red cloud", "a blue cloud"]
    assert torch.equal(one.latents(prompts, stream(0)), other.latents(prompts, stream(0)))
    assert all(torch.equal(a, b) for a, b in zip(one.decoder.parameters(), other.decoder.parameters(), strict=True))
    mean = [one.latents([prompt] * 64, stream(0)).mean((0, 2, 3)) for prompt in prompts]
    assert float((mean[0] - mean[1]).norm()) > 1
    pictures = one.decode(one.decoder, one.latents(prompts, stream(0)))
    assert pictures.shape == (2, 3, 64, 64) and float(pictures.min()) >= 0 and float(pictures.max()) <= 1
    assert float(pictures.std()) > 0.05


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("no.such:Clouds", "error: generator 'no.such:Clouds': expected a class that can be made without arguments"),
        ("examples.outside_generator:Fog", "error: generator 'examples.outside_generator:Fog': expected a class"),
        ("tests.toy:ToyNoise", "error: generator 'tests.toy:ToyNoise': expected the members of bench.protocol.Generat"),
    ],
)
def test_a_generator_that_is_none_is_refused(name: str, line: str, tmp_path: Path) -> None:
    words = ["run", "--modality", "tests.toy:Toy", *SCHEME, "--generator", name, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and result.stderr.startswith(line) and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
