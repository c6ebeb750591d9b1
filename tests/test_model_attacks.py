"""Noise, precision, pruning and structure: each attack on a decoder does in every layer what its label says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import ATTACKS
from attacks.model import (
    AbsoluteWeightNoise,
    Bypass,
    ChannelPruning,
    DecoderSwap,
    FloatPrecision,
    Interpolation,
    LayerReset,
    Overwrite,
    RandomPruning,
    SVDTruncation,
    VocoderSwap,
    WeightNoise,
    WeightQuantization,
)
from attacks.model_precision import FORMATS
from bench.naming import attack_name
from bench.protocol import AttackFamily, UserError
from bench.rng import stream
from bench.weights import input_axis, mapped_copy, other_parameters, weighted_layers
from tests.decoders import LATENTS, PUBLIC, attacker, contract, decoder, weights

USER = decoder("user")
OUTPUTS = {name: 1 - input_axis(layer) for name, layer in weighted_layers(PUBLIC).items()}
FAMILIES = [family for family in ATTACKS.values() if family.target in ("model", "coalition", "framing")]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_a_grid_with_a_card(family: AttackFamily) -> None:
    assert len(set(family.strengths)) == len(family.strengths) >= (1 if family.name == "bypass" else 4)
    assert family.card.endswith(".") and family.source and family.needs and family.unit
    assert set(family.standard) <= set(family.strengths)
    made = [family.make(strength) for strength in family.strengths]
    assert len({repr(attack) for attack in made}) == len(made), "a strength that its attack ignores"
    assert {attack.target for attack in made} == {family.target}


def test_what_is_always_run_takes_minutes_in_no_modality() -> None:
    quick = [family.name for family in FAMILIES if "quick" in family.suites]
    assert quick == ["weight-noise", "weight-quantization", "magnitude-pruning", "average-weights"]
    training = {"lora-fine-tune", "purification", "blind-purification", "noise-purification", "distillation"}
    assert not any(ATTACKS[name].suites for name in (*training, "imitation")), "minutes a cell"
    assert max(ATTACKS["fine-tune"].standard) == 30


def test_variants_of_one_class_have_names_of_their_own() -> None:
    assert attack_name(WeightNoise()) == "WeightNoise"
    assert attack_name(WeightNoise(kernels_only=True)) == "WeightNoise, kernels only"
    assert attack_name(WeightQuantization(4, per_channel=True)) == "WeightQuantization, per channel"


@pytest.mark.parametrize("std", [0.005, 0.05])
def test_absolute_noise_has_the_deviation_it_says_in_every_tensor(std: float) -> None:
    model = nn.Sequential(nn.Conv1d(64, 128, 3), nn.GroupNorm(4, 4096), nn.Linear(128, 64)).requires_grad_(False)
    model[2].weight.mul_(30)
    noisy = AbsoluteWeightNoise(std)(model, attacker(), stream(0))
    for name in ("0.weight", "1.weight", "1.bias", "2.weight"):
        error = noisy.get_parameter(name) - model.get_parameter(name)
        assert float(error.std()) == pytest.approx(std, rel=0.04 if error.numel() < 5000 else 0.02), name
    kernels = AbsoluteWeightNoise(std, kernels_only=True)(model, attacker(), stream(0))
    assert all(torch.equal(p, other_parameters(model)[name]) for name, p in other_parameters(kernels).items())
    assert torch.equal(kernels[0].weight, noisy[0].weight), "the option changes no other draw"


IDENTITIES = [
    WeightNoise(0.0),
    AbsoluteWeightNoise(0.0),
    RandomPruning(0.0),
    ChannelPruning(0.0),
    SVDTruncation(1.0),
    Interpolation(0.0),
    LayerReset(0.0),
    Bypass(0),
]


@pytest.mark.parametrize("attack", IDENTITIES, ids=repr)
def test_at_strength_zero_nothing_happens(attack: Any) -> None:
    same = attack(USER, attacker(), stream(0))
    assert same is not USER
    for (name, after), before in zip(same.state_dict().items(), USER.state_dict().values(), strict=True):
        assert torch.allclose(after, before, rtol=1e-4, atol=1e-5), name


MONOTONE = ["weight-noise", "absolute-weight-noise", "weight-quantization", "weight-quantization-channels"]
MONOTONE += ["float-precision", "magnitude-pruning", "random-pruning", "channel-pruning", "svd-truncation"]
MONOTONE += ["interpolation"]


@pytest.mark.parametrize("name", MONOTONE)
def test_a_stronger_attack_moves_the_weights_further(name: str) -> None:
    moved = []
    for strength in ATTACKS[name].strengths:
        attack: Any = ATTACKS[name].make(strength)
        after = weights(attack(USER, attacker(), stream(0)))
        moved.append(sum(float((after[key] - before).square().sum()) for key, before in weights(USER).items()))
    assert all(a < b for a, b in pairwise(moved)), moved


@pytest.mark.parametrize("bits", list(FORMATS))
def test_short_floats_are_the_nearest_of_their_format(bits: int) -> None:
    user = decoder("user")
    user.get_submodule("4").running_mean.add_(0.3)  # type: ignore[union-attr, operator]
    short = FloatPrecision(bits)(user, attacker(), stream(0))
    contract(user, lambda: FloatPrecision(bits)(user, attacker(), stream(0)))
    for name, weight in weights(user).items():
        assert torch.allclose(weights(short)[name], weight.to(FORMATS[bits]).float(), rtol=1e-5, atol=1e-7), name
        normal = weight.abs() > torch.finfo(FORMATS[bits]).smallest_normal
        assert ((weights(short)[name] / weight - 1).abs()[normal] <= 2.0 ** -(bits + 1) + 1e-5).all()
    for name in ("1.bias", "4.running_mean", "8.bias"):
        assert torch.equal(short.state_dict()[name], user.state_dict()[name].to(FORMATS[bits]).float()), name
    top = FloatPrecision(3)(mapped_copy(USER, lambda name, layer, weight: 1e6 * weight), attacker(), stream(0))
    assert all(weight.abs().max() == 448 for weight in (weights(top)["0"], weights(top)["8"])), "saturates, no NaN"


def test_other_float_formats_are_refused() -> None:
    with pytest.raises(UserError, match=r"expected one of \[2, 3, 7, 10\] mantissa bits, found 5$"):
        FloatPrecision(5)


@pytest.mark.parametrize("ratio", [0.05, 0.3, 1.0])
def test_random_pruning_zeroes_the_exact_share_of_every_layer_whatever_its_size(ratio: float) -> None:
    pruned = weights(RandomPruning(ratio)(PUBLIC, attacker(), stream(0)))
    for name, weight in weights(PUBLIC).items():
        zeroed = pruned[name] == 0
        assert int(zeroed.sum()) == round(ratio * weight.numel())
        assert torch.allclose(pruned[name][~zeroed], weight[~zeroed], rtol=1e-5)
    if ratio == 0.3:
        kept, lost = (weights(PUBLIC)["3"][mask].abs().mean() for mask in (pruned["3"] != 0, pruned["3"] == 0))
        assert float(kept / lost) == pytest.approx(1, rel=0.1), "chance knows no magnitude"


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5])
def test_channel_pruning_zeroes_the_smallest_output_channels(ratio: float) -> None:
    pruned = ChannelPruning(ratio)(PUBLIC, attacker(), stream(0))
    for name, weight in weights(PUBLIC).items():
        rest = [axis for axis in range(4) if axis != OUTPUTS[name]]
        norms, after = weight.abs().sum(rest), weights(pruned)[name].abs().sum(rest)
        zeroed = after == 0
        assert int(zeroed.sum()) == (round(ratio * len(norms)) if name != "8" else 0), name
        assert torch.allclose(after[~zeroed], norms[~zeroed], rtol=1e-4)
        assert not zeroed.any() or norms[zeroed].max() <= norms[~zeroed].min()
    assert torch.isfinite(pruned(LATENTS)).all()


@pytest.mark.parametrize("keep_ratio", [0.9, 0.5, 0.1])
def test_svd_leaves_the_rank_it_says_and_the_best_approximation_of_that_rank(keep_ratio: float) -> None:
    low = weights(SVDTruncation(keep_ratio)(PUBLIC, attacker(), stream(0)))
    for name, weight in weights(PUBLIC).items():
        before, after = (w.movedim(OUTPUTS[name], 0).flatten(1).double() for w in (weight, low[name]))
        rank = math.ceil(keep_ratio * min(before.shape))
        assert int(torch.linalg.matrix_rank(after, rtol=1e-5)) == rank, name
        lost = torch.linalg.svdvals(before)[rank:].square().sum().sqrt()
        assert torch.isclose((before - after).norm(), lost, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("share", [0.25, 1.0, 1.5])
def test_interpolation_is_on_the_line_to_the_public_decoder_and_beyond(share: float) -> None:
    user = decoder("user")
    user.get_submodule("4").running_mean.add_(0.3)  # type: ignore[union-attr, operator]
    moved = Interpolation(share)(user, attacker(), stream(0))
    for name, weight in weights(user).items():
        assert torch.allclose(weights(moved)[name], weight + share * (weights(PUBLIC)[name] - weight), atol=1e-6)
    for name in ("1.bias", "1.weight", "4.running_mean"):
        before, public = user.state_dict()[name], PUBLIC.state_dict()[name]
        assert torch.allclose(moved.state_dict()[name], before + share * (public - before), atol=1e-6), name
    if share <= 1:
        swapped = DecoderSwap(share)(user, attacker(), stream(0)).state_dict()
        assert all(torch.equal(value, swapped[name]) for name, value in moved.state_dict().items())


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_reset_layers_are_untrained_ones_and_the_others_stay(share: float) -> None:
    reset = LayerReset(share)(USER, attacker(), stream(0))
    changed = [n for n, w in weights(reset).items() if not torch.allclose(w, weights(USER)[n], rtol=1e-4, atol=1e-6)]
    assert len(changed) == round(share * 4)
    more = weights(LayerReset(1.0)(USER, attacker(), stream(0)))
    first = torch.randperm(4, generator=stream(0))[: len(changed)].tolist()
    assert changed == [list(more)[index] for index in sorted(first)], "a higher share resets these and more"
    fans = {"0": 4 * 9, "3": 24 * 9, "6": 12 * 16, "8": 12 * 9}
    for name in changed:
        weight = weights(reset)[name]
        assert weight.abs().max() <= fans[name] ** -0.5 + 1e-6
        assert float(weight.std()) == pytest.approx((3 * fans[name]) ** -0.5, rel=0.1), "uniform, as torch draws it"


def marked(model: nn.Module) -> nn.Module:
    """A copy with a stage behind it, as post-hoc codecs have."""
    copied = mapped_copy(model, lambda name, layer, weight: None)
    copied.register_forward_hook(lambda module, inputs, field: field + 1)
    return copied


def test_bypass_drops_a_stage_behind_the_decoder_and_leaves_a_fingerprint_in_the_weights() -> None:
    user = marked(PUBLIC)
    assert torch.equal(user(LATENTS), PUBLIC(LATENTS) + 1)
    bare = Bypass()(user, attacker(), stream(0))
    assert torch.equal(bare(LATENTS), PUBLIC(LATENTS)) and list(bare.state_dict()) == list(user.state_dict())
    assert torch.equal(user(LATENTS), PUBLIC(LATENTS) + 1), "the user's is as it was"
    assert torch.equal(Bypass()(marked(USER), attacker(), stream(0))(LATENTS), USER(LATENTS))
    with pytest.raises(UserError, match=r"Bypass\(share=1\): expected the state-dict keys of the public decoder, .*"):
        Bypass()(nn.Linear(2, 2), attacker(), stream(0))


class Spectrogram(nn.Module):
    """A decoder that ends in a vocoder."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.body, self.vocoder = nn.Conv2d(4, 3, 1, bias=False), nn.Conv2d(3, 1, 1, bias=False)
        self.requires_grad_(False)
        self.body.weight.fill_(gain)
        self.vocoder.weight.fill_(gain)

    def forward(self, latents: Tensor) -> Tensor:
        painted: Tensor = self.vocoder(self.body(latents))
        return painted


