"""Recipes: the plain path is the one it always was, and each switch changes decoders as its attack does."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import families_for
from bench.precision import mixed
from bench.protocol import UserError
from bench.rng import child, fenced, stream
from bench.weights import effective_weight, other_parameters, replaced_copy, swapped, weighted_layers
from schemes import HARDENINGS, SCHEMES, hardening, straight_through, training
from schemes.hardening import Hardening, adapt, changes, hardened_loss, trials
from schemes.modulations import MODULATIONS, Amplitude
from schemes.readers import StatisticsReader
from schemes.training import Recipe
from schemes.trials import Setting, Trial, Weights, noisy
from schemes.unmarked import originals, unmarked
from schemes.weight_modulation import WeightModulation
from tests.test_modulations import NORMS, build
from tests.test_weight_modulation import BITS, READER, SHORT, PaintGenerator
from tests.toy import Toy


class Painted(Toy):
    """Toy pictures that are attacked as pictures are."""

    def __init__(self) -> None:
        super().__init__(name="image")


def setting(modulation: str = "Amplitude", seed: int = 0) -> Setting:
    generator, modality = PaintGenerator(), Painted()
    latents = generator.training_latents(16, stream(0, "pool"))
    unmarked = originals(modality, generator, latents)
    modulator = MODULATIONS[modulation]().bind(generator.decoder, BITS, stream(seed, "modulator"))
    with fenced(0):
        reader = READER.build(unmarked, BITS)
    return Setting(modality, generator, (modulator, reader), (latents, unmarked))


def one_trial(modulation: str = "Amplitude") -> Trial:
    return trials(setting(modulation), Hardening(), stream(0))[0]


def plain_training(setting: Setting, recipe: Recipe, rng: Any) -> None:
    """The loop as it was before there were recipes."""
    modality, generator = setting.modality, setting.generator
    (modulator, reader), (latents, unmarked) = setting.networks, setting.pool
    optimisers = training._optimisers(modulator, reader, recipe)
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    peaks, progress = [group["lr"] for group in groups], training.Progress()
    reader.train()
    for step in range(recipe.steps):
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * training._factor(step, recipe.steps, recipe.decay)
        rows, codes = training._pairs(len(latents), recipe.batch, modulator.bits, rng)
        original = unmarked[rows].float()
        with modulator.applied(generator.decoder, codes), mixed(torch.device("cpu")):
            marked = modality.soft_release(generator.decode(generator.decoder, latents[rows]))
        seen = torch.cat([marked, original[: 1 + len(rows) // 5]])
        bit_loss, accuracy = training._bit_loss(reader, seen, codes, recipe.null)
        error = F.mse_loss(marked, original)
        distortion = 20 * error + recipe.perceptual * training._distance(modality, original, marked, recipe)
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        (bit_loss + progress.weight * distortion).backward()
        nn.utils.clip_grad_norm_(modulator.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        progress.update(accuracy, -10 * math.log10(max(error.item(), 1e-9)), recipe.psnr_db)
    reader.eval()


def trained(train: Callable[..., Any], recipe: Recipe) -> list[Tensor]:
    ready = dataclasses.replace(setting(), modality=Toy())
    train(ready, recipe, stream(0, "training"))
    return [value.clone() for network in ready.networks for value in network.state_dict().values()]


def test_the_plain_recipe_trains_what_it_always_trained() -> None:
    recipe = dataclasses.replace(SHORT, steps=6, enough=2.0, unreleased=0.0)
    ours, before = trained(training.train, recipe), trained(plain_training, recipe)
    assert all(torch.equal(a, b) for a, b in zip(ours, before, strict=True))
    hardened = dataclasses.replace(recipe, hardening=Hardening(weight_noise=0.1, start=0.0))
    assert not all(torch.equal(a, b) for a, b in zip(trained(training.train, hardened), before, strict=True))


def test_a_pace_is_a_share_of_all_learning_rates() -> None:
    recipe = dataclasses.replace(SHORT, steps=1, enough=2.0)
    ready = dataclasses.replace(setting(), modality=Toy())
    fresh = [name for network in ready.networks for name in dict(network.named_parameters())]
    named = [name for network in ready.networks for name in network.state_dict()]

    def moved(pace: float | None) -> Tensor:
        """How far each trained tensor goes in one step."""
        after = trained(training.train, dataclasses.replace(recipe, pace=pace))
        before = [value for network in ready.networks for value in network.state_dict().values()]
        pairs = zip(named, before, after, strict=True)
        return torch.stack([(b - a).norm() for name, a, b in pairs if name in fresh])

    whole, half = moved(None), moved(0.5)
    assert bool((whole > 0).any()) and not bool(moved(0.0).any())
    torch.testing.assert_close(half, whole / 2, rtol=1e-3, atol=1e-7)
    assert torch.equal(moved(1.0), whole)


def test_a_plain_recipe_does_not_name_what_it_is_without() -> None:
    assert repr(Recipe()) == (
        "Recipe(steps=10000, batch=16, rate=0.02, modulator_rate=0.003, augment=False, psnr_db=31.0, perceptual=3.0, "
        "unreleased=2.0, null=0.1, decay=0.6, enough=0.985, pool=4096)"
    )
    assert "weight_noise=0.1" in repr(Recipe(hardening=Hardening(weight_noise=0.1)))


def test_noise_under_all_marks_costs_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any) -> None:
        raise AssertionError("no copy is asked for")

    monkeypatch.setattr(training, "harden", refuse)
    recipe = dataclasses.replace(SHORT, steps=4, enough=2.0)
    spec = Hardening(base_noise=0.3, start=0.0)
    plain, noisy = (trained(training.train, dataclasses.replace(recipe, hardening=each)) for each in (None, spec))
    assert not all(torch.equal(a, b) for a, b in zip(plain, noisy, strict=True))


def test_noise_is_drawn_once_there_are_bits_and_in_two_of_three_steps() -> None:
    spec, rng = Hardening(base_noise=0.4, start=0.75), stream(0)
    assert spec.drawn_noise(0.74, rng) == 0 == Hardening(weight_noise=0.2).drawn_noise(1.0, rng)
    drawn = torch.tensor([spec.drawn_noise(0.75, rng) for _ in range(600)])
    assert 0.6 < float((drawn > 0).float().mean()) < 0.73
    assert 0.38 < float(drawn.max()) <= 0.4 and abs(float(drawn[drawn > 0].mean()) - 0.2) < 0.02


@pytest.mark.parametrize("norm", NORMS)
def test_what_marks_lie_on_is_made_by_a_noisy_decoder(norm: str) -> None:
    """Also under both weight-norms: as by a copy that an attacker gave this noise, which is taken back afterwards."""
    ready = setting()
    decoder, (latents, pool) = ready.generator.decoder, ready.pool
    conv = decoder.get_submodule(next(iter(weighted_layers(decoder))))
    NORMS[norm](conv)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    rows = torch.tensor([0, 1, 0, 1])
    ready.networks[1].train()
    with unmarked(ready, rows, 0.2, stream(0, "noise"), fields=False) as (z, observed, fields):
        assert not ready.networks[1].training, "the reader takes no statistics of a batch with one noise"
        again = ready.generator.decode(decoder, z)
    assert ready.networks[1].training
    rng = stream(0, "noise")
    weights = {n: noisy(effective_weight(e), 0.2, rng) for n, e in weighted_layers(decoder).items()}
    others = {n: noisy(value, 0.2, rng) for n, value in other_parameters(decoder).items()}
    copy = replaced_copy(decoder, weights, others)
    torch.testing.assert_close(ready.generator.decode(copy, z), again)
    torch.testing.assert_close(fields.float(), again[:2], rtol=0.02, atol=0.02)  # may be bfloat16
    assert torch.equal(observed, ready.modality.soft_release(fields.float()).repeat(2, 1, 1, 1))
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())
    with unmarked(ready, rows, 0.0, rng, fields=False) as (z, observed, fields):
        assert ready.networks[1].training and fields is None
        assert torch.equal(observed, pool[rows].float()) and torch.equal(z, latents[rows])


def test_hardening_waits_for_the_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Hardening] = []
    monkeypatch.setattr(training, "harden", lambda setting, spec, rng: calls.append(spec))
    for start, expected in ((0.0, 3), (1.0, 0)):
        calls.clear()
        spec = Hardening(weight_noise=0.1, start=start)
        trained(training.train, dataclasses.replace(SHORT, steps=3, enough=2.0, hardening=spec))
        assert len(calls) == expected


@pytest.mark.parametrize("norm", NORMS)
def test_swapped_parameters_are_used_and_put_back(norm: str) -> None:
    model, x = build("conv2d", norm)
    before, plain = {key: value.clone() for key, value in model.state_dict().items()}, model(x)
    state = {name: (2 * value.detach()).requires_grad_() for name, value in model.named_parameters()}
    with swapped(model, state):
        changed = model(x)
    assert not torch.allclose(changed, plain)
    grads = torch.autograd.grad(changed.sum(), [state["layer.bias"], state["last.weight"]])
    assert all(grad.abs().max() > 0 for grad in grads)
    assert torch.equal(model(x), plain) and list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_trial_is_the_decoder_that_a_user_would_get() -> None:
    for modulation in ("Amplitude", "Rotation", "SpreadSpectrum"):
        trial = one_trial(modulation)
        modulator, generator = trial.setting.networks[0], trial.setting.generator
        with modulator.applied(generator.decoder, trial.code.expand(len(trial.latents), -1)):
            expected = generator.decode(generator.decoder, trial.latents)
        assert torch.allclose(trial.field(trial.weights()).float(), expected, atol=0.02), "half precision"


def moved(spec: Hardening) -> tuple[Trial, Weights, Weights]:
    """A user's weights before and after a change, without their graphs."""
    trial = one_trial()
    weights = trial.weights()
    (change,) = changes(spec)
    after = change(trial, weights, stream(0, "change"))
    return trial, weights.mapped(Tensor.detach), after.mapped(Tensor.detach)


