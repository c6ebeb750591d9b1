"""Coalitions, framing, overwriting and bypass in a whole run on the toy modality."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from attacks.coalition import AverageWeights, TIESMerge
from attacks.coalition_content import OutputAverage
from attacks.framing import Imitation
from attacks.model import Bypass, DecoderSwap, Overwrite
from bench.presets import within
from bench.printed import read_csv
from bench.protocol import UserError
from bench.rng import stream
from bench.selection import find_codecs
from bench.weights import detached_copy
from tests.conftest import PLAN, Bench
from tests.toy import CHANNELS, ToyCodec, ToyScheme, ToyWeightNoise

TEAMS = [AverageWeights(2), OutputAverage(2), OutputAverage(3), TIESMerge(2, keep_ratio=1.0)]


def lines(folder: Path) -> dict[str, dict[str, Any]]:
    return {str(line["repr"]): line for line in read_csv(folder / "attacks.csv")}


@pytest.fixture(scope="module")
def coalitions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of coalitions and an imitation."""
    folder = tmp_path_factory.mktemp("coalitions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENPRINT_CACHE", str(folder / "cache"))
        from tests.toy import Toy, ToyGenerator

        codec = ToyScheme().fit(Toy(), ToyGenerator(), stream(0, "fit", "ToyScheme"))
        forger = Imitation(4, steps=150, rate=0.01)
        Bench(Toy(), ToyGenerator(), codec)(folder / "out", attacks=[*TEAMS, ToyWeightNoise(), forger])
    return folder / "out"


def test_averaged_content_of_linear_decoders_is_that_of_the_averaged_decoder(coalitions: Path) -> None:
    table = pq.read_table(coalitions / "rows.parquet").to_pandas().query("target == 'coalition'")
    ours, theirs = (table[table.repr == name] for name in ("OutputAverage(users=2)", "AverageWeights(users=2)"))
    assert (ours.user.tolist(), ours.item.tolist()) == (theirs.user.tolist(), theirs.item.tolist())
    assert ours.members.map(tuple).tolist() == theirs.members.map(tuple).tolist()
    assert ours.psnr.tolist() == pytest.approx(theirs.psnr.tolist(), abs=0.5)
    assert float((ours.bit_accuracy.to_numpy() - theirs.bit_accuracy.to_numpy()).mean()) == pytest.approx(0, abs=0.02)


def test_theory_stands_beside_every_coalition_and_nowhere_else(coalitions: Path) -> None:
    table = lines(coalitions)
    for attack in TEAMS:
        line = table[repr(attack)]
        assert line["bit_accuracy_majority"] == 0.75
        assert line["caught"] is not None and line["framed"] is not None and line["quality"] is not None
        assert float(line["bit_accuracy"]) == pytest.approx(0.75, abs=0.12), repr(attack)
    for name, line in table.items():
        if line["target"] != "coalition":
            assert line["bit_accuracy_majority"] in (None, ""), name


def test_a_forger_frames_the_victim_and_no_robustness_counts_it(coalitions: Path) -> None:
    (line,) = (line for line in lines(coalitions).values() if line["target"] == "framing")
    assert line["framed"] == 1 and line["identification"] > 0.9 and line["caught"] in (None, "")
    assert line["quality"] is not None and line["users"] == 3
    (board,) = read_csv(coalitions / "leaderboard.csv")
    noise = lines(coalitions)["ToyWeightNoise(std=0.02)"]
    assert board["robustness_model"] == noise["bit_accuracy"]
    assert "Imitation" not in (coalitions / "report.md").read_text()


def test_without_decoders_to_attack_there_is_nobody_to_frame() -> None:
    assert within(dataclasses.replace(PLAN, model_users=0), [Imitation(), AverageWeights(2)]) == [AverageWeights(2)]


@dataclass(frozen=True)
class Posthoc(ToyCodec):
    """The toy's mark, put on behind the decoder."""

    removable: bool = True

    def modulate(self, decoder: nn.Module, fingerprint: Tensor) -> nn.Module:
        inside = super().modulate(decoder, fingerprint).get_parameter("paint.weight")[CHANNELS]
        block = (inside - decoder.get_parameter("paint.weight")[CHANNELS]).repeat(1, 4, 4)
        marked = detached_copy(decoder)
        marked.register_forward_hook(lambda _, inputs, field: field + block)
        return marked


def test_a_bypass_takes_the_mark_of_a_removable_codec_and_no_other(toy: Bench, tmp_path: Path) -> None:
    attacks = [Bypass()]
    toy(tmp_path / "weights", attacks=attacks)
    post = dataclasses.replace(toy, codec=Posthoc(toy.codec.patterns, toy.codec.depth))
    post(tmp_path / "stage", attacks=attacks)
    kept, dropped = (lines(tmp_path / name)["Bypass(share=1)"] for name in ("weights", "stage"))
    (board,) = read_csv(tmp_path / "stage" / "leaderboard.csv")
    assert kept["bit_accuracy"] == 1 and board["bit_accuracy"] == 1
    assert float(dropped["bit_accuracy"]) == pytest.approx(0.5, abs=0.15)
    assert float(dropped["psnr"]) == 100, "the public decoder's own content"


@dataclass(frozen=True)
class Contested(ToyCodec):
    """With what an attacker fitted."""

    rival: ToyCodec | None = None


def test_overwriting_takes_the_attackers_codec_and_depends_on_it(toy: Bench, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a codec of the same scheme that the attacker fitted, found none"):
        toy(tmp_path / "none", attacks=[Overwrite()])
    keys, accuracy = [], []
    for name, depth in (("weak", 0.02), ("strong", 0.6)):
        rival = ToyScheme(depth=depth).fit(toy.modality, toy.generator, stream(7))
        codec = Contested(toy.codec.patterns, toy.codec.depth, rival=rival)
        bench = dataclasses.replace(toy, codec=codec)
        keys.append(bench(tmp_path / name, attacks=[DecoderSwap(), Overwrite()]).info["cells"])
        accuracy.append(float(lines(tmp_path / name)["Overwrite(share=1.0)"]["bit_accuracy"]))
    assert accuracy[0] > 0.98 and accuracy[1] < 0.85, accuracy
    assert keys[0][:2] == keys[1][:2] and keys[0][2] != keys[1][2], "only that cell is another"
    assert torch.equal(toy.codec.patterns, codec.patterns)


def test_what_an_attacker_fitted_lies_beside_the_codec(
    toy: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = (Contested(toy.codec.patterns, depth) for depth in (0.06, 0.1))
    loaded = {"mine": mine, "mine-rival": theirs}
    monkeypatch.setattr("schemes.load_codec", lambda path, modality, generator: loaded[path.stem])
    for name in loaded:
        (tmp_path / f"{name}.safetensors").touch()
    named = [str(tmp_path / "mine.safetensors")]
    found: Any = find_codecs(toy.modality, toy.generator, named, PLAN)["mine"]
    assert found.rival is theirs and found.depth == 0.06 and mine.rival is None
    (tmp_path / "mine-rival.safetensors").unlink()
    assert find_codecs(toy.modality, toy.generator, named, PLAN)["mine"] is mine
