"""Attacks on images do what their labels say: measured, or compared with another implementation or the inverse."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tvf

from attacks.image_formats import AVIF, JPEG2000, MultipleJPEG, lacks
from attacks.image_geometry import HorizontalFlip
from attacks.image_noise import PixelDropout, PoissonNoise, SaltAndPepper, Speckle
from attacks.image_overlay import Collage, StrokeOverlay, TextOverlay
from attacks.image_replaced import Cropout, Dropout
from attacks.image_sharpness import MeanFilter, MotionBlur, Sharpness, UnsharpMask
from attacks.image_tone import (
    ChromaticAberration,
    ColourQuantisation,
    Equalise,
    Grayscale,
    Posterise,
    Saturation,
    WhiteBalance,
)
from attacks.image_warp import CentreCrop, Elastic, Perspective, RandomResizedCrop, Shear, VerticalFlip
from bench.protocol import ContentAttack, UserError
from bench.rng import stream
from tests.pictures import BATCHES, GREY, PICTURES, places, psnr, smooth

MANY = GREY.repeat(8, 1, 1, 1)

IDENTITIES: list[ContentAttack] = [
    *(SaltAndPepper(0), PixelDropout(0), Speckle(0), MeanFilter(1), MotionBlur(1), Sharpness(1), UnsharpMask(0)),
    *(Saturation(1), Grayscale(0), Posterise(256), ChromaticAberration(0), Equalise(0), WhiteBalance(0)),
    *(Shear(0), Perspective(0), Elastic(0), CentreCrop(1), RandomResizedCrop(1), StrokeOverlay(0), Collage(1)),
    *(Cropout(1, smooth), Dropout(1, smooth)),
]


@pytest.mark.parametrize("attack", IDENTITIES, ids=repr)
def test_at_zero_strength_nothing_changes(attack: ContentAttack) -> None:
    for content in BATCHES.values():
        assert torch.equal(attack(content, stream(0)), content)


BAD: list[Callable[[], object]] = [
    *(lambda: SaltAndPepper(1.1), lambda: PixelDropout(-0.1), lambda: PoissonNoise(0), lambda: Speckle(math.nan)),
    *(lambda: MeanFilter(4), lambda: MotionBlur(2), lambda: Sharpness(-1), lambda: UnsharpMask(-1)),
    *(lambda: Saturation(-1), lambda: Grayscale(2), lambda: Posterise(1), lambda: ColourQuantisation(257)),
    *(lambda: ChromaticAberration(-1), lambda: Equalise(2), lambda: WhiteBalance(2), lambda: Shear(90)),
    *(lambda: Perspective(1.1), lambda: Elastic(-1), lambda: CentreCrop(0), lambda: RandomResizedCrop(1.1)),
    *(lambda: JPEG2000(5), lambda: AVIF(101), lambda: MultipleJPEG(0), lambda: TextOverlay(0)),
    *(lambda: StrokeOverlay(-1), lambda: Collage(0), lambda: Cropout(1.1, smooth), lambda: Dropout(-1, smooth)),
]


@pytest.mark.parametrize("make", BAD)
def test_an_absurd_strength_is_refused_in_one_line(make: Callable[[], object]) -> None:
    with pytest.raises(UserError, match=r"^\w+\(.*\): the (strength|kernel|length) must .*, found .*$"):
        make()


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_impulses_hit_the_share_of_pixels_that_they_say(share: float) -> None:
    """Within four standard deviations of a binomial."""
    n = MANY[:, 0].numel()
    salted = SaltAndPepper(share)(MANY, stream(0))
    white, black = (salted == 255).all(1), (salted == 0).all(1)
    assert ((salted == 128).all(1) | white | black).all(), "whole pixels"
    for found in (white, black):
        assert float(found.double().mean()) == pytest.approx(share / 2, abs=4 * math.sqrt(share / 2 / n))
    dropped = (PixelDropout(share)(MANY, stream(0)) == 0).all(1)
    assert float(dropped.double().mean()) == pytest.approx(share, abs=4 * math.sqrt(share / n))


@pytest.mark.parametrize("photons", [100.0, 300.0])
def test_photons_have_the_variance_of_their_number(photons: float) -> None:
    for level in (64, 128):
        content = torch.full_like(MANY, level)
        error = (PoissonNoise(photons)(content, stream(0)).double() - level) / 255
        assert float(error.std()) == pytest.approx(math.sqrt(level / 255 / photons), rel=0.02)
    assert torch.equal(PoissonNoise(photons)(torch.zeros_like(GREY), stream(0)), torch.zeros_like(GREY))


@pytest.mark.parametrize("std", [0.05, 0.2])
def test_speckle_is_proportional_to_the_light(std: float) -> None:
    for level in (60, 120):
        error = Speckle(std)(torch.full_like(MANY, level), stream(0)).double() - level
        assert float(error.std()) == pytest.approx(std * level, rel=0.02)


def test_mean_filter_and_motion_blur_agree_with_scipy() -> None:
    content = BATCHES["wide"]
    expected = scipy.ndimage.uniform_filter(content.double().numpy(), (1, 1, 5, 5), mode="nearest")
    assert np.abs(MeanFilter(5)(content, stream(0)).double().numpy() - expected).max() <= 0.51
    batch = content[:1].expand(16, -1, -1, -1)
    blurred, seen = MotionBlur(5)(batch, stream(0)).double().numpy(), set()
    for item, old in zip(blurred, batch.double().numpy(), strict=True):
        lines = [scipy.ndimage.uniform_filter1d(old, 5, axis=axis, mode="nearest") for axis in (1, 2)]
        (axis,) = [axis for axis, line in enumerate(lines) if np.abs(item - line).max() <= 0.51]
        seen.add(axis)
    assert seen == {0, 1}, "both directions occur"


def test_sharpening_adds_the_difference_that_it_says() -> None:
    content = PICTURES[:1]
    picture = Image.fromarray(content[0].permute(1, 2, 0).numpy())
    blurred = torch.from_numpy(np.array(picture.filter(ImageFilter.GaussianBlur(2)))).permute(2, 0, 1).double()
    expected = (content[0].double() + 1.5 * (content[0].double() - blurred)).clamp(0, 255)
    assert (UnsharpMask(150)(content, stream(0))[0].double() - expected).abs().max() <= 1.5
    kernel = torch.tensor([[1, 1, 1], [1, 5, 1], [1, 1, 1]]).double().expand(3, 1, 3, 3) / 13
    inner = content.double()[..., 1:-1, 1:-1]
    expected = (inner + 2 * (inner - F.conv2d(content.double(), kernel, groups=3))).clamp(0, 255)
    assert (Sharpness(3)(content, stream(0))[..., 1:-1, 1:-1].double() - expected).abs().max() <= 1.01


def test_colours_move_as_they_say() -> None:
    luma = torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)
    mild = (110 + PICTURES.float() / 255 * 40).to(torch.uint8)
    grey = (mild.float() * luma).sum(1, keepdim=True)
    expected = grey + 2 * (mild - grey)
    assert (Saturation(2)(mild, stream(0)).float() - expected).abs().max() <= 1
    faded = Grayscale(1)(mild, stream(0))
    assert torch.equal(faded[:, 0], faded[:, 2]) and (faded[:, :1].float() - grey).abs().max() <= 1
    warm = WhiteBalance(0.2)(torch.full((1, 3, 2, 2), 100, dtype=torch.uint8), stream(0))
    assert warm[0, :, 0, 0].tolist() == [120, 100, 80]
    shifted = ChromaticAberration(3)(PICTURES, stream(0))
    assert torch.equal(shifted[:, 0, :, :-3], PICTURES[:, 0, :, 3:])
    assert torch.equal(shifted[:, 1], PICTURES[:, 1])
    assert torch.equal(shifted[:, 2, :, 3:], PICTURES[:, 2, :, :-3])


def test_an_equalised_histogram_is_flat() -> None:
    """The Kolmogorov distance to the uniform distribution falls below that of one bin's mass."""
    dark = (PICTURES.float() * 0.4).to(torch.uint8)
    for channel in Equalise(1)(dark, stream(0))[0]:
        counts = torch.bincount(channel.flatten().long(), minlength=256).double() / channel.numel()
        ideal = torch.arange(1, 257).double() / 256
        assert (counts.cumsum(0) - ideal).abs().max() < counts.max() + 0.02


