"""The embedded text-to-3D generator's code with tiny untrained networks, and Shap-E's adapter."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.protocol import Generator, UserError
from bench.rng import fenced, stream
from bench.weights import weighted_layers
from modalities.shape3d import Shape3D, autoencoder, grid_generator, prior, text, train
from modalities.shape3d.grid import Conditioned, GridAutoencoder, GridConfig, gathered, shuffled
from modalities.shape3d.grids import points
from modalities.shape3d.shap_e import ShapEGenerator, decoder_of
from schemes.modulations import Amplitude
from tests.meshes import sphere

PROMPTS = ["red brick 2 x 4", "blue plate 1 x 1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with untrained networks, as training writes it."""
    tokenizer = text.build_tokenizer()
    with fenced(0):
        model = GridAutoencoder(GridConfig(latent=4, coarse=8, fine=8))
        conditioned = Conditioned(prior.build(4), text.build_encoder(tokenizer))
    path = tmp_path_factory.mktemp("made") / "tiny"
    train.assemble(model, conditioned, tokenizer, path)
    return path


@pytest.fixture(scope="module")
def generator(folder: Path) -> Any:
    return dataclasses.replace(Shape3D().generator(str(folder)), steps=4)  # type: ignore[type-var]


def test_latents_and_fields(generator: Any) -> None:
    assert isinstance(generator, Generator) and generator.name == "tiny"
    state = torch.get_rng_state()
    z = generator.latents(PROMPTS, stream(0))
    assert z.shape == (2, 4, 8, 8, 8) and z.dtype == torch.float32 and bool(z.isfinite().all())
    assert torch.equal(z, generator.latents(PROMPTS, stream(0)))
    assert not torch.equal(z[0], generator.latents(PROMPTS[::-1], stream(0))[0]), "the prompt is heard"
    field = generator.decode(generator.decoder, z)
    assert field.shape == (2, 4, 32, 32, 32) and 0 <= float(field[:, 1:].min()) <= float(field[:, 1:].max()) <= 1
    assert torch.equal(torch.get_rng_state(), state), "the stream alone decides"
    z.requires_grad_()
    (gradient,) = torch.autograd.grad(generator.decode(generator.decoder, z).square().sum(), z)
    assert bool(gradient.isfinite().all()) and bool(gradient.any())


def test_an_item_is_the_same_alone(generator: Any) -> None:
    both = generator.decode(generator.decoder, generator.latents(PROMPTS, stream(0)))
    alone = generator.decode(generator.decoder, generator.latents(PROMPTS[:1], stream(0)))
    assert torch.allclose(both[:1], alone, atol=1e-3)


def test_public_pairs_and_regeneration(generator: Any) -> None:
    latents, fields = generator.public_pairs(3, stream(0))
    assert latents.shape == (3, 4, 8, 8, 8) and fields.shape == (3, 4, 32, 32, 32)
    assert torch.allclose(generator.encode(fields), latents)
    restored = generator.reconstruct([sphere()])
    assert len(restored) == 1 and len(generator.reconstruct([])) == 0


def test_amplitude_modulates_the_resnet_blocks(generator: Any) -> None:
    names = Amplitude().layers(generator.decoder)
    assert set(names) == {f"resnets.{block}.conv{i}" for block in range(3) for i in (1, 2)}
    assert set(names) < set(weighted_layers(generator.decoder))


def test_shuffling_is_undone_by_gathering_and_keeps_places() -> None:
    x = torch.randn(2, 16, 3, 3, 3, generator=stream(0))
    assert torch.equal(gathered(shuffled(x)), x)
    ramp = points(8).T.view(1, 3, 8, 8, 8)
    assert torch.allclose(gathered(ramp).view(1, 3, 8, 4, 4, 4).mean(2), points(4).T.view(1, 3, 4, 4, 4), atol=1e-6)


def test_the_loss_is_least_for_the_field_itself() -> None:
    field = torch.rand(2, 4, 8, 8, 8, generator=stream(0)) * 2 - 1
    field[:, 1:] = field[:, 1:].abs()
    exact, zero = autoencoder.terms(field, field, torch.zeros(1)), torch.zeros(1)
    for other in (field.flip(2), 0.5 * field):
        assert autoencoder.terms(other, field, zero)["loss"] > exact["loss"]
    assert float(exact["iou"]) == 1 and float(exact["distance"]) == float(exact["colour"]) == 0


