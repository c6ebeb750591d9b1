"""Distances between two sets of features: Fréchet (FID, FAD, FPD are this with their own features) and kernel (KID).

Everything in float64: at a few hundred items in a thousand dimensions, float32 loses the difference between two models.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.metrics.intervals import Interval, Values, draw_users, tails


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features.

    |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), Heusel et al., "GANs Trained by a Two Time-Scale Update Rule",
    NeurIPS 2017, arXiv:1706.08500, eq. 6; covariances with n - 1. With centred features A and B the last trace is
    |A B^T|_* / sqrt((n-1)(m-1)): the non-zero eigenvalues of A^T A B^T B are those of (A B^T)(A B^T)^T, the squared
    singular values of A B^T. No square root of a near-singular matrix is taken, so n < d is as exact as n > d.

    The estimate is biased upwards: by (2d + d(d+1)/2)/n for two n-samples of one Gaussian, n much larger than d.
    Compare values at equal n only.

    Args:
        a: features, shape (n, d), n >= 2.
        b: features, shape (m, d), m >= 2.

    Returns:
        The distance, >= 0 up to rounding.

    Raises:
        ValueError: if widths differ, a set has fewer than two items, or a feature is not finite.
    """
    a, b = _checked(a, b)
    mean_a, mean_b = a.mean(0), b.mean(0)
    a, b = (a - mean_a) / (len(a) - 1) ** 0.5, (b - mean_b) / (len(b) - 1) ** 0.5
    cross = torch.linalg.svdvals(_compact(a) @ _compact(b).T).sum()
    return float((mean_a - mean_b).square().sum() + a.square().sum() + b.square().sum() - 2 * cross)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y/d + 1)^3, on the full sets (KID).

    Binkowski et al., "Demystifying MMD GANs", ICLR 2018, arXiv:1801.01401; estimator of Gretton et al., JMLR 2012,
    eq. 3.

    Args:
        a: features, shape (n, d), n >= 2.
        b: features, shape (m, d), m >= 2.

    Returns:
        The distance; 0 in expectation for two sets of one distribution, so it may be negative.

    Raises:
        ValueError: if widths differ, a set has fewer than two items, or a feature is not finite.
    """
    a, b = _checked(a, b)
    n, m = len(a), len(b)
    within = _kernel_sum_apart(a) / (n * (n - 1)) + _kernel_sum_apart(b) / (m * (m - 1))
    return float(within - 2 * _kernel_sum(a, b) / (n * m))


def paired_delta(
    original: Tensor,
    marked: Tensor,
    reference: Tensor,
    users: Values,
    *,
    resamples: int = 200,
    rng: torch.Generator,
) -> Interval:
    """Change of the Fréchet distance to real content that a fingerprint causes, with an interval clustered by user.

    Both generators are resampled with the same users, so what they share (the latents, and the bias of the distance
    that repeated items inflate in both) cancels in the difference. What is left of that inflation scales the
    difference itself, so the percentiles are shifted to have their mean at the measured difference; unshifted, they
    can miss it altogether where n < d.

    Args:
        original: features of the original generator's items, shape (n, d).
        marked: features of the fingerprinted generators' items, same latents in the same order, shape (n, d).
        reference: features of real content, shape (m, d); not resampled.
        users: user id of each pair, shape (n,).
        resamples: bootstrap draws.
        rng: CPU stream.

    Returns:
        FD(marked, reference) - FD(original, reference) and its 95 % interval; ``lo`` and ``hi`` are NaN with a single
        user.

    Raises:
        ValueError: if the sets do not pair or do not fit :func:`frechet_distance`.
    """
    if original.shape != marked.shape or len(users) != len(original):
        raise ValueError(
            f"original {tuple(original.shape)}, marked {tuple(marked.shape)}, {len(users)} users: expected pairs"
        )
    delta = frechet_distance(marked, reference) - frechet_distance(original, reference)
    ids = users.cpu().numpy() if isinstance(users, Tensor) else np.asarray(users)
    unique, owner = np.unique(ids, return_inverse=True)
    if len(unique) < 2:
        return Interval(delta, float("nan"), float("nan"))
    before, after = _Resampler(original, reference), _Resampler(marked, reference)
    deltas = np.empty(resamples)
    for index, drawn in enumerate(draw_users(len(unique), resamples, rng)):
        weights = torch.from_numpy(np.bincount(drawn, minlength=len(unique))[owner]).double()  # (n,)
        deltas[index] = after.distance(weights) - before.distance(weights)
    lo, hi = np.quantile(deltas, tails(len(unique), 0.95)) - deltas.mean() + delta
    return Interval(delta, float(lo), float(hi))


class _Resampler:
    """Fréchet distance of re-weighted items to a fixed reference, up to a constant, from products formed once.

    Only the nuclear norm of the weighted, centred (n, min(n, m, d)) cross product is new in each resample.
    """

    def __init__(self, items: Tensor, reference: Tensor) -> None:
        items, reference = _checked(items.cpu(), reference.cpu())
        centre = reference.mean(0)
        items = items - centre  # no distance changes
        spread = _compact((reference - centre) / (len(reference) - 1) ** 0.5)
        self.cross = _compact((items @ spread.T).T).T.contiguous()  # (n, min(n, m, d))
        self.gram = items @ items.T  # (n, n)

    def distance(self, weights: Tensor) -> float:
        """Distance without the trace of the reference's covariance, which every difference drops."""
        total = weights.sum()
        mean_square = weights @ self.gram @ weights / total**2
        trace = (weights @ self.gram.diagonal() - total * mean_square) / (total - 1)
        kept = weights > 0
        rows = self.cross[kept] - (weights @ self.cross) / total
        rows = rows * (weights[kept, None] / (total - 1)).sqrt()
        return float(mean_square + trace - 2 * _nuclear_norm(rows))


def _nuclear_norm(x: Tensor) -> Tensor:
    """Sum of singular values through the smaller Gram matrix: several times faster than an SVD."""
    gram = x @ x.T if x.shape[0] < x.shape[1] else x.T @ x
    values: Tensor = torch.linalg.eigvalsh(gram)
    return values.clamp_min(0).sqrt().sum()


def _compact(x: Tensor) -> Tensor:
    """A matrix with the same x^T x and no more rows than columns."""
    return torch.linalg.qr(x, mode="r").R if x.shape[0] > x.shape[1] else x


def _kernel_sum(a: Tensor, b: Tensor) -> Tensor:
    blocks = torch.split(a, 1024)
    return torch.stack([(block @ b.T / a.shape[1] + 1).pow(3).sum() for block in blocks]).sum()


def _kernel_sum_apart(a: Tensor) -> Tensor:
    """Sum of the kernel over all ordered pairs of different items."""
    return _kernel_sum(a, a) - (a.square().sum(1) / a.shape[1] + 1).pow(3).sum()


def _checked(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features of shape {tuple(a.shape)} and {tuple(b.shape)}, expected (n, d) and (m, d)")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"{len(a)} and {len(b)} items, expected at least 2 in each set")
    if not (bool(a.isfinite().all()) and bool(b.isfinite().all())):
        raise ValueError("features hold NaN or infinity, expected finite numbers")
    return a.detach().double(), b.detach().double()
