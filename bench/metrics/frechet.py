"""Distances between two sets of features: Fréchet (FID, FAD, FPD are this with their own features) and kernel (KID).

Features are one row per item, (n, d), or, where a network gives one row for each window of an item, (n, frames, d). The
frames of all items are then pooled, as Fréchet audio distances do (Kilgour et al., Interspeech 2019, arXiv:1812.08466);
what is resampled, and counted as independent, stays the item and its user.

Everything in float64: at a few hundred items in a thousand dimensions, float32 loses the difference between two models.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.metrics.intervals import Interval, Values, draw_users, tails

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Kernel of pairs from their inner products and the squared lengths of both sides, which broadcast to them."""


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features.

    |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), Heusel et al., "GANs Trained by a Two Time-Scale Update Rule",
    NeurIPS 2017, arXiv:1706.08500, eq. 6; covariances with n - 1. With centred features A and B the last trace is
    |A B^T|_* / sqrt((n-1)(m-1)): the non-zero eigenvalues of A^T A B^T B are those of (A B^T)(A B^T)^T, the squared
    singular values of A B^T. No square root of a near-singular matrix is taken, so n < d is as exact as n > d.

    The estimate is biased upwards: by (2d + d(d+1)/2)/n for two n-samples of one Gaussian, n much larger than d.
    Compare values at equal n only.

    Args:
        a: features, shape (n, d) or (n, frames, d), n >= 2.
        b: features, shape (m, d) or (m, frames, d), m >= 2; the numbers of frames may differ.

    Returns:
        The distance, >= 0 up to rounding.

    Raises:
        ValueError: if widths differ, a set has fewer than two items, or a feature is not finite.
    """
    a, b = (x.flatten(0, -2) for x in checked(a, b))
    mean_a, mean_b = a.mean(0), b.mean(0)
    a, b = (a - mean_a) / (len(a) - 1) ** 0.5, (b - mean_b) / (len(b) - 1) ** 0.5
    cross = torch.linalg.svdvals(_compact(a) @ _compact(b).T).sum()
    return float((mean_a - mean_b).square().sum() + a.square().sum() + b.square().sum() - 2 * cross)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y/d + 1)^3, on the full sets (KID).

    Binkowski et al., "Demystifying MMD GANs", ICLR 2018, arXiv:1801.01401; estimator of Gretton et al., JMLR 2012,
    eq. 3.

    Args:
        a: features, shape (n, d) or (n, frames, d), n >= 2.
        b: features, shape (m, d) or (m, frames, d), m >= 2.

    Returns:
        The distance; 0 in expectation for two sets of one distribution, so it may be negative.

    Raises:
        ValueError: if widths differ, a set has fewer than two items, or a feature is not finite.
    """
    a, b = checked(a, b)
    width = a.shape[-1]
    return unbiased_discrepancy(a, b, lambda products, *_: (products / width + 1).pow(3))


def unbiased_discrepancy(a: Tensor, b: Tensor, kernel: Kernel) -> float:
    """Squared maximum mean discrepancy, estimated from pairs of different items only.

    Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, eq. 3. Frames of one item are alike, so pairs of them are
    left out as an item's pair with itself is; taken in, they would bias the estimate upwards.

    Args:
        a: features as :func:`checked` returns them.
        b: likewise.
        kernel: the kernel.
    """
    return float(similarity(a, kernel) + similarity(b, kernel) - 2 * similarity_between(a, b, kernel))


def similarity(a: Tensor, kernel: Kernel) -> Tensor:
    """Mean of the kernel over pairs of frames of different items; features as :func:`checked` returns them."""
    a = a[:, None] if a.ndim == 2 else a
    n, frames = a.shape[:2]
    return _kernel_sum_apart(a, kernel) / (n * (n - 1) * frames**2)


