"""Each image family through the same adapter: latents, decoding, gradients, settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.inspection import modulated_layers
from bench.protocol import Generator, UserError
from bench.rng import stream
from modalities.image import Image
from modalities.image.diffusion import DiffusionGenerator
from schemes.weight_modulation import WeightModulation
from tests.exported import Shelf, fingerprinted
from tests.pages import check_row, read_table
from tests.tiny_families import save_family, save_tiny_decoder

CPU = torch.device("cpu")
PROMPTS = ["a cat", "the sun"]
CALLS = {
    "sd": {},
    "sdxl": {},
    "sd3": {},
    "flux": {"height": 64, "width": 64},
    "sana": {"height": 32, "width": 32, "use_resolution_binning": False},
    "taesd": {},
}
FAMILIES = pytest.mark.parametrize("name", CALLS)


@dataclass(frozen=True)
class Family:
    """A loaded tiny pipeline, what it samples, and a fingerprinted copy of its decoder."""

    generator: DiffusionGenerator
    latents: Tensor
    marked: nn.Module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def save(name: str, folder: Path) -> Path:
    own = "sd" if name == "taesd" else name
    place = folder / ("tiny" if own == "sd" else own)
    return place if place.exists() else save_family(own, folder)


@pytest.fixture(scope="module")
def families(folder: Path) -> Iterator[Shelf]:
    def make(name: str) -> Family:
        size = f"&size={CALLS[name]['height']}" if CALLS[name] else ""
        other = f"&decoder={save_tiny_decoder(folder)}" if name == "taesd" else ""
        generator = Image().generator(f"{save(name, folder)}?steps=2&guidance=2{size}{other}")
        assert isinstance(generator, DiffusionGenerator)
        return Family(generator, generator.latents(PROMPTS, stream(0, "latents")), fingerprinted(generator.decoder))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield Shelf(make)


@FAMILIES
def test_latents_and_pictures_have_the_family_s_form(families: Shelf, name: str) -> None:
    generator, latents = families[name].generator, families[name].latents
    side = CALLS[name].get("height", 64)
    assert isinstance(generator, Generator)
    assert latents.shape == (2, 4, side // 2, side // 2) and latents.dtype == torch.float32
    assert not torch.allclose(latents[0], latents[1])
    pictures = generator.decode(generator.decoder, latents)
    assert pictures.shape == (2, 3, side, side) and bool(pictures.isfinite().all())
    z = generator.encode(generator._sized(pictures.clamp(0, 1)))
    assert z.shape == latents.shape


@FAMILIES
def test_gradients_reach_every_modulated_layer(families: Shelf, name: str) -> None:
    generator, latents = families[name].generator, families[name].latents
    decoder, layers = generator.decoder, modulated_layers(generator.decoder, WeightModulation())
    weights = [decoder.get_submodule(layer).weight.requires_grad_() for layer in layers]  # type: ignore[operator]
    try:
        gradients = torch.autograd.grad(generator.decode(decoder, latents[:1]).square().sum(), weights)
    finally:
        decoder.requires_grad_(False)
    assert all(bool(gradient.any()) for gradient in gradients)


@FAMILIES
def test_the_page_says_what_was_tested(families: Shelf, name: str) -> None:
    family, row = families[name], read_table("generators.md")[name]
    assert check_row(row, family.generator.pipeline, family.generator.decoder, family.latents)


def test_an_exported_copy_loads_as_a_generator(families: Shelf, folder: Path) -> None:
    families["sd"].generator.export(families["sd"].marked, folder / "again")
    again = Image().generator(str(folder / "again"))
    own = families["sd"].marked.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in again.decoder.state_dict().items())


def test_a_copy_with_other_keys_is_not_exported(families: Shelf, folder: Path) -> None:
    generator = families["sd"].generator
    with pytest.raises(UserError, match="export: expected the decoder's own"):
        generator.export(nn.Sequential(generator.decoder), folder / "never")


def test_everything_before_the_decoder_can_be_narrow(families: Shelf, folder: Path) -> None:
    narrow = Image().generator(f"{save('sd', folder)}?dtype=bfloat16&steps=2")
    assert isinstance(narrow, DiffusionGenerator)
    kinds = {name: next(network.parameters()).dtype for name, network in narrow.networks.items()}
    assert kinds == {"vae": torch.float32, "unet": torch.bfloat16, "text_encoder": torch.bfloat16}
    latents = narrow.latents(PROMPTS, stream(0, "latents"))
    assert latents.dtype == torch.float32 and bool(latents.isfinite().all())
    whole = replace(families["sd"].generator, guidance=3.0).latents(PROMPTS, stream(0, "latents"))
    assert 0 < float((latents - whole).abs().max()) < 0.5


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_sharded_and_half_precision_folders_load(families: Shelf, folder: Path, variant: str | None) -> None:
    pipeline, place = families["sd"].generator.pipeline, folder / f"sharded-{variant}"
    own = {name: value.clone() for name, value in pipeline.vae.state_dict().items()}
    pipeline.save_pretrained(place, safe_serialization=True, variant=variant, max_shard_size="10KB")
    assert len(list((place / "vae").glob("*.safetensors"))) > 1
    loaded = Image().generator(str(place))
    assert isinstance(loaded, DiffusionGenerator)
    assert all(torch.equal(value, own[name]) for name, value in loaded.pipeline.vae.state_dict().items())


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("size=0", r"expected size=WHOLE-NUMBER, found size=0"),
        ("dtype=int8", r"expected dtype=float32\|float16\|bfloat16, found dtype=int8"),
        ("colour=red", r"expected of its settings dtype, .*, found 'colour'"),
        ("seconds=3", r"expected of its settings dtype, .*, size, found seconds"),
        ("offload=true", r"expected a GPU to offload from, found the device cpu"),
        ("decoder=./nowhere", r"decoder ./nowhere: expected a folder with config.json, found none"),
    ],
)
def test_settings_that_do_not_fit_end_in_one_line(folder: Path, written: str, line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        Image().generator(f"{save('sd', folder)}?{written}")
    assert "\n" not in str(caught.value)


def test_offload_leaves_what_holds_the_fingerprint_on_the_device(families: Shelf) -> None:
    from modalities.pipelines import _place
    from modalities.settings import Settings

    class Pipeline:
        model_cpu_offload_seq = "text_encoder->unet->vae"
        _exclude_from_cpu_offload = ["safety_checker"]  # noqa: RUF012
        asked: Any = None

        def enable_model_cpu_offload(self, device: torch.device) -> None:
            self.asked = (device.type, self.model_cpu_offload_seq, self._exclude_from_cpu_offload)

    pipeline = Pipeline()
    _place("sd", pipeline, torch.device("meta"), Settings(offload=True))
    assert pipeline.asked == ("meta", "text_encoder->unet", ["safety_checker", "vae", "vocoder"])
    with pytest.raises(UserError, match=r"generator sd: expected accelerate for offload=true"):
        _place("sd", families["sd"].generator.pipeline, torch.device("meta"), Settings(offload=True))


def test_much_is_decoded_in_parts(families: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, latents = families["sd"].generator, families["sd"].latents
    with torch.no_grad():
        whole = generator.decode(generator.decoder, latents)
        monkeypatch.setattr("modalities.image.diffusion.PIXELS", 64 * 64)
        calls: list[int] = []
        handle = generator.decoder.register_forward_pre_hook(lambda _, x: calls.append(len(x[0])))
        parts = generator.decode(generator.decoder, latents)
        handle.remove()
    assert calls == [1, 1] and torch.allclose(parts, whole, atol=1e-6)