def test_noise_is_relative_to_each_tensor_and_on_all_of_them() -> None:
    _, before, after = moved(Hardening(weight_noise=0.4))
    shares = []
    for name, value in before.effective.items():
        shares.append(float((after.effective[name] - value).std() / value.std(correction=0)))
    assert min(shares) > 0 and max(shares) < 0.5 and max(shares) / min(shares) < 2, (
        "one relative strength for all layers"
    )
    assert all(not torch.equal(after.others[name], value) for name, value in before.others.items() if value.std() > 0)


def test_a_sharpening_step_unlearns_the_bits_and_has_its_length() -> None:
    trial, before, after = moved(Hardening(sharpness=0.05))
    with torch.no_grad():
        assert trial.bit_loss(trial.seen(after)) > trial.bit_loss(trial.seen(before))
    for name, value in before.effective.items():
        assert float((after.effective[name] - value).norm() / value.norm()) == pytest.approx(0.05, rel=1e-3)


def test_purification_moves_towards_unmarked_content() -> None:
    trial, before, after = moved(Hardening(purification=2))
    with torch.no_grad():
        assert trial.content_loss(after) < trial.content_loss(before)
    step = max(float((after.effective[name] - value).abs().max()) for name, value in before.effective.items())
    assert step <= 2 * hardening.PURIFICATION_RATE * 1.01


