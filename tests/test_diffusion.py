"""The diffusers adapter on a tiny pipeline with random weights: sampling, decoding, encoding."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.digest import generator_digest
from bench.protocol import Generator, UserError
from bench.rng import child, stream
from modalities.image import data
from modalities.image.diffusion import DiffusionGenerator, load
from modalities.image.repaint import repaint
from tests.tiny_pipeline import save_tiny, tiny_vae

CPU = torch.device("cpu")
PROMPTS = ["noto emoji of a hot dog", "fluent 3d emoji of a cat", "the sun", "", "a hot dog"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder; copy it before writing into it."""
    return save_tiny(tmp_path_factory.mktemp("pipelines"))


@pytest.fixture(scope="session")
def generator(tiny: Path) -> DiffusionGenerator:
    return dataclasses.replace(load(str(tiny), CPU), steps=2)


@pytest.fixture(scope="session")
def sampled(generator: DiffusionGenerator) -> Tensor:
    return generator.latents(PROMPTS, stream(0, "latents"))


# Sampling


def test_it_is_a_generator_with_everything_frozen(generator: DiffusionGenerator, tiny: Path) -> None:
    assert isinstance(generator, Generator)
    assert generator.name == tiny.name
    assert set(generator.networks) == {"vae", "unet", "text_encoder"}
    assert not any(p.requires_grad for p in generator.networks.parameters())
    assert not any(module.training for module in generator.networks.modules())
    assert generator.decoder is generator.networks["vae"].decoder
    assert {p.dtype for p in generator.networks.parameters()} == {torch.float32}


def test_latents_are_one_a_prompt(sampled: Tensor) -> None:
    assert sampled.shape == (5, 4, 32, 32) and sampled.dtype == torch.float32 and bool(sampled.isfinite().all())


def test_latents_depend_on_stream_and_prompt(generator: DiffusionGenerator, sampled: Tensor) -> None:
    assert torch.equal(generator.latents(PROMPTS, stream(0, "latents")), sampled)
    other = generator.latents(["a bottle"], stream(0, "latents"))
    assert not torch.allclose(other, sampled[:1], atol=1e-4)
    assert not torch.allclose(generator.latents(PROMPTS[:1], stream(1, "latents")), sampled[:1], atol=0.1)


@pytest.mark.parametrize(("count", "batch"), [(1, 32), (3, 32), (5, 2), (5, 1)])
def test_an_item_does_not_depend_on_its_batch(
    generator: DiffusionGenerator, sampled: Tensor, count: int, batch: int
) -> None:
    part = dataclasses.replace(generator, batch=batch).latents(PROMPTS[:count], stream(0, "latents"))
    assert torch.allclose(part, sampled[:count], atol=1e-4)


def test_sampling_leaves_the_global_generator_alone(generator: DiffusionGenerator) -> None:
    state = torch.get_rng_state()
    generator.latents(PROMPTS[:1], stream(0, "latents"))
    assert torch.equal(torch.get_rng_state(), state)


def test_sequences_of_packed_latents_are_refused(generator: DiffusionGenerator) -> None:
    packed = SimpleNamespace(images=torch.zeros(1, 16, 4))
    flux = dataclasses.replace(generator, name="flux", pipeline=lambda *_, **__: packed)
    with pytest.raises(UserError, match=r"generator flux: expected latents \(B, C, h, w\), found \(1, 16, 4\)"):
        flux.latents(["a cat"], stream(0, "latents"))


def test_other_weights_or_settings_are_another_generator(generator: DiffusionGenerator, tiny: Path) -> None:
    changed = dataclasses.replace(load(str(tiny), CPU), steps=2)
    assert generator_digest(changed) == generator_digest(generator)
    assert generator_digest(dataclasses.replace(changed, steps=7)) != generator_digest(generator)
    with torch.no_grad():
        changed.networks["text_encoder"].get_parameter("final_layer_norm.bias").add_(1)
    assert generator_digest(changed) != generator_digest(generator)


# Decoding and encoding


def test_decode_is_the_pipelines_own(generator: DiffusionGenerator, sampled: Tensor) -> None:
    vae = generator.pipeline.vae
    with torch.no_grad():
        own = vae.decode(sampled / vae.config.scaling_factor).sample / 2 + 0.5
    fields = generator.decode(generator.decoder, sampled)
    assert fields.shape == (5, 3, 64, 64)
    assert torch.equal(fields, own)


