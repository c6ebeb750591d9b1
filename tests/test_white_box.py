"""The white-box channel: bits in the weights of copies and of attacked decoders, beside what content shows."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from attacks.model import DecoderSwap, Interpolation, WeightNoise
from bench.protocol import UserError
from bench.rng import stream
from bench.run import run
from bench.weights import detached_copy
from bench.white_box import COLUMNS, weight_accuracy
from schemes.modulations import Amplitude
from schemes.uchida import Uchida
from schemes.weight_modulation import WeightModulation
from schemes.white_box import WhiteBox
from tests.conftest import PLAN
from tests.test_weight_modulation import READER, SHORT, PaintGenerator
from tests.toy import Toy, ToyNoise

QUICK = dataclasses.replace(SHORT, steps=2, batch=4, pool=8)


@pytest.fixture(scope="module")
def paint() -> PaintGenerator:
    return PaintGenerator()


def fitted(paint: PaintGenerator, modulation: Any = None, bits: int = 8) -> Any:
    return WeightModulation(modulation or Amplitude(), bits, QUICK, READER).fit(Toy(), paint, stream(0))


def test_amplitude_is_solved_for_its_code(paint: PaintGenerator) -> None:
    """Least squares return the ±1 code itself, and of a mixture with the public decoder the mixture."""
    codec, word = fitted(paint), torch.tensor([1, 0, 0, 1, 1, 1, 0, 1])
    marked, public = codec.modulate(paint.decoder, word), paint.decoder
    assert codec.reads_weights
    assert torch.allclose(codec.read_weights(marked, public), 2.0 * word - 1, atol=1e-4)
    half = 0.5 * codec.read_weights(public, public)  # of the gains that all copies share
    between = detached_copy(marked)
    with torch.no_grad():
        for name, value in between.named_parameters():
            value.lerp_(public.get_parameter(name), 0.5)
    assert torch.allclose(codec.read_weights(between, public) - half, word - 0.5, atol=1e-4)
    assert weight_accuracy(codec, marked, public, word) == 1
    assert weight_accuracy(codec, marked, public, 1 - word) == 0
    assert isinstance(codec, WhiteBox)


def test_what_cannot_be_read_is_empty_and_never_a_guess(paint: PaintGenerator) -> None:
    word, deep = torch.ones(8), fitted(paint, Amplitude(hidden=8))
    assert not deep.reads_weights
    assert weight_accuracy(deep, deep.modulate(paint.decoder, word), paint.decoder, word) is None
    with pytest.raises(UserError, match=r"^GainMap: expected a modulation that can be read from weights"):
        deep.read_weights(paint.decoder, paint.decoder)
    uchida = Uchida(8).fit(Toy(), paint, stream(0))
    assert weight_accuracy(uchida, PaintGenerator(width=16).decoder, paint.decoder, word) is None, "other layers"
    assert weight_accuracy(object(), paint.decoder, paint.decoder, word) is None  # type: ignore[arg-type]


def test_a_run_reads_weights_beside_every_model_attack(paint: PaintGenerator, cache: Path, tmp_path: Path) -> None:
    codecs = {"uchida": Uchida(8).fit(Toy(), paint, stream(0)), "wouaf": fitted(paint)}
    codecs["deep"] = fitted(paint, Amplitude(hidden=8))
    attacks = [WeightNoise(0.05), DecoderSwap(), Interpolation(0.5), ToyNoise()]
    run(modality=Toy(), generator=paint, codecs=codecs, attacks=attacks, plan=PLAN, folder=tmp_path)  # type: ignore[arg-type]
    with (tmp_path / "attacks.csv").open(encoding="utf-8") as file:
        lines = {(line["scheme"], line["attack"]): line for line in csv.DictReader(file)}
    for scheme in ("uchida", "wouaf"):
        noise, swap, half = (
            float(lines[scheme, a][COLUMNS[0]]) for a in ("WeightNoise", "DecoderSwap", "Interpolation")
        )
        assert noise > 0.9 and swap < 0.9 and half > swap
        assert lines[scheme, "ToyNoise"][COLUMNS[0]] == "", "an attack on content has no weights"
        low, high = (float(lines[scheme, "WeightNoise"][name]) for name in COLUMNS[1:])
        assert low <= noise <= high
    assert float(lines["uchida", "WeightNoise"]["bit_accuracy"]) == 0, "content is undecided, the weights are not"
    assert {lines["deep", attack][COLUMNS[0]] for attack in ("WeightNoise", "DecoderSwap")} == {""}
    with (tmp_path / "leaderboard.csv").open(encoding="utf-8") as file:
        clean = {line["scheme"]: line[COLUMNS[0]] for line in csv.DictReader(file)}
    assert clean == {"uchida": "1", "wouaf": "1", "deep": ""}
