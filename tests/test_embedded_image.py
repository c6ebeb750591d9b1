"""The embedded text-to-image generator as it ships: captions, pictures, reconstruction."""

from __future__ import annotations

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from torch import Tensor

from bench.rng import stream
from modalities.image import Image, data
from modalities.image.diffusion import EMBEDDED, DiffusionGenerator, load

IMAGE = Image()
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def generator() -> DiffusionGenerator:
    return load(None, CPU)


@pytest.fixture(scope="module")
def latents(generator: DiffusionGenerator) -> Tensor:
    prompts = IMAGE.prompts(8, stream(0, "prompts"))
    return generator.latents(prompts, stream(0, "latents"))


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
