"""Attacks that train: what they train towards, from where, and what they leave alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.framing import Imitation
from attacks.model import (
    BlindPurification,
    Distillation,
    FineTune,
    LoRAFineTune,
    NoisePurification,
    Purification,
    WeightNoise,
)
from bench.rng import child, stream
from bench.weights import input_axis, mapped_copy, other_parameters, weighted_layers
from tests.decoders import LATENTS, PUBLIC, attacker, contract, decoder, weights

USER = decoder("user")
CLEAN = PUBLIC(LATENTS)
FAST = 1e-2

QUICK = [
    Purification(3, rate=FAST),
    NoisePurification(0.1, steps=3, rate=FAST),
    BlindPurification(3, rate=FAST, items=5, inversion_steps=3),
    LoRAFineTune(3, rate=FAST),
    Distillation(3, rate=FAST),
    Imitation(5, steps=3, rate=FAST),
]


@pytest.mark.parametrize("attack", QUICK, ids=repr)
def test_training_attack_contract(attack: Any) -> None:
    contract(USER, lambda: attack(USER, attacker(), stream(0)))
    with torch.no_grad():
        attack(USER, attacker(), stream(0))
    assert all(p.grad is None for p in (*USER.parameters(), *PUBLIC.parameters()))


ZEROES = [Purification(0), NoisePurification(0.0, steps=0), BlindPurification(0), LoRAFineTune(0)]


@pytest.mark.parametrize("attack", ZEROES, ids=repr)
def test_no_step_is_no_change(attack: Any) -> None:
    same = attack(USER, attacker(), stream(0)).state_dict()
    assert all(torch.allclose(value, same[name], rtol=1e-5, atol=1e-6) for name, value in USER.state_dict().items())


def error(model: nn.Module, to: Tensor = CLEAN) -> float:
    return float(F.l1_loss(model(LATENTS), to))


def test_purification_goes_to_the_public_decoder_whatever_the_content_is() -> None:
    holder = attacker(fields=torch.full_like(CLEAN, torch.nan))
    errors = [error(Purification(steps, rate=FAST)(USER, holder, stream(0))) for steps in (0, 10, 80)]
    assert errors[0] > 1.2 * errors[1] and errors[1] > 1.2 * errors[2], errors


def test_fine_tuning_goes_to_the_content_whatever_the_public_decoder_is() -> None:
    odd = replace(attacker(), public_decoder=nn.Linear(2, 2))
    assert error(FineTune(60, rate=FAST)(USER, odd, stream(0))) < 0.75 * error(USER)


def test_noise_purification_is_noise_and_then_purification() -> None:
    rng = stream(0)
    noisy = WeightNoise(0.2)(USER, attacker(), child(rng, "noise"))
    only = NoisePurification(0.2, steps=0)(USER, attacker(), stream(0))
    assert all(torch.equal(value, noisy.state_dict()[name]) for name, value in only.state_dict().items())
    assert error(NoisePurification(0.2, steps=60, rate=FAST)(USER, attacker(), stream(0))) < 0.75 * error(noisy)


def test_blind_purification_knows_no_latent_and_finds_pairs_that_teach_it() -> None:
    holder = replace(attacker(), latents=torch.full_like(LATENTS[:1], torch.nan))
    blind = BlindPurification(40, rate=3e-3, inversion_steps=40, inversion_rate=0.1)
    found = blind._inverted(USER, holder, torch.randn(LATENTS.shape, generator=stream(1)), CLEAN)
    start = F.l1_loss(USER(torch.randn(LATENTS.shape, generator=stream(1))), CLEAN)
    assert F.l1_loss(USER(found), CLEAN) < 0.9 * start
    tuned = blind(USER, holder, stream(0))
    assert all(torch.isfinite(p).all() for p in tuned.parameters())
    with torch.no_grad():
        before, after = (F.l1_loss(model(found), CLEAN) for model in (USER, tuned))
    assert after < before, "the user's decoder fits other latents of the same content, too"


@pytest.mark.parametrize("rank", [1, 3])
def test_lora_changes_every_weight_by_its_rank_and_nothing_else(rank: int) -> None:
    tuned = LoRAFineTune(20, rate=FAST, rank=rank)(USER, attacker(), stream(0))
    axes = {name: 1 - input_axis(layer) for name, layer in weighted_layers(USER).items()}
    for name, weight in weights(tuned).items():
        change = (weight - weights(USER)[name]).movedim(axes[name], 0).flatten(1).double()
        assert int(torch.linalg.matrix_rank(change, rtol=3e-6)) == rank, f"{name}: float32 rounds at 1e-7"
    assert all(torch.equal(p, other_parameters(USER)[name]) for name, p in other_parameters(tuned).items())
    assert list(tuned.state_dict()) == list(USER.state_dict())


def test_lora_descends_along_the_gradient_of_the_effective_weights() -> None:
    errors = [error(LoRAFineTune(steps, rate=FAST)(USER, attacker(), stream(0))) for steps in (0, 20, 100)]
    assert errors[0] > 1.05 * errors[1] and errors[1] > 1.05 * errors[2], errors


def test_distillation_inherits_no_weight_and_learns_the_output() -> None:
    start = Distillation(0)(USER, attacker(), stream(0))
    for name, weight in weights(start).items():
        together = torch.stack([weight.flatten(), weights(USER)[name].flatten()])
        assert abs(float(torch.corrcoef(together)[0, 1])) < 0.2, name
    assert start.get_parameter("1.weight").unique().tolist() == [1] and start.get_parameter("1.bias").unique() == 0
    scaled = mapped_copy(USER, lambda name, layer, weight: 1.5 * weight)
    again = Distillation(0)(scaled, attacker(), stream(0))
    assert all(torch.allclose(w, weights(start)[name], rtol=1e-5) for name, w in weights(again).items())
    learned = Distillation(150, rate=FAST)(USER, attacker(), stream(0))
    assert error(learned, USER(LATENTS)) < 0.5 * error(start, USER(LATENTS))


def test_an_imitation_starts_at_the_public_decoder_and_goes_to_the_victims_output() -> None:
    victim = USER(LATENTS)
    assert torch.equal(Imitation(5, steps=0)(USER, attacker(), stream(0))(LATENTS), CLEAN)
    errors = [error(Imitation(12, steps=steps, rate=FAST)(USER, attacker(), stream(0)), victim) for steps in (0, 80)]
    assert errors[0] > 1.3 * errors[1], errors


def test_an_imitation_sees_only_its_items() -> None:
    holder = replace(attacker(), latents=torch.cat([LATENTS[:4], torch.full_like(LATENTS[4:], torch.nan)]))
    assert torch.isfinite(Imitation(4, steps=5)(USER, holder, stream(0))(LATENTS)).all()
    assert not torch.isfinite(Imitation(12, steps=5)(USER, holder, stream(0))(LATENTS)).all()


@pytest.mark.parametrize("attack", [LoRAFineTune(1), BlindPurification(1, inversion_steps=1)], ids=repr)
def test_pairs_that_do_not_pair_are_refused_where_they_are_used(attack: Any) -> None:
    holder = attacker(fields=CLEAN[:5])
    if isinstance(attack, BlindPurification):
        assert attack(USER, holder, stream(0)) is not USER, "it makes its own latents"
        return
    with pytest.raises(ValueError, match="12 latents for 5 fields"):
        attack(USER, holder, stream(0))