def test_a_vocoder_is_exchanged_for_the_public_or_another_one_and_the_rest_stays() -> None:
    user, holder = Spectrogram(2.0), replace(attacker(), public_decoder=Spectrogram(1.0))
    swapped: Any = VocoderSwap()(user, holder, stream(0))
    assert swapped.vocoder.weight.unique().item() == 1 and swapped.body.weight.unique().item() == 2
    assert list(swapped.state_dict()) == list(user.state_dict()) and user.vocoder.weight.unique().item() == 2
    half: Any = VocoderSwap(0.5)(user, holder, stream(0))
    assert half.vocoder.weight.unique().item() == 1.5
    same: Any = VocoderSwap(0.0)(user, holder, stream(0))
    assert same.vocoder.weight.unique().item() == 2
    holder = replace(holder, vocoder=nn.Sequential(nn.Identity(), nn.Conv2d(3, 2, 1)))
    assert VocoderSwap()(user, holder, stream(0))(LATENTS).shape == (12, 2, 8, 8)
    with pytest.raises(UserError, match="expected to swap in a whole Sequential, found a share of it"):
        VocoderSwap(0.5)(user, holder, stream(0))
    with pytest.raises(
        UserError, match=r"VocoderSwap\(share=1.0\): expected a decoder with a vocoder, found Sequential"
    ):
        VocoderSwap()(PUBLIC, attacker(), stream(0))


