from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import weight_norm

from bench.rng import stream
from bench.weights import (
    detached_copy,
    effective_state,
    effective_weight,
    input_axis,
    input_channels,
    mapped_copy,
    other_parameters,
    replaced_copy,
    set_effective_weight,
    weighted_layers,
)


def old_weight_norm(layer: nn.Module, dim: int | None = 0) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.nn.utils.weight_norm(layer, dim=dim)


PLAIN = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), (2, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3), (2, 4, 5, 5)),
    "conv2d-grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(4, 6, 2), (2, 4, 3, 3, 3)),
    "transposed1d": (lambda: nn.ConvTranspose1d(4, 6, 3), (2, 4, 9)),
    "transposed2d": (lambda: nn.ConvTranspose2d(4, 6, 3), (2, 4, 5, 5)),
    "transposed3d": (lambda: nn.ConvTranspose3d(4, 6, 2), (2, 4, 3, 3, 3)),
    "one-channel-out": (lambda: nn.Conv1d(4, 1, 3), (2, 4, 9)),
    "linear": (lambda: nn.Linear(4, 6), (2, 4)),
}
NORMS = {
    "plain": lambda layer: layer,
    "old": old_weight_norm,
    "old-whole": lambda layer: old_weight_norm(layer, None),
    "old-dim1": lambda layer: old_weight_norm(layer, 1),
    "parametrized": weight_norm,
    "parametrized-whole": lambda layer: weight_norm(layer, dim=None),
}
CASES = [pytest.param(kind, norm, id=f"{kind}-{norm}") for kind in PLAIN for norm in NORMS]


def build(kind: str, norm: str) -> tuple[nn.Module, Tensor]:
    """A layer with random parameters (gains unlike the norms of the directions), and an input."""
    make, shape = PLAIN[kind]
    layer = NORMS[norm](make())
    rng = stream(0, kind, norm)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=rng) + 0.2)
    return layer, torch.randn(shape, generator=rng)


@pytest.mark.parametrize(("kind", "norm"), CASES)
def test_writing_back_the_effective_weight_changes_nothing(kind: str, norm: str) -> None:
    layer, x = build(kind, norm)
    before, keys = layer(x), list(layer.state_dict())
    set_effective_weight(layer, effective_weight(layer).detach().clone())
    assert torch.allclose(layer(x), before, rtol=1e-6, atol=1e-6 * float(before.detach().abs().max()))
    assert list(layer.state_dict()) == keys


@pytest.mark.parametrize(("kind", "norm"), CASES)
def test_the_effective_weight_is_the_one_that_the_layer_multiplies_with(kind: str, norm: str) -> None:
    layer, x = build(kind, norm)
    reference = PLAIN[kind][0]()
    weight = torch.randn(effective_weight(layer).shape, generator=stream(1, kind))
    set_effective_weight(layer, weight)
    reference.load_state_dict({"weight": weight, "bias": layer.bias})
    expected = reference(x)
    assert torch.allclose(layer(x), expected, rtol=1e-5, atol=1e-6 * float(expected.detach().abs().max()))
    assert torch.allclose(effective_weight(layer), weight, rtol=1e-6)


@pytest.mark.parametrize(("kind", "norm"), CASES)
def test_effective_state_with_functional_call_equals_set_effective_weight(kind: str, norm: str) -> None:
    layer, x = build(kind, norm)
    model = nn.Sequential(layer)
    weight = (effective_weight(layer).detach() * 1.7 + 0.1).requires_grad_()
    called = functional_call(model, effective_state(model, {"0": weight}), (x,))
    (gradient,) = torch.autograd.grad(called.square().mean(), weight)
    assert gradient.abs().min() > 0, "the effective weight must be trainable"
    set_effective_weight(layer, weight.detach())
    assert torch.allclose(model(x), called, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("kind", "norm"), CASES)
