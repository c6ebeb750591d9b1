"""Latents drawn once: what names them, and what is done about a file that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from bench.__main__ import app
from bench.pool import training_latents
from bench.rng import child, stream
from tests.test_weight_modulation import PaintGenerator
from tests.toy import ToyGenerator


class CountingGenerator(ToyGenerator):
    """Notes how often it draws."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[int] = []

    def training_latents(self, n: int, rng: torch.Generator) -> Tensor:
        self.drawn.append(n)
        return super().training_latents(n, rng)


def test_the_same_latents_are_drawn_once(cache: Path) -> None:
    generator, other = CountingGenerator(), CountingGenerator()
    first = training_latents(generator, 4, stream(0, "pool"))
    assert torch.equal(first, ToyGenerator().training_latents(4, stream(0, "pool")))
    assert torch.equal(first, training_latents(other, 4, stream(0, "pool")))
    assert generator.drawn == [4] and other.drawn == []
    assert len(list((cache / "latents").iterdir())) == 1


@pytest.mark.parametrize("change", ["seed", "count", "decoder", "class"])
def test_other_latents_are_drawn_anew(cache: Path, change: str) -> None:
    first = training_latents(CountingGenerator(), 4, stream(0, "pool"))
    generator: ToyGenerator = ToyGenerator() if change == "class" else CountingGenerator()
    if change == "decoder":
        next(generator.decoder.parameters()).data += 1
    n, seed = (5 if change == "count" else 4), (1 if change == "seed" else 0)
    second = training_latents(generator, n, stream(seed, "pool"))
    assert len(second) == n and len(list((cache / "latents").iterdir())) == 2
    assert torch.equal(first, second) == (change in ("decoder", "class"))


def test_fits_of_different_schemes_draw_the_same_latents_once(cache: Path, tmp_path: Path) -> None:
    generator = "tests.test_weight_modulation:PaintGenerator"
    words = ["fit", "--modality", "tests.toy:Toy", "--generator", generator, "--steps", "1", "--batch", "4", "--quiet"]
    for name in ("wouaf", "residual"):
        result = CliRunner().invoke(app, [*words, "--scheme", name, "--out", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
        assert len(list((cache / "latents").iterdir())) == 1
    (path,) = (cache / "latents").iterdir()
    kept = load_file(path)["latents"]
    drawn = PaintGenerator().training_latents(len(kept), child(stream(0, "fit"), "latents"))
    assert torch.equal(kept, drawn), "a fit with the same seed draws what it drew in earlier versions"


def test_a_damaged_file_is_made_again(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = training_latents(ToyGenerator(), 4, stream(0, "pool"))
    (path,) = (cache / "latents").iterdir()
    path.write_bytes(path.read_bytes()[:40])
    assert torch.equal(first, training_latents(ToyGenerator(), 4, stream(0, "pool")))
    assert "not readable" in caplog.text
    assert torch.equal(first, training_latents(CountingGenerator(), 4, stream(0, "pool")))
