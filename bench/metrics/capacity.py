"""How many users can be told apart: identification as a function of the number registered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.calibration import p_value, threshold
from bench.metrics.attribution import own_matches
from bench.metrics.intervals import clustered
from bench.rng import stream

SIZES = tuple(10**exponent for exponent in range(10))
"""Numbers of registered users at which the curve is drawn."""


class CapacityPoint(NamedTuple):
    """Identification among ``registered`` users; everything but the number is None where no threshold exists.

    Attributes:
        registered: number of registered users, N.
        tau: fewest matches that are accepted.
        identification: expected fraction of items attributed to their user, over random codes of the others.
        lo: lower end of the 95 % interval, clustered by user; NaN with a single user.
        hi: upper end.
    """

    registered: int
    tau: int | None
    identification: float | None
    lo: float | None
    hi: float | None


def identification_probability(bits: int, registered: int, fpr: float) -> NDArray[np.float64] | None:
    """Probability that an item with m matches is identified among N users, for m = 0..bits.

    An item is identified when it reaches the threshold and none of the other N - 1 users matches as well or better.
    Their codes are independent and uniform, so each of them matches in Bin(bits, 1/2) bits whatever was read:
    [m >= tau(N)] (1 - P(Bin(bits, 1/2) >= m))^(N - 1). This is the expectation over random codes of what
    ``bench.metrics.attribution.identify`` measures, without sampling any.

    Args:
        bits: fingerprint length.
        registered: number of registered users, N.
        fpr: bound on the false-positive rate over all of them.

    Returns:
        Shape (bits + 1,), or None when no threshold exists. Bits that were read as ties agree with no code, so for
        such items the value is a lower bound.
    """
    tau = threshold(bits, registered, fpr)
    if tau is None:
        return None
    matches = np.arange(bits + 1)
    with np.errstate(divide="ignore"):  # log1p(-1) at m = 0: someone else always does as well
        alone = np.log1p(-p_value(matches, bits))
    others = np.exp((registered - 1) * alone) if registered > 1 else np.ones(bits + 1)
    return np.where(matches >= tau, others, 0.0)


def identification_curve(
    soft: Tensor, truth_codes: Tensor, users: Tensor, sizes: Sequence[int], fpr: float, rng: torch.Generator
) -> list[CapacityPoint]:
    """Identification of the measured items among growing numbers of registered users.

    Args:
        soft: soft bits, shape (B, bits).
        truth_codes: true code of each item, shape (B, bits), values in {0, 1}.
        users: user id of each item, shape (B,).
        sizes: numbers of registered users, such as :data:`SIZES`.
        fpr: bound on the false-positive rate over all registered users.
        rng: stream of the bootstrap; all points share its draws, so the band is as monotone as the curve.

    Returns:
        One point per size. Expectation over random codes: see :func:`identification_probability`.

    Raises:
        ValueError: if shapes do not agree.
    """
    matches, bits = own_matches(soft, truth_codes).cpu().numpy(), soft.shape[1]
    seed = int(torch.randint(2**62, (1,), generator=rng))
    points = []
    for registered in sizes:
        probability = identification_probability(bits, registered, fpr)
        if probability is None:
            points.append(CapacityPoint(registered, None, None, None, None))
            continue
        tau = threshold(bits, registered, fpr)
        interval = clustered(probability[matches], users, rng=stream(seed, "capacity"))
        points.append(CapacityPoint(registered, tau, *interval))
    return points


def capacity_users(soft: Tensor, truth_codes: Tensor, users: Tensor, fpr: float = 1e-6, target: float = 0.95) -> int:
    """User capacity: the largest N at which mean identification reaches ``target``.

    Args:
        soft: soft bits, shape (B, bits).
        truth_codes: true code of each item, shape (B, bits), values in {0, 1}.
        users: user id of each item, shape (B,).
        fpr: bound on the false-positive rate over all registered users.
        target: fraction of items that must be identified.

    Returns:
        N in 0..10^9, found by bisection (identification never rises with N); 0 when even one registered user fails,
        10^9 means "at least".

    Raises:
        ValueError: if shapes do not agree.
    """
    if len(users) != len(soft):
        raise ValueError(f"{len(users)} user ids, expected one for each of {len(soft)} items")
    bits = soft.shape[1]
    items = np.bincount(own_matches(soft, truth_codes).cpu().numpy(), minlength=bits + 1)  # items with m matches

    def reaches(registered: int) -> bool:
        probability = identification_probability(bits, registered, fpr)
        return probability is not None and bool(items @ probability >= target * items.sum())

    low, high = 0, SIZES[-1] + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reaches(middle) else (low, middle)
    return low