def test_input_axis_is_where_zeroing_one_input_channel_silences_it(kind: str, norm: str) -> None:
    layer, x = build(kind, norm)
    per_group = effective_weight(layer).shape[input_axis(layer)]
    groups = getattr(layer, "groups", 1) if input_axis(layer) == 1 else 1
    assert per_group * groups == input_channels(layer) == 4
    keep = torch.ones(per_group)
    keep[1] = 0
    shape = [-1 if axis == input_axis(layer) else 1 for axis in range(effective_weight(layer).ndim)]
    set_effective_weight(layer, effective_weight(layer).detach() * keep.view(shape))
    other = x.clone()
    other[:, 1 if groups == 1 else [1, 3]] += 5
    assert torch.allclose(layer(other), layer(x), atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_a_zeroed_output_channel_stays_finite(norm: str) -> None:
    layer, x = build("conv1d", norm)
    weight = effective_weight(layer).detach().clone()
    for zeroed in (slice(0, 1), slice(None)):
        weight[zeroed] = 0
        set_effective_weight(layer, weight)
        assert torch.equal(layer(x)[:, zeroed], layer.bias.view(1, -1, 1).expand_as(layer(x))[:, zeroed])
        assert torch.allclose(effective_weight(layer), weight, rtol=1e-6)


def test_a_weight_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weight of shape \(6, 4\), expected \(6, 4, 3\)"):
        set_effective_weight(nn.Conv1d(4, 6, 3), torch.zeros(6, 4))


def decoder() -> nn.Module:
    return nn.Sequential(
        old_weight_norm(nn.Conv1d(4, 6, 3)),
        nn.GroupNorm(2, 6),
        weight_norm(nn.ConvTranspose1d(6, 4, 3)),
        nn.Conv1d(4, 2, 1),
    )


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_mapped_copy_leaves_the_original_untouched(used: bool) -> None:
    original, x = decoder(), torch.randn(2, 4, 9, generator=stream(0))
    if used:
        original(x).sum().backward()
    before = copy.deepcopy(original.state_dict())
    doubled = mapped_copy(original, lambda name, layer, weight: None if name == "3" else 2 * weight)
    assert all(torch.equal(value, before[key]) for key, value in original.state_dict().items())
    assert list(doubled.state_dict()) == list(before)
    for name, layer in weighted_layers(doubled).items():
        factor = 1 if name == "3" else 2
        assert torch.allclose(effective_weight(layer), factor * effective_weight(weighted_layers(original)[name]))
    assert {p.data_ptr() for p in original.parameters()}.isdisjoint(p.data_ptr() for p in doubled.parameters())
    assert not torch.allclose(doubled(x), original(x), rtol=1e-2)


@pytest.mark.parametrize("trainable", [False, True], ids=["frozen", "trainable"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_replaced_copy_equals_writing_into_a_copy(dtype: torch.dtype, trainable: bool) -> None:
    original = decoder().to(dtype).requires_grad_(trainable)
    weights = {n: 2 * effective_weight(layer).float().detach() for n, layer in weighted_layers(original).items()}
    before, expected = copy.deepcopy(original.state_dict()), detached_copy(original)
    for name, weight in weights.items():
        set_effective_weight(expected.get_submodule(name), weight)
    replaced = replaced_copy(original, weights)
    assert list(replaced.state_dict()) == list(before)
    for key, value in replaced.state_dict().items():
        assert value.dtype == dtype and torch.equal(value, expected.state_dict()[key]), key
    assert all(torch.equal(value, before[key]) for key, value in original.state_dict().items())
    assert {p.data_ptr() for p in original.parameters()}.isdisjoint(p.data_ptr() for p in replaced.parameters())
    assert [p.requires_grad for p in replaced.parameters()] == [p.requires_grad for p in original.parameters()]


def test_a_replaced_copy_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match=r"weight of shape \(6, 4\), expected \(6, 4, 3\)"):
        replaced_copy(decoder(), {"0": torch.zeros(6, 4)})


def test_a_detached_copy_computes_the_same_and_trains_on_its_own() -> None:
    original, x = decoder(), torch.randn(2, 4, 9, generator=stream(0))
    clone = detached_copy(original)
    before = original(x)
    assert torch.equal(clone(x), before)
    clone(x).sum().backward()
    with torch.no_grad():
        for parameter in clone.parameters():
            parameter -= 0.1 * parameter.grad
    assert torch.equal(original(x), before)
    assert all(parameter.grad is None for parameter in original.parameters())


def test_other_parameters_are_all_but_the_weights() -> None:
    assert list(other_parameters(decoder())) == ["0.bias", "1.weight", "1.bias", "2.bias", "3.bias"]