@pytest.mark.parametrize("levels", [2, 4, 8, 32])
def test_posterised_pictures_have_the_levels_that_they_say(levels: int) -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 256).expand(1, 3, 1, 256)
    attacked = Posterise(levels)(ramp, stream(0))
    found = attacked.unique().double()
    assert len(found) == levels and found[0] == 0 and found[-1] == 255
    assert (attacked.double() - ramp.double()).abs().max() <= 255 / (levels - 1) / 2 + 0.5, "the nearest level"


@pytest.mark.parametrize("colours", [4, 16, 76])
def test_a_palette_has_the_size_that_it_says(colours: int) -> None:
    for item in ColourQuantisation(colours)(PICTURES, stream(0)):
        assert colours / 2 < len(item.flatten(1).unique(dim=1).T) <= colours


@pytest.mark.parametrize("psnr_db", [25.0, 30.0, 40.0])
def test_jpeg_2000_has_the_error_that_it_says(psnr_db: float) -> None:
    assert psnr(JPEG2000(psnr_db)(PICTURES, stream(0)), PICTURES) == pytest.approx(psnr_db, abs=0.5)


def test_repeated_jpeg_repeats_jpeg() -> None:
    expected = PICTURES
    for _ in range(3):
        expected = MultipleJPEG(1)(expected, stream(0))
    assert torch.equal(MultipleJPEG(3)(PICTURES, stream(0)), expected)


