"""The embedded generators as they ship, and the codecs fitted for them: what holds in every modality."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from bench.protocol import Content, Generator, Modality
from bench.rng import stream
from modalities import MODALITIES, audio, image, shape3d
from modalities.audio import stable_audio
from modalities.image import diffusion
from modalities.shape3d import grid_generator
from schemes import SCHEMES, ZOO, load_codec

CARD = re.compile(r"^\| `(\S+)` \| (\d+) \| (\d+) s \|", re.MULTILINE)
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".py"}


@dataclass(frozen=True)
class Embedded:
    """What is particular about one of them.

    Attributes:
        modality: its own.
        name: of the generator.
        folder: pipeline folder.
        parts: subfolders with weights.
        axes: of its latents, with the batch.
        off: how far from 1 the deviation of eight samples' latents may be.
        off_encoded: the same of 64 public items'.
        accuracy: what a shipped codec reads at least, of one code on 8 items.
        fidelity: paired metric to the public decoder's output at least, of the same items.
    """

    modality: Modality
    name: str
    folder: Path
    parts: frozenset[str]
    axes: int
    off: float
    off_encoded: float
    accuracy: float
    fidelity: float


CASES = {
    "image": Embedded(
        modality=image.Image(),
        name="emoji64",
        folder=diffusion.EMBEDDED,
        parts=frozenset({"vae", "unet", "text_encoder"}),
        axes=4,
        off=0.3,
        off_encoded=0.15,
        accuracy=0.93,  # 0.98 on 512 items, spread over items
        fidelity=29,  # 31.6 dB on 512 items
    ),
    "audio": Embedded(
        modality=audio.Audio(),
        name="notes16k",
        folder=stable_audio.EMBEDDED,
        parts=frozenset({"vae", "transformer", "text_encoder", "projection_model"}),
        axes=3,
        off=0.6,  # latents scale with loudness: single clips deviate by 0.1 to 5
        off_encoded=0.6,
        accuracy=0.9,
        fidelity=17,
    ),
    "3d": Embedded(
        modality=shape3d.Shape3D(),
        name="ldraw32",
        folder=grid_generator.EMBEDDED,
        parts=frozenset({"autoencoder", "prior", "text_encoder"}),
        axes=5,
        off=0.3,
        off_encoded=0.15,
        accuracy=0.6,  # 0.76 on 512 items (docs/results-3d.md), 0.60 to 0.73 on these eight, by code
        fidelity=0.9,
    ),
}
SHIPPED = [
    pytest.param(name, path, id=f"{name}-{path.stem}")
    for name in CASES
    for path in sorted((ZOO / name).glob("*.safetensors"))
]


@lru_cache(maxsize=1)
def made(name: str) -> tuple[Generator, Tensor]:
    """The generator and eight latents of benchmark prompts."""
    modality = CASES[name].modality
    generator = modality.generator(None)
    return generator, generator.latents(modality.prompts(8, stream(0, "prompts")), stream(0, "latents"))


def files(name: str) -> list[Path]:
    return [path for path in CASES[name].folder.rglob("*") if path.is_file()]


def test_every_modality_has_one() -> None:
    assert CASES.keys() == MODALITIES.keys()
    assert {value for parameter in SHIPPED for value in parameter.values[:1]} == CASES.keys(), "each with a codec"


@pytest.mark.parametrize("name", CASES)
def test_it_is_small(name: str) -> None:
    generator: Any = made(name)[0]
    assert sum(p.numel() for p in generator.networks.parameters()) <= 12e6
    assert sum(path.stat().st_size for path in files(name)) <= 25 * 2**20


@pytest.mark.parametrize("name", CASES)
def test_it_is_half_precision_safetensors_and_text(name: str) -> None:
    assert not [path.name for path in files(name) if path.suffix in PICKLES]
    weights = [path for path in files(name) if path.suffix == ".safetensors"]
    assert {path.parent.name for path in weights} == CASES[name].parts
    for path in weights:
        kinds = {value.dtype for value in load_file(path).values() if value.is_floating_point()}
        assert kinds == {torch.float16}, path.parent.name
        assert all(bool(value.isfinite().all()) for value in load_file(path).values())


@pytest.mark.parametrize("name", CASES)
def test_it_goes_through_the_adapter_of_every_other_pipeline(name: str) -> None:
    (generator, latents), case = made(name), CASES[name]
    assert isinstance(generator, Generator) and generator.name == case.name == case.folder.name
    same = case.modality.generator(str(case.folder))
    prompts = case.modality.prompts(8, stream(0, "prompts"))
    assert torch.equal(same.latents(prompts, stream(0, "latents")), latents)


@pytest.mark.parametrize("name", CASES)
def test_latents_have_the_scale_of_the_noise(name: str) -> None:
    (generator, latents), case = made(name), CASES[name]
    assert len(latents) == 8 and latents.ndim == case.axes and bool(latents.isfinite().all())
    assert latents.std().item() == pytest.approx(1, abs=case.off)
    encoded, _ = generator.public_pairs(64, stream(0, "pairs"))
    assert encoded.std().item() == pytest.approx(1, abs=case.off_encoded)


def test_every_shipped_codec_belongs_to_a_scheme() -> None:
    for parameter in SHIPPED:
        name, path = parameter.values
        assert isinstance(path, Path)
        assert path.stem in {f"{CASES[str(name)].folder.name}-{scheme}" for scheme in SCHEMES}


def test_every_shipped_codec_has_its_card() -> None:
    page = (ZOO / "README.md").read_text(encoding="utf-8")
    cards = {name: (int(steps), int(fit)) for name, steps, fit in CARD.findall(page)}
    assert cards.keys() == {f"{parameter.values[0]}/{parameter.values[1].stem}" for parameter in SHIPPED}
    for name, (steps, seconds) in cards.items():
        with safe_open(ZOO / f"{name}.safetensors", "pt") as file:
            about = file.metadata()
        logged = json.loads(about["log"])[-1]["step"]
        assert logged <= steps < logged + 200 and abs(seconds - float(about["fit_seconds"])) <= 1


@pytest.mark.parametrize(("name", "path"), SHIPPED)
def test_a_shipped_codec_marks_and_reads(name: str, path: Path) -> None:
    (generator, latents), case = made(name), CASES[name]
    codec, modality = load_codec(path, case.modality, generator), case.modality
    code = torch.randint(2, (codec.bits,), generator=stream(0, "code"))
    before = {key: value.clone() for key, value in generator.decoder.state_dict().items()}
    marked = codec.modulate(generator.decoder, code)
    shapes = {key: value.shape for key, value in marked.state_dict().items()}
    assert shapes == {key: value.shape for key, value in before.items()}
    assert all(torch.equal(value, before[key]) for key, value in generator.decoder.state_dict().items())

    @torch.no_grad()
    def published(decoder: torch.nn.Module) -> Content:
        return modality.release(generator.decode(decoder, latents))

    original, fingerprinted = published(generator.decoder), published(marked)
    soft = codec.read(modality.observe(fingerprinted))
    assert ((soft > 0) == (code == 1)).float().mean() > case.accuracy
    assert ((codec.read(modality.observe(original)) > 0) == (code == 1)).float().mean() < 0.8, "nobody's decoder"
    assert modality.paired(original, fingerprinted)[modality.paired_metric].mean() > case.fidelity
