"""``bench export`` for every adapter: a process with the stock libraries alone makes the same content, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from bench.__main__ import app
from bench.protocol import Clips
from bench.rng import child, fenced, stream
from bench.selection import load_generator
from modalities.audio import Audio
from modalities.image import Image
from modalities.shape3d import Shape3D
from modalities.shape3d.fields import CHUNK
from schemes import load_codec
from tests import field_networks, plain_networks
from tests.exported import stock, write_untrained
from tests.tiny_audio import save_tiny
from tests.tiny_families import save_family, save_tiny_decoder
from tests.tiny_shapes import save_shape
from tests.tiny_sounds import save_sound

Job = dict[str, Any]

PROMPTS = ["a cat", "the sun"]
CODE = "01101001"
LOOP = {"num_inference_steps": 2, "guidance_scale": 2.0}
NETWORKS = {"dcgan": "DCGAN", "stylegan": "StyleGAN", "waves": "Waves"}
SPEECH = {"padding": "max_length", "max_length": 8, "truncation": True}
SETTINGS = {
    **dict.fromkeys(("sd", "sdxl", "sd3", "taesd", "stable-audio", "audioldm2"), "steps=2&guidance=2"),
    "flux": "steps=2&guidance=2&size=64",
    "sana": "steps=2&guidance=2&size=32",
    "ace-step": "steps=2&guidance=2&seconds=0.2",
    "audioldm2-vocoder": "steps=2&guidance=2&part=vocoder",
    **dict.fromkeys(("musicgen", "musicgen-stereo"), "guidance=2&seconds=0.2"),
    "bark": "seconds=0.05",
    "audiocraft": "seconds=0.2",
    **dict.fromkeys(NETWORKS, ""),
    "program": "",
    "grid": "steps=2",
    "shap-e": "steps=2&guidance=2&size=32",
    "field": "",
    "hunyuan3d": "",
}
CALLS: dict[str, Job] = {
    "flux": {"height": 64, "width": 64},
    "sana": {"height": 32, "width": 32, "use_resolution_binning": False},
    "ace-step": {"audio_duration": 0.2, "lyrics": ["", ""]},
}
SHAPES: dict[str, Job] = {
    "grid": {"library": "latents"},
    "shap-e": {"library": "shap-e", "call": LOOP},
    "field": {"library": "points", "class": "Field", "method": "__call__"},
    "hunyuan3d": {"library": "points", "class": "ShapeVAE", "method": "decode"},
}
"""Of solids: how a stock process makes them."""
IMAGES = ("sd", "sdxl", "sd3", "flux", "sana", "taesd", "dcgan", "stylegan", "program")


@dataclass(frozen=True)
class Copy:
    """What GenPrint makes with the exported copy and with the public decoder, and what a stock process makes."""

    marked: Tensor
    public: Tensor
    stock: Tensor


def written(name: str, folder: Path) -> str:
    """A tiny generator on disk, and what ``--generator`` takes."""
    if name in (*NETWORKS, "audiocraft"):
        place = f"tests.plain_networks:{name}"
    elif name == "program":
        place = str(plain_networks.write_program(plain_networks.dcgan(), (8, 1, 1), folder / "program.pt2"))
    elif name == "stable-audio":
        place = str(save_tiny(folder))
    elif name in SHAPES:
        own = SHAPES[name]["library"] == "points"
        place = f"tests.field_networks:{name}" if own else str(save_shape(name, folder))
    elif name in IMAGES:
        place = str(save_family("sd" if name == "taesd" else name, folder))
    else:
        place = str(save_sound(name.removesuffix("-vocoder"), folder))
    chosen = [SETTINGS[name], f"decoder={save_tiny_decoder(folder)}" if name == "taesd" else ""]
    words = "&".join(filter(None, chosen))
    return f"{place}?{words}" if words else place


def job_of(name: str, generator: Any, seeds: list[int]) -> Job:
    """How a stock library is called to make what ``generator`` makes of the prompts."""
    job: Job = {"prompts": PROMPTS, "seeds": seeds}
    if name in NETWORKS:
        file = str(Path(plain_networks.__file__))
        return job | {"library": "torch", "file": file, "class": NETWORKS[name], "shape": generator.shape}
    if name == "program":
        return job | {"library": "torch.export", "shape": generator.shape}
    if name in SHAPES:
        file, shape = str(Path(field_networks.__file__)), getattr(generator, "shape", ())
        return job | SHAPES[name] | {"file": file, "shape": shape, "side": 32, "chunk": CHUNK}
    if name == "audiocraft":
        file = str(Path(plain_networks.__file__))
        return job | {"library": "audiocraft", "file": file, "class": "MusicGen", "seconds": 0.2}
    if name.startswith("musicgen"):
        tokens = generator.frames + generator.books - 1
        call: Job = {"do_sample": True, "guidance_scale": 2.0, "max_new_tokens": tokens}
        kind = type(generator.model).__name__
        return job | {"library": "transformers", "kind": kind, "tokens": {"padding": True}, "call": call}
    if name == "bark":
        words = SPEECH | {"add_special_tokens": False, "return_token_type_ids": False}
        return job | {"library": "transformers", "kind": "BarkModel", "tokens": words, "call": {}}
    return job | {"library": "diffusers", "call": LOOP | CALLS.get(name, {})}


def natural(generator: Any) -> Any:
    """Bark at the length at which it stops speaking of itself, neither cut nor repeated."""
    long = replace(generator, seconds=0.4).latents(PROMPTS[:1], stream(0, "latents"))
    length = next(n for n in range(1, 100) if torch.equal(long[..., n:], long[..., : 100 - n]))
    return replace(generator, seconds=length * generator.hop / generator.rate_hz)


def exported(name: str, folder: Path) -> tuple[Job, Tensor, Tensor]:
    """The command's copy of one adapter: how to call the stock library on it, and what GenPrint makes."""
    modality: Any = Image() if name in IMAGES else Shape3D() if name in SHAPES else Audio()
    (folder / name).mkdir()
    spec, out, codec = written(name, folder / name), folder / name / "copy", folder / name / "codec.safetensors"
    generator: Any = load_generator(modality, spec, "cpu")
    prompts = PROMPTS[:1] if name == "bark" else PROMPTS
    write_untrained(generator, {"image": 2, "3d": 3}.get(modality.name, 1), codec)
    words = ["export", "--modality", modality.name, "--generator", spec, "--scheme", str(codec)]
    result = CliRunner().invoke(app, [*words, "--fingerprint", CODE, "--out", str(out)])
    assert result.exit_code == 0, result.output
    generator = natural(generator) if name == "bark" else generator
    latents = generator.latents(prompts, stream(0, "latents"))
    marked: nn.Module = load_codec(codec, modality, generator).modulate(
        generator.decoder, torch.tensor([int(bit) for bit in CODE])
    )
    rng = stream(0, "latents")
    seeds = [child(rng, "latent", i if name not in LANGUAGE else 0).initial_seed() for i in range(len(prompts))]
    job = job_of(name, generator, seeds) | {"folder": str(out), "prompts": prompts}
    if name == "grid":
        job |= {"latents": latents.tolist()}  # how text becomes latents is its own code, which no library has
    with torch.no_grad():
        mine, public = generator.decode(marked, latents), generator.decode(generator.decoder, latents)
        return job, reloaded(name, out, latents, mine), public


