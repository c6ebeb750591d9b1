"""Fréchet and kernel distances against torchmetrics, the matrix square root, closed forms and the known bias."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from bench.metrics.frechet import frechet_distance, kernel_distance, paired_delta
from bench.metrics.intervals import tails
from bench.metrics.unbiased import frechet_infinity, kernel_audio_distance
from bench.rng import stream


def _features(n: int, d: int, *what: object) -> Tensor:
    """Correlated, shifted, non-negative features, as a network's last activations are."""
    mixing = torch.randn(d, d, generator=stream(0, "mixing", d)) / d**0.5
    features: Tensor = torch.randn(n, d, generator=stream(0, "features", *what)) @ mixing + 0.3
    return features.relu()


def _torchmetrics(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    return float(_compute_fid(a.mean(0), a.T.cov(), b.mean(0), b.T.cov()))


def _eigh_form(a: Tensor, b: Tensor) -> float:
    """2 tr sqrt(C_a^(1/2) C_b C_a^(1/2)) with clipped eigenvalues, covariances with ddof 1."""
    a, b = a.double(), b.double()
    values, vectors = torch.linalg.eigh(a.T.cov())
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.T.cov() @ root).clamp_min(0).sqrt().sum()
    apart = (a.mean(0) - b.mean(0)).square().sum()
    return float(apart + a.T.cov().trace() + b.T.cov().trace() - 2 * cross)


@pytest.mark.parametrize(("n", "m", "d"), ((300, 200, 32), (40, 300, 64), (300, 40, 64), (30, 50, 96), (2, 2, 8)))
def test_frechet_agrees_with_both_textbook_forms(n: int, m: int, d: int) -> None:
    a, b = _features(n, d, "a"), 1.3 * _features(m, d, "b") + 0.1
    distance = frechet_distance(a, b)
    tolerance = 1e-8 if min(n, m) > d else 1e-5  # their square roots of rank-deficient products lose half the digits
    assert distance == pytest.approx(_eigh_form(a, b), rel=tolerance)
    assert distance == pytest.approx(_torchmetrics(a, b), rel=max(tolerance, 1e-6))


@pytest.mark.parametrize(("n", "d"), ((500, 16), (20, 64)))
def test_frechet_closed_forms(n: int, d: int) -> None:
    """A shift by v costs |v|^2; scaling by s costs (s - 1)^2 (tr C + |mu|^2); a copy costs nothing."""
    a = _features(n, d, "a").double()
    shift = torch.linspace(-1, 1, d, dtype=torch.float64)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-10)
    assert frechet_distance(a + shift, a) == pytest.approx(float(shift.square().sum()), rel=1e-10)
    assert frechet_distance(1.5 * a, a) == pytest.approx(
        0.25 * float(a.var(0).sum() + a.mean(0).square().sum()), rel=1e-10
    )


def test_frechet_is_symmetric_and_blind_to_order_and_rotation() -> None:
    a, b = _features(60, 24, "a").double(), _features(90, 24, "b").double() + 0.2
    rotation = torch.linalg.qr(torch.randn(24, 24, generator=stream(0, "rotation"), dtype=torch.float64)).Q
    expected = pytest.approx(frechet_distance(a, b), rel=1e-10)
    assert frechet_distance(b, a) == expected
    assert frechet_distance(a.flip(0), b) == expected
    assert frechet_distance(a @ rotation, b @ rotation) == expected


def test_frechet_bias_of_two_samples_of_one_gaussian() -> None:
    """E[FD] = (2d + d(d+1)/2) / n = 2.156 at d = 64, n = 1024."""
    rng, n, d = stream(0, "gaussian"), 1024, 64
    found = [frechet_distance(torch.randn(n, d, generator=rng), torch.randn(n, d, generator=rng)) for _ in range(8)]
    assert sum(found) / 8 == pytest.approx((2 * d + d * (d + 1) / 2) / n, rel=0.05)


def test_kernel_agrees_with_torchmetrics_on_equal_sizes() -> None:
    a, b = _features(150, 32, "a").double(), _features(150, 32, "b").double() + 0.2
    assert kernel_distance(a, b) == pytest.approx(float(poly_mmd(a, b)), rel=1e-9)