def test_avif_keeps_colours_and_loses_detail() -> None:
    content = BATCHES["wide"]
    mild, strong = (AVIF(quality)(content, stream(0)).float() for quality in (95, 5))
    for attacked in (mild, strong):
        assert (attacked.mean((2, 3)) - content.float().mean((2, 3))).abs().max() < 6
    fine = [float((x - smooth(x)).std()) for x in (content.float(), mild, strong)]
    assert fine[0] * 0.5 < fine[1] and fine[2] < fine[1] * 0.7


def test_a_format_that_pillow_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attacks.image_formats.features.check", lambda name: False)
    assert "libavif" in str(lacks("avif"))
    with pytest.raises(
        UserError, match=r"^AVIF\(quality=50\): expected a Pillow with libavif, found one built without"
    ):
        AVIF(50)(PICTURES, stream(0))


@pytest.mark.parametrize("degrees", [10.0, -30.0])
def test_shear_moves_rows_by_the_tangent_and_back(degrees: float) -> None:
    ramp = places(41, 52)  # five levels a pixel
    there = Shear(degrees)(ramp, stream(0))[0, 0].double() / 5
    expected = torch.arange(52).double() + math.tan(math.radians(degrees)) * (torch.arange(41.0)[:, None] - 20)
    inside = (expected > 1) & (expected < 50)
    assert (there - expected)[inside].abs().max() < 0.15
    content = tvf.gaussian_blur(BATCHES["wide"], [9, 9], [2.0, 2.0])
    back = Shear(-degrees)(Shear(degrees)(content, stream(0)), stream(0))
    assert psnr(back[..., 18:-18], content[..., 18:-18]) > 38


def test_perspective_keeps_lines_straight_and_corners_within_their_bound() -> None:
    content = places(101, 101).expand(16, -1, -1, -1)
    seen = Perspective(0.3)(content, stream(0))[:, :2].double() / 255 * 100  # (B, 2, H, W), source x and y
    inside = ((seen > 1) & (seen < 99)).all(1)
    for item, mask in zip(seen, inside, strict=True):
        for row in (30, 50, 70):
            points = item[:, row][:, mask[row]]
            assert points.shape[1] > 60
            assert torch.linalg.svdvals(points - points.mean(1, keepdim=True))[1] / math.sqrt(points.shape[1]) < 0.3
    assert inside[:, 18:-18, 18:-18].all(), "no corner moves further than half the distortion"
    outside = 1 - inside.double().mean((1, 2))
    assert outside.min() > 0.05 and outside.std() > 0.01, "pictures differ"


@pytest.mark.parametrize("pixels", [1.0, 3.0])
def test_elastic_displaces_by_the_length_that_it_says(pixels: float) -> None:
    content = places(86, 86).expand(4, -1, -1, -1)  # three levels a pixel
    field = Elastic(pixels).field(content, stream(0))
    assert torch.allclose(field.square().sum(1).mean((1, 2)).sqrt(), torch.full((4,), pixels), rtol=1e-4)
    moved = Elastic(pixels)(content, stream(0)).double() / 3
    expected = torch.arange(86.0) + field[:, 0]
    inside = (expected > 1) & (expected < 84)
    assert (moved[:, 0] - expected)[inside].abs().max() < 0.2
    assert field.diff(dim=-1).abs().max() < pixels, "smooth"


