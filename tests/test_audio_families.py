"""Each audio family: latents, decoding, gradients, encoding, settings."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.inspection import modulated_layers
from bench.protocol import Generator, UserError
from bench.rng import stream
from bench.selection import load_generator
from bench.weights import effective_weight
from modalities.audio import Audio
from modalities.audio.audioldm import AudioLDM2Generator
from modalities.audio.language import LanguageGenerator
from schemes.weight_modulation import WeightModulation
from tests.clips import notes
from tests.exported import Shelf, fingerprinted
from tests.pages import DOCS, check_row, read_table
from tests.plain_networks import Compression
from tests.tiny_audio import save_tiny
from tests.tiny_sounds import RATE_HZ, save_sound

PROMPTS = ["soft flute", "a dog"]
SETTINGS = {
    "stable-audio": "steps=2",
    "ace-step": "steps=2&seconds=0.2",
    "audioldm2": "steps=2",
    "audioldm2-vocoder": "steps=2&part=vocoder",
    "musicgen": "seconds=0.2",
    "musicgen-stereo": "seconds=0.2",
    "bark": "seconds=0.05",
    "audiocraft": "seconds=0.2",
}
SHAPES = {
    "stable-audio": (4, 24),
    "ace-step": (4, 50),
    "audioldm2": (4, 32, 4),
    "audioldm2-vocoder": (4, 32, 4),
    "musicgen": (1, 8, 50),
    "musicgen-stereo": (2, 8, 50),
    "bark": (1, 8, 13),
    "audiocraft": (8, 50),
}
FAMILIES = pytest.mark.parametrize("name", SETTINGS)


@dataclass(frozen=True)
class Family:
    """A loaded tiny model, what it samples, and a fingerprinted copy of its decoder."""

    generator: Any
    latents: Tensor
    marked: nn.Module


def save(name: str, folder: Path) -> str:
    if name == "audiocraft":
        return "tests.plain_networks:audiocraft"
    place = folder / name.removesuffix("-vocoder")
    if name == "stable-audio":
        place = folder / "tiny"
        return str(place if place.exists() else save_tiny(folder))
    return str(place if place.exists() else save_sound(place.name, folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sounds")


@pytest.fixture(scope="module")
def families(folder: Path) -> Iterator[Shelf]:
    def make(name: str) -> Family:
        generator: Any = load_generator(Audio(), f"{save(name, folder)}?{SETTINGS[name]}", "cpu")
        if hasattr(generator, "guidance"):
            generator = replace(generator, guidance=2.0)
        latents = generator.latents(PROMPTS, stream(0, "latents"))
        return Family(generator, latents, fingerprinted(generator.decoder))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield Shelf(make)


@FAMILIES
def test_latents_and_clips_have_the_family_s_form(families: Shelf, name: str) -> None:
    generator, latents = families[name].generator, families[name].latents
    assert isinstance(generator, Generator)
    assert latents.shape == (2, *SHAPES[name]) and latents.dtype == torch.float32
    assert not torch.allclose(latents[0], latents[1])
    assert torch.equal(generator.latents(PROMPTS, stream(0, "latents")), latents)
    audio = Audio().matched(generator)
    waves = generator.decode(generator.decoder, latents)
    assert waves.ndim == 3 and waves.shape[:2] == (2, 2 if name in ("ace-step", "musicgen-stereo") else 1)
    assert audio.rate_hz == (16_000 if name == "stable-audio" else RATE_HZ)
    assert not any(p.requires_grad for p in generator.decoder.parameters())
    assert not any(module.training for module in generator.decoder.modules())
    assert audio.release(waves).samples.shape == waves.shape


@FAMILIES
def test_sampling_leaves_the_global_generator_alone(families: Shelf, name: str) -> None:
    state = torch.get_rng_state()
    families[name].generator.latents(PROMPTS[:1], stream(0, "latents"))
    assert torch.equal(torch.get_rng_state(), state)


@FAMILIES
def test_gradients_reach_every_modulated_layer(families: Shelf, name: str) -> None:
    generator, latents = families[name].generator, families[name].latents
    decoder, layers = generator.decoder, modulated_layers(generator.decoder, WeightModulation())
    assert layers
    try:
        decoder.requires_grad_()
        waves = generator.decode(decoder, latents[:1])
        waves.square().sum().backward()
        for layer in layers:
            parameters = list(decoder.get_submodule(layer).parameters())
            assert any(p.grad is not None and bool(p.grad.any()) for p in parameters), layer
    finally:
        decoder.zero_grad(set_to_none=True)
        decoder.requires_grad_(False)


@FAMILIES
def test_a_copy_differs_in_its_modulated_layers_alone(families: Shelf, name: str) -> None:
    decoder, marked = families[name].generator.decoder, families[name].marked
    layers = modulated_layers(decoder, WeightModulation())
    for path, module in marked.named_modules():
        own, public = dict(module.named_parameters(recurse=False)), decoder.get_submodule(path)
        if path in layers:
            assert not torch.allclose(effective_weight(module), effective_weight(public))
        elif ".parametrizations" not in path:
            assert all(torch.equal(p, public.get_parameter(key)) for key, p in own.items())


@pytest.mark.parametrize("name", ["stable-audio", "ace-step", "musicgen", "musicgen-stereo", "bark", "audiocraft"])
def test_what_has_an_encoder_regenerates_and_pairs(families: Shelf, name: str) -> None:
    generator = families[name].generator
    latents, fields = generator.public_pairs(2, stream(0, "pairs"))
    assert torch.equal(generator.encode(fields), latents)
    assert generator.decode(generator.decoder, latents).shape == fields.shape
    clips = notes(2, 3217, 16_000, 1)
    restored = generator.reconstruct(clips)
    assert restored.rate_hz == 16_000 and restored.samples.shape == clips.samples.shape


@FAMILIES
def test_training_latents_decode(families: Shelf, name: str) -> None:
    generator = families[name].generator
    latents = generator.training_latents(9, stream(0, "training"))
    assert len(latents) == 9 and latents.shape[1:-1] == families[name].latents.shape[1:-1]
    assert bool(generator.decode(generator.decoder, latents).isfinite().all())
    assert len(latents.flatten(1).unique(dim=0)) > 1


@FAMILIES
def test_the_page_says_what_was_tested(families: Shelf, name: str) -> None:
    family, row = families[name], read_table("generators.md")[name]
    holder = getattr(family.generator, "pipeline", None) or family.generator.model
    assert check_row(row, holder, family.generator.decoder, family.latents)


def test_audiocraft_takes_the_exported_state(families: Shelf, tmp_path: Path) -> None:
    family = families["audiocraft"]
    family.generator.export(family.marked, tmp_path)
    fresh = Compression().eval()
    fresh.load_state_dict(load_file(tmp_path / "compression_model.safetensors"))
    assert torch.equal(fresh.decoder(family.latents), family.generator.decode(family.marked, family.latents))


def test_either_network_of_audioldm_carries_the_fingerprint(families: Shelf) -> None:
    mels, voice = families["audioldm2"], families["audioldm2-vocoder"]
    assert isinstance(mels.generator, AudioLDM2Generator)
    assert mels.generator.decoder is mels.generator.pipeline.vae.decoder
    assert voice.generator.decoder is voice.generator.pipeline.vocoder
    assert torch.equal(mels.latents, voice.latents)
    public = [each.generator.decode(each.generator.decoder, mels.latents) for each in (mels, voice)]
    assert torch.equal(*public)


def test_language_models_can_be_narrow_before_the_codec(folder: Path) -> None:
    generator = Audio().generator(f"{save('musicgen', folder)}?dtype=bfloat16&seconds=0.1")
    assert isinstance(generator, LanguageGenerator)
    assert next(generator.decoder.parameters()).dtype == torch.float32
    assert next(generator.model.decoder.parameters()).dtype == torch.bfloat16
    assert bool(generator.latents(PROMPTS, stream(0)).isfinite().all())


def test_what_is_too_short_is_repeated(families: Shelf) -> None:
    bark = replace(families["bark"].generator, seconds=0.4)
    latents = bark.latents(PROMPTS[:1], stream(0, "latents"))
    assert latents.shape == (1, 1, 8, 100) and torch.equal(latents[..., :13], families["bark"].latents[:1])
    length = next(n for n in range(13, 100) if torch.equal(latents[..., n:], latents[..., : 100 - n]))
    assert length < 50


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        ("config", "cannot be loaded"),
        ("weights", "expected safetensors in it, found the pickle model.bin, which is refused"),
        ("kind", "expected MusicgenForConditionalGeneration or BarkModel, found"),
        ("short", "cannot be loaded"),
    ],
)
def test_a_damaged_model_folder_ends_in_one_line(folder: Path, tmp_path: Path, damage: str, line: str) -> None:
    place = shutil.copytree(save("musicgen", folder), tmp_path / "damaged")
    if damage == "config":
        (place / "config.json").write_text("{")
    elif damage == "weights":
        (place / "model.safetensors").rename(place / "model.bin")
    elif damage == "kind":
        (place / "config.json").write_text('{"model_type": "t5", "architectures": ["T5EncoderModel"]}')
    else:
        (place / "model.safetensors").write_bytes((place / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match=line) as caught:
        Audio().generator(str(place))
    assert str(caught.value).startswith(f"generator {place}: ") and "\n" not in str(caught.value)


def test_a_pipeline_of_no_known_family_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class MusicLDMPipeline:
        pass

    monkeypatch.setattr("modalities.audio.loading.load_pipeline", lambda *_: ("other", MusicLDMPipeline(), None))
    line = "generator other: expected one of AceStepPipeline, AudioLDM2Pipeline, StableAudioPipeline, found MusicLDM"
    with pytest.raises(UserError, match=f"^{line}Pipeline$"):
        Audio().generator(str(DOCS))


@pytest.mark.parametrize(
    ("name", "written"), [("musicgen", "steps=3"), ("audioldm2", "size=64"), ("stable-audio", "part=vocoder")]
)
def test_settings_of_another_family_are_refused(folder: Path, name: str, written: str) -> None:
    with pytest.raises(UserError, match=rf"expected of its settings .*, found {written.partition('=')[0]}$"):
        Audio().generator(f"{save(name, folder)}?{written}")