def test_decode_is_differentiable_in_weights_and_latents(generator: DiffusionGenerator, sampled: Tensor) -> None:
    decoder, z = copy.deepcopy(generator.decoder).requires_grad_(), sampled[:2].clone().requires_grad_()
    gradients = torch.autograd.grad(generator.decode(decoder, z).square().sum(), [z, *decoder.parameters()])
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert all(bool((gradient != 0).any()) for gradient in gradients[:1])
    named = zip((name for name, _ in decoder.named_parameters()), gradients[1:], strict=True)
    assert all(bool((gradient != 0).any()) for name, gradient in named if name.endswith("weight"))


def test_decode_uses_the_decoder_it_is_given(generator: DiffusionGenerator, sampled: Tensor) -> None:
    other = copy.deepcopy(generator.decoder)
    with torch.no_grad():
        other.get_parameter("conv_out.bias").add_(1)
    apart = generator.decode(other, sampled) - generator.decode(generator.decoder, sampled)
    assert torch.allclose(apart, torch.full_like(apart, 0.5), atol=1e-6)


VARIANTS = {
    "plain": {"scaling_factor": 0.2},
    "shift": {"scaling_factor": 1.5, "shift_factor": 0.06},
    "no quant conv": {"use_quant_conv": False, "use_post_quant_conv": False},
    "as in SD3": {
        **{"use_quant_conv": False, "use_post_quant_conv": False},
        **{"scaling_factor": 1.5, "shift_factor": 0.06},
    },
}


@pytest.mark.parametrize("blocks", [(4,), (4, 8)], ids=["f1", "f2"])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@torch.no_grad()
def test_variants_of_the_autoencoder(options: dict[str, Any], blocks: tuple[int, ...]) -> None:
    vae = tiny_vae(blocks, **options)
    generator = DiffusionGenerator("variant", SimpleNamespace(vae=vae), batch=2)
    x = torch.rand(3, 3, 32, 32, generator=stream(0, "images"))
    scale, shift = vae.config.scaling_factor, vae.config.shift_factor or 0.0
    posterior = vae.encode(x * 2 - 1).latent_dist
    z = generator.encode(x)
    assert z.shape == (3, 4, 32 // 2 ** (len(blocks) - 1), 32 // 2 ** (len(blocks) - 1))
    assert torch.allclose(z, (posterior.mean - shift) * scale, atol=1e-5)
    fields = generator.decode(vae.decoder, z)
    assert fields.shape == x.shape
    assert torch.allclose(fields, vae.decode(posterior.mean).sample / 2 + 0.5, atol=1e-5)
    assert torch.allclose(generator.reconstruct(x), fields.clamp(0, 1), atol=1e-5)


@torch.no_grad()
def test_encoding_with_a_stream_samples_the_posterior(generator: DiffusionGenerator) -> None:
    x = torch.rand(2, 3, 64, 64, generator=stream(0, "images"))
    posterior = generator.pipeline.vae.encode(x * 2 - 1).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=stream(0, "noise"))
    expected = (posterior.mean + posterior.std * noise) * generator.pipeline.vae.config.scaling_factor
    assert torch.allclose(generator.encode(x, stream(0, "noise")), expected, atol=1e-5)


def test_public_pairs_are_shipped_pictures_and_their_codes(generator: DiffusionGenerator) -> None:
    latents, fields = generator.public_pairs(3, stream(0, "pairs"))
    shipped = data.public_images()
    assert latents.shape == (3, 4, 32, 32) and torch.equal(generator.encode(fields), latents)
    pictures = (fields * 255).round().byte()
    assert all(bool((shipped == picture).flatten(1).all(1).any()) for picture in pictures)
    again, other = generator.public_pairs(3, stream(0, "pairs")), generator.public_pairs(3, stream(1, "pairs"))
    assert torch.equal(again[1], fields) and not torch.equal(other[1], fields)