def test_kernel_agrees_with_a_loop_over_pairs_on_unequal_sizes() -> None:
    a, b = _features(7, 5, "a").double(), _features(4, 5, "b").double()

    def mean(x: Tensor, y: Tensor, same: bool) -> float:
        pairs = [(i, j) for i in range(len(x)) for j in range(len(y)) if not (same and i == j)]
        return sum((float(x[i] @ y[j]) / 5 + 1) ** 3 for i, j in pairs) / len(pairs)

    assert kernel_distance(a, b) == pytest.approx(mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False))


def test_kernel_is_unbiased_where_frechet_is_not() -> None:
    rng = stream(0, "null")
    pairs = [(torch.randn(32, 64, generator=rng), torch.randn(48, 64, generator=rng)) for _ in range(400)]
    found = torch.tensor([kernel_distance(a, b) for a, b in pairs])
    assert abs(float(found.mean())) < 3 * float(found.std()) / 20
    assert float(found.min()) < 0 < float(found.max())
    assert all(frechet_distance(a, b) > 10 for a, b in pairs[:10])


def test_kernel_blocks_do_not_change_the_sum() -> None:
    a, b = _features(2100, 4, "a").double(), _features(50, 4, "b").double()
    assert kernel_distance(a, b) == pytest.approx(kernel_distance(a.flip(0), b), rel=1e-9)

    def k(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / 4 + 1).pow(3)

    within = (k(a, a).sum() - k(a, a).trace()) / (2100 * 2099) + (k(b, b).sum() - k(b, b).trace()) / (50 * 49)
    assert kernel_distance(a, b) == pytest.approx(float(within - 2 * k(a, b).mean()), rel=1e-9)


