from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from attacks import ATTACKS
from attacks.coalition import AverageWeights
from attacks.model import DecoderSwap, FineTune, MagnitudePruning, WeightNoise, WeightQuantization
from bench.protocol import ModelAttack, UserError
from bench.rng import stream
from bench.weights import effective_weight, mapped_copy, other_parameters, set_effective_weight, weighted_layers
from tests.decoders import LATENTS, PUBLIC, attacker, contract, decoder, old_weight_norm, weights

OTHERWISE = (
    *("channel-pruning", "svd-truncation", "layer-reset", "channel-permutation", "channel-rescaling", "bypass"),
    *("blind-purification", "noise-purification", "distillation"),
)
"""Tested elsewhere: they leave some layer, or what is put out, as it is, or take long."""

MODEL_CELLS = [
    pytest.param(f.make(s), id=f"{f.name}-{s:g}")
    for f in ATTACKS.values()
    if f.target == "model" and f.name not in OTHERWISE
    for s in f.strengths
    if f.unit != "steps" or s <= 10
]


@pytest.mark.parametrize("attack", MODEL_CELLS)
def test_model_attack_contract(attack: ModelAttack) -> None:
    assert isinstance(attack, ModelAttack) and attack.target == "model"
    user = decoder("user")
    contract(user, lambda: attack(user, attacker(), stream(0)))


def test_every_layer_of_the_toy_decoder_matters() -> None:
    """Else the tests above would prove nothing: each effective weight alone changes the output."""
    for name in weights(PUBLIC):
        changed = mapped_copy(PUBLIC, lambda key, layer, weight, name=name: 1.5 * weight if key == name else None)
        assert (changed(LATENTS) - PUBLIC(LATENTS)).abs().max() > 1e-2


@pytest.mark.parametrize("relative_std", [0.01, 0.1, 0.5])
def test_weight_noise_has_the_deviation_it_says(relative_std: float) -> None:
    layers = {
        "plain": nn.Conv2d(64, 64, 3),
        "old": old_weight_norm(nn.Conv1d(128, 128, 3)),
        "parametrized": weight_norm(nn.ConvTranspose1d(128, 128, 3)),
        "linear": nn.Linear(256, 128),
    }
    model = nn.ModuleDict(layers).requires_grad_(False)
    for index, (name, weight) in enumerate(weights(model).items()):
        drawn = torch.randn(weight.shape, generator=stream(0, name))
        set_effective_weight(layers[name], 0.1 * (index + 1) * drawn + 0.3)
    noisy = WeightNoise(relative_std)(model, attacker(), stream(0))
    for name, weight in weights(model).items():
        error = weights(noisy)[name] - weight
        assert float(error.std() / weight.std()) == pytest.approx(relative_std, rel=0.02)
        assert abs(float(error.mean())) < 0.02 * float(error.std())


def test_weight_noise_on_the_other_parameters() -> None:
    model = nn.Sequential(nn.Conv1d(4, 4096, 1), nn.GroupNorm(4, 4096)).requires_grad_(False)
    model[1].bias.copy_(3 + 2 * torch.randn(4096, generator=stream(0)))
    noisy = WeightNoise(0.1)(model, attacker(), stream(0))
    assert float((noisy[1].bias - model[1].bias).std()) == pytest.approx(0.2, rel=0.04)
    assert torch.equal(noisy[1].weight, model[1].weight), "a constant has no spread"
    kernels = WeightNoise(0.1, kernels_only=True)(model, attacker(), stream(0))
    assert all(torch.equal(p, other_parameters(model)[name]) for name, p in other_parameters(kernels).items())
    assert torch.equal(kernels[0].weight, noisy[0].weight), "the option changes no other draw"


def spread(weight: Tensor, axes: tuple[int, ...]) -> list[int]:
    """Number of distinct values in each slice, up to rounding of the weight normalisation."""
    flat = weight.movedim(axes, tuple(range(len(axes)))).flatten(0, len(axes) - 1) if axes else weight[None]
    return [int((s.flatten().sort().values.diff() > 1e-5 * s.abs().max()).sum()) + 1 for s in flat]