def test_an_unrolled_step_is_seen_by_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the loss behind the step, finite differences of a modulator's value agree with the second-order gradient."""
    monkeypatch.setattr(hardening, "mixed", lambda device: contextlib.nullcontext())
    trial, before, after = moved(Hardening(purification=2, unrolled=True))
    with torch.no_grad():
        assert trial.content_loss(after) < trial.content_loss(before)
    trial, grads = one_trial(), []
    value = trial.setting.networks[0].affine.weight
    for unrolled in (True, False):
        (change,) = changes(Hardening(purification=1, unrolled=unrolled))
        loss = trial.bit_loss(trial.seen(change(trial, trial.weights(), stream(0))))
        grads.append(torch.autograd.grad(loss, value)[0])
    assert not torch.allclose(*grads, rtol=1e-3), "first order takes the step as given"
    direction, losses = grads[0] / grads[0].norm(), []
    (change,) = changes(Hardening(purification=1, unrolled=True))
    for sign in (1, -1):
        with torch.no_grad():
            value.add_(sign * 1e-2 * direction)
        losses.append(float(trial.bit_loss(trial.seen(change(trial, trial.weights(), stream(0)))).detach()))
        with torch.no_grad():
            value.sub_(sign * 1e-2 * direction)
    assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(float(grads[0].norm()), rel=0.05)


