"""Exact thresholds and p-values against published tables, and the null check against nulls that are known."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.calibration import check_null, expected_max_abs_bias, false_positive_bound, p_value, threshold
from bench.rng import stream

SIZES = (1, 10**3, 10**4, 10**5, 10**6, 10**9)
TABLE_1E6 = {
    32: (30, 32, None, None, None, None),
    48: (41, 44, 45, 46, 47, None),
    64: (51, 56, 57, 58, 59, 62),
    100: (74, 80, 82, 83, 85, 88),
    128: (92, 98, 100, 102, 103, 108),
    256: (167, 176, 179, 182, 184, 191),
}


@pytest.mark.parametrize("bits", TABLE_1E6)
def test_thresholds_at_one_in_a_million(bits: int) -> None:
    assert tuple(threshold(bits, registered, 1e-6) for registered in SIZES) == TABLE_1E6[bits]


def test_thresholds_at_one_in_a_thousand() -> None:
    assert tuple(threshold(32, registered, 1e-3) for registered in SIZES) == (26, 30, 31, 31, 32, None)


def test_32_bits_resolve_4294_users_and_no_more() -> None:
    assert threshold(32, 4294, 1e-6) == 32
    assert threshold(32, 4295, 1e-6) is None


def test_a_rate_means_its_decimal_and_equality_is_enough() -> None:
    """2 users at P(X >= 3 of 3) = 1/8 need 1/4 exactly; float 1e-6 lies below a millionth, which 80 bits show."""
    assert threshold(3, 2, 0.25) == 3
    assert threshold(3, 2, math.nextafter(0.25, 0)) is None
    assert threshold(80, 2**80 // 10**6, 1e-6) == 80
    assert threshold(80, 2**80 // 10**6 + 1, 1e-6) is None


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 96), st.integers(1, 10**9), st.sampled_from((1e-9, 1e-6, 1e-3, 0.05, 1.0)))
def test_threshold_is_the_smallest_that_suffices(bits: int, registered: int, fpr: float) -> None:
    def error(tau: int) -> Fraction:
        words = sum(math.comb(bits, ones) for ones in range(tau, bits + 1))
        return registered * Fraction(words, 2**bits)

    tau, allowed = threshold(bits, registered, fpr), Fraction(str(fpr))
    if tau is None:
        assert error(bits) > allowed
    else:
        assert error(tau) <= allowed
        assert tau == 0 or error(tau - 1) > allowed


@pytest.mark.parametrize("bits", (1, 16, 64, 256, 1000))
def test_p_values_agree_with_scipy_and_keep_the_shape(bits: int) -> None:
    matches = np.arange(bits + 1)
    np.testing.assert_allclose(p_value(matches, bits), stats.binom.sf(matches - 1, bits, 0.5), rtol=1e-9)
    assert p_value(torch.zeros(2, 3, dtype=torch.int64), bits).tolist() == [[1.0] * 3] * 2
    assert p_value(bits, bits) == 2.0**-bits


@pytest.mark.parametrize("call", (lambda: p_value([-1], 8), lambda: p_value([9], 8), lambda: p_value([0], 0)))
def test_impossible_match_counts_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        call()  # type: ignore[operator]


@pytest.mark.parametrize(("registered", "fpr"), ((0, 1e-6), (1, 0.0), (1, 1.5), (1, float("nan"))))
def test_impossible_thresholds_are_refused(registered: int, fpr: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        threshold(64, registered, fpr)


def test_false_positive_bound_follows_the_rule_of_three() -> None:
    """0 of n: the bound solves (1 - p)^n = 0.05, which is 2.9957/n for large n."""
    for n in (10, 1000, 10**6):
        assert false_positive_bound(0, n) == pytest.approx(1 - 0.05 ** (1 / n), rel=1e-9)
    assert false_positive_bound(0, 10**6) == pytest.approx(3e-6, rel=2e-3)


def test_false_positive_bound_is_where_the_binomial_tail_is_five_percent() -> None:
    bound = false_positive_bound(7, 300)
    assert stats.binom.cdf(7, 300, bound) == pytest.approx(0.05, rel=1e-9)
    assert false_positive_bound(0, 0) == false_positive_bound(5, 5) == 1.0
    with pytest.raises(ValueError, match="expected"):
        false_positive_bound(6, 5)


def test_expected_bias_in_closed_form_and_by_simulation() -> None:
    """One item is always off by 1/2; of two items, one bit is off by 1/2 half of the time."""
    assert expected_max_abs_bias(1, 9) == pytest.approx(0.5)
    assert expected_max_abs_bias(2, 1) == pytest.approx(0.25)
    assert expected_max_abs_bias(3, 1) == pytest.approx(0.25 * 0.5 + 0.75 * 1 / 6)
    draws = torch.randint(0, 2, (4000, 50, 32), generator=stream(0, "bias"), dtype=torch.int8)
    simulated = (draws.float().mean(1) - 0.5).abs().amax(1).mean()
    assert expected_max_abs_bias(50, 32) == pytest.approx(float(simulated), rel=0.01)


def test_null_of_fair_bits_passes_and_the_false_positive_rate_is_calibrated() -> None:
    """8 users at 16 bits: the best match reaches tau with the probability that the binomial gives."""
    soft = torch.randn(20_000, 16, generator=stream(0, "null"))
    codes = torch.randint(0, 2, (8, 16), generator=stream(0, "codes"))
    check = check_null(soft, codes, fpr=0.05)
    tau = threshold(16, 8, 0.05)
    assert tau is not None and check.empirical_fpr is not None and check.fpr_upper is not None
    single = float(p_value([tau], 16)[0])
    assert check.empirical_fpr == pytest.approx(8 * single, rel=0.2)
    assert check.empirical_fpr < check.fpr_upper < 0.05
    assert check.max_abs_bias == pytest.approx(check.max_abs_bias_expected, rel=0.5)
    assert check.mean_abs_correlation == pytest.approx(check.mean_abs_correlation_expected, rel=0.2)
    assert check.n == 20_000 and len(check.bit_bias) == 16


def test_null_shows_a_stuck_bit_a_copied_bit_and_a_tie() -> None:
    soft = torch.randn(400, 4, generator=stream(0, "stuck"))
    soft[:, 0], soft[:, 2], soft[:200, 3], soft[200:, 3] = 1.0, -soft[:, 1], 0.0, 1.0
    check = check_null(soft, torch.zeros(1, 4), fpr=0.5)
    assert check.bit_bias[0] == check.max_abs_bias == 0.5
    assert check.bit_bias[3] == 0.25
    assert check.max_abs_correlation == pytest.approx(1.0)


def test_null_never_claims_less_than_the_items_can_show() -> None:
    soft = torch.randn(100, 64, generator=stream(0, "few"))
    check = check_null(soft, torch.randint(0, 2, (10, 64), generator=stream(0, "codes")), fpr=1e-6)
    assert check.empirical_fpr == 0.0
    assert check.fpr_upper == pytest.approx(3 / 100, rel=0.03)


def test_null_without_a_threshold_or_a_pair_of_bits_is_empty_not_zero() -> None:
    check = check_null(torch.ones(3, 8), torch.ones(2, 8), fpr=1e-6)
    assert (check.empirical_fpr, check.fpr_upper) == (None, None)
    assert (check.mean_abs_correlation, check.max_abs_correlation) == (None, None)
    with pytest.raises(ValueError, match="no negative items"):
        check_null(torch.ones(0, 8), torch.ones(2, 8), fpr=1e-6)
