"""Attacks that need a network or a reader: with gradients, by asking, and through learned codecs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel, SpeechT5HifiGan, SpeechT5HifiGanConfig

from attacks import LISTED, Tools, families_for
from attacks.audio_adversarial import WavePGD, WaveSquare
from attacks.audio_neural import DAC, EnCodec, Vocoder, lacks, loaded, log_mel
from attacks.audio_noise import WhiteNoise
from bench.protocol import Clips, ContentAttack, UserError
from bench.rng import fenced, stream
from tests.clips import RATE, notes, snr_db

NOTES = notes(3, 4_000, RATE)


def embedded(clips: Clips) -> Tensor:
    """Stands in for a network: smooth in its input."""
    weight = torch.randn(8, 1, 64, generator=stream(0, "embedding")) / 8
    return torch.tanh(F.conv1d(clips.unit(), weight, stride=16)) ** 2


class Marked:
    """A scheme that adds a pattern to the wave; its reader tells the correlation."""

    def __init__(self) -> None:
        self.queries = 0
        self.pattern = torch.randint(2, (40,), generator=stream(0, "pattern")).repeat_interleave(100) * 2.0 - 1

    def mark(self, content: Clips) -> Clips:
        return Clips.from_unit(content.unit() + 0.01 * self.pattern, content.rate_hz)

    def query(self, content: Clips) -> Tensor:
        self.queries += 1
        return (content.unit()[:, 0] * self.pattern).mean(-1)


@pytest.mark.parametrize("db", [40, 20])
def test_gradients_move_the_embedding_further_than_noise_of_the_same_power(db: float) -> None:
    attacked, noisy = WavePGD(db, embedded)(NOTES, stream(0)), WhiteNoise(db)(NOTES, stream(0))
    for item in range(3):
        assert snr_db(NOTES[item : item + 1], attacked[item : item + 1]) == pytest.approx(db, abs=0.2)
    before = embedded(NOTES)
    moved, drifted = ((embedded(clips) - before).flatten(1).norm(dim=1) for clips in (attacked, noisy))
    assert (moved > 1.5 * drifted).all()
    assert torch.equal(WavePGD(db, embedded)(NOTES, stream(0)).samples, attacked.samples)
    assert repr(WavePGD(db, embedded)) == f"WavePGD(snr_db={db}, steps=20, stride=0.3)"
    silence = Clips(torch.zeros(1, 1, 4_000, dtype=torch.int16), RATE)
    assert WavePGD(db, embedded)(silence, stream(0)).samples.abs().max() <= 1


def test_asking_brings_the_answer_down_within_the_stated_power() -> None:
    scheme: Any = Marked()
    content = scheme.mark(NOTES)
    attack = dataclasses.replace(WaveSquare(20), queries=150).armed(scheme, stream(1))
    attacked = attack(content, stream(0))
    assert scheme.queries == 150
    for item in range(3):
        assert snr_db(content[item : item + 1], attacked[item : item + 1]) == pytest.approx(20, abs=0.2)
    once = dataclasses.replace(attack, queries=1)(content, stream(0))
    drop, start = ((scheme.query(content) - scheme.query(clips)).mean() for clips in (attacked, once))
    assert drop > start + 5e-4 and drop > 0
    assert torch.equal(attack(content, stream(0)).samples, attacked.samples)
    with pytest.raises(UserError, match=r"WaveSquare\(snr_db=20, queries=300\): expected the scheme's reader"):
        WaveSquare(20)(content, stream(0))


def test_families_that_need_something_say_what() -> None:
    listed, plain = families_for("audio", LISTED), families_for("audio")
    assert {"wave-pgd", "audio-regeneration"} <= set(listed) - set(plain)
    assert "wave-pgd" in families_for("audio", Tools(encode=embedded))
    for name in ("wave-pgd", "wave-square", "encodec", "dac", "vocoder"):
        assert listed[name].needs != "nothing else" and not listed[name].suites


# Learned codecs, tiny and with random weights


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("networks")
    with fenced(0):
        made: dict[str, Any] = {
            "encodec": EncodecModel(
                EncodecConfig(
                    num_filters=4,
                    upsampling_ratios=[4, 2],
                    codebook_size=1024,
                    codebook_dim=8,
                    hidden_size=8,
                    num_lstm_layers=1,
                    target_bandwidths=[30.0, 60.0],
                    sampling_rate=24_000,
                )
            ),
            "dac": DacModel(
                DacConfig(
                    encoder_hidden_size=4,
                    downsampling_ratios=[2, 4],
                    decoder_hidden_size=16,
                    n_codebooks=3,
                    codebook_size=16,
                    codebook_dim=4,
                    sampling_rate=16_000,
                )
            ),
            "hifigan": SpeechT5HifiGan(
                SpeechT5HifiGanConfig(
                    upsample_initial_channel=32,
                    resblock_kernel_sizes=[3],
                    resblock_dilation_sizes=[[1]],
                )
            ),
        }
    with torch.no_grad():
        for name, buffer in made["encodec"].named_buffers():
            if name.endswith("codebook.embed"):  # all zeros before a training
                buffer.copy_(torch.randn(buffer.shape, generator=stream(0, name)))
    for name, network in made.items():
        network.save_pretrained(root / name)
    return {name: str(root / name) for name in made}


MAKERS: list[Callable[[dict[str, str]], ContentAttack]] = [
    lambda f: EnCodec(30.0, f["encodec"]),
    lambda f: DAC(2, f["dac"]),
    lambda f: Vocoder(1, f["hifigan"]),
]


@pytest.mark.parametrize("make", MAKERS, ids=["encodec", "dac", "vocoder"])
def test_learned_codecs_keep_length_rate_and_channels(
    folders: dict[str, str], make: Callable[[dict[str, str]], ContentAttack]
) -> None:
    attack = make(folders)
    for content in (NOTES, notes(2, 3_001, 44_100, channels=2), notes(1, 777, 8_000)):
        before = content.samples.clone()
        once, again = attack(content, stream(0)), attack(content, stream(1))
        assert once.samples.shape == before.shape and once.rate_hz == content.rate_hz
        assert torch.equal(once.samples, again.samples) and torch.equal(content.samples, before)
        assert not torch.equal(once.samples, before)
    alone = attack(NOTES[:1], stream(0)).samples.int()
    assert int((attack(NOTES, stream(0)).samples[:1].int() - alone).abs().max()) <= 2, "no clip changes another"


def test_more_codebooks_change_what_comes_out(folders: dict[str, str]) -> None:
    one, three = (DAC(count, folders["dac"])(NOTES, stream(0)).samples for count in (1, 3))
    assert not torch.equal(one, three)
    low, high = (EnCodec(rate, folders["encodec"])(NOTES, stream(0)).samples for rate in (30.0, 60.0))
    assert not torch.equal(low, high)


def test_what_the_weights_do_not_have_is_refused(folders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the bandwidth must be one of 30, 60, found 6"):
        EnCodec(6.0, folders["encodec"])(NOTES, stream(0))
    with pytest.raises(UserError, match=r"the number of codebooks must be at most 3, found 9"):
        DAC(9, folders["dac"])(NOTES, stream(0))
    with pytest.raises(UserError, match=r"^EncodecModel: expected model.safetensors of .*, found none; run `hf down"):
        EnCodec(6.0, str(tmp_path))(NOTES, stream(0))
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"^DacModel: .* cannot be loaded: "):
        DAC(2, str(tmp_path))(NOTES, stream(0))
    assert lacks(folders["dac"]) is None and "pass a local folder" in str(lacks("nobody/nothing"))
    assert loaded("DacModel", folders["dac"]) is loaded("DacModel", folders["dac"])


def test_mel_spectra_are_those_of_the_vocoders_own_extractor() -> None:
    from transformers import SpeechT5FeatureExtractor

    x = NOTES.unit()[0, 0]
    own = SpeechT5FeatureExtractor()(audio_target=x.numpy(), sampling_rate=RATE, return_tensors="pt").input_values
    found = log_mel(x[None], RATE, 80)
    assert found.shape == own.shape and math.isfinite(float(found.sum()))
    assert float((found - own)[:, 3:-3].abs().max()) < 1e-3
