from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from attacks import ATTACKS, Tools, families, families_for
from attacks.image import (
    JPEG,
    Brightness,
    Contrast,
    CropResize,
    Erasing,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    HorizontalFlip,
    Hue,
    MedianFilter,
    Regeneration,
    Resize,
    Rotation,
    Translation,
    WebP,
)
from bench.naming import attack_name, attack_strength
from bench.protocol import AttackFamily, ContentAttack, UserError
from bench.rng import stream


def blobs(n: int, height: int, width: int, rng: Generator) -> Tensor:
    """Smooth coloured structure with a little grain, as pictures have it."""
    coarse = F.interpolate(torch.rand(n, 3, 7, 7, generator=rng), (height, width), mode="bicubic")
    fine = 0.05 * torch.randn(n, 3, height, width, generator=rng)
    return ((coarse + fine).clamp(0, 1) * 255).round().to(torch.uint8)


def noise(n: int, height: int, width: int, rng: Generator) -> Tensor:
    return torch.randint(256, (n, 3, height, width), generator=rng, dtype=torch.uint8)


def smooth(x: Tensor) -> Tensor:
    """Stands in for an autoencoder: loses detail at each pass."""
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)


def psnr(a: Tensor, b: Tensor) -> float:
    error = (a.double() - b.double()).square().flatten(1).mean(1).clamp_min(1e-3)
    return float((10 * (255**2 / error).log10()).mean())


PICTURES = blobs(4, 64, 64, stream(0, "blobs"))
BATCHES = {
    "square": torch.cat([PICTURES[:2], noise(2, 64, 64, stream(0, "noise"))]),
    "wide": blobs(3, 48, 80, stream(0, "wide")),
    "tiny": noise(1, 5, 7, stream(0, "tiny")),
}
FAMILIES = [
    family for family in families_for("image", Tools(reconstruct=smooth)).values() if family.target == "content"
]
CELLS = [pytest.param(f.make(s), id=f"{f.name}-{s:g}") for f in FAMILIES for s in f.strengths]
GREY = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)


@pytest.mark.parametrize("attack", CELLS)
def test_attack_contract(attack: ContentAttack) -> None:
    assert isinstance(attack, ContentAttack) and attack.target == "content"
    assert dataclasses.is_dataclass(attack) and hash(attack) == hash(dataclasses.replace(attack))
    for name, content in BATCHES.items():
        before = content.clone()
        once, again = attack(content, stream(0)), attack(content, stream(0))
        assert once.shape == content.shape and once.dtype == torch.uint8 and once.is_contiguous()
        assert torch.equal(once, again), "same stream, same damage"
        assert torch.equal(content, before), "the input was modified in place"
        assert name == "tiny" or not torch.equal(once, content), "the attack did nothing"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_stronger_attack_does_more_damage(family: AttackFamily) -> None:
    values = [psnr(family.make(strength)(PICTURES, stream(0)), PICTURES) for strength in family.strengths]
    assert all(after < before + 0.5 for before, after in itertools.pairwise(values)), values
    assert len(values) == 1 or values[-1] < values[0] - 1, values


@pytest.mark.parametrize(
    "family", families_for("image", Tools(reconstruct=smooth)).values(), ids=lambda family: family.name
)
def test_a_family_lists_what_it_makes(family: AttackFamily) -> None:
    assert 0 <= family.quick < len(family.strengths)
    assert len(set(family.strengths)) == len(family.strengths)
    for strength in family.strengths:
        attack = family.make(strength)
        assert attack.target == family.target
        assert repr(attack) == repr(family.make(float(strength))), "one attack, two names"
        assert attack_strength(attack) == strength or family.name == "horizontal-flip"
    kebab = "".join(f"-{c.lower()}" if c.isupper() else c for c in attack_name(attack)).lstrip("-")
    assert family.name in (kebab, attack_name(attack).lower())


def test_the_phone_book() -> None:
    assert "regeneration" not in ATTACKS and "regeneration" in families(Tools(reconstruct=smooth))
    assert all(name == family.name for name, family in ATTACKS.items())
    assert {family.target for family in ATTACKS.values()} == {"content", "model", "coalition"}
    assert {family.modality for family in families_for("image").values()} == {"image", "any"}
    assert "audio-regeneration" not in families_for("image", Tools(reconstruct=smooth))


def test_names_and_strengths() -> None:
    assert attack_name(JPEG(50)) == "JPEG" and attack_strength(JPEG(50)) == 50
    assert math.isnan(attack_strength(HorizontalFlip()))
    assert repr(Regeneration(2, smooth)) == "Regeneration(passes=2)"
    assert Regeneration(2, smooth) == Regeneration(2, lambda x: x) != Regeneration(1, smooth)