def test_a_path_is_between_the_public_and_the_users_decoder() -> None:
    trial, before, after = moved(Hardening(path=0.2))
    public = trial.setting.generator.decoder
    name = next(iter(trial.setting.networks[0].layers))
    base = effective_weight(public.get_submodule(name))
    share = (after.effective[name] - base).norm() / (before.effective[name] - base).norm()
    assert 0.2 <= float(share) <= 1


def test_rounding_has_few_levels_and_passes_its_gradient() -> None:
    _, before, after = moved(Hardening(quantisation=4))
    counts = [value.unique().numel() for value in after.effective.values()]
    assert max(counts) <= 255 and max(counts) < max(value.numel() for value in before.effective.values())
    trial = one_trial()
    (change,) = changes(Hardening(quantisation=4))
    sum(value.sum() for value in change(trial, trial.weights(), stream(0)).effective.values()).backward()
    assert all(parameter.grad is not None for parameter in trial.setting.networks[0].parameters())


def test_pruning_zeroes_the_smallest() -> None:
    _, before, after = moved(Hardening(pruning=0.9))
    for name, value in before.effective.items():
        kept = after.effective[name] != 0
        assert torch.equal(after.effective[name][kept], value[kept]) and 0 < int((~kept).sum()) < value.numel()
        assert value[~kept].abs().max() <= value[kept].abs().min()


@pytest.mark.parametrize("asked", ["hardened", "sharpened"])
def test_a_hardened_reading_is_that_of_a_published_item(asked: str) -> None:
    """Batch statistics of items from one noisy decoder would take its noise out, which no single published item can."""
    ready = setting()
    reader, spec, seen = ready.networks[1].train(), Hardening(weight_noise=0.2), []
    hook = reader.register_forward_pre_hook(lambda module, given: seen.append(module.training))
    drawn = trials(ready, spec, stream(0))
    if asked == "hardened":
        hardened_loss(drawn, spec, stream(1))
    else:
        drawn[0].bit_loss(drawn[0].seen(drawn[0].weights()))
    hook.remove()
    assert seen == [False] and reader.training


@pytest.mark.parametrize("name", [name for name, spec in HARDENINGS.items() if name != "base-noise"])
def test_every_recipe_sends_a_gradient_to_what_it_trains(name: str) -> None:
    ready = setting()
    loss = hardened_loss(trials(ready, HARDENINGS[name], stream(0)), HARDENINGS[name], stream(0, name))
    assert bool(loss.isfinite())
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in ready.networks[1].parameters())
    if name != "attacks":
        assert all(parameter.grad.abs().max() > 0 for parameter in ready.networks[0].parameters())


def test_recipes_are_reproducible_and_leave_the_public_decoder_alone() -> None:
    results = []
    for _ in range(2):
        ready = setting()
        before = {key: value.clone() for key, value in ready.generator.decoder.state_dict().items()}
        spec = Hardening(weight_noise=0.2, sharpness=0.05, purification=1, path=0.5, quantisation=4, pruning=0.5)
        results.append(hardened_loss(trials(ready, spec, stream(0)), spec, stream(1)).item())
        after = ready.generator.decoder.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in before.items())
        assert all(parameter.grad is None for parameter in ready.generator.decoder.parameters())
    assert results[0] == results[1]


