"""When a match is evidence: exact p-values, integer thresholds, and a null that is checked instead of assumed.

The null hypothesis is that the bits read from content that no registered user made are independent and fair, so that
matches with one code follow Bin(bits, 1/2). Global error over N users is bounded by N times that of one (Bonferroni),
as in Fernandez et al., "Stable Signature", ICCV 2023, arXiv:2303.15435.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from bench.metrics.attribution import best_matches


@lru_cache(maxsize=64)
def _tail_counts(bits: int) -> tuple[int, ...]:
    """Number of the 2^bits words with at least k ones, for k = 0..bits."""
    if bits < 1:
        raise ValueError(f"{bits} bits, expected at least 1")
    return tuple(accumulate(math.comb(bits, ones) for ones in range(bits, -1, -1)))[::-1]


def p_value(matches: Tensor | ArrayLike, bits: int) -> NDArray[np.float64]:
    """Probability that an unrelated item matches one code in at least so many bits, P(Bin(bits, 1/2) >= matches).

    Args:
        matches: matching bits, any shape, integers in 0..bits.
        bits: fingerprint length.

    Returns:
        Exact probabilities, correctly rounded to float64, in the shape of ``matches``.

    Raises:
        ValueError: if a count lies outside 0..bits.

    Example:
        >>> p_value([0, 3, 4], 4).tolist()
        [1.0, 0.3125, 0.0625]
    """
    counts = np.asarray(matches.cpu() if isinstance(matches, Tensor) else matches).astype(np.int64)
    if counts.size and not 0 <= counts.min() <= counts.max() <= bits:
        raise ValueError(f"{counts.min()}..{counts.max()} matches, expected 0..{bits}")
    table = np.array([count / 2**bits for count in _tail_counts(bits)])  # integers divide correctly rounded
    return np.asarray(table[counts], dtype=np.float64)


def threshold(bits: int, registered: int, fpr: float) -> int | None:
    """Fewest matches at which ``registered`` users together accept an unrelated item with probability <= ``fpr``.

    Args:
        bits: fingerprint length.
        registered: number of registered users, N.
        fpr: bound on the false-positive rate over all users, in (0, 1], taken as the decimal number it prints as.

    Returns:
        The smallest integer tau with N * P(Bin(bits, 1/2) >= tau) <= fpr, in exact rational arithmetic; None when even
        a full match is not enough evidence ("unresolvable").

    Raises:
        ValueError: if ``registered`` is below 1 or ``fpr`` outside (0, 1].

    Example:
        >>> threshold(64, 1, 1e-6), threshold(64, 10**6, 1e-6), threshold(32, 4295, 1e-6)
        (51, 59, None)
    """
    if registered < 1:
        raise ValueError(f"{registered} registered users, expected at least 1")
    if not 0 < fpr <= 1:
        raise ValueError(f"false-positive rate {fpr}, expected 0 < rate <= 1")
    allowed = Fraction(repr(float(fpr))) * 2**bits / registered
    return next((tau for tau, count in enumerate(_tail_counts(bits)) if count <= allowed), None)


def false_positive_bound(events: int, trials: int, confidence: float = 0.95) -> float:
    """One-sided Clopper-Pearson upper bound of a rate; 0 events in n independent trials give about 3/n.

    Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 1934.

    Args:
        events: false positives seen.
        trials: negatives tried; without any, nothing is known and the bound is 1.
        confidence: probability that the bound holds.

    Raises:
        ValueError: if ``events`` lies outside 0..trials.
    """
    if not 0 <= events <= trials:
        raise ValueError(f"{events} events, expected 0..{trials}")
    return 1.0 if events == trials else float(stats.beta.ppf(confidence, events + 1, trials - events))


@dataclass(frozen=True)
class NullCheck:
    """What the reader says about content that carries no fingerprint.

    Items are taken as independent: several attacked copies of one item count for less than their number.

    Attributes:
        n: items read.
        bit_bias: mean of each hard bit minus 1/2; a tie counts as 1/2.
        max_abs_bias: the largest of them in absolute value.
        max_abs_bias_expected: its expectation for fair independent bits at this n.
        mean_abs_correlation: mean absolute Pearson correlation over pairs of bits; constant bits have none and are
            left out; None without any pair.
        max_abs_correlation: the largest of them.
        empirical_fpr: fraction of items accepted as some registered user; None when no threshold exists.
        fpr_upper: upper 95 % bound of that rate, never below about 3/n; None when no threshold exists.
    """

    n: int
    bit_bias: tuple[float, ...]
    max_abs_bias: float
    max_abs_bias_expected: float
    mean_abs_correlation: float | None
    max_abs_correlation: float | None
    empirical_fpr: float | None
    fpr_upper: float | None

    @property
    def mean_abs_correlation_expected(self) -> float:
        """What fair independent bits show at this n, sqrt(2 / (pi (n - 1))): the mean of a half-normal."""
        return math.sqrt(2 / (math.pi * max(1, self.n - 1)))


def check_null(soft: Tensor, codes: Tensor, fpr: float) -> NullCheck:
    """Measure bias, correlation and false positives of soft bits read from negatives.

    Args:
        soft: soft bits of unfingerprinted, real or attacked negative items, shape (n, bits).
        codes: registered codes, shape (N, bits), values in {0, 1}; accepting an item as any of them is a false
            positive.
        fpr: false-positive rate that the threshold is set for.

    Returns:
        See :class:`NullCheck`.

    Raises:
        ValueError: if there is no item, or the bit lengths differ.
    """
    n, bits = soft.shape
    if n == 0:
        raise ValueError("no negative items, expected at least 1")
    signs = ((soft > 0).double() - (soft < 0).double()).cpu()
    bias = signs.mean(0) / 2  # (bits,)
    correlations = _pair_correlations(signs)
    tau = threshold(bits, len(codes), fpr)
    accepted = None if tau is None else int((best_matches(soft, codes) >= tau).sum())
    return NullCheck(
        n=n,
        bit_bias=tuple(bias.tolist()),
        max_abs_bias=float(bias.abs().max()),
        max_abs_bias_expected=expected_max_abs_bias(n, bits),
        mean_abs_correlation=float(correlations.mean()) if len(correlations) else None,
        max_abs_correlation=float(correlations.max()) if len(correlations) else None,
        empirical_fpr=None if accepted is None else accepted / n,
        fpr_upper=None if accepted is None else false_positive_bound(accepted, n),
    )


def expected_max_abs_bias(n: int, bits: int) -> float:
    """Expectation of the largest absolute bias among ``bits`` fair independent bits, each read from ``n`` items.

    Exact: with D = |Bin(n, 1/2) - n/2| / n, P(max <= x) = P(D <= x)^bits.
    """
    below = np.arange(n // 2, -1, -1)  # D = 1/2 - below/n, rising
    within = 1 - 2 * stats.binom.cdf(below - 1, n, 0.5)  # P(D <= this value)
    mass = np.diff(within**bits, prepend=0.0)
    return float(((0.5 - below / n) * mass).sum())


def _pair_correlations(signs: Tensor) -> Tensor:
    """Absolute Pearson correlations of all pairs of bits that vary, 1-D float64."""
    centred = signs - signs.mean(0)
    norms = centred.norm(dim=0)
    unit = centred[:, norms > 1e-9] / norms[norms > 1e-9]
    matrix = (unit.T @ unit).abs()  # (varying bits, varying bits)
    rows, columns = torch.triu_indices(len(matrix), len(matrix), offset=1)
    correlations: Tensor = matrix[rows, columns].clamp_max(1.0)
    return correlations