BAD = [
    lambda: JPEG(0),
    lambda: JPEG(101),
    lambda: WebP(-1),
    lambda: GaussianNoise(-0.1),
    lambda: GaussianNoise(math.nan),
    lambda: GaussianBlur(0),
    lambda: MedianFilter(4),
    lambda: MedianFilter(-1),
    lambda: Resize(1.5),
    lambda: Resize(0),
    lambda: CropResize(0),
    lambda: Rotation(361),
    lambda: Translation(1.1),
    lambda: Erasing(1.1),
    lambda: Brightness(-1),
    lambda: Contrast(-1),
    lambda: Hue(0.6),
    lambda: Gamma(-1),
    lambda: Regeneration(0, smooth),
]


@pytest.mark.parametrize("make", BAD)
def test_an_absurd_strength_is_refused_in_one_line(make: Callable[[], object]) -> None:
    with pytest.raises(UserError, match=r"^\w+\(.*\): the (strength|kernel) must .*, found .*$"):
        make()


def test_jpeg_leaves_multiples_of_the_standard_quantisation_table() -> None:
    """ITU-T T.81, table K.1, first row and column; libjpeg scales it by 5 at quality 10."""
    content = (80 + 0.35 * blobs(2, 64, 64, stream(3))[:, :1].float()).to(torch.uint8).expand(2, 3, 64, 64)
    attacked = JPEG(10)(content, stream(0))
    assert torch.equal(attacked[:, 0], attacked[:, 2]), "grey stays grey"
    blocks = attacked[:, 0].double().sub(128).unfold(1, 8, 8).unfold(2, 8, 8).numpy()
    coefficients = scipy.fft.dctn(blocks, axes=(-2, -1), norm="ortho")
    across = coefficients[..., 0, :] / (5 * np.array([16, 11, 10, 16, 24, 40, 51, 61]))
    down = coefficients[..., :, 0] / (5 * np.array([16, 12, 14, 14, 18, 24, 49, 72]))
    for levels in (across, down):
        assert np.abs(levels - levels.round()).max() < 0.05
        assert np.abs(levels).max() > 0.9, "all blocks are empty, nothing was tested"


@pytest.mark.parametrize("std", [0.02, 0.05, 0.1])
def test_gaussian_noise_has_the_deviation_it_says(std: float) -> None:
    error = (GaussianNoise(std)(GREY, stream(0)).double() - 128) / 255
    assert float(error.std()) == pytest.approx(std, rel=0.02)
    assert abs(float(error.mean())) < 0.02 * std