def similarity_between(a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
    """Mean of the kernel over pairs of a frame of ``a`` and one of ``b``."""
    a, b = a.flatten(0, -2), b.flatten(0, -2)
    return _kernel_sum(a, b, kernel) / (len(a) * len(b))


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
        original: features of the original generator's items, shape (n, d) or (n, frames, d).
        marked: features of the fingerprinted generators' items, same latents in the same order, of the same shape.
        reference: features of real content, shape (m, d) or (m, frames, d); not resampled.
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
    resampler = _Resampler if original.ndim == 2 else _FrameResampler
    before, after = resampler(original, reference, owner), resampler(marked, reference, owner)
    deltas = np.empty(resamples)
    for index, drawn in enumerate(draw_users(len(unique), resamples, rng)):
        counts = torch.from_numpy(np.bincount(drawn, minlength=len(unique))).double()  # (users,)
        deltas[index] = after.distance(counts) - before.distance(counts)
    lo, hi = np.quantile(deltas, tails(len(unique), 0.95)) - deltas.mean() + delta
    return Interval(delta, float(lo), float(hi))


class _Resampler:
    """Fréchet distance of re-weighted items to a fixed reference, up to a constant, from products formed once.

    Only the nuclear norm of the weighted, centred (n, min(n, m, d)) cross product is new in each resample.

    Args:
        items: features (n, d).
        reference: features (m, d) or (m, frames, d).
        owner: position of each item's user, (n,).
    """

    def __init__(self, items: Tensor, reference: Tensor, owner: NDArray[np.int64]) -> None:
        items, spread = _centred(items, reference)
        self.owner = torch.from_numpy(owner)
        self.cross = _compact((items @ spread.T).T).T.contiguous()  # (n, min(n, m, d))
        self.gram = items @ items.T  # (n, n)

    def distance(self, counts: Tensor) -> Tensor:
        """Distance without the trace of the reference's covariance, which every difference drops.

        Args:
            counts: how often each user was drawn, (users,).
        """
        weights = counts[self.owner]  # (n,)
        total = weights.sum()
        mean_square = weights @ self.gram @ weights / total**2
        trace = (weights @ self.gram.diagonal() - total * mean_square) / (total - 1)
        kept = weights > 0
        rows = self.cross[kept] - (weights @ self.cross) / total
        rows = rows * (weights[kept, None] / (total - 1)).sqrt()
        return mean_square + trace - 2 * _nuclear_norm(rows)


class _FrameResampler:
    """The same for (n, frames, d), from each user's moments: frames are many, d is a hundred or so.

    The nuclear norm needs no rows, only the second moments of the cross product, (min(m, d), min(m, d)) per user.
    """

    def __init__(self, items: Tensor, reference: Tensor, owner: NDArray[np.int64]) -> None:
        items, spread = _centred(items, reference)
        rows = [items[torch.from_numpy(owner == user)].flatten(0, 1) for user in range(owner.max() + 1)]
        self.frames = torch.tensor([float(len(x)) for x in rows], dtype=torch.float64)
        self.sums = torch.stack([x.sum(0) for x in rows])  # (users, d)
        self.squares = torch.stack([x.square().sum() for x in rows])
        cross = [x @ spread.T for x in rows]  # each (frames, min(m, d))
        self.cross_sums = torch.stack([x.sum(0) for x in cross])
        self.cross_moments = torch.stack([x.T @ x for x in cross])

    def distance(self, counts: Tensor) -> Tensor:
        """See :meth:`_Resampler.distance`."""
        total = counts @ self.frames
        mean, cross_mean = counts @ self.sums / total, counts @ self.cross_sums / total
        trace = (counts @ self.squares - total * mean.square().sum()) / (total - 1)
        moments = torch.einsum("u,uij->ij", counts, self.cross_moments) - total * torch.outer(cross_mean, cross_mean)
        return mean.square().sum() + trace - 2 * _root_trace(moments / (total - 1))


def _centred(items: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Items around the reference's mean, and a root of its covariance with few rows."""
    items, reference = checked(items.cpu(), reference.cpu())
    reference = reference.flatten(0, -2)
    centre = reference.mean(0)
    return items - centre, _compact((reference - centre) / (len(reference) - 1) ** 0.5)


def _nuclear_norm(x: Tensor) -> Tensor:
    """Sum of singular values through the smaller Gram matrix: several times faster than an SVD."""
    return _root_trace(x @ x.T if x.shape[0] < x.shape[1] else x.T @ x)


def _root_trace(gram: Tensor) -> Tensor:
    """Trace of the square root of a positive semi-definite matrix."""
    values: Tensor = torch.linalg.eigvalsh(gram)
    return values.clamp_min(0).sqrt().sum()


def _compact(x: Tensor) -> Tensor:
    """A matrix with the same x^T x and no more rows than columns."""
    return torch.linalg.qr(x, mode="r").R if x.shape[0] > x.shape[1] else x


def _kernel_sum(a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
    squares = b.square().sum(1)
    blocks = torch.split(a, 1024)
    return torch.stack([kernel(x @ b.T, x.square().sum(1, keepdim=True), squares).sum() for x in blocks]).sum()


def _kernel_sum_apart(a: Tensor, kernel: Kernel) -> Tensor:
    """Sum of the kernel over all ordered pairs of frames of different items; ``a`` is (n, frames, d)."""
    own = []
    for x in torch.split(a, 256):
        squares = x.square().sum(2)  # (256, frames)
        products = x @ x.mT if a.shape[1] > 1 else squares[..., None]
        own.append(kernel(products, squares[:, :, None], squares[:, None]).sum((1, 2)))
    frames = a.flatten(0, 1)
    return _kernel_sum(frames, frames, kernel) - torch.cat(own).sum()


def checked(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets in float64, without gradients.

    Raises:
        ValueError: if widths differ, a set has fewer than two items, or a feature is not finite.
    """
    if not {a.ndim, b.ndim} <= {2, 3} or a.shape[-1] != b.shape[-1]:
        raise ValueError(
            f"features of shape {tuple(a.shape)} and {tuple(b.shape)}, expected (n, d) or (n, frames, d), one d"
        )
    if min(len(a), len(b)) < 2:
        raise ValueError(f"{len(a)} and {len(b)} items, expected at least 2 in each set")
    if not (bool(a.isfinite().all()) and bool(b.isfinite().all())):
        raise ValueError("features hold NaN or infinity, expected finite numbers")
    return a.detach().double(), b.detach().double()