@pytest.mark.parametrize("distance", (frechet_distance, kernel_distance))
@pytest.mark.parametrize(
    ("a", "b", "message"),
    (
        (torch.zeros(4, 3), torch.zeros(4, 2), "expected"),
        (torch.zeros(1, 3), torch.zeros(4, 3), "1 and 4 items"),
        (torch.full((4, 3), math.nan), torch.zeros(4, 3), "finite"),
    ),
)
def test_features_that_cannot_be_compared_are_refused(distance: object, a: Tensor, b: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distance(a, b)  # type: ignore[operator]


@pytest.mark.parametrize(("n", "m", "d"), ((24, 40, 60), (90, 40, 60), (90, 70, 20), (24, 10, 60)))
def test_paired_delta_equals_the_distance_of_repeated_items(n: int, m: int, d: int) -> None:
    """Its products formed once give what resampling the features themselves gives, in every shape."""
    original, reference = _features(n, d, "o"), _features(m, d, "r") + 0.1
    marked, users = original + 0.3 * _features(n, d, "noise"), torch.arange(n) // 3
    found = paired_delta(original, marked, reference, users, resamples=30, rng=stream(0, "b"))
    drawn = torch.randint(n // 3, (30, n // 3), generator=stream(0, "b"))
    rows = (drawn[:, :, None] * 3 + torch.arange(3)).flatten(1)  # (30, n)
    slow = torch.tensor(
        [frechet_distance(marked[i], reference) - frechet_distance(original[i], reference) for i in rows],
        dtype=torch.float64,
    )
    delta = frechet_distance(marked, reference) - frechet_distance(original, reference)
    assert found.mean == pytest.approx(delta, rel=1e-12)
    shift = float(slow.mean()) - delta
    assert float(slow.min()) - shift <= found.lo <= found.mean <= found.hi <= float(slow.max()) - shift
    assert found.hi - found.lo == pytest.approx(_spread(slow, n // 3), rel=1e-5)


def _spread(deltas: Tensor, users: int) -> float:
    lo, hi = torch.quantile(deltas, torch.tensor(tails(users, 0.95), dtype=torch.float64)).tolist()
    return float(hi - lo)


def test_paired_delta_of_an_unchanged_generator_is_zero_with_no_width() -> None:
    original = _features(40, 30, "o")
    assert paired_delta(
        original, original, _features(50, 30, "r"), torch.arange(40) // 4, resamples=20, rng=stream(0)
    ) == pytest.approx((0.0, 0.0, 0.0), abs=1e-9)


def test_paired_delta_covers_what_repeated_experiments_show() -> None:
    """16 users of 4 items in 40 dimensions, far too few for the distance itself: the difference is covered."""
    reference, found = torch.randn(60, 40, generator=stream(0, "r")), []
    for round_ in range(25):
        rng = stream(round_, "round")
        original = torch.randn(64, 40, generator=rng)
        marked = 1.05 * original + 0.2 * torch.randn(16, 1, 40, generator=rng).expand(-1, 4, -1).reshape(64, 40)
        found.append(paired_delta(original, marked, reference, torch.arange(64) // 4, resamples=40, rng=rng))
    truth = sum(interval.mean for interval in found) / len(found)
    assert truth > 0.5
    assert sum(interval.lo <= truth <= interval.hi for interval in found) >= 0.85 * len(found)
    assert sum(interval.lo > 0 for interval in found) > 0.5 * len(found), "and the harm is detected"


def test_paired_delta_needs_pairs_and_users() -> None:
    a, b = _features(6, 4, "a"), _features(6, 4, "b")
    with pytest.raises(ValueError, match="expected pairs"):
        paired_delta(a, b[:5], b, [0] * 6, rng=stream(0))
    one = paired_delta(a, b, b, [3] * 6, rng=stream(0))
    assert one.mean == pytest.approx(-frechet_distance(a, b)) and math.isnan(one.lo) and math.isnan(one.hi)


def _frames(n: int, frames: int, d: int, *what: object) -> Tensor:
    """Items whose frames are alike, as neighbouring windows of one clip are."""
    rng = stream(0, "frames", *what)
    return torch.randn(n, 1, d, generator=rng) + 0.5 * torch.randn(n, frames, d, generator=rng)


def test_frechet_pools_the_frames_of_all_items() -> None:
    a, b = _frames(20, 6, 8, "a"), _frames(30, 4, 8, "b") + 0.2
    assert frechet_distance(a, b) == frechet_distance(a.flatten(0, 1), b.flatten(0, 1))
    assert frechet_distance(a, b[:, 0]) == frechet_distance(a.flatten(0, 1), b[:, 0])


@pytest.mark.parametrize("distance", (frechet_distance, kernel_distance, kernel_audio_distance))
def test_one_frame_an_item_is_no_frames(distance: Callable[[Tensor, Tensor], float]) -> None:
    a, b = _features(20, 6, "a"), _features(30, 6, "b") + 0.2
    assert distance(a[:, None], b[:, None]) == distance(a, b)


def test_paired_delta_of_one_frame_an_item_is_that_of_no_frames() -> None:
    a, b, c = _features(20, 6, "a"), _features(30, 6, "b") + 0.2, _features(20, 6, "c")
    found = [
        paired_delta(*sets, torch.arange(20) // 4, resamples=20, rng=stream(0))
        for sets in ((a, c, b), (a[:, None], c[:, None], b[:, None]))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), ((24, 40, 12), (12, 5, 60)))
def test_paired_delta_of_frames_resamples_whole_users(n: int, m: int, d: int) -> None:
    """What the users' moments give is what repeating all frames of all items of the drawn users gives."""
    original, reference = _frames(n, 5, d, "o"), _frames(m, 3, d, "r") + 0.1
    marked, users = original + 0.3 * _frames(n, 5, d, "noise"), torch.arange(n) // 3
    found = paired_delta(original, marked, reference, users, resamples=30, rng=stream(0, "b"))
    drawn = torch.randint(n // 3, (30, n // 3), generator=stream(0, "b"))
    rows = (drawn[:, :, None] * 3 + torch.arange(3)).flatten(1)  # (30, n)
    slow = torch.tensor(
        [frechet_distance(marked[i], reference) - frechet_distance(original[i], reference) for i in rows],
        dtype=torch.float64,
    )
    assert found.mean == frechet_distance(marked, reference) - frechet_distance(original, reference)
    assert found.hi - found.lo == pytest.approx(_spread(slow, n // 3), rel=1e-5)


def test_kernel_leaves_out_pairs_of_frames_of_one_item() -> None:
    a, b = _frames(5, 3, 4, "a").double(), _frames(4, 2, 4, "b").double()

    def mean(x: Tensor, y: Tensor, same: bool) -> float:
        kernels = [
            (float(x[i, f] @ y[j, g]) / 4 + 1) ** 3
            for i, j, f, g in itertools.product(*map(range, (len(x), len(y), x.shape[1], y.shape[1])))
            if not (same and i == j)
        ]
        return sum(kernels) / len(kernels)

    assert kernel_distance(a, b) == pytest.approx(mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False))


@pytest.mark.parametrize("distance", (kernel_distance, kernel_audio_distance))
def test_kernels_of_like_frames_are_unbiased_and_pooled_frames_are_not(
    distance: Callable[[Tensor, Tensor], float],
) -> None:
    pairs = [(_frames(16, 4, 8, "a", round_), _frames(20, 4, 8, "b", round_)) for round_ in range(200)]
    apart = torch.tensor([distance(a, b) for a, b in pairs])
    pooled = torch.tensor([distance(a.flatten(0, 1), b.flatten(0, 1)) for a, b in pairs])
    assert abs(float(apart.mean())) < 3 * float(apart.std()) / 200**0.5
    assert float(pooled.mean()) > 3 * float(pooled.std()) / 200**0.5


def test_kernel_audio_distance_is_a_loop_over_pairs() -> None:
    """Gaussian kernel, bandwidth the median distance within the reference, unbiased, times 100."""
    a, b = _features(7, 5, "a").double(), _features(4, 5, "b").double() + 0.5
    apart = sorted(float((b[i] - b[j]).norm()) for i, j in itertools.combinations(range(4), 2))
    bandwidth = apart[(len(apart) - 1) // 2]

    def mean(x: Tensor, y: Tensor, same: bool) -> float:
        pairs = [(i, j) for i in range(len(x)) for j in range(len(y)) if not (same and i == j)]
        squares = [float((x[i] - y[j]).square().sum()) for i, j in pairs]
        return sum(math.exp(-square / (2 * bandwidth**2)) for square in squares) / len(pairs)

    expected = 100 * (mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False))
    assert kernel_audio_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert kernel_audio_distance(3 * a, 3 * b) == pytest.approx(expected, rel=1e-6), "no unit of length"
    assert kernel_audio_distance(a, b + 1000) == pytest.approx(100 * (mean(a, a, True) + mean(b, b, True)), rel=1e-6)


def test_frechet_at_infinity_loses_the_bias_of_the_sample() -> None:
    """At d = 16 each set adds (d + d(d+1)/4) / n = 84 / n; that of the large reference stays."""
    found = []
    for round_ in range(4):
        rng = stream(round_, "infinity")
        features, reference = torch.randn(400, 16, generator=rng), torch.randn(4000, 16, generator=rng)
        assert frechet_distance(features, reference) == pytest.approx(84 * (1 / 400 + 1 / 4000), rel=0.35)
        found.append(frechet_infinity(features, reference, sizes=6, draws=4, rng=rng))
    assert sum(x.distance for x in found) / 4 == pytest.approx(84 / 4000, abs=0.03)
    assert sum(x.slope for x in found) / 4 == pytest.approx(84, rel=0.15)
    assert all(0.8 < x.r_squared <= 1 for x in found)


def test_frechet_at_infinity_keeps_what_is_no_bias() -> None:
    rng = stream(0, "shift")
    features, reference = torch.randn(300, 4, generator=rng) + 1, torch.randn(3000, 4, generator=rng)
    found = frechet_infinity(features, reference, sizes=6, draws=4, rng=rng)
    assert found.distance == pytest.approx(4.0, rel=0.15)
    pooled = frechet_infinity(features.view(60, 5, 4), reference, sizes=6, draws=4, rng=stream(0))
    assert pooled.distance == pytest.approx(found.distance, rel=0.1)
    assert pooled == frechet_infinity(features.view(60, 5, 4), reference, sizes=6, draws=4, rng=stream(0))


def test_frechet_at_infinity_needs_items() -> None:
    with pytest.raises(ValueError, match="15 items, expected at least 16"):
        frechet_infinity(torch.zeros(15, 3), torch.zeros(20, 3), rng=stream(0))
    constant = frechet_infinity(torch.zeros(16, 3), torch.zeros(20, 3), rng=stream(0))
    assert constant == pytest.approx((0.0, 0.0, 1.0), abs=1e-12)