class Doubler:
    """A codec whose fingerprint doubles the first layer for a code of ones, and more for others."""

    bits, removable = 8, False

    def modulate(self, model: nn.Module, code: Tensor) -> nn.Module:
        gain = 2 + (1 - code.float()).sum()
        return mapped_copy(model, lambda name, layer, weight: gain * weight if name == "0" else None)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, 2.0])
def test_overwriting_adds_a_share_of_the_second_fingerprint(share: float) -> None:
    rival: Any = Doubler()
    holder = replace(attacker(), rival=rival)
    code = torch.randint(2, (8,), generator=stream(0))
    after = weights(Overwrite(share)(USER, holder, stream(0)))
    expected = 1 + share * float(1 + (1 - code.float()).sum())
    assert torch.allclose(after["0"], expected * weights(USER)["0"], rtol=1e-5)
    assert all(torch.allclose(after[name], weights(USER)[name], rtol=1e-5) for name in ("3", "6", "8"))


def test_overwriting_says_how_to_get_a_codec() -> None:
    with pytest.raises(UserError, match=r"Overwrite\(share=1.0\): expected a codec .*, found none; .* fit --seed 1"):
        Overwrite()(USER, attacker(), stream(0))


REFUSED: list[Callable[[], object]] = [
    lambda: AbsoluteWeightNoise(-1),
    lambda: RandomPruning(1.1),
    lambda: ChannelPruning(-0.1),
    lambda: SVDTruncation(2),
    lambda: Interpolation(-0.1),
    lambda: LayerReset(1.5),
    lambda: Overwrite(-1),
]


@pytest.mark.parametrize("make", REFUSED)
def test_an_absurd_strength_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UserError, match=r"^\w+\(.*\): the strength must lie in \[.*\], found .*$"):
        make()


def test_a_bypass_is_whole_or_none() -> None:
    with pytest.raises(UserError, match=r"expected 0 or 1, a stage is dropped or not, found 0\.5$"):
        Bypass(0.5)  # type: ignore[arg-type]


def test_the_toy_decoders_differ_where_it_matters() -> None:
    """Else the tests above would prove nothing."""
    assert F.l1_loss(USER(LATENTS), PUBLIC(LATENTS)) > 0.05