@pytest.mark.parametrize("bits", [8, 6, 4, 2])
def test_quantized_weights_are_the_nearest_of_few_levels(bits: int) -> None:
    quantized = weights(WeightQuantization(bits)(PUBLIC, attacker(), stream(0)))
    for name, weight in weights(PUBLIC).items():
        top = weight.abs().max()
        step = top / (2 ** (bits - 1) - 1)
        assert spread(quantized[name], ())[0] <= 2**bits - 1
        levels = quantized[name] / step
        assert torch.allclose(levels, levels.round(), atol=1e-3)
        assert (quantized[name] - weight).abs().max() <= step / 2 + 1e-5 * top, "not the nearest level"
        assert torch.isclose(quantized[name].abs().max(), top), "the range is used"
    plain = quantized["8"]
    assert len(plain.unique()) <= 2**bits - 1
    error = [(q - weights(PUBLIC)[name]).square().mean() for name, q in quantized.items()]
    finer = weights(WeightQuantization(bits, per_channel=True)(PUBLIC, attacker(), stream(0)))
    assert all((q - weights(PUBLIC)[n]).square().mean() < e for (n, q), e in zip(finer.items(), error, strict=True))


def test_per_channel_quantization_gives_each_output_its_range() -> None:
    finer = weights(WeightQuantization(4, per_channel=True)(PUBLIC, attacker(), stream(0)))
    for name, axis in {"0": 0, "3": 0, "6": 1, "8": 0}.items():
        rest = [a for a in range(4) if a != axis]
        assert torch.allclose(finer[name].abs().amax(rest), weights(PUBLIC)[name].abs().amax(rest))
        assert max(spread(finer[name], (axis,))) <= 15


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.3, 0.7, 1.0])
def test_pruning_zeroes_exactly_the_smallest_share(ratio: float) -> None:
    pruned = MagnitudePruning(ratio)(PUBLIC, attacker(), stream(0))
    for name, weight in weights(PUBLIC).items():
        after = weights(pruned)[name]
        zeroed = after == 0
        assert int(zeroed.sum()) == round(ratio * weight.numel())
        assert torch.allclose(after[~zeroed], weight[~zeroed], rtol=1e-5)
        if 0 < ratio < 1:
            assert weight[zeroed].abs().max() <= weight[~zeroed].abs().min()
    assert torch.isfinite(pruned(LATENTS)).all()


def test_pruning_ties_still_prunes_the_exact_share() -> None:
    model = nn.Linear(10, 10).requires_grad_(False)
    model.weight.fill_(0.5)
    assert int((MagnitudePruning(0.3)(model, attacker(), stream(0)).weight == 0).sum()) == 30


def test_fine_tuning_pulls_the_user_towards_the_clean_content() -> None:
    user = decoder("user")
    clean = PUBLIC(LATENTS)
    errors = [F.l1_loss(user(LATENTS), clean)]
    for steps in (10, 100):
        errors.append(F.l1_loss(FineTune(steps, rate=1e-2)(user, attacker(), stream(0))(LATENTS), clean))
    assert errors[0] > 1.2 * errors[1] and errors[1] > 1.5 * errors[2], errors


def test_fine_tuning_trains_weights_and_directions_whatever_surrounds_it() -> None:
    user = decoder("user")
    with torch.no_grad():
        tuned = FineTune(3, rate=1e-2)(user, attacker(), stream(0))
    for (name, after), before in zip(tuned.named_parameters(), user.parameters(), strict=True):
        assert not torch.equal(after, before), f"{name} was not trained"
    assert all(p.grad is None for p in (*tuned.parameters(), *user.parameters(), *PUBLIC.parameters()))
    assert torch.equal(FineTune(0)(user, attacker(), stream(0))(LATENTS), user(LATENTS))


def test_fine_tuning_refuses_unpaired_content() -> None:
    with pytest.raises(ValueError, match="12 latents for 5 fields"):
        FineTune(1)(PUBLIC, attacker(fields=PUBLIC(LATENTS)[:5]), stream(0))


def scaled(gain: float) -> nn.Module:
    """A decoder that is linear in its weights: one layer, its gain and bias."""
    return mapped_copy(LINEAR, lambda name, layer, weight: gain * weight)


