"""Pretrained networks: LPIPS against torchmetrics, MobileNetV2 against known answers, Inception when it is there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image.lpips import _LPIPS

from bench.protocol import UserError
from bench.rng import fenced, stream
from modalities.image import Image, data
from modalities.image.perceptual import LPIPS, WEIGHTS, MobileNetV2Features, inception, lpips, mobilenet


def noisy(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.rand(shape, generator=stream(seed, "perceptual"))


@pytest.fixture(scope="module")
def yardstick() -> nn.Module:
    """torchmetrics' LPIPS with its own heads and our AlexNet, whose original would have to be downloaded."""
    network = _LPIPS(pretrained=True, net="alex", pnet_rand=True, eval_mode=True)
    state = load_file(WEIGHTS / "lpips_alex.safetensors")
    for name, parameter in network.net.named_parameters():  # slice1.0.weight
        _, layer, kind = name.split(".")
        parameter.data.copy_(state[f"features.{layer}.{kind}"])
    return network


@pytest.mark.parametrize("size", [(64, 64), (96, 50)])
def test_lpips_is_that_of_torchmetrics(yardstick: nn.Module, size: tuple[int, int]) -> None:
    real = F.interpolate(data.reference_images()[0][:4].float() / 255, size)
    for other in (real.flip(0), (real + 0.1 * noisy(tuple(real.shape), 1)).clamp(0, 1), noisy(tuple(real.shape), 2)):
        theirs = yardstick(real, other, normalize=True).flatten()
        assert torch.allclose(lpips("alex")(real, other), theirs, atol=1e-4)


def test_lpips_of_equal_images_is_zero_and_grows_with_noise() -> None:
    x = data.reference_images()[0][:3].float() / 255
    assert torch.equal(lpips("alex")(x, x), torch.zeros(3))
    noise = torch.randn(x.shape, generator=stream(0, "noise"))
    weak, strong = (lpips("alex")(x, (x + std * noise).clamp(0, 1)) for std in (0.02, 0.2))
    assert bool((weak > 0).all()) and bool((weak < strong).all())


def test_lpips_is_differentiable_and_frozen() -> None:
    a, b = noisy((2, 3, 64, 64), 0), noisy((2, 3, 64, 64), 1).requires_grad_()
    (gradient,) = torch.autograd.grad(lpips("alex")(a, b).sum(), b)
    assert bool((gradient.abs().sum((1, 2, 3)) > 0).all())
    assert not any(p.requires_grad for p in lpips("alex").parameters())


def test_fewer_levels_are_a_part_of_the_sum() -> None:
    a, b = noisy((2, 3, 64, 64), 0), noisy((2, 3, 64, 64), 1)
    totals = torch.stack([lpips("alex", depth)(a, b) for depth in (1, 3, 5)])
    assert bool((totals.diff(dim=0) > 0).all())


def test_building_the_networks_draws_nothing() -> None:
    state = torch.get_rng_state()
    LPIPS("alex")
    MobileNetV2Features()
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_of_another_net_are_asked_for(cache: object) -> None:
    with pytest.raises(UserError, match="make data MODALITY=image"):
        LPIPS("vgg")


def test_mobilenet_weights_are_complete() -> None:
    state = load_file(WEIGHTS / "mobilenet_v2.safetensors")
    expected = mobilenet().features.state_dict(prefix="features.")
    assert set(state) == {key for key in expected if not key.endswith("num_batches_tracked")}
    assert all(torch.equal(expected[key], value.float()) for key, value in state.items())


def test_mobilenet_knows_a_concept_in_another_style() -> None:
    """The nearest Noto picture of a Fluent one shows the same thing, far more often than with untrained weights."""
    images = data.reference_images()[0][: 2 * 9 * 32].float() / 255  # fluent and noto alternate
    fluent, noto = images[::18], images[1::18]  # 32 concepts, spread over all groups

    def hits(network: nn.Module) -> int:
        features = [F.normalize(network(style), dim=1) for style in (fluent, noto)]
        return int(((features[0] @ features[1].T).argmax(1) == torch.arange(32)).sum())

    untrained = MobileNetV2Features()
    with fenced(0):
        untrained.features = torchvision.models.mobilenet_v2(weights=None).features.eval().requires_grad_(False)
    assert hits(mobilenet()) >= 1.5 * hits(untrained)


def test_mobilenet_golden_values() -> None:
    x = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)  # a grey ramp
    features = mobilenet()(x)
    assert features.shape == (1, 1280) and bool((features >= 0).all())
    assert features[0, :4].tolist() == pytest.approx([0.1011, 0.0684, 1.2214, 0.0924], abs=2e-3)
    assert features.mean().item() == pytest.approx(0.1253, abs=1e-3)


def test_features_are_deterministic_and_do_not_depend_on_the_batch() -> None:
    images = data.reference_images()[0][:5]
    features = Image().features(images)
    assert torch.equal(features, Image().features(images))
    assert torch.allclose(features[2:3], Image().features(images[2:3]), atol=1e-4)
    assert bool((torch.cdist(features, features) + torch.eye(5) > 0.5).all()), "different pictures, different features"


class Pool(nn.Module):
    """What torch-fidelity's network looks like from outside."""

    def __init__(self, name: str, features_list: list[str]) -> None:
        super().__init__()
        assert features_list == ["2048"]

    def forward(self, x: Tensor) -> tuple[Tensor]:
        assert x.dtype == torch.uint8
        return (x.float().mean((2, 3)),)


@pytest.fixture
def fresh_inception() -> Iterator[None]:
    inception.cache_clear()
    yield
    inception.cache_clear()


def test_inception_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, fresh_inception: None
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(UserError, match="install torch-fidelity") as caught:
        Image().with_features("inception")
    assert "\n" not in str(caught.value)


def test_inception_gets_eight_bits_and_renames_the_metric(
    monkeypatch: pytest.MonkeyPatch, fresh_inception: None
) -> None:
    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Pool  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    image = Image().with_features("inception")
    assert image.quality_metric == "fid"
    content = data.reference_images()[0][:3]
    assert torch.equal(image.features(content), content.float().mean((2, 3)))


def test_inception_whose_weights_cannot_be_had(monkeypatch: pytest.MonkeyPatch, fresh_inception: None) -> None:
    def offline(name: str, features_list: list[str]) -> None:
        raise OSError("no route to host")

    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = offline  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(UserError, match=r"weights cannot be downloaded \(no route to host\)"):
        Image().with_features("inception")


def test_unknown_features_are_refused() -> None:
    with pytest.raises(UserError, match="features 'clip': expected default or inception"):
        Image().with_features("clip")
    assert Image().with_features("default").quality_metric == "fd_mobilenetv2"
