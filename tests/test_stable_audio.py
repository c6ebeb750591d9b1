"""The Stable Audio adapter on tiny pipelines with random weights: sampling, decoding, encoding."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.digest import generator_digest
from bench.protocol import Clips, Generator, UserError
from bench.rng import child, stream
from modalities.audio import LENGTH, Audio, data, stable_audio
from modalities.audio.notes import every_note
from modalities.audio.stable_audio import EMBEDDED, StableAudioGenerator, load
from modalities.pipelines import noted
from tests.clips import notes
from tests.tiny_audio import FRAMES, HOP, LATENT, save_tiny

CPU = torch.device("cpu")
PROMPTS = ["soft flute playing C4, short", "loud sitar playing A4, long", "the sea", "", "a dog"]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pipelines like the embedded one and like Stable Audio Open; copy them before writing into them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        return {
            "mono": save_tiny(tmp_path_factory.mktemp("mono")),
            "open": save_tiny(tmp_path_factory.mktemp("open"), rate_hz=44_100, channels=2, cosine=True),
        }


@pytest.fixture(scope="session", params=["mono", "open"])
def generator(folders: dict[str, Path], request: pytest.FixtureRequest) -> StableAudioGenerator:
    return dataclasses.replace(load(str(folders[request.param]), CPU), steps=2)


@pytest.fixture(scope="session")
def mono(folders: dict[str, Path]) -> StableAudioGenerator:
    return dataclasses.replace(load(str(folders["mono"]), CPU), steps=2)


@pytest.fixture(scope="session")
def sampled(generator: StableAudioGenerator) -> Tensor:
    return generator.latents(PROMPTS, stream(0, "latents"))


def channels(generator: StableAudioGenerator) -> int:
    return int(generator.pipeline.vae.config.audio_channels)


def test_the_embedded_pipeline_samples_in_few_steps_without_guidance(folders: dict[str, Path], tmp_path: Path) -> None:
    own = shutil.copytree(folders["mono"], tmp_path / EMBEDDED.name)
    settings = [(each.steps, each.guidance) for each in (load(str(own), CPU), load(str(folders["mono"]), CPU))]
    assert settings == [(16, 1.0), (25, 7.0)]


# Sampling


def test_it_is_a_generator_with_everything_frozen(folders: dict[str, Path], generator: StableAudioGenerator) -> None:
    assert isinstance(generator, Generator) and generator.name == folders["mono"].name
    assert generator.rate_hz == {1: 16_000, 2: 44_100}[channels(generator)]
    assert set(generator.networks) == {"vae", "transformer", "text_encoder", "projection_model"}
    assert not any(p.requires_grad for p in generator.networks.parameters())
    assert not any(module.training for module in generator.networks.modules())
    assert generator.decoder is generator.networks["vae"].decoder
    assert {p.dtype for p in generator.networks.parameters()} == {torch.float32}


def test_the_modality_loads_it_and_takes_its_rate(folders: dict[str, Path]) -> None:
    generator = Audio().generator(str(folders["open"]))
    audio = Audio().matched(generator)
    assert audio.rate_hz == 44_100
    field = generator.decode(generator.decoder, torch.zeros(2, LATENT, 200))
    clips = audio.release(field)
    audio.check(clips)
    assert clips.samples.shape == (2, 2, 200 * HOP) and audio.observe(clips).shape == (2, 1, LENGTH)


def test_latents_are_one_a_prompt(sampled: Tensor) -> None:
    assert sampled.shape == (5, LATENT, FRAMES) and sampled.dtype == torch.float32
    assert bool(sampled.isfinite().all()) and len(sampled.flatten(1).unique(dim=0)) == 5


def test_latents_depend_on_stream_and_prompt(generator: StableAudioGenerator, sampled: Tensor) -> None:
    assert torch.equal(generator.latents(PROMPTS, stream(0, "latents")), sampled)
    assert not torch.allclose(generator.latents(["a bottle"], stream(0, "latents")), sampled[:1], atol=1e-4)
    assert not torch.allclose(generator.latents(PROMPTS[:1], stream(1, "latents")), sampled[:1], atol=0.1)


@pytest.mark.parametrize(("count", "batch"), [(1, 32), (3, 32), (5, 2), (5, 1)])
def test_an_item_does_not_depend_on_its_batch(
    generator: StableAudioGenerator, sampled: Tensor, count: int, batch: int
) -> None:
    part = dataclasses.replace(generator, batch=batch).latents(PROMPTS[:count], stream(0, "latents"))
    assert torch.allclose(part, sampled[:count], atol=1e-4)


def test_an_item_does_not_depend_on_its_neighbours(generator: StableAudioGenerator, sampled: Tensor) -> None:
    others = [PROMPTS[0], "x", "another", *PROMPTS[3:]]
    found = generator.latents(others, stream(0, "latents"))
    assert torch.equal(found[[0, 3, 4]], sampled[[0, 3, 4]])


def test_sampling_leaves_the_global_generators_alone(generator: StableAudioGenerator) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    generator.latents(PROMPTS[:1], stream(0, "latents"))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # type: ignore[index]


def test_other_weights_or_settings_are_another_generator(folders: dict[str, Path], mono: StableAudioGenerator) -> None:
    changed = dataclasses.replace(load(str(folders["mono"]), CPU), steps=2)
    assert generator_digest(changed) == generator_digest(mono)
    assert generator_digest(dataclasses.replace(changed, steps=7)) != generator_digest(mono)
    with torch.no_grad():
        changed.networks["text_encoder"].get_parameter("encoder.final_layer_norm.weight").add_(1)
    assert generator_digest(changed) != generator_digest(mono)


@pytest.mark.parametrize("ci", ["true", ""])
def test_a_cut_prompt_is_told_in_one_line(
    mono: StableAudioGenerator,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ci: str,
) -> None:
    monkeypatch.setenv("CI", ci)
    with caplog.at_level("INFO", "genprint"):
        mono.latents(PROMPTS[:1], stream(0))
        assert not caplog.messages
        mono.latents(["a very long story of a flute " * 40] * 2, stream(0))
    (line,) = caplog.messages
    assert line == "generator tiny: a prompt is longer than its text encoder reads; its end was cut"
    assert capsys.readouterr() == ("", "")


def test_training_latents_are_of_captions_for_fitting(
    mono: StableAudioGenerator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prompted: list[str] = []
    sample = StableAudioGenerator.latents

    def latents_of(self: StableAudioGenerator, prompts: list[str], rng: torch.Generator) -> Tensor:
        prompted.extend(prompts)
        return sample(self, prompts, rng)

    monkeypatch.setattr(StableAudioGenerator, "latents", latents_of)
    small = dataclasses.replace(mono, batch=4)
    with caplog.at_level("INFO", "genprint"):
        latents = small.training_latents(6, stream(0, "training"))
    assert latents.shape == (6, LATENT, FRAMES) and len(latents.flatten(1).unique(dim=0)) == 6
    assert caplog.messages == ["training latents 4/6", "training latents 6/6"]
    assert torch.equal(latents, small.training_latents(6, stream(0, "training")))
    small.training_latents(4, stream(1, "training"))
    fit = {note.caption for note in every_note() if note.split == "fit"}
    assert len(prompted) == 16 and len(set(prompted)) > 8 and fit.issuperset(prompted)


def test_training_latents_are_windows_of_what_readers_hear(
    mono: StableAudioGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stable_audio, "LENGTH", 10 * HOP)
    windows = mono.training_latents(7, stream(0, "training"))
    assert windows.shape == (7, LATENT, 10)
    monkeypatch.setattr(stable_audio, "LENGTH", FRAMES * HOP)
    whole = mono.training_latents(2, stream(0, "training"))
    places = whole.unfold(2, 10, 1).movedim(2, 1)  # (2, 15, C, 10)
    for window, those in zip(windows, [*places[:1]] * 4 + [*places[1:]] * 3, strict=True):
        (found,) = (those == window).flatten(1).all(1).nonzero()[:1].tolist()
        energy = those.square().mean((1, 2))
        assert energy[found] >= 0.79 * energy.max(), "what a reader would choose"


# Decoding and encoding


def test_decode_is_what_the_stock_pipeline_puts_out(generator: StableAudioGenerator, sampled: Tensor) -> None:
    waves = generator.decode(generator.decoder, sampled)
    assert waves.shape == (5, channels(generator), FRAMES * HOP) and waves.dtype == torch.float32
    assert torch.equal(waves, generator.pipeline.vae.decode(sampled).sample)
    rng = stream(0, "latents")
    seeds = [child(rng, "latent", index) for index in range(5)]
    settings = {"num_inference_steps": generator.steps, "guidance_scale": generator.guidance, "generator": seeds}
    with noted():
        stock = generator.pipeline(PROMPTS, **settings).audios
    assert stock.shape[2] >= FRAMES * HOP - 1, "its count of samples is rounded down"
    assert torch.allclose(stock, waves[..., : stock.shape[2]], atol=1e-6)


def test_decode_is_differentiable_in_weights_and_latents(generator: StableAudioGenerator, sampled: Tensor) -> None:
    decoder, z = copy.deepcopy(generator.decoder).requires_grad_(), sampled[:2].clone().requires_grad_()
    named = dict(decoder.named_parameters())
    gradients = torch.autograd.grad(generator.decode(decoder, z).square().sum(), [z, *named.values()])
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    silent = [name for name, gradient in zip(named, gradients[1:], strict=True) if not gradient.any()]
    assert bool(gradients[0].any()) and not silent


def test_decode_follows_the_decoder_it_is_given(mono: StableAudioGenerator) -> None:
    z = torch.randn(2, LATENT, 9, generator=stream(0, "z"))
    waves = mono.decode(mono.decoder, z)
    louder = copy.deepcopy(mono.decoder)
    with torch.no_grad():
        louder.get_parameter("conv2.weight_g").mul_(2)
    assert torch.allclose(mono.decode(louder, z), 2 * waves, atol=1e-6)
    exact = mono.decode(copy.deepcopy(mono.decoder).double(), z)
    assert exact.dtype == torch.float32 and torch.allclose(exact, waves, atol=1e-6)
    assert mono.decode(copy.deepcopy(mono.decoder).to("meta"), z).device.type == "meta"
    assert mono.device == CPU


def test_encode_is_the_posteriors_mean(generator: StableAudioGenerator) -> None:
    x = 0.1 * torch.randn(9, channels(generator), 6 * HOP, generator=stream(0, "waves"))
    z = generator.encode(x)
    assert z.shape == (9, LATENT, 6) and z.dtype == torch.float32 and not z.requires_grad
    with torch.no_grad():
        assert torch.allclose(z, generator.pipeline.vae.encode(x).latent_dist.mean, atol=1e-5)


def test_public_pairs_are_shipped_clips_and_their_codes(generator: StableAudioGenerator) -> None:
    latents, fields = generator.public_pairs(2, stream(0, "pairs"))
    length = -(-data.LENGTH * generator.rate_hz // data.RATE_HZ)  # in samples of its own rate
    assert fields.shape == (2, channels(generator), -(-length // HOP) * HOP)
    assert latents.shape == (2, LATENT, -(-length // HOP)) and torch.equal(generator.encode(fields), latents)
    again, other = (generator.public_pairs(1, stream(seed, "pairs"))[1] for seed in (0, 1))
    assert torch.equal(again, fields[:1]) and not torch.equal(other, again)
    if channels(generator) == 1:
        clips = data.shipped("fit")[0].float() / 32_768
        assert all(bool((clips == field).flatten(1).all(1).any()) for field in fields)
    else:
        assert torch.equal(fields[:, 0], fields[:, 1])


@pytest.mark.parametrize(
    ("rate_hz", "count", "length"),
    [(16_000, 1, 3200), (16_000, 1, 3217), (16_000, 2, 3201), (8_000, 1, 1601), (44_100, 2, 9001), (44_101, 1, 5000)],
)
def test_reconstruction_has_the_shape_and_rate_of_what_went_in(
    generator: StableAudioGenerator, rate_hz: int, count: int, length: int
) -> None:
    clips = notes(3, length, rate_hz, count)
    before = clips.samples.clone()
    restored = generator.reconstruct(clips)
    assert restored.rate_hz == rate_hz and restored.samples.shape == (3, count, length)
    assert restored.samples.dtype == torch.int16 and torch.equal(clips.samples, before)
    if (rate_hz, count, length % HOP) == (generator.rate_hz, channels(generator), 0):
        own = generator.decode(generator.decoder, generator.encode(clips.unit()))
        assert torch.equal(restored.samples, Clips.from_unit(own, rate_hz).samples)


def test_the_encoder_has_a_gradient_in_the_samples(mono: StableAudioGenerator) -> None:
    clips = notes(2, 40 * HOP, 16_000)
    floats = clips.samples.float().requires_grad_()
    latents = mono.embed(Clips(floats, 16_000))
    assert torch.allclose(latents, mono.encode(clips.unit()), atol=1e-4)
    latents.square().sum().backward()
    assert floats.grad is not None and float(floats.grad.abs().sum()) > 0
    assert not any(p.requires_grad for p in mono.networks.parameters())


# What cannot be loaded, beside what test_pipeline_folders.py damages


def test_another_audio_pipeline_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherPipeline(SimpleNamespace):
        pass

    monkeypatch.setattr(stable_audio, "load_pipeline", lambda *_: ("other", OtherPipeline(), None))
    with pytest.raises(UserError, match="generator other: expected a StableAudioPipeline, found OtherPipeline"):
        load("some/other", CPU)


def test_without_the_embedded_generator_the_message_says_how_to_train_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stable_audio, "EMBEDDED", tmp_path / "audio" / "weights" / "notes16k")
    with pytest.raises(UserError, match=r"expected notes16k/ in the installation; run `make embedded MODALITY=audio`"):
        load(None, CPU)
