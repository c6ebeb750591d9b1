"""The image modality: what is published and observed, prompts, fidelity, files; and the augmentations."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from bench.protocol import Modality, UserError
from bench.rng import stream
from modalities.image import Image, augmentation, data

IMAGE = Image()
FIELD = 1.4 * torch.rand(3, 3, 64, 64, generator=stream(0, "field")) - 0.2  # beyond [0, 1] on both sides
CONTENT = data.reference_images()[0][:6]
SIZES = [(2, 3, 64, 64), (1, 3, 16, 16), (2, 3, 40, 72), (1, 3, 96, 50)]


def test_image_is_a_modality() -> None:
    assert isinstance(IMAGE, Modality)
    assert (IMAGE.name, IMAGE.quality_metric, IMAGE.paired_metric) == ("image", "fd_mobilenetv2", "psnr")


def test_release_rounds_to_the_nearest_of_256_values() -> None:
    content = IMAGE.release(FIELD)
    assert content.dtype == torch.uint8 and content.shape == FIELD.shape
    assert (content.double() / 255 - FIELD.double().clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6


def test_releasing_what_was_observed_changes_nothing() -> None:
    every = torch.arange(256, dtype=torch.uint8).repeat(48).view(1, 3, 64, 64)
    assert torch.equal(IMAGE.release(IMAGE.observe(every)), every)
    assert torch.equal(IMAGE.observe(every), every / 255)


@pytest.mark.parametrize("size", [64, 32, 100])
def test_soft_release_has_the_value_of_observing_what_was_released(size: int) -> None:
    image = Image(size=size)
    soft, hard = image.soft_release(FIELD), image.observe(image.release(FIELD))
    assert soft.shape == hard.shape == (3, 3, size, size)
    assert torch.allclose(soft, hard, rtol=0, atol=1e-6)


def test_soft_release_has_the_gradient_of_the_identity_but_pushes_nothing_further_out() -> None:
    field = FIELD.clone().requires_grad_()
    weights = torch.randn(FIELD.shape, generator=stream(0, "weights"))
    (gradient,) = torch.autograd.grad((weights * IMAGE.soft_release(field)).sum(), field)
    outward = ((FIELD > 1) & (weights < 0)) | ((FIELD < 0) & (weights > 0))  # where descent would lead away
    assert 0 < int(outward.sum()) < outward.numel() / 2
    assert torch.equal(gradient, weights.masked_fill(outward, 0.0))


def test_observed_tensors_have_the_readers_size() -> None:
    big = torch.full((2, 3, 130, 90), 255, dtype=torch.uint8)
    big[:, 1] = 0
    observed = IMAGE.observe(big)
    assert observed.shape == (2, 3, 64, 64)
    expected = torch.tensor([1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand_as(observed)
    assert torch.allclose(observed, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (CONTENT.float(), "torch.float32"),
        (np.zeros((1, 3, 64, 64), np.uint8), "ndarray"),
        (CONTENT[0], "(3, 64, 64)"),
        (CONTENT[:, :1], "(6, 1, 64, 64)"),
        (CONTENT[:, :, :8], "(6, 3, 8, 64)"),
    ],
    ids=["float", "numpy", "no batch", "grey", "tiny"],
)
def test_check_names_both_sides(content: Any, found: str) -> None:
    with pytest.raises(UserError) as caught:
        IMAGE.check(content)
    assert str(caught.value).startswith("image content: expected ") and str(caught.value).endswith(f"found {found}")


def test_check_lets_content_pass() -> None:
    IMAGE.check(CONTENT)
    IMAGE.check(IMAGE.release(FIELD))


def held_out() -> set[str]:
    return {c.caption(style) for c in data.concepts() if c.split == "prompts" for style in data.STYLES}


def test_prompts_are_held_out_captions_in_the_order_of_the_stream() -> None:
    prompts = IMAGE.prompts(100, stream(0, "prompts"))
    assert prompts == IMAGE.prompts(100, stream(0, "prompts")) != IMAGE.prompts(100, stream(1, "prompts"))
    assert prompts[:30] == IMAGE.prompts(30, stream(0, "prompts")), "more prompts leave the first ones alone"
    others = {c.caption(style) for c in data.concepts() if c.split != "prompts" for style in data.STYLES}
    assert set(prompts) <= held_out() and not set(prompts) & others


def test_prompts_repeat_only_when_they_are_exhausted() -> None:
    every = len(held_out())
    prompts = IMAGE.prompts(2 * every, stream(0, "prompts"))
    assert set(prompts[:every]) == set(prompts[every:]) == held_out()
    assert prompts[:every] != prompts[every:]
    assert len(IMAGE.prompts(every + 1, stream(0, "prompts"))) == every + 1


def test_no_prompts_and_fewer_than_none() -> None:
    assert IMAGE.prompts(0, stream(0, "prompts")) == []
    with pytest.raises(UserError, match="expected 0 or more, found -1"):
        IMAGE.prompts(-1, stream(0, "prompts"))


def test_reference_is_all_or_evenly_thinned() -> None:
    every = IMAGE.reference()
    assert len(every) == 606
    assert torch.equal(IMAGE.reference(606), every)
    assert torch.equal(IMAGE.reference(2), every[[0, -1]])
    assert len(IMAGE.reference(100).flatten(1).unique(dim=0)) == 100
    for n in (0, -5, 607):
        with pytest.raises(UserError, match=f"asked for {n}, expected 1 to 606"):
            IMAGE.reference(n)


def test_features_are_one_row_a_picture() -> None:
    features = IMAGE.features(CONTENT)
    assert features.shape == (6, 1280) and features.dtype == torch.float32
    larger = CONTENT.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert IMAGE.features(larger).shape == (6, 1280)


@pytest.mark.parametrize("step", [1, 5, 51])
def test_psnr_of_a_constant_difference_has_a_closed_form(step: int) -> None:
    a = torch.full((2, 3, 64, 64), 100, dtype=torch.uint8)
    psnr = IMAGE.paired(a, a + step)["psnr"]
    assert psnr.tolist() == pytest.approx([20 * math.log10(255 / step)] * 2, abs=1e-3)


def test_equal_pictures_are_as_faithful_as_it_gets() -> None:
    found = IMAGE.paired(CONTENT, CONTENT)
    assert set(found) == {"psnr", "ssim", "lpips_alex"} and IMAGE.paired_metric in found
    assert found["psnr"].tolist() == pytest.approx([60.0] * 6, abs=1e-4)
    assert found["ssim"].tolist() == pytest.approx([1.0] * 6, abs=1e-4)
    assert torch.equal(found["lpips_alex"], torch.zeros(6))


def test_each_pair_is_judged_alone() -> None:
    noise = torch.randint(-20, 21, CONTENT.shape, generator=stream(0, "noise"))
    other = (CONTENT.int() + noise).clamp(0, 255).byte()
    together = IMAGE.paired(CONTENT, other)
    for name, values in together.items():
        alone = torch.cat([IMAGE.paired(CONTENT[i : i + 1], other[i : i + 1])[name] for i in range(len(CONTENT))])
        assert values.shape == (6,) and torch.allclose(values, alone, atol=1e-4), name
    assert bool((together["psnr"] < 60).all() & (together["ssim"] < 1).all() & (together["lpips_alex"] > 0).all())


def test_png_round_trip_is_exact(tmp_path: Path) -> None:
    for index, path in enumerate([tmp_path / "a.png", tmp_path / "b.PNG", tmp_path / "c.webp", tmp_path / "d.bmp"]):
        IMAGE.save(CONTENT[index : index + 1], path)
        assert torch.equal(IMAGE.load(path), CONTENT[index : index + 1]), path.name
    assert len(list(tmp_path.iterdir())) == 4, "nothing half-written stays behind"


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((20, 24, 4), np.uint8)
    pixels[:, :, 0], pixels[:10, :, 3] = 200, 255  # the upper half opaque dark red
    Pillow.fromarray(pixels).save(tmp_path / "half.png")
    content = IMAGE.load(tmp_path / "half.png")
    assert content.shape == (1, 3, 20, 24)
    assert content[0, :, :10].flatten(1).unique(dim=1).flatten().tolist() == [200, 0, 0]
    assert bool((content[0, :, 10:] == 255).all())


def test_grey_and_palette_pictures_become_rgb(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Pillow.fromarray(grey).save(tmp_path / "grey.png")
    Pillow.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    for name in ("grey.png", "grey16.png"):
        assert torch.equal(IMAGE.load(tmp_path / name), torch.from_numpy(grey).expand(1, 3, 16, 16)), name
    palette = Pillow.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "palette.png")
    assert IMAGE.load(tmp_path / "palette.png")[0, :, 3, 5].tolist() == [10, 20, 30]
    palette.save(tmp_path / "clear.png", transparency=1)
    assert bool((IMAGE.load(tmp_path / "clear.png") == 255).all())


def write(path: Path, kind: str) -> None:
    """A file that is no picture, in one way or another."""
    if kind == "text":
        path.write_text("not a picture\nat all\n")
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "tiny":
        Pillow.new("RGB", (15, 40)).save(path)
    elif kind == "float":
        Pillow.fromarray(np.zeros((32, 32), np.float32)).save(path, "TIFF")
    elif kind == "truncated":
        IMAGE.save(CONTENT[:1], path)
        path.write_bytes(path.read_bytes()[:600])
    elif kind == "bomb":  # a bitmap's header that promises 2^32 pixels
        Pillow.new("RGB", (16, 16)).save(path, "BMP")
        raw = bytearray(path.read_bytes())
        raw[18:26] = (2**16).to_bytes(4, "little") * 2
        path.write_bytes(raw)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "found none"),
        ("text", "unreadable"),
        ("empty", "unreadable"),
        ("folder", "unreadable"),
        ("tiny", "at least 16x16, found 15x40"),
        ("float", "mode F"),
        ("truncated", "unreadable"),
        ("bomb", "exceeds limit"),
    ],
)
def test_what_is_no_picture_ends_in_one_line(tmp_path: Path, kind: str, words: str) -> None:
    path = tmp_path / "given.png"
    write(path, kind)
    with pytest.raises(UserError) as caught:
        IMAGE.load(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: expected an image") and words in line and "\n" not in line


@pytest.mark.parametrize("name", ["a", "a.xyz", "missing/a.png", "a.psd"])
def test_what_cannot_be_saved_ends_in_one_line_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        IMAGE.save(CONTENT[:1], tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: expected ") and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_one_picture_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one image to save, found 2"):
        IMAGE.save(CONTENT[:2], tmp_path / "a.png")


@pytest.mark.parametrize("distortion", augmentation.DISTORTIONS, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_every_distortion(distortion: Any, shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=stream(0, "augmented")).requires_grad_()
    before = x.detach().clone()
    changed = [distortion(x, stream(seed, "draw")) for seed in range(5)]
    again = distortion(x, stream(0, "draw"))
    assert torch.equal(changed[0], again), "same stream, same damage"
    assert torch.equal(x, before), "the input was modified in place"
    for y in changed:
        assert y.shape == x.shape and y.dtype == x.dtype and bool(y.isfinite().all())
        assert not torch.equal(y, x)
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        assert bool(gradient.isfinite().all()) and (gradient != 0).float().mean() > 0.4
    if distortion is not augmentation._flip:
        assert not torch.equal(changed[0], changed[1]), "the strength is drawn"


def test_augment_keeps_the_range_and_a_third_of_the_batches() -> None:
    x = torch.rand(2, 3, 64, 64, generator=stream(0, "augmented"))
    results = [IMAGE.augment(x, stream(seed, "augment")) for seed in range(200)]
    assert all(bool((y >= 0).all() & (y <= 1).all()) and y.shape == x.shape for y in results)
    kept = sum(torch.equal(y, x) for y in results) / 200
    assert kept == pytest.approx(1 / 3, abs=4 * (2 / 9 / 200) ** 0.5)


def test_augment_is_a_function_of_the_stream_only() -> None:
    x = torch.rand(1, 3, 64, 64, generator=stream(0, "augmented"))
    state = torch.get_rng_state()
    for seed in range(8):
        assert torch.equal(IMAGE.augment(x, stream(seed, "a")), IMAGE.augment(x, stream(seed, "a")))
    assert torch.equal(torch.get_rng_state(), state)


def test_jpeg_is_pillows_and_its_gradient_the_identity() -> None:
    x = IMAGE.observe(CONTENT[:1]).requires_grad_()
    y = augmentation._jpeg(x, stream(0, "jpeg"))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))
    assert torch.allclose(y * 255, (y * 255).round(), atol=1e-3), "the value is that of a decoded 8-bit picture"
    assert 20 < IMAGE.paired(CONTENT[:1], IMAGE.release(y))["psnr"].item() < 50


def test_hue_keeps_greys_and_lengths() -> None:
    """A rotation about the grey axis."""
    x = torch.rand(1, 3, 16, 16, generator=stream(0, "hue"))
    turned = augmentation._hue(x, stream(1, "hue"))
    assert torch.allclose(turned.mean(1), x.mean(1), atol=1e-6)
    assert torch.allclose(turned.norm(dim=1), x.norm(dim=1), atol=1e-5)
    assert augmentation._hue(x * 0 + 0.3, stream(1, "hue")).sub(0.3).abs().max() < 1e-6
