"""Each text-to-3D generator through its adapter: latents, fields, gradients, settings, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.inspection import modulated_layers
from bench.protocol import Generator, UserError
from bench.rng import fenced, stream
from bench.selection import load_generator
from modalities.shape3d import Shape3D
from modalities.shape3d.fields import CHUNK, FieldGenerator
from modalities.shape3d.grids import points
from schemes.weight_modulation import WeightModulation
from tests import field_networks
from tests.exported import Shelf, fingerprinted
from tests.pages import check_row, read_table
from tests.test_generator_commands import refused
from tests.tiny_shapes import save_shape

PROMPTS = ["red brick 2 x 4", "blue plate 1 x 1"]
LATENTS = {"grid": (4, 8, 8, 8), "shap-e": (32, 16), "field": (6,), "hunyuan3d": (6, 4)}
SETTINGS = {"grid": "?steps=2", "shap-e": "?steps=2&guidance=2&size=32"}


@dataclass(frozen=True)
class Made:
    """A loaded generator, what it samples, and a fingerprinted copy of its decoder."""

    generator: Any
    latents: Tensor
    marked: nn.Module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shapes")


@pytest.fixture(scope="module")
def shapes(folder: Path) -> Iterator[Shelf]:
    def make(name: str) -> Made:
        place = f"{save_shape(name, folder)}{SETTINGS[name]}" if name in SETTINGS else f"tests.field_networks:{name}"
        generator: Any = load_generator(Shape3D(), place, "cpu")
        return Made(generator, generator.latents(PROMPTS, stream(0, "latents")), fingerprinted(generator.decoder))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield Shelf(make)


@pytest.mark.parametrize("name", LATENTS)
def test_latents_and_fields_have_the_adapter_s_form(shapes: Shelf, name: str) -> None:
    generator, latents = shapes[name].generator, shapes[name].latents
    assert isinstance(generator, Generator)
    assert latents.shape == (2, *LATENTS[name]) and latents.dtype == torch.float32
    assert torch.equal(latents, generator.latents(PROMPTS, stream(0, "latents")))
    assert not torch.allclose(latents[0], latents[1])
    fields = generator.decode(generator.decoder, latents)
    assert fields.shape == (2, 4, 32, 32, 32) and bool(fields.isfinite().all())
    assert 0 <= float(fields[:, 1:].min()) <= float(fields[:, 1:].max()) <= 1
    with torch.no_grad():
        assert torch.allclose(generator.decode(generator.decoder, latents), fields, atol=1e-4)
        assert not torch.allclose(generator.decode(shapes[name].marked, latents), fields, atol=1e-4)
    shape = Shape3D()
    shape.check(shape.release(fields))
    pairs = generator.public_pairs(3, stream(1))
    assert pairs[0].shape == (3, *LATENTS[name]) and pairs[1].shape == (3, 4, 32, 32, 32)


@pytest.mark.parametrize("name", LATENTS)
def test_gradients_reach_every_modulated_layer(shapes: Shelf, name: str) -> None:
    generator, latents = shapes[name].generator, shapes[name].latents
    decoder, layers = generator.decoder, modulated_layers(generator.decoder, WeightModulation())
    weights = [decoder.get_submodule(layer).weight.requires_grad_() for layer in layers]
    try:
        gradients = torch.autograd.grad(generator.decode(decoder, latents[:1]).square().sum(), weights)
    finally:
        decoder.requires_grad_(False)
    assert len(layers) >= 2 and all(bool(gradient.any()) for gradient in gradients)


@pytest.mark.parametrize("name", LATENTS)
def test_the_page_says_what_was_tested(shapes: Shelf, name: str) -> None:
    made, row = shapes[name], read_table("generators.md")[name]
    holder = {"grid": "autoencoder", "shap-e": "pipeline"}.get(name, "decoder")
    assert check_row(row, getattr(made.generator, holder), made.generator.decoder, made.latents)


@pytest.mark.parametrize("name", ["grid", "shap-e"])
def test_an_exported_copy_loads_as_a_generator(shapes: Shelf, folder: Path, name: str) -> None:
    made, copy = shapes[name], folder / f"{name}-copy"
    copy.mkdir()
    made.generator.export(made.marked, copy)
    again: Any = load_generator(Shape3D(), f"{copy}{SETTINGS[name]}", "cpu")
    own = made.marked.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in again.decoder.state_dict().items())
    assert torch.equal(again.latents(PROMPTS, stream(0, "latents")), made.latents)


def test_a_field_is_asked_at_every_cell() -> None:
    network = field_networks.field().eval()
    generator: Any = load_generator(Shape3D(), "tests.field_networks:field?size=40&batch=2", "cpu")
    latents = generator.latents(["a"], stream(0))
    assert generator.batch == 2
    with torch.no_grad():
        values = network(latents, points(40)[None])[0]
        fields = generator.decode(generator.decoder, latents)[0]
    assert torch.allclose(fields[0], -values[:, 0].view(40, 40, 40), atol=1e-6), (
        "distances that grow outward are turned"
    )
    assert torch.allclose(fields[1:], values[:, 1:].T.view(3, 40, 40, 40), atol=1e-6)


def test_a_level_is_where_the_surface_is() -> None:
    network: Any = field_networks.field()
    network.level, network.positive_inside = 0.25, True
    generator: Any = Shape3D().wrapped("leveled", network)
    latents = generator.latents(["a"], stream(0))
    other: Any = load_generator(Shape3D(), "tests.field_networks:field", "cpu")
    one, two = (each.decode(each.decoder, latents)[0, 0] for each in (generator, other))
    assert torch.allclose(one, -two - 0.25, atol=1e-6)


def test_a_vector_set_is_asked_as_its_pipeline_asks_and_has_no_colours() -> None:
    network: Any = field_networks.hunyuan3d().eval()
    generator: Any = load_generator(Shape3D(), "tests.field_networks:hunyuan3d", "cpu")
    latents = generator.latents(["a", "b"], stream(0))
    with torch.no_grad():
        values = network.decode(latents, points(32)[None].expand(2, -1, -1))
        fields = generator.decode(generator.decoder, latents)
    assert torch.allclose(fields[:, 0], values.view(2, 32, 32, 32), atol=1e-5)
    assert bool((fields[:, 1:] == 0.5).all())


def test_hy3dgen_s_own_class_is_asked_as_it_asks_itself() -> None:
    """Where it is installed; it is no dependency."""
    own = pytest.importorskip("hy3dgen.shapegen.models.autoencoders.model")
    sizes = {"num_latents": 16, "embed_dim": 8, "width": 32, "heads": 2, "num_decoder_layers": 2, "num_freqs": 4}
    with fenced(0):
        generator: Any = Shape3D().wrapped("hy3dgen", own.ShapeVAE(**sizes, scale_factor=0.9))
        fresh: Any = own.ShapeVAE(**sizes, scale_factor=0.9).eval()
    latents, marked = generator.latents(["a", "b"], stream(0)), fingerprinted(generator.decoder)
    fresh.load_state_dict(marked.state_dict())
    with torch.no_grad():
        tokens = fresh(latents / fresh.scale_factor)
        asked = [fresh.geo_decoder(queries=q.expand(2, -1, -1), latents=tokens) for q in points(32).split(CHUNK)]
        fields = generator.decode(marked, latents)
    assert torch.equal(fields[:, 0].flatten(1), torch.cat(asked, 1)[..., 0])


def test_latents_come_from_prompts_where_the_network_knows_how() -> None:
    generator: Any = load_generator(Shape3D(), "tests.field_networks:prompted", "cpu")
    assert isinstance(generator, FieldGenerator) and generator.sampler is not None
    long, short = generator.latents(["a" * 200, "a"], stream(0)).mean(1).tolist()
    assert long > 15 > short
    assert generator.training_latents(3, stream(0)).shape == (3, 6)


def test_a_field_is_exported_as_its_tensors(tmp_path: Path) -> None:
    generator: Any = load_generator(Shape3D(), "tests.field_networks:field", "cpu")
    marked = fingerprinted(generator.decoder)
    generator.export(marked, tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(value, written[name]) for name, value in marked.state_dict().items())


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("tests.field_networks:number", "expected a network, found int"),
        ("tests.field_networks:flat", "expected values (B, N, 1) or (B, N, 4) at points (B, N, 3), found (2, 8, 2)"),
        ("tests.field_networks:field?latent=5", "expected a field of latents (2, 5) and points (2, 8, 3), found: "),
        ("tests.plain_networks:dcgan", "expected a field of latents (2, 8, 1, 1) and points (2, 8, 3), found: "),
        ("tests.field_networks:field?steps=3", "expected of its settings latent, batch, size, found steps"),
    ],
)
def test_what_is_no_field_is_refused(spec: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        load_generator(Shape3D(), spec, "cpu")
    assert str(caught.value).startswith(f"generator {spec.partition('?')[0]}: {line}")
    assert "\n" not in str(caught.value)


COMMANDS = {
    "inspect": (),
    "fit": ("--scheme", "wouaf", "--dry-run"),
    "run": ("--out",),
    "export": ("--scheme", "wouaf", "--user", 0, "--out"),
}
WRONG = {
    "flat": "expected values (B, N, 1) or (B, N, 4) at points (B, N, 3), found (2, 8, 2)",
    "empty": "expected model_index.json in it, found none",
    "image": "expected a GridPipeline or a ShapEPipeline, found StableDiffusionPipeline",
    "settings": "expected of its settings steps, guidance, batch, size, found seconds",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", WRONG)
def test_every_command_ends_in_one_line(folder: Path, tmp_path: Path, command: str, kind: str) -> None:
    place, more = f"tests.field_networks:{kind}", ""
    if kind != "flat":
        (folder / kind).mkdir(exist_ok=True)
        place = str(folder / kind)
    if kind == "image":
        (folder / kind / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    if kind == "settings":
        (folder / kind / "model_index.json").write_text('{"_class_name": "ShapEPipeline"}')
        more = "?seconds=3"
    rest = COMMANDS[command]
    named = (place + more,) if command == "inspect" else ("--generator", place + more)
    out = (tmp_path / "out",) if rest and rest[-1] == "--out" else ()
    assert refused(command, *named, "--modality", "3d", *rest, *out) == f"generator {place}: {WRONG[kind]}"
    assert not list(tmp_path.iterdir()), "nothing half-written"