def test_adaptation_trains_the_reader_and_nothing_else() -> None:
    ready = setting()
    states = [{key: value.clone() for key, value in each.state_dict().items()} for each in ready.networks]
    adapt(ready, 2, stream(0))
    after = [each.state_dict() for each in ready.networks]
    assert all(torch.equal(value, after[0][key]) for key, value in states[0].items())
    assert any(not torch.equal(value, after[1][key]) for key, value in states[1].items())
    assert all(parameter.requires_grad for parameter in ready.networks[0].parameters())


def test_pairs_of_decoders_carry_opposite_codes() -> None:
    one, other = trials(setting(), Hardening(items=3), stream(0))
    assert torch.equal(one.code, -other.code) and torch.equal(one.latents, other.latents) and len(one.latents) == 3


# --- attacks on content


def test_the_attacks_are_those_of_the_benchmark() -> None:
    listed = straight_through.content_attacks("image")
    assert {family.name for family in listed} <= {n for n, f in families_for("image").items() if f.target == "content"}
    assert len(listed) > 5 and all(family.target == "content" for family in listed)


def test_an_attack_is_exact_forwards_and_straight_through_backwards() -> None:
    modality, grads = Painted(), 0
    x = torch.rand(2, 3, 16, 16, generator=stream(0))
    x = F.interpolate(F.avg_pool2d(x, 4), scale_factor=4.0, mode="bilinear").requires_grad_()
    for index in range(12):
        seen = straight_through.attacked(modality, x, modality.soft_release(x), stream(0, index))
        again = straight_through.attacked(modality, x, modality.soft_release(x), stream(0, index))
        assert torch.equal(seen, again) and seen.shape == x.shape
        if seen.requires_grad:
            grads += 1
            (grad,) = torch.autograd.grad(seen.sum(), x)
            assert torch.equal(grad, torch.ones_like(x)) or bool((grad.abs() <= 1).all())
    assert grads > 3


def test_a_modality_without_attacks_says_so() -> None:
    with pytest.raises(UserError, match=r"^attacks on 'toy' content: expected some to train with, found none$"):
        x = torch.rand(1, 3, 16, 16, generator=stream(0))
        straight_through.attacked(Toy(), x, x, stream(0))


# --- names


def test_every_recipe_has_a_scheme_that_differs_in_nothing_else() -> None:
    plain = SCHEMES["wouaf"]
    assert isinstance(plain, WeightModulation) and plain.modulation == Amplitude()
    for name, spec in HARDENINGS.items():
        scheme = SCHEMES[f"wouaf-{name}"]
        assert isinstance(scheme, WeightModulation) and scheme.recipe.hardening == spec
        assert dataclasses.replace(scheme, recipe=plain.recipe) == plain


def test_every_modulation_has_a_scheme() -> None:
    found = [type(each.modulation).__name__ for each in SCHEMES.values() if isinstance(each, WeightModulation)]
    assert set(found) - {"HiDDeN"} == set(MODULATIONS)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in MODULATIONS
        if name not in ("Amplitude", "Normalisation", "FunctionInvariant", "InvariantScaling")
    ],
)
def test_every_modulation_fits_saves_and_loads(name: str, tmp_path: Any) -> None:
    from schemes import load_codec

    paint = PaintGenerator()
    recipe = dataclasses.replace(SHORT, steps=2, batch=4, pool=8)
    scheme = WeightModulation(MODULATIONS[name](), BITS, recipe, StatisticsReader(width=4, hidden=8))
    codec = scheme.fit(Toy(), paint, child(stream(0), name))
    assert float(codec.about["energy_per_bit"]) >= 0
    codec.save(tmp_path / "codec.safetensors")
    again: Any = load_codec(tmp_path / "codec.safetensors", Toy(), paint)
    x, code = torch.rand(2, 3, 16, 16, generator=stream(0)), torch.tensor([1, 0, 1, 1])
    assert torch.equal(again.read(x), codec.read(x))
    states = [each.modulate(paint.decoder, code).state_dict() for each in (codec, again)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
