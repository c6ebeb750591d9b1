"""Chains, denoisers, learned codecs and regeneration: each link and each pass is where it says."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Generator, Tensor
from torch.nn import functional as F

from attacks import image_neural_codec
from attacks.image_camera import PrintCamera, Screenshot, SideLight
from attacks.image_chain import (
    CombinedChain,
    CropBrightnessJPEG,
    DegradationChain,
    GeometricChain,
    PhotometricChain,
    WOUAFChain,
    chained,
)
from attacks.image_codec import JPEG
from attacks.image_denoise import BM3D, BilateralFilter, NonLocalMeans, TotalVariation, WaveletDenoise
from attacks.image_filter import GaussianBlur, GaussianNoise
from attacks.image_neural_codec import NeuralCodec
from attacks.image_regeneration import DiffusionRegeneration, Rinsing
from bench.protocol import ContentAttack, UserError
from bench.rng import child, stream
from tests.pictures import PICTURES, psnr, repainted


def test_a_chain_is_its_links_in_order_with_streams_of_their_own() -> None:
    attack = WOUAFChain(3)
    expected, rng = PICTURES, stream(0)
    for index, link in enumerate(attack.links()):
        expected = link(expected, child(rng, "link", index))
    assert torch.equal(attack(PICTURES, stream(0)), expected)
    both = chained(PICTURES, (GaussianNoise(0.1), GaussianNoise(0.1)), stream(0)).int() - PICTURES
    first = GaussianNoise(0.1)(PICTURES, child(stream(0), "link", 0)).int() - PICTURES
    assert abs(float(torch.corrcoef(torch.stack([both - first, first]).flatten(1).double())[0, 1])) < 0.1


@pytest.mark.parametrize(
    ("grade", "links"),
    [
        (
            1,
            "Translation(share=0.02) Rotation(degrees=10.0) GaussianBlur(sigma=0.8) Brightness(factor=0.9) "
            "GaussianNoise(std=0.05) Erasing(share=0.05) JPEG(quality=90)",
        ),
        (
            5,
            "Translation(share=0.1) Rotation(degrees=30.0) GaussianBlur(sigma=1.6) Brightness(factor=0.7) "
            "GaussianNoise(std=0.2) Erasing(share=0.2) JPEG(quality=50)",
        ),
    ],
)
def test_the_ends_of_wouafs_chain_are_its_own(grade: float, links: str) -> None:
    assert " ".join(map(repr, WOUAFChain(grade).links())) == links


def test_waves_chains_have_its_relative_strengths() -> None:
    geometric = [repr(link) for link in GeometricChain(5).links()]
    assert geometric == ["Rotation(degrees=45)", "CropResize(keep_ratio=0.5)", "Erasing(share=0.25)"]
    photometric = [repr(link) for link in PhotometricChain(5).links()]
    assert photometric == ["Brightness(factor=2.0)", "Contrast(factor=2.0)"]
    links = (GaussianBlur(2.5), GaussianNoise(0.1), JPEG(10))  # 20 pixels of 512 are 2.5 of 64
    assert torch.equal(DegradationChain(5)(PICTURES, stream(0)), chained(PICTURES, links, stream(0)))
    assert [type(link) for link in CombinedChain(2).links()] == [GeometricChain, PhotometricChain, DegradationChain]
    (crop, light, last) = CropBrightnessJPEG(0.5).links()
    assert (repr(crop), repr(light), last) == ("CentreCrop(keep_ratio=0.5)", "Brightness(factor=1.5)", JPEG(80))


def test_grades_run_from_mild_to_strong_in_every_link() -> None:
    for make in (Screenshot, PrintCamera):
        mild, strong = ([repr(link) for link in make(grade).links()] for grade in (1, 5))
        assert all(a != b and a.split("(")[0] == b.split("(")[0] for a, b in zip(mild, strong, strict=True))
    with pytest.raises(UserError, match=r"Screenshot\(grade=6\): the strength must lie in \[0, 5\], found 6"):
        Screenshot(6)


def test_side_light_falls_off_to_the_share_that_it_says() -> None:
    white = torch.full((8, 3, 65, 65), 255, dtype=torch.uint8)
    lit = SideLight(0.4)(white, stream(0)).double()
    assert (lit.amax((1, 2, 3)) >= 254).all() and (lit.amin((1, 2, 3)) - 0.6 * 255).abs().max() <= 1
    plane = lit[:, 0, 32, 32]
    assert (plane - 0.8 * 255).abs().max() <= 1, "linear: the middle loses half of it"


DENOISERS: list[tuple[Callable[[float], ContentAttack], float]] = [
    (NonLocalMeans, 4.0),
    (WaveletDenoise, 3.0),
    (TotalVariation, 3.0),
    (lambda std: BilateralFilter(3 * std), 3.0),
]


@pytest.mark.parametrize(("make", "gain_db"), DENOISERS, ids=["non-local", "wavelet", "variation", "bilateral"])
def test_a_denoiser_removes_noise_of_the_deviation_it_is_told(
    make: Callable[[float], ContentAttack], gain_db: float
) -> None:
    coarse = F.interpolate(torch.rand(1, 3, 3, 3, generator=stream(0)), (64, 64), mode="bicubic")
    clean = (coarse.clamp(0, 1) * 200 + 25).to(torch.uint8)
    noisy = GaussianNoise(0.08)(clean, stream(0))
    assert psnr(make(0.08)(noisy, stream(0)), clean) > psnr(noisy, clean) + gain_db
    assert psnr(make(0.08)(noisy, stream(0)), clean) > psnr(make(0.01)(noisy, stream(0)), clean) + 1


def test_bilateral_filter_weighs_colours_by_the_deviation_that_it_says() -> None:
    """One odd pixel amid a plane takes the Gaussian share of its neighbours that its distance in colour has."""
    content = torch.full((1, 3, 33, 33), 100, dtype=torch.uint8)
    content[..., 16, 16] = 130
    apart = math.sqrt(3) * 30 / 255
    weight = math.exp(-((apart / 0.2) ** 2) / 2)
    steps = torch.arange(-4, 5).double()
    spatial = torch.exp(-steps.square()[:, None] / 4.5 - steps.square() / 4.5).sum() - 1
    expected = 100 + 30 / (1 + weight * spatial)
    found = float(BilateralFilter(0.2)(content, stream(0))[0, 0, 16, 16])
    assert found == pytest.approx(float(expected), abs=0.6)


def test_bilateral_filter_smooths_ripples_and_keeps_edges() -> None:
    x = torch.arange(64)
    ripples = 100 + 6 * torch.sin(2 * math.pi * x / 4) + 100 * (x >= 32)
    content = ripples.round().to(torch.uint8).expand(1, 3, 64, 64)
    filtered = BilateralFilter(0.1)(content, stream(0)).double()[0, 0, 32]
    assert filtered[8:28].std() < 0.35 * content.double()[0, 0, 32, 8:28].std()
    assert filtered[33] - filtered[30] > 90


def test_bm3d_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attacks.image_denoise.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^BM3D\(std=0\.1\): expected the module 'bm3d', found none; install it"):
        BM3D(0.1)(PICTURES, stream(0))


def test_bm3d_removes_noise() -> None:
    pytest.importorskip("bm3d")
    noisy = GaussianNoise(0.08)(PICTURES[:1], stream(0))
    assert psnr(BM3D(0.08)(noisy, stream(0)), PICTURES[:1]) > psnr(noisy, PICTURES[:1]) + 2


def test_a_learned_codec_that_is_missing_says_what_and_how(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    image_neural_codec.loaded.cache_clear()
    monkeypatch.setattr(image_neural_codec, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^NeuralCodec\(quality=3\): expected the module 'compressai', found none"):
        NeuralCodec(3)(PICTURES, stream(0))
    monkeypatch.setattr(image_neural_codec, "find_spec", lambda name: name)
    lack = str(image_neural_codec.lacks(3, 2))
    assert "compressai/bmshj2018-factorized-3.safetensors, found none; download" in lack.replace("\\", "/")
    for quality in (3, 2):
        image_neural_codec.weights(quality).parent.mkdir(parents=True, exist_ok=True)
        save_file({"a": torch.zeros(1)}, image_neural_codec.weights(quality))
    assert image_neural_codec.lacks(3, 2) is None and image_neural_codec.lacks(3, 1) is not None


def test_a_learned_codec_gets_sides_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def codec(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        return x * 0.5

    monkeypatch.setattr(image_neural_codec, "loaded", lambda quality: codec)
    content = torch.full((2, 3, 40, 130), 100, dtype=torch.uint8)
    assert (NeuralCodec(3)(content, stream(0)) == 50).all() and shapes == [(2, 3, 64, 192)]


def test_rinsing_repeats_regeneration_on_published_pictures() -> None:
    calls = []

    def regenerate(x: Tensor, share: float, rng: Generator) -> Tensor:
        assert torch.equal((x * 255).round() / 255, x), "8 bits"
        calls.append(share)
        return repainted(x, share, rng)

    once = DiffusionRegeneration(0.2, regenerate)(PICTURES, stream(0))
    assert calls == [0.2] and not torch.equal(once, PICTURES)
    expected, rng = PICTURES, stream(0)
    for index in range(3):
        expected = DiffusionRegeneration(0.06, regenerate)(expected, child(rng, "pass", index))
    assert torch.equal(Rinsing(3, regenerate)(PICTURES, stream(0)), expected)
    with pytest.raises(ValueError, match=r"regenerated images \(4, 3, 32, 64\), expected \(4, 3, 64, 64\)"):
        Rinsing(1, lambda x, share, rng: x[:, :, ::2])(PICTURES, stream(0))