@pytest.mark.parametrize("keep_ratio", [0.75, 0.25])
def test_crops_show_the_share_of_the_area_that_they_say(keep_ratio: float) -> None:
    content = places(120, 200).expand(64, -1, -1, -1)
    for attack in (CentreCrop(keep_ratio), RandomResizedCrop(keep_ratio)):
        seen = attack(content, stream(0))[:, :2].double()
        spans = (seen.amax((2, 3)) - seen.amin((2, 3))) / 255  # (B, 2)
        assert torch.allclose(spans.prod(1), torch.tensor(keep_ratio).double(), atol=0.03)
        middle = (seen.amax((2, 3)) + seen.amin((2, 3))) / 2
        if isinstance(attack, CentreCrop):
            assert (middle - 127.5).abs().max() < 2
        else:
            assert middle.std(0).min() > 8 and 0.05 < (spans[:, 0] / spans[:, 1]).log().std() < 0.3


def test_upside_down_twice_is_the_original() -> None:
    both = HorizontalFlip()(VerticalFlip()(PICTURES, stream(0)), stream(0))
    assert torch.equal(both, PICTURES.rot90(2, (2, 3)))


@pytest.mark.parametrize("share", [0.15, 0.3])
def test_text_has_the_height_that_it_says_and_crosses_the_picture(share: float) -> None:
    content = torch.full((6, 3, 200, 160), 128, dtype=torch.uint8)
    changed = (TextOverlay(share)(content, stream(0)) != content).any(1)
    tops = []
    for mask in changed:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert 0.6 < (rows[-1] - rows[0] + 1) / (share * 200) < 1.15, "capitals fill most of their em"
        assert columns[0] < 8 and columns[-1] > 150
        tops.append(int(rows[0]))
    assert len(set(tops)) > 3, "at random heights"
    written = TextOverlay(share)(content, stream(0))
    assert (written == 255).all(1).any() and (written == 0).all(1).any()


def test_strokes_are_as_many_as_they_say() -> None:
    content = torch.full((4, 3, 128, 128), 77, dtype=torch.uint8)
    for count in (1, 3):
        for item in StrokeOverlay(count)(content, stream(1)):
            assert len(item.flatten(1).unique(dim=1).T) == 1 + count


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_collage_holds_the_picture_at_its_share_of_the_area(share: float) -> None:
    magenta = torch.tensor([255, 0, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(16, 3, 100, 140)
    found = (Collage(share)(magenta, stream(0)) == magenta).all(1)
    assert torch.allclose(found.double().mean((1, 2)), torch.tensor(share).double(), atol=0.01)
    corners = torch.stack([mask.nonzero()[0] for mask in found]).double()
    assert corners.std(0).min() > 3, "at random places"


def negative(x: Tensor) -> Tensor:
    return 1 - x


@pytest.mark.parametrize("keep_ratio", [0.9, 0.3])
def test_cropout_and_dropout_keep_the_share_that_they_say(keep_ratio: float) -> None:
    content = torch.full((16, 3, 100, 100), 10, dtype=torch.uint8)
    kept = Cropout(keep_ratio, negative)(content, stream(0)) == 10
    assert torch.allclose(kept.double().mean((1, 2, 3)), torch.tensor(keep_ratio).double(), atol=0.01)
    for mask in kept[:, 0]:
        assert torch.equal(mask, mask.any(1)[:, None] & mask.any(0)), "one rectangle"
    dropped = Dropout(keep_ratio, negative)(content, stream(0))
    assert set(dropped.unique().tolist()) == {10, 245}
    bound = 4 * math.sqrt(keep_ratio * (1 - keep_ratio) / dropped[:, 0].numel())
    assert float((dropped[:, 0] == 10).double().mean()) == pytest.approx(keep_ratio, abs=bound)
    with pytest.raises(ValueError, match=r"reconstructed images \(4, 3, 32, 64\), expected \(4, 3, 64, 64\)"):
        Dropout(0.5, lambda x: x[:, :, ::2])(PICTURES, stream(0))