def test_words_are_pieces_and_others_are_spelled() -> None:
    tokenizer = text.build_tokenizer()
    ids, mask = text.tokens(tokenizer, ["red brick 2 x 4", "brick zyzzyva"])
    assert ids.shape == mask.shape == (2, text.LENGTH) and mask.sum(1).tolist()[0] == 6
    assert tokenizer.unk_token_id not in ids.unique().tolist()


BROKEN = {
    "no index": lambda path: (path / "model_index.json").unlink(),
    "another pipeline": lambda path: (path / "model_index.json").write_text('{"_class_name": "Other"}'),
    "no json": lambda path: (path / "model_index.json").write_text("{"),
    "no prior": lambda path: (path / "prior").rename(path / "gone"),
    "cut off": lambda path: (path / "autoencoder" / "model.safetensors").write_bytes(b"12345678"),
    "another width": lambda path: (path / "autoencoder" / "config.json").write_text(
        json.dumps({"latent": 4, "coarse": 16, "fine": 8})
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_damaged_folder_ends_in_one_line(folder: Path, tmp_path: Path, what: str) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "copy")
    BROKEN[what](tmp_path / "copy")
    with pytest.raises(UserError) as caught:
        Shape3D().generator(str(tmp_path / "copy"))
    assert str(caught.value).startswith(f"generator {tmp_path / 'copy'}: ") and "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_ends_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^generator missing: expected a pipeline folder, found no such folder$"):
        Shape3D().generator("./missing")
    assert grid_generator.EMBEDDED.name == "ldraw32"


# Shap-E


@pytest.fixture(scope="module")
def shap_e() -> Any:
    """An untrained renderer, and a generator around it whose sampler is left out."""
    from types import SimpleNamespace

    from diffusers.pipelines.shap_e.renderer import ShapERenderer

    with fenced(0):
        renderer = ShapERenderer(
            param_shapes=((8, 93), (8, 8), (8, 8), (8, 8)), d_latent=16, d_hidden=8, n_output=12, background=(0.1,) * 3
        )
    original = copy.deepcopy(renderer)
    pipeline = SimpleNamespace(shap_e_renderer=decoder_of(renderer))
    return ShapEGenerator("tiny", pipeline, torch.nn.ModuleDict({"renderer": renderer}), side=8), original


def in_place(renderer: Any, latent: Tensor, places: Tensor) -> Tensor:
    """As diffusers does it: projected weights are written into the shared network."""
    for name, value in renderer.params_proj(latent[None]).items():
        renderer.mlp.get_parameter(name.removeprefix("nerstf.")).data.copy_(value.squeeze(0))
    found = renderer.mlp(position=places[None], direction=None, ts=None, nerf_level="fine", rendering_mode="stf")
    return torch.cat([found.signed_distance, found.channels], -1)[0]


def test_fields_are_those_of_diffusers_but_batched_and_without_side_effects(shap_e: Any) -> None:
    generator, original = shap_e
    latents = torch.randn(3, 32, 16, generator=stream(0))
    state, before = torch.get_rng_state(), {k: v.clone() for k, v in generator.decoder.state_dict().items()}
    fields = generator.decode(generator.decoder, latents)
    assert fields.shape == (3, 4, 8, 8, 8)
    with torch.no_grad():
        expected = [in_place(original, z, points(8)).T.reshape(4, 8, 8, 8) for z in latents]
    assert torch.allclose(fields, torch.stack(expected), atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in generator.decoder.state_dict().items())
    assert generator.decoder.state_dict().keys() == original.state_dict().keys()


def test_gradients_reach_the_projections_and_hooks_scale_their_inputs(shap_e: Any) -> None:
    generator, _ = shap_e
    latents = torch.randn(2, 32, 16, generator=stream(0))
    layers = {name: layer for name, layer in weighted_layers(generator.decoder).items() if "projections" in name}
    assert len(layers) == 4
    total = generator.decode(generator.decoder, latents).sum()
    gradients = torch.autograd.grad(total, [layer.weight for layer in layers.values()])
    assert all(bool(each.any()) for each in gradients)
    name = next(iter(layers))
    gain = 1 + 0.3 * torch.randn(16, generator=stream(1))
    handle = generator.decoder.get_submodule(name).register_forward_pre_hook(lambda _, inputs: (inputs[0] * gain,))
    hooked = generator.decode(generator.decoder, latents)
    handle.remove()
    scaled = copy.deepcopy(generator.decoder)
    scaled.get_submodule(name).weight.data.mul_(gain)
    assert torch.allclose(hooked, generator.decode(scaled, latents), atol=1e-5)
    assert not torch.allclose(hooked, generator.decode(generator.decoder, latents), atol=1e-3)
