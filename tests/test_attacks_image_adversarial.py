"""Attacks that aim: they stay within epsilon exactly, and reach what they aim at better than chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.image_adversarial import PGDAutoencoder, PGDEmbedding, PGDSurrogate, trained_surrogate
from attacks.image_forgery import CopyForgery, ResidualRemoval, residual_of
from attacks.image_pixels import to_unit
from attacks.image_square import Square
from bench.protocol import UserError
from bench.rng import stream
from tests.pictures import PICTURES, ToyAccess, embedded

ACCESS: Any = ToyAccess()
MILD = (PICTURES.float() * 0.8 + 20).to(torch.uint8)


class Textured(ToyAccess):
    """Its pattern is a chequerboard, which a small network learns soon."""

    def pattern(self, size: tuple[int, ...] = (64, 64)) -> Tensor:
        board = (torch.arange(size[0])[:, None] + torch.arange(size[1])) % 2
        return (2.0 * board - 1).expand(3, *size)


def moved(attacked: Tensor, content: Tensor) -> Tensor:
    return attacked.int() - content.int()


@pytest.mark.parametrize("make", [PGDEmbedding, PGDAutoencoder])
@pytest.mark.parametrize("epsilon", [0, 2, 8])
def test_pgd_stays_within_epsilon_and_beats_noise(make: Callable[..., Any], epsilon: int) -> None:
    attacked = make(epsilon, embedded, steps=10)(PICTURES, stream(0))
    change = moved(attacked, PICTURES)
    assert change.abs().max() == epsilon
    if epsilon:
        signs = torch.randint(2, change.shape, generator=stream(1)) * 2 - 1
        noisy = (PICTURES.int() + epsilon * signs).clamp(0, 255)
        before = embedded(to_unit(PICTURES))
        far, near = ((embedded(x.float() / 255) - before).square().mean() for x in (attacked, noisy))
        assert far > 3 * near


def test_a_surrogate_learns_the_fingerprint_and_is_fooled() -> None:
    access: Any = Textured()
    network = trained_surrogate(to_unit(access.owned(32)), to_unit(access.clean(32)), 40, stream(0))
    marked, clean = to_unit(access.published(16)), to_unit(MILD)
    assert (network(marked) > 0).float().mean() > 0.9 and (network(clean) < 0).float().mean() > 0.9
    attack = PGDSurrogate(4, items=32, training=40, steps=10).armed(access, stream(0))
    content = access.published(8)
    attacked = attack(content, stream(0))
    assert moved(attacked, content).abs().max() == 4 and attack.surrogate is not None
    assert (attack.surrogate(to_unit(attacked)) < attack.surrogate(to_unit(content)) - 1).all()
    again = PGDSurrogate(4, items=32, training=40, steps=10).armed(access, stream(0))
    assert torch.equal(again(content, stream(0)), attacked), "the training is seeded"


def test_square_asks_as_often_as_it_says_and_is_answered_less_surely() -> None:
    access: Any = ToyAccess()
    attack = replace(Square(8, queries=250).armed(access, stream(0)))
    content = access.published(3)
    sure = access.query(content)
    access.queries = 0
    attacked = attack(content, stream(0))
    assert access.queries == 250
    change = moved(attacked, content)
    assert set(change.abs().unique().tolist()) <= {*range(9)} and (change.abs() == 8).float().mean() > 0.9
    first = replace(attack, queries=1)(content, stream(0))
    assert (access.query(attacked) < access.query(first) - 0.1).all()
    assert (access.query(attacked) < sure - 0.1).all()
    assert torch.equal(Square(0, query=access.query)(content, stream(0)), content)


def test_a_squares_area_shrinks_as_published() -> None:
    """Andriushchenko et al., section 4: 0.3 of the picture at first, halved at 10, 50, 200, ... of 10,000."""
    from attacks.image_square import _share

    assert [_share(i, 10_000) for i in (1, 11, 51, 201, 8001)] == [0.3, 0.15, 0.075, 0.0375, 0.3 / 2**9]


def test_the_residual_of_the_attackers_own_copy_removes_the_fingerprint() -> None:
    residual = residual_of(ACCESS.owned(32), ACCESS.clean(32))
    assert (255 * residual - 6 * ACCESS.pattern()).abs().max() < 0.6
    marked = (MILD.float() + 6 * ACCESS.pattern()).to(torch.uint8)
    cleaned = ResidualRemoval(1).armed(ACCESS, stream(0))(marked, stream(0))
    assert moved(cleaned, MILD).abs().max() <= 1
    assert torch.equal(ResidualRemoval(0).armed(ACCESS, stream(0))(marked, stream(0)), marked)


def test_a_copied_residual_frames_its_user() -> None:
    attack = CopyForgery(1, items=256).armed(ACCESS, stream(0))
    assert (ACCESS.query(attack(MILD, stream(0))) > ACCESS.query(MILD) + 0.7).all()
    wide = attack(torch.full((1, 3, 40, 80), 128, dtype=torch.uint8), stream(0))
    assert wide.shape == (1, 3, 40, 80) and wide.float().std() > 1, "fitted to pictures of another size"


@pytest.mark.parametrize(
    "attack", [PGDSurrogate(4, training=2), Square(4), CopyForgery(1.0), ResidualRemoval(1.0)], ids=repr
)
def test_without_a_scheme_it_says_what_it_lacks(attack: Any) -> None:
    with pytest.raises(UserError, match=r"^\w+\(.*\): expected .*, found none; see `armed`$"):
        attack(PICTURES, stream(0))
    armed = attack.armed(ACCESS, stream(0))
    assert armed == attack and repr(armed) == repr(attack), "its name in tables stays"


BAD: list[Callable[[], object]] = [
    *(lambda: PGDEmbedding(-1, embedded), lambda: PGDAutoencoder(256, embedded), lambda: PGDSurrogate(-1)),
    *(lambda: Square(300), lambda: CopyForgery(-1), lambda: ResidualRemoval(-0.1)),
]


@pytest.mark.parametrize("make", BAD)
def test_an_absurd_strength_is_refused_in_one_line(make: Callable[[], object]) -> None:
    with pytest.raises(UserError, match=r"^\w+\(.*\): the strength must .*, found .*$"):
        make()