LINEAR = nn.Sequential(weight_norm(nn.ConvTranspose2d(4, 3, 4, 2, 1))).requires_grad_(False)


@pytest.mark.parametrize("gains", [(0.5, 2.0), (1.0, 1.5, 0.2), (0.9, 1.0, 1.1, 1.2, 1.3)])
def test_the_average_of_linear_decoders_is_the_decoder_of_the_mean_gain(gains: tuple[float, ...]) -> None:
    team = [scaled(gain) for gain in gains]
    for index, member in enumerate(team):
        member[0].bias.fill_(index)
    merged = AverageWeights(len(gains))(team, stream(0))
    assert torch.allclose(merged(LATENTS), torch.stack([d(LATENTS) for d in team]).mean(0), atol=1e-5)
    expected = scaled(sum(gains) / len(gains))
    expected[0].bias.fill_((len(gains) - 1) / 2)
    assert torch.allclose(merged(LATENTS), expected(LATENTS), atol=1e-5)


def test_the_average_covers_statistics_and_keeps_counters() -> None:
    team = [decoder("user", index) for index in range(2)]
    for index, member in enumerate(team):
        member[4].running_mean.fill_(index)
        member[4].num_batches_tracked.fill_(7)
    merged = AverageWeights(2)(team, stream(0))
    assert merged[4].running_mean.unique().tolist() == [0.5]
    assert int(merged[4].num_batches_tracked) == 7
    assert torch.allclose(merged[1].weight, (team[0][1].weight + team[1][1].weight) / 2)


def test_half_precision_decoders_are_averaged_in_float32() -> None:
    team = [nn.Linear(4, 4, dtype=torch.bfloat16).requires_grad_(False) for _ in range(3)]
    for member, value in zip(team, (1.0, 1.0078125, 1.0), strict=True):
        member.weight.fill_(value)
    merged = AverageWeights(3)(team, stream(0))
    assert merged.weight.dtype == torch.bfloat16 and merged.weight.unique().tolist() == [1.0]


def test_average_weights_names_both_numbers() -> None:
    with pytest.raises(UserError, match=r"AverageWeights\(users=1\): the strength must lie in \[2, inf\], found 1"):
        AverageWeights(1)
    with pytest.raises(ValueError, match="1 decoders, expected 2"):
        AverageWeights(2)([PUBLIC], stream(0))
    with pytest.raises(ValueError, match=r"decoder 1 has 1 state-dict keys, expected the 2 of decoder 0; .* bias"):
        AverageWeights(2)([nn.Linear(2, 2), nn.Linear(2, 2, bias=False)], stream(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: WeightNoise(-0.1),
        lambda: WeightQuantization(1),
        lambda: WeightQuantization(17),
        lambda: MagnitudePruning(1.1),
        lambda: FineTune(-1),
    ],
)
def test_an_absurd_strength_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UserError, match=r"^\w+\(.*\): the strength must lie in \[.*\], found .*$"):
        make()


def test_a_swapped_decoder_is_the_public_one_and_half_a_swap_is_half_way() -> None:
    user = decoder("user")
    user.get_submodule("4").running_mean.add_(0.3)  # type: ignore[union-attr, operator]
    with torch.no_grad():
        swapped = DecoderSwap()(user, attacker(), stream(0))
        assert torch.allclose(swapped(LATENTS), PUBLIC(LATENTS), atol=1e-5)
        assert not torch.allclose(user(LATENTS), PUBLIC(LATENTS), atol=1e-2), "the user's is as it was"
        kept = DecoderSwap(0.0)(user, attacker(), stream(0))
        assert torch.allclose(kept(LATENTS), user(LATENTS), atol=1e-5)
    half = weighted_layers(DecoderSwap(0.5)(user, attacker(), stream(0)))
    for name, layer in weighted_layers(user).items():
        middle = (effective_weight(layer) + effective_weight(weighted_layers(PUBLIC)[name])) / 2
        assert torch.allclose(effective_weight(half[name]), middle, atol=1e-6), name


def test_a_decoder_of_other_layers_cannot_be_swapped_in() -> None:
    with pytest.raises(ValueError, match=r"^4 layers to swap in, expected those of the Linear$"):
        DecoderSwap()(nn.Linear(2, 2), attacker(), stream(0))
