"""Plain networks as generators: from a factory, and from a torch.export file whose layers are layers again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import CliRunner

from bench.__main__ import app
from bench.inspection import inspected, modulated_layers
from bench.protocol import Generator, UserError
from bench.rng import stream
from bench.selection import load_generator
from bench.weights import detached_copy, weighted_layers
from modalities.audio import Audio
from modalities.exported import load_exported
from modalities.image import Image
from modalities.modules import ModuleGenerator
from schemes.modulations import Amplitude
from schemes.weight_modulation import WeightModulation
from tests.exported import BITS, fingerprinted
from tests.pages import check_row, read_table
from tests.plain_networks import DCGAN, StyleGAN, Waves, dcgan, stylegan, waves, write_program

SHAPES = {"dcgan": (8, 1, 1), "stylegan": (16,), "program": (8, 1, 1), "waves": (8, 16)}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_program(dcgan(), SHAPES["dcgan"], tmp_path_factory.mktemp("programs") / "dcgan.pt2")


@pytest.mark.parametrize("name", SHAPES)
def test_a_network_is_a_generator(program: Path, name: str) -> None:
    modality: Any = Audio() if name == "waves" else Image()
    generator = load_generator(modality, str(program) if name == "program" else f"tests.plain_networks:{name}", "cpu")
    assert isinstance(generator, Generator) and isinstance(generator, ModuleGenerator)
    assert generator.shape == SHAPES[name]
    latents = generator.latents(["a", "b"], stream(0))
    assert torch.equal(latents[:1], generator.latents(["x"], stream(0))), "an item's noise is its own"
    fields = generator.decode(generator.decoder, latents)
    made = generator.decoder(latents)
    assert torch.equal(fields, made / 2 + 0.5 if name in ("dcgan", "program") else made)
    if name != "waves":
        assert fields.shape == (2, 3, 32, 32) and float(fields.min()) >= 0 and float(fields.max()) <= 1
    pairs = generator.public_pairs(3, stream(1))
    assert torch.equal(generator.decode(generator.decoder, pairs[0]), pairs[1])
    assert not any(p.requires_grad for p in generator.decoder.parameters())
    assert not any(module.training for module in generator.decoder.modules())


def test_a_network_that_makes_sound_is_a_generator() -> None:
    generator = load_generator(Audio(), "tests.plain_networks:waves", "cpu")
    assert isinstance(generator, ModuleGenerator) and generator.rate_hz == 8000 and generator.shape == (8, 16)
    audio = Audio().matched(generator)
    clips = audio.release(generator.decode(generator.decoder, generator.latents(["a"], stream(0))))
    audio.check(clips)
    assert clips.rate_hz == 8000 and clips.samples.shape == (1, 1, 16 * 512)


@pytest.mark.parametrize("name", SHAPES)
def test_the_page_says_what_was_tested(program: Path, name: str) -> None:
    row, spec = read_table("generators.md")[name], f"tests.plain_networks:{name}"
    modality: Any = Audio() if name == "waves" else Image()
    generator: Any = load_generator(modality, str(program) if name == "program" else spec, "cpu")
    assert check_row(row, generator.decoder, generator.decoder, generator.latents(["a"], stream(0)))


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("only_embeddings?latent=5", "expected a network of noise (2, 5), found: "),
        ("waves", "expected pictures (B, 3, H, W) of at least 16x16, found (2, 1, 8192)"),
        ("number", "expected a network, found int"),
        ("dcgan?size=64", "expected of its settings latent, batch, found size"),
    ],
)
def test_what_makes_no_pictures_is_refused(spec: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        load_generator(Image(), f"tests.plain_networks:{spec}", "cpu")
    assert str(caught.value).startswith(f"generator tests.plain_networks:{spec.partition('?')[0]}: {line}")
    assert "\n" not in str(caught.value)


def test_what_makes_no_sound_is_refused() -> None:
    for spec, line in [
        ("dcgan", r"expected waveforms \(B, 1 or 2, T\), found \(2, 3, 32, 32\)"),
        ("number", "expected a network or an audiocraft model, found int"),
    ]:
        with pytest.raises(UserError, match=line):
            load_generator(Audio(), f"tests.plain_networks:{spec}", "cpu")
    silent = waves()
    silent.sample_rate = None  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"expected \?rate_hz=NUMBER"):
        Audio().wrapped("silent", silent)
    found: Any = Audio().wrapped("silent?rate_hz=16000", silent)
    assert found.rate_hz == 16_000


@pytest.mark.parametrize("make", [dcgan, stylegan, waves])
def test_applied_equals_the_written_copy(make: Any) -> None:
    """The batched form that trains and the copy that a user receives make the same content."""
    network = make().eval().requires_grad_(False)
    shape = {DCGAN: (8, 1, 1), StyleGAN: (16,), Waves: (8, 16)}[type(network)]
    z = torch.randn(1, *shape, generator=stream(0))
    modulator: Any = Amplitude().bind(network, BITS, stream(0, "modulator"))
    code = torch.randint(2, (BITS,), generator=stream(0, "code")) * 2.0 - 1
    with modulator.applied(network, code[None]):
        batched = network(z)
    copy = fingerprinted(network)(z)
    assert torch.allclose(batched, copy, atol=1e-5) and not torch.allclose(copy, network(z), atol=1e-3)


def test_only_the_affine_layers_of_modulated_convolutions_are_reached() -> None:
    entries = {entry.path: entry for entry in inspected(stylegan(), WeightModulation())}
    assert entries["convolutions.0"].state == "skipped: the weights of ModulatedConv cannot be written yet"
    assert entries["convolutions.0.affine"].state == "modulated"
    assert entries["mapping.0"].state == "left as it is: the first layer"
    assert entries["to_rgb"].state == "left as it is: the last layer"


# torch.export files


def test_an_exported_program_has_its_layers_again(program: Path) -> None:
    network, original = load_exported(program), dcgan().eval()
    assert list(weighted_layers(network)) == list(weighted_layers(original)) == [f"main.{i}" for i in (0, 3, 6, 9)]
    assert [type(layer) for layer in weighted_layers(network).values()] == [nn.ConvTranspose2d] * 4
    z = torch.randn(5, 8, 1, 1, generator=stream(0))
    assert torch.allclose(network(z), original(z), atol=1e-6)
    state = original.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(detached_copy(network)(z), network(z))


def test_an_exported_program_is_fingerprinted_and_exported_again(program: Path, tmp_path: Path) -> None:
    generator: Any = Image().generator(str(program))
    assert modulated_layers(generator.decoder, WeightModulation()) == ["main.3", "main.6"]
    marked = fingerprinted(generator.decoder)
    z = generator.latents(["a", "b"], stream(0))
    expected = fingerprinted(dcgan().eval().requires_grad_(False))(z)
    assert torch.allclose(marked(z), expected, atol=1e-5) and not torch.allclose(marked(z), generator.decoder(z))
    generator.export(marked, tmp_path)
    stock: Any = torch.export.load(tmp_path / "model.pt2").module()
    assert torch.allclose(stock(z), marked(z), atol=1e-6)


def test_every_kind_of_layer_is_found_again(tmp_path: Path) -> None:
    class Kinds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 24)
            self.one = nn.Conv1d(6, 8, 3, stride=2, padding=2, dilation=2, groups=2)
            self.up = nn.ConvTranspose1d(8, 6, 3, stride=2, padding=1, output_padding=1, groups=2, bias=False)
            self.two = nn.Conv2d(1, 4, 3, padding="same")
            self.norm = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 3, 3))

        def forward(self, z: Tensor) -> Tensor:
            x = self.up(self.one(self.linear(z).view(-1, 6, 4)))
            made: Tensor = self.norm(self.two(x[:, None]))
            return made

    from bench.rng import fenced

    with fenced(0):
        original = Kinds().eval()
    network = load_exported(write_program(original, (5,), tmp_path / "kinds.pt2"))
    z = torch.randn(3, 5, generator=stream(0))
    assert torch.allclose(network(z), original(z), atol=1e-6)
    layers = weighted_layers(network)
    assert {name: type(layer) for name, layer in layers.items()} == {
        "linear": nn.Linear,
        "one": nn.Conv1d,
        "up": nn.ConvTranspose1d,
    }, "a weight that is computed, and padding in words, stay function calls"
    assert layers["one"].groups == 2 and layers["up"].output_padding == (1,)


@pytest.mark.parametrize("content", [None, b"", b"junk", b"PK\x03\x04junk"])
def test_a_damaged_program_ends_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.pt2"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        Image().generator(str(path))
    assert str(caught.value).startswith(f"generator {path}: expected a torch.export file, found")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["trace", "script"])
@pytest.mark.parametrize("modality", ["image", "audio"])
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_refused_since_its_weights_cannot_be_replaced(tmp_path: Path, kind: str, modality: str) -> None:
    network, z = dcgan().eval(), torch.zeros(2, 8, 1, 1)
    scripted: Any = torch.jit.trace(network, z) if kind == "trace" else torch.jit.script(network)
    path = tmp_path / "dcgan.pt"
    torch.jit.save(scripted, path)
    loaded = torch.jit.load(path)
    with pytest.raises(RuntimeError, match="The stateless API can't be used with Jitted modules"):
        torch.func.functional_call(loaded, dict(loaded.named_parameters()), (z,))
    words = ["inspect", str(path), "--modality", modality]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and result.stderr == (
        f"error: generator {path}: expected a folder or a torch.export file (.pt2), found TorchScript, whose weights "
        "cannot be replaced; write it with torch.export.save\n"
    )


def test_programs_of_more_than_one_tensor_are_refused(tmp_path: Path) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return self.layer(x), y + 1

    path = tmp_path / "pair.pt2"
    torch.export.save(torch.export.export(Pair(), (torch.zeros(2, 4), torch.zeros(2, 4))), path)
    with pytest.raises(UserError, match="expected a program of one tensor in and one out, found 2 in and 2 out"):
        Image().generator(str(path))


# On the command line


def test_inspect_names_the_kinds_that_cannot_be_written_in() -> None:
    result = CliRunner().invoke(app, ["inspect", "tests.plain_networks:only_embeddings", "--modality", "image"])
    assert result.exit_code == 2
    assert result.stderr == (
        "error: decoder OnlyEmbeddings: expected convolutions or linear layers, found Embedding, GRUCell\n"
    )


def test_inspect_prints_the_tree() -> None:
    words = ["inspect", "tests.plain_networks:stylegan"]
    text = CliRunner().invoke(app, words).stdout
    assert "  affine" in text and "skipped: the weights of ModulatedConv cannot be written yet" in text
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert (found["layers"], found["modulated_layers"], found["decoder"]) == (6, 4, "StyleGAN")
    assert text.splitlines()[-1].startswith("4 of 6 layers modulated, with ")
    total = sum(p.numel() for p in stylegan().parameters())
    assert found["parameters"] == total and found["modulated_parameters"] == 16 * 17 + 3 * (16 * 12 + 12)


def test_a_network_is_exported_as_its_tensors(tmp_path: Path) -> None:
    generator: Any = load_generator(Image(), "tests.plain_networks:dcgan", "cpu")
    marked = fingerprinted(generator.decoder)
    generator.export(marked, tmp_path)
    fresh = DCGAN().eval()
    fresh.load_state_dict(load_file(tmp_path / "model.safetensors"))
    z = generator.latents(["a"], stream(0))
    assert torch.equal(fresh(z), marked(z))