def test_training_latents_come_from_the_fit_split_only(
    generator: DiffusionGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    prompted: list[str] = []
    sample = DiffusionGenerator.latents

    def latents_of(self: DiffusionGenerator, prompts: list[str], rng: torch.Generator) -> Tensor:
        prompted.extend(prompts)
        return sample(self, prompts, rng)

    def images(splits: tuple[str, ...] = ()) -> Tensor:
        asked.append(splits)
        return data.public_images()

    monkeypatch.setattr(data, "training_images", images)
    monkeypatch.setattr(DiffusionGenerator, "latents", latents_of)
    latents = generator.training_latents(8, stream(0, "training"))
    assert asked == [("fit",)] and latents.shape == (8, 4, 32, 32)
    fit = {concept.caption(style) for concept in data.concepts() if concept.split == "fit" for style in data.STYLES}
    assert len(prompted) == 3 and fit.issuperset(prompted)
    assert torch.equal(latents, generator.training_latents(8, stream(0, "training")))


def test_a_missing_data_set_is_found_before_anything_is_sampled(
    generator: DiffusionGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(splits: tuple[str, ...]) -> Tensor:
        raise UserError("no data")

    monkeypatch.setattr(data, "training_images", missing)
    monkeypatch.setattr(DiffusionGenerator, "latents", lambda *_: pytest.fail("sampled first"))
    with pytest.raises(UserError, match="no data"):
        generator.training_latents(8, stream(0, "training"))


def test_a_cut_prompt_is_told_in_one_line(generator: DiffusionGenerator, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "genprint"):
        generator.latents(["a cat"], stream(0))
        assert not caplog.messages
        generator.latents(["a very long story of a cat " * 40] * 2, stream(0))
    (line,) = caplog.messages
    assert line.endswith("a prompt is longer than its text encoder reads; its end was cut")


def test_pictures_are_fitted_to_the_size_that_is_generated(generator: DiffusionGenerator) -> None:
    for shape in [(1, 3, 100, 100), (1, 3, 64, 40)]:
        x = torch.rand(shape, generator=stream(0, "images"))
        assert generator._sized(x).shape == (1, 3, 64, 64)
        assert generator.reconstruct(x).shape == shape
    transformer = SimpleNamespace(vae=tiny_vae(), transformer=SimpleNamespace(config={"sample_size": 20}))
    assert DiffusionGenerator("sd3", transformer)._sized(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 40, 40)


def test_repainting_draws_from_its_stream_and_strays_with_its_share(generator: DiffusionGenerator) -> None:
    x = torch.rand(2, 3, 64, 64, generator=stream(0, "images"))
    once, again = (generator.regenerate(x, 0.1, stream(0, "noise")) for _ in range(2))
    assert once.shape == x.shape and torch.equal(once, again) and 0 <= once.min() <= once.max() <= 1
    assert not torch.equal(once, generator.regenerate(x, 0.1, stream(1, "noise")))
    z, rng = generator.encode(x), stream(0, "noise")
    far = [(repaint(generator.pipeline, z, share, child(rng, share)) - z).abs().mean() for share in (0.02, 0.3, 0.9)]
    assert far[0] < far[1] < far[2]
    other = SimpleNamespace(unet=None)
    with pytest.raises(UserError, match=r"^regeneration: expected a pipeline with one U-Net .*, found Simple"):
        repaint(other, z, 0.1, rng)


def test_a_perfect_denoiser_gives_the_picture_back(generator: DiffusionGenerator) -> None:
    """A network that knows the latents: whatever noise is added is taken away, at every share."""
    z = 0.5 * torch.randn(2, 4, 32, 32, generator=stream(0, "latents"))
    scheduler = generator.pipeline.scheduler

    class Knowing:
        device, dtype = CPU, torch.float32

        def __call__(self, noisy: Tensor, step: Tensor, encoder_hidden_states: Tensor) -> Any:
            kept = scheduler.alphas_cumprod[int(step)]
            return SimpleNamespace(sample=(noisy - kept.sqrt() * z) / (1 - kept).sqrt())

    known = SimpleNamespace(unet=Knowing(), scheduler=scheduler, encode_prompt=lambda *_: (None, None))
    for share in (0.02, 0.06, 0.5):
        assert (repaint(known, z, share, stream(0)) - z).abs().max() < 0.02


def test_the_public_encoder_has_a_gradient(generator: DiffusionGenerator) -> None:
    x = torch.rand(2, 3, 64, 64, generator=stream(0, "images")).requires_grad_(True)
    latents = generator.embed(x)
    (slope,) = torch.autograd.grad(latents.square().sum(), x)
    assert slope.abs().min(0).values.max() > 0
    scale = generator.pipeline.vae.config.scaling_factor
    assert torch.allclose(latents.detach() * scale, generator.encode(x.detach()), atol=1e-5)


def test_half_precision_weights_are_widened(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(tiny, folder)
    for path in folder.rglob("*.safetensors"):
        save_file({key: value.half() for key, value in load_file(path).items()}, path, {"format": "pt"})
    networks: nn.ModuleDict = load(str(folder), CPU).networks
    assert {p.dtype for p in networks.parameters()} == {torch.float32}


def test_few_training_latents_need_no_sampling(generator: DiffusionGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "training_images", lambda _: torch.zeros(3, 3, 64, 64, dtype=torch.uint8))
    assert len(generator.training_latents(2, stream(0, "training"))) == 2
