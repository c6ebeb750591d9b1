"""Confidence intervals whose replication unit is the user, not the item."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

Values = Sequence[Any] | NDArray[Any] | Tensor


class Interval(NamedTuple):
    """A mean and its confidence interval; ``lo`` and ``hi`` are NaN where the data cannot give one."""

    mean: float
    lo: float
    hi: float


def clustered(
    values: Values, users: Values, *, confidence: float = 0.95, resamples: int = 1000, rng: torch.Generator
) -> Interval:
    """Mean over items, with a bootstrap over users: a drawn user brings all of its items.

    The percentiles are widened for few users by the Student-t correction of Hesterberg, "What Teachers Should Know
    About the Bootstrap", The American Statistician 2015, arXiv:1411.5279 (expanded percentile interval);
    the plain ones cover too little below some fifty users. When all users agree the interval has no width; for a rate
    (identified or not), :func:`clustered_rate` does not collapse.

    Args:
        values: one number per item, shape (n,).
        users: user id of each item, shape (n,).
        confidence: coverage aimed at.
        resamples: bootstrap draws.
        rng: CPU stream; equal streams give equal intervals.

    Returns:
        Item mean and interval. ``lo`` and ``hi`` are NaN with a single user or non-finite values; all three are NaN
        without items.

    Raises:
        ValueError: if ``values`` and ``users`` differ in length.
    """
    sums, counts = _per_user(values, users)
    if not len(sums):
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(sums.sum() / counts.sum())
    if len(sums) < 2 or not np.isfinite(sums).all():
        return Interval(mean, float("nan"), float("nan"))
    drawn = draw_users(len(sums), resamples, rng)  # (resamples, users)
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    lo, hi = np.quantile(means, tails(len(sums), confidence))
    return Interval(mean, float(lo), float(hi))


def draw_users(users: int, resamples: int, rng: torch.Generator) -> NDArray[np.int64]:
    """Bootstrap draws of user indices with replacement, shape (resamples, users)."""
    return np.asarray(torch.randint(users, (resamples, users), generator=rng).numpy(), dtype=np.int64)


@lru_cache(maxsize=256)
def tails(users: int, confidence: float) -> tuple[float, float]:
    """Lower and upper quantile of the bootstrap distribution for an interval from ``users`` independent units."""
    t = stats.t.ppf((1 - confidence) / 2, users - 1)
    low = float(stats.norm.cdf(t * np.sqrt(users / (users - 1))))
    return low, 1 - low


def wilson(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion of independent trials.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    Args:
        successes: number of successes; may be fractional for an effective sample size.
        trials: number of trials; 0 gives NaN and the whole unit interval.
        confidence: coverage aimed at.

    Raises:
        ValueError: if ``successes`` lies outside 0..trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes, expected 0..{trials}")
    if trials == 0:
        return Interval(float("nan"), 0.0, 1.0)
    return _score(successes / trials, trials, float(stats.norm.isf((1 - confidence) / 2)))


def clustered_rate(values: Values, users: Values, *, confidence: float = 0.95) -> Interval:
    """Mean of 0/1 outcomes with a score interval at the effective sample size, which stays open at 0 and 1.

    The effective size is p(1-p) over the between-user variance of the mean, with Student's t for the normal quantile,
    after Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data", Survey Methodology 1998. When all outcomes are equal they cannot show how alike one
    user's items are; then each user counts as a single trial.

    Args:
        values: outcomes in {0, 1}, shape (n,).
        users: user id of each item, shape (n,).
        confidence: coverage aimed at.

    Returns:
        Item mean and interval; ``lo`` and ``hi`` are NaN with a single user.

    Raises:
        ValueError: if lengths differ or a value is neither 0 nor 1.
    """
    sums, counts = _per_user(values, users)
    if not np.isin(np.asarray(_array(values)), (0, 1)).all():
        raise ValueError("outcomes other than 0 and 1, expected a rate; use clustered for other means")
    n, size = counts.sum(), len(sums)
    if size < 2:
        return Interval(float(sums.sum() / n) if n else float("nan"), float("nan"), float("nan"))
    rate = float(sums.sum() / n)
    spread = size / (size - 1) * float(((sums - rate * counts) ** 2).sum()) / n**2
    effective = min(float(n), rate * (1 - rate) / spread) if spread > 0 else float(size)
    return _score(rate, effective, float(stats.t.isf((1 - confidence) / 2, size - 1)))


def _score(rate: float, trials: float, z: float) -> Interval:
    shrink = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / shrink
    half = z / shrink * np.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials**2))
    # At 0 and 1 the bound equals the rate; rounding must not put it beside.
    return Interval(rate, float(min(rate, max(0.0, centre - half))), float(max(rate, min(1.0, centre + half))))


def _per_user(values: Values, users: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of values and number of items of each user, users in sorted order."""
    numbers, ids = _array(values).astype(np.float64), _array(users)
    if numbers.ndim != 1 or ids.shape != numbers.shape:
        raise ValueError(f"users of shape {ids.shape}, expected one for each value of shape {numbers.shape}")
    unique, index = np.unique(ids, return_inverse=True)
    sums, counts = np.bincount(index, numbers, len(unique)), np.bincount(index, minlength=len(unique))
    return sums.astype(np.float64), counts.astype(np.float64)


def _array(values: Values) -> NDArray[Any]:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