def test_gaussian_noise_clips_and_never_wraps() -> None:
    for level in (0, 255):
        attacked = GaussianNoise(0.1)(torch.full_like(GREY, level), stream(0))
        assert (attacked.int() - level).abs().max() < 150
        assert float((attacked == level).double().mean()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("sigma", [0.5, 1, 3])
def test_blur_and_median_agree_with_scipy(sigma: float) -> None:
    for content in BATCHES.values():
        expected = scipy.ndimage.gaussian_filter(
            content.double().numpy(), (0, 0, sigma, sigma), mode="nearest", radius=(0, 0, *[math.ceil(4 * sigma)] * 2)
        )
        assert np.abs(GaussianBlur(sigma)(content, stream(0)).double().numpy() - expected).max() <= 0.51
        kernel = 2 * round(sigma) + 3
        expected = scipy.ndimage.median_filter(content.numpy(), (1, 1, kernel, kernel), mode="nearest")
        assert np.array_equal(MedianFilter(kernel)(content, stream(0)).numpy(), expected)


def test_resize_halves_the_bandwidth() -> None:
    """A pattern above the new Nyquist frequency goes, one far below stays."""
    x = torch.arange(64)
    fast = (127.5 + 100 * torch.cos(math.pi * 0.8 * x)).round().to(torch.uint8).expand(1, 3, 64, 64)
    slow = (127.5 + 100 * torch.cos(math.pi * 0.1 * x)).round().to(torch.uint8).expand(1, 3, 64, 64)
    assert Resize(0.5)(fast, stream(0))[..., 8:-8].double().std() < 0.1 * fast.double().std()
    assert psnr(Resize(0.5)(slow, stream(0))[..., 8:-8], slow[..., 8:-8]) > 35


def test_crop_resize_shows_the_share_it_keeps() -> None:
    """On a linear ramp the range of values seen is the side of the window."""
    ramp = torch.linspace(0, 255, 256).round().to(torch.uint8).expand(64, 3, 256, 256)
    attacked = CropResize(0.25)(ramp, stream(0)).double()
    spans = attacked[:, 0, 0].amax(1) - attacked[:, 0, 0].amin(1)
    assert torch.allclose(spans, torch.full((64,), 127.0, dtype=torch.double), atol=2)
    assert float(attacked.amin((1, 2, 3)).std()) > 20, "windows lie at random places"


@pytest.mark.parametrize("degrees", [90, 180, 270, -90])
def test_right_angles_are_exact(degrees: int) -> None:
    assert torch.equal(Rotation(degrees)(PICTURES, stream(0)), PICTURES.rot90(degrees // 90, (2, 3)))


@pytest.mark.parametrize("degrees", [5.0, 30.0, 45.0])
def test_rotation_there_and_back_restores_the_centre(degrees: float) -> None:
    content = tvf.gaussian_blur(BATCHES["wide"], [9, 9], [2.0, 2.0])
    there = Rotation(degrees)(content, stream(0))
    inner = (..., slice(14, 34), slice(30, 50))
    assert psnr(Rotation(-degrees)(there, stream(0))[inner], content[inner]) > 40
    assert psnr(there[inner], content[inner]) < 35
    reference = tvf.rotate(content, degrees, InterpolationMode.BILINEAR)
    assert (there[inner].int() - reference[inner].int()).abs().max() <= 1


def test_translation_moves_by_whole_pixels_and_continues_the_edge() -> None:
    content = noise(64, 40, 20, stream(0))
    attacked = Translation(0.2)(content, stream(0))
    seen = set()
    for before, after in zip(content, attacked, strict=True):
        padded = F.pad(before.float(), (4, 4, 8, 8), mode="replicate")
        shifts = {
            (y, x) for y in (0, 16) for x in (0, 8) if torch.equal(padded[:, y : y + 40, x : x + 20], after.float())
        }
        assert len(shifts) == 1
        seen |= shifts
    assert len(seen) == 4, "all four diagonals occur"


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9, 1.0])
def test_erasing_blackens_one_rectangle_of_the_share_it_says(share: float) -> None:
    content = torch.full((16, 3, 100, 200), 200, dtype=torch.uint8)
    black = (Erasing(share)(content, stream(0)) == 0).all(1)  # (B, H, W)
    assert torch.allclose(black.double().mean((1, 2)), torch.tensor(share, dtype=torch.double), atol=0.005)
    for mask in black:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns), "a filled rectangle"


def test_a_mirrored_mirror_is_the_original() -> None:
    flipped = HorizontalFlip()(PICTURES, stream(0))
    assert torch.equal(flipped[..., 0], PICTURES[..., -1])
    assert torch.equal(HorizontalFlip()(flipped, stream(0)), PICTURES)


def test_colour_attacks_do_what_they_say() -> None:
    rng, level = stream(0), torch.full((1, 3, 2, 2), 100, dtype=torch.uint8)
    assert Brightness(1.5)(level, rng).unique().tolist() == [150]
    assert Brightness(3)(level, rng).unique().tolist() == [255], "clipped, not wrapped around"
    assert Gamma(2)(level, rng).unique().tolist() == [round(100**2 / 255)]
    steps = torch.tensor([[90, 110]], dtype=torch.uint8).expand(1, 3, 1, 2)
    assert Contrast(2)(steps, rng)[0, 0, 0].tolist() == [80, 120]
    assert Contrast(20)(steps, rng)[0, 0, 0].tolist() == [0, 255]
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert (Hue(1 / 3)(red, rng).flatten().int() - torch.tensor([0, 255, 0])).abs().max() <= 1
    assert (Hue(-1 / 3)(red, rng).flatten().int() - torch.tensor([0, 0, 255])).abs().max() <= 1


def test_regeneration_repeats_the_pass_on_published_images() -> None:
    expected = PICTURES
    for _ in range(3):
        expected = Regeneration(1, smooth)(expected, stream(0))
    assert torch.equal(Regeneration(3, smooth)(PICTURES, stream(0)), expected)
    assert torch.equal(Regeneration(2, lambda x: x)(PICTURES, stream(0)), PICTURES)
    with pytest.raises(ValueError, match=r"reconstructed images \(4, 3, 32, 64\), expected \(4, 3, 64, 64\)"):
        Regeneration(1, lambda x: x[:, :, ::2])(PICTURES, stream(0))
