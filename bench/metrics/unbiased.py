"""Distances of two sets of features that do not grow when there are fewer of them: Fréchet at infinity, and KAD."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.metrics.frechet import Kernel, checked, frechet_distance, similarity, similarity_between

FEWEST_TO_EXTRAPOLATE = 16
"""Items."""
BANDWIDTH_FRAMES = 4096
"""The median distance is taken over at most this many frames of the reference, evenly spaced."""


class Extrapolation(NamedTuple):
    """A distance at infinitely many items, and the line that led there.

    Attributes:
        distance: where the line meets 1/n = 0; it can be slightly negative.
        slope: how fast the distance falls with 1/n.
        r_squared: share of the variance of the distances that the line explains.
    """

    distance: float
    slope: float
    r_squared: float


def frechet_infinity(
    features: Tensor, reference: Tensor, *, sizes: int = 12, draws: int = 8, rng: torch.Generator
) -> Extrapolation:
    """Fréchet distance extrapolated to infinitely many items, by a straight line in 1/n.

    Chong and Forsyth, "Effectively Unbiased FID and Inception Score", CVPR 2020, arXiv:1911.07023; for audio Gui et
    al., "Adapting Frechet Audio Distance for Generative Music Evaluation", ICASSP 2024, arXiv:2311.01616. Sizes run
    from a quarter of the items to all of them, evenly in 1/n. Unlike the latter's code, whole items are drawn (frames
    of one item are not independent), and without replacement: repeated ones carry the bias of the full set along.
    The bias that comes from the reference's own size stays, and is the same for every model.

    Args:
        features: of generated items, (n, d) or (n, frames, d), n >= 16; n of several d make the line straight.
        reference: of real content, (m, d) or (m, frames, d).
        sizes: how many sizes.
        draws: random subsets of each size.
        rng: CPU stream.

    Raises:
        ValueError: if there are fewer than 16 items, or the sets do not fit :func:`frechet_distance`.
    """
    n = len(features)
    if n < FEWEST_TO_EXTRAPOLATE:
        raise ValueError(f"{n} items, expected at least {FEWEST_TO_EXTRAPOLATE} to extrapolate from")
    counts = [round(1 / inverse) for inverse in np.linspace(4 / n, 1 / n, sizes) for _ in range(draws)]
    drawn = (torch.randperm(n, generator=rng)[:count].to(features.device) for count in counts)
    found = np.array([frechet_distance(features[rows], reference) for rows in drawn])
    inverse = 1 / np.array(counts)
    slope, distance = np.polyfit(inverse, found, 1)
    left = np.square(found - (slope * inverse + distance)).sum()
    spread = np.square(found - found.mean()).sum()
    return Extrapolation(float(distance), float(slope), float(1 - left / spread) if spread > 0 else 1.0)


def kernel_audio_distance(features: Tensor, reference: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel, times 100 (KAD).

    Chung et al., "KAD: No More FAD! An Effective and Efficient Evaluation Metric for Audio Generation", 2025,
    arXiv:2502.15602. The bandwidth is the median distance between frames of the reference. The paper's code takes in
    pairs of frames of one item; here, see :func:`bench.metrics.frechet.unbiased_discrepancy`, they are left out.

    Args:
        features: of generated items, (n, d) or (n, frames, d), n >= 2.
        reference: of real content, (m, d) or (m, frames, d), m >= 2.

    Returns:
        The distance; 0 in expectation for two sets of one distribution, so it may be negative; at most 200.

    Raises:
        ValueError: if widths differ, a set has fewer than two items, or a feature is not finite.
    """
    a, b = checked(features, reference)
    kernel, within = _of_reference(reference)
    return 100 * float(similarity(a, kernel) + within - 2 * similarity_between(a, b, kernel))


@lru_cache(maxsize=2)
def _of_reference(reference: Tensor) -> tuple[Kernel, Tensor]:
    """Kernel and inner similarity of a reference: most of the work, and the same in every cell of a run."""
    _, exact = checked(reference, reference)
    frames = exact.flatten(0, -2)
    kept = frames[:: -(-len(frames) // BANDWIDTH_FRAMES)]
    gamma = 1 / (2 * torch.pdist(kept).median().square() + 1e-8)

    def gaussian(products: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return (-gamma * (a + b - 2 * products).clamp_min(0)).exp()

    return gaussian, similarity(exact, gaussian)
