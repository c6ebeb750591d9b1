"""The embedded text-to-image generator as it ships, and the codecs fitted for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor

from bench.protocol import Generator
from bench.rng import stream
from modalities.image import Image, data
from modalities.image.diffusion import EMBEDDED, DiffusionGenerator, load
from schemes import SCHEMES, ZOO, load_codec

IMAGE = Image()
CPU = torch.device("cpu")
SHIPPED = sorted((ZOO / "image").glob("*.safetensors"))
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".py"}


@pytest.fixture(scope="module")
def generator() -> DiffusionGenerator:
    return load(None, CPU)


@pytest.fixture(scope="module")
def latents(generator: DiffusionGenerator) -> Tensor:
    prompts = IMAGE.prompts(8, stream(0, "prompts"))
    return generator.latents(prompts, stream(0, "latents"))


def test_it_is_small(generator: DiffusionGenerator) -> None:
    assert sum(p.numel() for p in generator.networks.parameters()) <= 12e6
    assert sum(path.stat().st_size for path in EMBEDDED.rglob("*") if path.is_file()) <= 25 * 2**20


def test_it_is_half_precision_safetensors_and_text() -> None:
    files = [path for path in EMBEDDED.rglob("*") if path.is_file()]
    assert not [path.name for path in files if path.suffix in PICKLES]
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert {path.parent.name for path in weights} == {"vae", "unet", "text_encoder"}
    for path in weights:
        kinds = {value.dtype for value in load_file(path).values() if value.is_floating_point()}
        assert kinds == {torch.float16}, path.parent.name
        assert all(bool(value.isfinite().all()) for value in load_file(path).values())


def test_it_goes_through_the_adapter_of_every_other_pipeline(generator: DiffusionGenerator, latents: Tensor) -> None:
    assert isinstance(generator, Generator) and generator.name == "emoji64"
    same = load(str(EMBEDDED), CPU)
    assert torch.equal(same.latents(IMAGE.prompts(8, stream(0, "prompts")), stream(0, "latents")), latents)


def test_diffusers_alone_makes_pictures_with_it() -> None:
    pipeline = DiffusionPipeline.from_pretrained(EMBEDDED)
    assert type(pipeline) is StableDiffusionPipeline
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(torch.float32)
    made = pipeline(
        "fluent 3d emoji of a hot dog", num_inference_steps=4, generator=stream(0, "plain"), output_type="pt"
    )
    assert made.images.shape == (1, 3, data.SIZE, data.SIZE)
    assert bool(torch.as_tensor(made.images).isfinite().all())


def test_the_tokenizer_tells_all_captions_apart(generator: DiffusionGenerator) -> None:
    """None holds an unknown word; flags of islands with long names are cut, one caption in a thousand at most."""
    tokenizer = generator.pipeline.tokenizer
    captions = [c.caption(style) for c in data.concepts() for style in data.STYLES]
    ids = tokenizer(captions, max_length=tokenizer.model_max_length, truncation=True).input_ids
    assert not [caption for caption, row in zip(captions, ids, strict=True) if tokenizer.unk_token_id in row[1:-1]]
    assert len({tuple(row) for row in ids}) == len(captions)
    cut = [row for row in tokenizer(captions).input_ids if len(row) > tokenizer.model_max_length]
    assert len(cut) <= len(captions) // 1000


def test_latents_have_the_scale_of_the_noise(generator: DiffusionGenerator, latents: Tensor) -> None:
    assert latents.shape[0] == 8 and latents.ndim == 4 and bool(latents.isfinite().all())
    assert latents.std().item() == pytest.approx(1, abs=0.3)
    encoded, _ = generator.public_pairs(64, stream(0, "pairs"))
    assert encoded.std().item() == pytest.approx(1, abs=0.15)


def test_pictures_are_pictures(generator: DiffusionGenerator, latents: Tensor) -> None:
    """In range, on white, with something in the middle, and each its own."""
    fields = generator.decode(generator.decoder, latents)
    assert fields.shape == (8, 3, data.SIZE, data.SIZE)
    outside = ((fields < -0.1) | (fields > 1.1)).float().mean()
    assert outside < 0.03, "guidance drives a little beyond black and white, which release clips; 0.017 was measured"
    content = IMAGE.release(fields)
    IMAGE.check(content)
    corners = content[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].float()
    assert corners.median() > 225 and content.float().std() > 20
    apart = torch.cdist(content.flatten(1).float(), content.flatten(1).float())
    assert bool((apart + 1e6 * torch.eye(8) > 1000).all())


def test_prompts_matter(generator: DiffusionGenerator) -> None:
    one, other = (generator.latents([f"noto emoji of {what}"], stream(0, "same")) for what in ("a cat", "the sun"))
    assert (one - other).square().mean().sqrt() > 0.3


def test_held_out_pictures_are_reconstructed(generator: DiffusionGenerator) -> None:
    """The target is 24 dB on all of them; 24 evenly chosen ones leave a standard error of about half a decibel."""
    real = IMAGE.reference(24)
    restored = IMAGE.release(generator.reconstruct(IMAGE.observe(real)))
    assert IMAGE.paired(real, restored)["psnr"].mean() > 23


def test_every_shipped_codec_belongs_to_a_scheme() -> None:
    assert {path.stem for path in SHIPPED} <= {f"{EMBEDDED.name}-{scheme}" for scheme in SCHEMES}
    assert SHIPPED, "the run without training needs one"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_codec_marks_and_reads(generator: DiffusionGenerator, latents: Tensor, path: Path) -> None:
    codec = load_codec(path, IMAGE, generator)
    code = torch.randint(2, (codec.bits,), generator=stream(0, "code"))
    before = {key: value.clone() for key, value in generator.decoder.state_dict().items()}
    marked = codec.modulate(generator.decoder, code)
    shapes = {key: value.shape for key, value in marked.state_dict().items()}
    assert shapes == {key: value.shape for key, value in before.items()}
    assert all(torch.equal(value, before[key]) for key, value in generator.decoder.state_dict().items())
    with torch.no_grad():
        content = [IMAGE.release(generator.decode(each, latents)) for each in (generator.decoder, marked)]
    soft = codec.read(IMAGE.observe(content[1]))
    assert ((soft > 0) == (code == 1)).float().mean() > 0.93, "0.98 on 512 items, spread over items"
    assert ((codec.read(IMAGE.observe(content[0])) > 0) == (code == 1)).float().mean() < 0.8, "nobody's decoder"
    assert IMAGE.paired(*content)["psnr"].mean() > 29, "31.6 dB on 512 items"
