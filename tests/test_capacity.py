"""The capacity curve against published values, sampled registries, and a bisection that must be the largest."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from bench.calibration import threshold
from bench.metrics.attribution import identify
from bench.metrics.capacity import SIZES, capacity_users, identification_curve, identification_probability
from bench.rng import stream


def _items(bits: int, matches: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """One item per user with exactly the given matches."""
    codes = torch.randint(0, 2, (len(matches), bits), generator=stream(0, "codes", bits))
    soft = 2.0 * codes - 1
    for row, right in zip(soft, matches, strict=True):
        row[right:] *= -1
    return soft, codes, torch.arange(len(matches))


@pytest.mark.parametrize(
    ("bits", "registered", "accuracy", "expected"),
    (
        (48, 10**5, 0.99, 0.988),
        (48, 10**5, 0.95, 0.567),
        (48, 10**5, 0.90, 0.129),
        (64, 10**6, 0.95, 0.900),
        (64, 10**6, 0.90, 0.373),
        (128, 10**6, 0.90, 0.9996),
        (128, 10**6, 0.85, 0.936),
        (128, 10**6, 0.80, 0.500),
        (32, 10**3, 0.99, 0.725),
    ),
)
def test_identification_of_independent_bits(bits: int, registered: int, accuracy: float, expected: float) -> None:
    """At FPR 1e-6 a threshold almost never lets a competitor in, so the binomial tail at tau is the answer."""
    probability = identification_probability(bits, registered, 1e-6)
    assert probability is not None
    weights = stats.binom.pmf(range(bits + 1), bits, accuracy)
    assert float(weights @ probability) == pytest.approx(expected, abs=6e-4)


def test_the_curve_is_what_random_registries_show_on_average() -> None:
    """With a loose threshold competitors decide: 1,000 sampled registries of 50 users agree with the closed form."""
    bits, registered, rounds = 16, 50, 1000
    matches = torch.arange(11, 17)
    expected, tau = identification_probability(bits, registered, 1.0), threshold(bits, registered, 1.0)
    assert expected is not None and tau == 13
    code = torch.randint(0, 2, (1, bits), generator=stream(0, "code"))
    right = torch.arange(bits) < matches[:, None]  # (6, bits)
    soft, truth = torch.where(right, 2.0 * code - 1, 1 - 2.0 * code), torch.zeros(6, dtype=torch.int64)
    rng, hits = stream(0, "registries"), torch.zeros(6)
    for _ in range(rounds):
        others = torch.randint(0, 2, (registered - 1, bits), generator=rng)
        hits += identify(soft, truth, torch.cat([code, others]), tau).correct
    probabilities = torch.from_numpy(expected)[matches]
    spread = (probabilities * (1 - probabilities) / rounds).sqrt()
    assert bool(((hits / rounds - probabilities).abs() <= 4 * spread).all())
    assert 0.4 < float(probabilities[2]) < 0.7, "three misses are still a gamble"
    assert hits.tolist()[:2] == [0, 0]


def test_two_users_of_four_bits_by_hand() -> None:
    """tau = 3, since 2 * 5/16 <= 1 < 2 * 11/16; the one other user matches 3 or more in 5, 4 in 1 of 16 codes."""
    probability = identification_probability(4, 2, 1.0)
    assert probability is not None
    assert probability.tolist() == pytest.approx([0, 0, 0, 11 / 16, 15 / 16])


def test_perfect_bits_are_identified_until_no_threshold_exists() -> None:
    soft, codes, users = _items(32, [32] * 4)
    curve = identification_curve(soft, codes, users, SIZES, 1e-6, stream(0, "bootstrap"))
    assert [point.registered for point in curve] == list(SIZES)
    for point in curve[:4]:
        assert point.identification == pytest.approx(1.0, abs=1e-6) and point.tau is not None
    assert all(point[1:] == (None, None, None, None) for point in curve[4:])


def test_curve_falls_stays_inside_its_band_and_repeats() -> None:
    soft, codes, users = _items(64, [50 + item % 15 for item in range(60)])
    curve, again = (identification_curve(soft, codes, users, SIZES, 1e-6, stream(0, "b")) for _ in range(2))
    assert curve == again
    for point in curve:
        assert None not in point
        assert 0 <= point.lo <= point.identification <= point.hi <= 1  # type: ignore[operator]
    for field in (2, 3, 4):
        column = [point[field] for point in curve]
        assert column == sorted(column, reverse=True)  # type: ignore[type-var]
    assert identification_curve(soft, codes, users, (10**6,), 1e-6, stream(0, "b"))[0] == curve[6], "sizes are apart"


@pytest.mark.parametrize("bits", (32, 48, 64))
def test_capacity_is_the_largest_number_that_reaches_the_target(bits: int) -> None:
    """19 of 20 perfect items reach 95 % exactly; one more miss does not."""
    soft, codes, users = _items(bits, [bits] * 19 + [bits // 2])
    capacity = capacity_users(soft, codes, users, target=0.95 - 1e-6)
    if bits == 32:
        assert capacity == 4294
    if bits == 64:
        assert capacity == 10**9
    assert threshold(bits, capacity, 1e-6) is not None
    assert capacity_users(soft, codes, users, target=0.96) == 0


def test_capacity_ends_where_the_threshold_passes_the_matches() -> None:
    """59 of 64 bits: the largest N with tau(N) <= 59 and no likely competitor."""
    soft, codes, users = _items(64, [59] * 3)
    capacity = capacity_users(soft, codes, users)
    assert threshold(64, capacity, 1e-6) == 59
    assert threshold(64, capacity + 1, 1e-6) == 60


def test_chance_bits_have_no_capacity() -> None:
    soft = torch.randn(200, 64, generator=stream(0, "chance"))
    codes = torch.randint(0, 2, (200, 64), generator=stream(0, "codes"))
    assert capacity_users(soft, codes, torch.arange(200)) == 0


def test_a_user_id_is_needed_for_each_item() -> None:
    soft, codes, users = _items(16, [16, 16])
    with pytest.raises(ValueError, match="1 user ids, expected one for each of 2 items"):
        capacity_users(soft, codes, users[:1])
    with pytest.raises(ValueError, match="expected one for each value"):
        identification_curve(soft, codes, users[:1], (1,), 1e-3, stream(0))