def reloaded(name: str, out: Path, latents: Tensor, mine: Tensor) -> Tensor:
    """Of Shap-E, what GenPrint makes when it loads the copy itself.

    Products of narrow matrices end in another last bit where a weight starts elsewhere between multiples of 64 bytes in
    memory, and that is decided by its place in the file that it is read from.
    """
    if name != "shap-e":
        return mine
    generator: Any = load_generator(Shape3D(), f"{out}?{SETTINGS[name]}", "cpu")
    found: Tensor = generator.decode(generator.decoder, latents)
    assert torch.allclose(found, mine, atol=1e-5)
    return found


LANGUAGE = ("musicgen", "musicgen-stereo", "bark", "audiocraft")


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Copy]]:
    folder = tmp_path_factory.mktemp("copies")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        ours = {name: exported(name, folder) for name in SETTINGS}
    made = stock({name: job for name, (job, _, _) in ours.items()}, folder)
    yield {name: Copy(marked, public, made[name]) for name, (_, marked, public) in ours.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_stock_process_makes_the_same_of_an_exported_copy(copies: dict[str, Copy], name: str) -> None:
    copy = copies[name]
    if name in IMAGES:
        low, high = (-1, 1) if name in ("dcgan", "program") else (0, 1)
        theirs = (copy.stock - low) / (high - low)
        mine, public = copy.marked.clamp(0, 1), copy.public.clamp(0, 1)
        assert torch.equal(Image().release(theirs), Image().release(copy.marked))
    elif name in SHAPES:
        mine, public = copy.marked.flatten(2), copy.public.flatten(2)
        theirs = copy.stock.flatten(2)
        if name == "field":
            theirs = torch.cat([-theirs[:, :1], theirs[:, 1:]], 1)  # it grows outward
        mine, public = mine[:, : theirs.shape[1]], public[:, : theirs.shape[1]]  # a vector set has no colours
    else:
        waves = copy.stock.view(len(copy.marked), -1, copy.stock.shape[-1])
        length = min(waves.shape[2], copy.marked.shape[2])
        assert length >= copy.marked.shape[2] - 1, "diffusers rounds a length in seconds down"
        theirs, mine, public = (x[..., :length] for x in (waves, copy.marked, copy.public))
        assert torch.equal(*(Clips.from_unit(x, 8000).samples for x in (theirs, mine)))
    assert torch.equal(theirs, mine), f"{name}: apart by {float((theirs - mine).abs().max()):.1e}"
    assert float((mine - public).abs().max()) > 1e-5, "a copy that carries nothing would pass"


def test_frozen_networks_round_otherwise() -> None:
    """Why content is made with parameters that require gradients, as the libraries load them."""
    from modalities.rounding import as_loaded

    with fenced(0):
        layer = nn.Linear(256, 256, bias=False).requires_grad_(False)
        x = torch.randn(2, 256, 64).transpose(1, 2)
    with torch.no_grad():
        frozen = layer(x)
        with as_loaded(layer):
            assert layer.weight.requires_grad
            loaded = layer(x)
        assert not layer.weight.requires_grad
        layer.requires_grad_(True)
        assert torch.equal(layer(x), loaded) and torch.allclose(frozen, loaded, atol=1e-4)
    with as_loaded(layer.requires_grad_(False)):
        assert not layer.weight.requires_grad, "where gradients are computed nothing changes"
