"""One scheme for every kind of content: waveforms, pictures and volumes differ by the rank of their tensors only."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from bench.rng import fenced, stream
from schemes.modulations import Amplitude
from schemes.readers import StatisticsReader
from schemes.training import Recipe
from schemes.weight_modulation import WeightModulation
from tests.toy import Toy, ToyGenerator

ROOT = Path(__file__).resolve().parent.parent
SIDES = {1: 64, 2: 8, 3: 6}
"""Of latents. On a CPU, torch 2.13 leaves garbage in a half-precision kernel gradient of a 2×2×2 map."""
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
RECIPE = Recipe(steps=400, batch=16, pool=256, perceptual=0.0, psnr_db=12.0)
SCHEME = WeightModulation(Amplitude(), bits=4, recipe=RECIPE, reader=StatisticsReader(width=8, hidden=32))
"""The one object that every test here fits."""


class RankGenerator(ToyGenerator):
    """Latents of noise (B, 4, side, ...) to fields (B, 2, 2 · side, ...); weight-normalised, as audio decoders are."""

    name = "rank"

    def __init__(self, rank: int) -> None:
        self.rank = rank
        with fenced(rank):
            layers = (
                CONVOLUTIONS[rank](4, 12, 3, padding=1),
                TRANSPOSED[rank](12, 12, 4, 2, 1),
                CONVOLUTIONS[rank](12, 12, 3, padding=1),
                CONVOLUTIONS[rank](12, 2, 3, padding=1),
            )
            first, up, middle, last = (parametrizations.weight_norm(layer) for layer in layers)
            self.decoder = nn.Sequential(first, nn.SiLU(), up, nn.SiLU(), middle, nn.SiLU(), last)
        self.decoder.requires_grad_(False).eval()

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        field: Tensor = decoder(latents)
        return 0.5 + 0.5 * field

    def training_latents(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.randn(n, 4, *[SIDES[self.rank]] * self.rank, generator=rng)


class Plain(Toy):
    """Observes what is released as it is."""

    def soft_release(self, field: Tensor) -> Tensor:
        return field


def read_by_users(scheme: WeightModulation, rank: int, users: int) -> tuple[Tensor, Tensor]:
    """Soft bits and codes, each (users, bits), of held-out latents under new codes."""
    generator = RankGenerator(rank)
    codec = scheme.fit(Plain(), generator, stream(0, "fit"))
    soft, codes = [], torch.randint(2, (users, 4), generator=stream(0, "codes")).float()
    for user, code in enumerate(codes):
        decoder = codec.modulate(generator.decoder, code)
        assert sorted(decoder.state_dict()) == sorted(generator.decoder.state_dict())
        z = generator.training_latents(2, stream(0, "held out", user))
        soft.append(codec.read(generator.decode(decoder, z).detach()).mean(0))
    return torch.stack(soft), codes


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_same_scheme_fits_in_one_two_and_three_dimensions(rank: int) -> None:
    short = dataclasses.replace(SCHEME, recipe=dataclasses.replace(RECIPE, steps=4, pool=16))
    soft, codes = read_by_users(short, rank, 2)
    assert soft.shape == codes.shape and bool(soft.isfinite().all()) and not torch.equal(soft[0], soft[1])


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_same_scheme_reads_in_one_two_and_three_dimensions(rank: int) -> None:
    soft, codes = read_by_users(SCHEME, rank, 24)
    accuracy = float(((soft > 0) == (codes > 0)).float().mean())
    assert accuracy > 0.8, "chance is 0.5, and 96 bits of chance end below 0.67 in 999 of 1,000 cases"


def test_the_scheme_is_a_value() -> None:
    assert dataclasses.replace(SCHEME) == SCHEME and hash(SCHEME)


@pytest.mark.parametrize("path", sorted((ROOT / "schemes").rglob("*.py")), ids=lambda path: path.name)
def test_no_scheme_module_knows_a_modality(path: Path) -> None:
    """In what runs: names and strings. Titles of papers may say image."""
    words = re.compile(r"image|picture|pixel|audio|wave|clip\b|sound|mesh|voxel|shape3d|\b3d\b", re.IGNORECASE)
    assert not [text for text in _running(ast.parse(path.read_text())) if words.search(text)]


def _running(tree: ast.Module) -> Iterator[str]:
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias):
            yield node.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value
