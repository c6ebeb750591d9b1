"""Coverage by simulation: intervals clustered by user hold, the item-level ones do not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from bench.metrics import intervals
from bench.metrics.intervals import clustered, clustered_rate, wilson
from bench.rng import stream

USERS, ITEMS, ROUNDS = 24, 6, 400


def _coverage(values: Tensor, users: Tensor, truth: float) -> float:
    rng = stream(0, "bootstrap")
    found = [clustered(row, users, resamples=400, rng=rng) for row in values]
    return sum(interval.lo <= truth <= interval.hi for interval in found) / len(found)


def test_clustered_covers_95_percent_and_item_level_does_not() -> None:
    """Users differ as much as items do: independent items would make the interval half as wide as it must be."""
    rng = stream(0, "users")
    values = torch.randn(ROUNDS, USERS, 1, generator=rng) + torch.randn(ROUNDS, USERS, ITEMS, generator=rng)
    rows = values.reshape(ROUNDS, -1)
    by_user, by_item = torch.arange(USERS).repeat_interleave(ITEMS), torch.arange(USERS * ITEMS)
    assert _coverage(rows, by_user, 0.0) == pytest.approx(0.95, abs=0.025)
    assert _coverage(rows, by_item, 0.0) < 0.75


def test_few_users_are_covered_better_than_by_plain_percentiles(monkeypatch: pytest.MonkeyPatch) -> None:
    values, users = torch.randn(ROUNDS, 8, generator=stream(0, "few")), torch.arange(8)
    assert _coverage(values, users, 0.0) == pytest.approx(0.95, abs=0.03)
    monkeypatch.setattr(intervals, "tails", lambda users, confidence: (0.025, 0.975))
    assert _coverage(values, users, 0.0) < 0.91


def test_width_agrees_with_student_t_on_one_item_per_user() -> None:
    values = torch.randn(200, generator=stream(0, "wide"), dtype=torch.float64)
    mean, lo, hi = clustered(values, torch.arange(200), resamples=20_000, rng=stream(0, "b"))
    expected = stats.t.interval(0.95, 199, float(values.mean()), float(values.std()) / math.sqrt(200))
    assert mean == pytest.approx(float(values.mean()), rel=1e-12)
    assert (lo, hi) == pytest.approx(expected, abs=0.01)


def test_mean_is_over_items_and_a_user_brings_all_of_its_own() -> None:
    """Two users with 1 and 3 items: every resample has mean 0, 3/4 or 1."""
    mean, lo, hi = clustered([0.0, 1.0, 1.0, 1.0], ["a", "b", "b", "b"], rng=stream(0))
    assert (mean, lo, hi) == (0.75, 0.0, 1.0)


def test_order_of_items_and_names_of_users_do_not_matter() -> None:
    values, users = torch.randn(60, generator=stream(0, "v")).double(), torch.arange(60) % 10
    order = torch.randperm(60, generator=stream(0, "order"))
    first = clustered(values, users, rng=stream(0, "b"))
    assert clustered(values[order], users[order] * 7 + 100, rng=stream(0, "b")) == pytest.approx(first, rel=1e-12)
    assert clustered(values.numpy(), users.tolist(), rng=stream(0, "b")) == first
    assert clustered(values, users, rng=stream(1, "b")) != first


@pytest.mark.parametrize("values", ([0.5, 0.7], [0.5, math.inf], [0.5, math.nan]))
def test_what_cannot_be_resampled_has_no_interval(values: list[float]) -> None:
    users = [4, 4] if math.isfinite(sum(values)) else [4, 5]
    mean, lo, hi = clustered(values, users, rng=stream(0))
    assert mean == pytest.approx(sum(values) / 2, nan_ok=True)
    assert math.isnan(lo) and math.isnan(hi)


def test_no_items_and_no_pairing() -> None:
    assert all(map(math.isnan, clustered([], [], rng=stream(0))))
    with pytest.raises(ValueError, match="expected one for each value"):
        clustered([1.0, 2.0], [1], rng=stream(0))


def test_wilson_golden_and_edges() -> None:
    """8 of 10 in Agresti and Coull 1998 form; with no success the upper end is z^2 / (n + z^2)."""
    assert wilson(8, 10) == pytest.approx((0.8, 0.4901625, 0.9433178), abs=1e-6)
    z2 = stats.norm.isf(0.025) ** 2
    assert wilson(0, 50) == pytest.approx((0.0, 0.0, z2 / (50 + z2)))
    assert wilson(50, 50) == pytest.approx((1.0, 50 / (50 + z2), 1.0))
    assert wilson(0, 0)[1:] == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 successes, expected"):
        wilson(3, 2)


def test_wilson_covers() -> None:
    for rate in (0.05, 0.5, 0.97):
        found = [wilson(hits, 60) for hits in range(61)]
        held = np.array([lo <= rate <= hi for _, lo, hi in found])
        assert float(stats.binom.pmf(np.arange(61), 60, rate) @ held) == pytest.approx(0.95, abs=0.035)


def test_a_clustered_rate_stays_open_when_everyone_is_identified() -> None:
    """32 users of 4 items, no miss: the bootstrap has no width; 32 trials with Student's t still show a doubt."""
    users, t2 = np.repeat(np.arange(32), 4), stats.t.isf(0.025, 31) ** 2
    assert clustered(np.ones(128), users, rng=stream(0)) == (1.0, 1.0, 1.0)
    assert clustered_rate(np.ones(128), users) == pytest.approx((1.0, 32 / (32 + t2), 1.0))
    assert clustered_rate(np.zeros(128), users) == pytest.approx((0.0, 0.0, t2 / (32 + t2)))


def test_a_clustered_rate_knows_how_alike_the_items_of_a_user_are() -> None:
    """Items that copy their user count once: the interval is that of the users alone."""
    hits = np.arange(40) % 4 == 0
    alone = clustered_rate(hits, np.arange(40))
    copied = clustered_rate(np.repeat(hits, 10), np.repeat(np.arange(40), 10))
    assert copied == pytest.approx(alone, rel=1e-9)


@pytest.mark.parametrize("centre", (0.5, 0.9, 0.98))
def test_a_clustered_rate_covers(centre: float) -> None:
    """Each user has its own rate, drawn from a beta distribution; 30 users of 4 items."""
    rng = np.random.default_rng(1)
    rates = rng.beta(4 * centre, 4 * (1 - centre), (1000, 30, 1))
    outcomes = (rng.random((1000, 30, 4)) < rates).reshape(1000, -1)
    users = np.repeat(np.arange(30), 4)
    held = [lo <= centre <= hi for _, lo, hi in (clustered_rate(row, users) for row in outcomes)]
    assert 0.925 < np.mean(held) < 0.995


def test_a_clustered_rate_refuses_other_means() -> None:
    with pytest.raises(ValueError, match="expected a rate"):
        clustered_rate([0.5, 1.0], [0, 1])
    assert clustered_rate([1.0, 0.0], [0, 0]).mean == 0.5
    assert math.isnan(clustered_rate([1.0, 0.0], [0, 0]).lo)
