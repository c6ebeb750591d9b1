"""Matches, ranks, rejection and pooling against closed forms and an independent brute force."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import Tensor

from bench import calibration
from bench.metrics import attribution
from bench.metrics.attribution import best_matches, bit_accuracy, hard_matches, identify, own_matches, pool
from bench.rng import stream

NAN = float("nan")


def _codes(n: int, bits: int) -> Tensor:
    return torch.randint(0, 2, (n, bits), generator=stream(0, "codes", n, bits))


@pytest.mark.parametrize("module", (attribution, calibration), ids=lambda module: module.__name__)
def test_doctests(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0 and result.failed == 0


def test_bit_accuracy_on_the_gaussian_channel() -> None:
    """Antipodal bits at 0 dB are read correctly with probability 1 - Q(1) = 0.8413."""
    bits = torch.randint(0, 2, (64,), generator=stream(0, "bits"))
    soft = (2.0 * bits - 1) + torch.randn(4096, 64, generator=stream(0, "noise"))
    assert float(bit_accuracy(soft, bits).mean()) == pytest.approx(0.8413, abs=0.003)


@pytest.mark.parametrize("undecided", (0.0, -0.0, NAN))
@pytest.mark.parametrize("bit", (0, 1))
def test_an_undecided_bit_is_wrong_for_either_value(undecided: float, bit: int) -> None:
    soft, code = torch.tensor([[undecided, 1.0]]), torch.tensor([bit, 1])
    assert bit_accuracy(soft, code).tolist() == [0.5]
    assert hard_matches(soft, code[None]).tolist() == [[1]]


@pytest.mark.parametrize("dtype", (torch.uint8, torch.bool, torch.int64, torch.float32, torch.bfloat16))
def test_matches_agree_with_a_direct_count_for_every_code_type(dtype: torch.dtype) -> None:
    soft, codes = torch.randn(50, 37, generator=stream(0, "soft")), _codes(20, 37)
    soft[::3, 5], soft[1, 1] = 0.0, NAN
    decided = torch.where(soft > 0, 1, torch.where(soft < 0, 0, -1))
    expected = (decided[:, None] == codes).sum(2)
    assert torch.equal(hard_matches(soft, codes.to(dtype)), expected)
    assert torch.equal(own_matches(soft, codes.to(dtype)[:1].expand(50, -1)), expected[:, 0])
    assert torch.equal(best_matches(soft, codes.to(dtype)), expected.amax(1))


@pytest.mark.parametrize("function", (hard_matches, own_matches, bit_accuracy, best_matches))
def test_bit_lengths_that_differ_are_named(function: object) -> None:
    with pytest.raises(ValueError, match="read 8 bits, expected 16"):
        function(torch.zeros(2, 8), torch.zeros(2, 16))  # type: ignore[operator]


def test_batch_sizes_that_differ_are_named() -> None:
    with pytest.raises(ValueError, match="3 fingerprints, expected one for each of 2 items"):
        bit_accuracy(torch.zeros(2, 8), torch.zeros(3, 8))


@pytest.mark.parametrize("chunk", (1, 64, attribution.CHUNK))
def test_identification_agrees_with_sorting_all_users(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "CHUNK", chunk)
    codes, truth = _codes(100, 12), torch.arange(40) % 7
    soft = (2.0 * codes[truth] - 1) + 1.5 * torch.randn(40, 12, generator=stream(0, "noise"))
    found = identify(soft, truth, codes, tau=10)
    table = hard_matches(soft, codes)
    for item, row in enumerate(table.tolist()):
        user = int(truth[item])
        assert found.matches[item] == row[user]
        assert found.rank[item] == 1 + sum(m >= row[user] for u, m in enumerate(row) if u != user)
        assert found.best[item] == row.index(max(row))
        assert found.accepted[item] == (max(row) >= 10)
        assert found.correct[item] == (row[user] >= 10 and row.count(row[user]) == 1 and row[user] == max(row))
    assert 0 < found.correct.sum() < found.accepted.sum() < 40, "the case exercises all outcomes"


def test_a_tie_is_not_a_win_and_the_framed_user_is_reported() -> None:
    codes = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
    found = identify(torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1]]), torch.tensor([1, 2]), codes, tau=4)
    assert found.rank.tolist() == [2, 3]
    assert found.best.tolist() == [0, 0]
    assert found.accepted.tolist() == [True, True]
    assert found.correct.tolist() == [False, False]


def test_threshold_is_inclusive_and_none_accepts_nothing() -> None:
    codes = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])
    soft, truth = torch.tensor([[1.0, 1, 1, -1]]), torch.tensor([0])
    assert [bool(identify(soft, truth, codes, tau).correct) for tau in (2, 3, 4, None)] == [True, True, False, False]
    assert [bool(identify(soft, truth, codes, tau).accepted) for tau in (3, 4, None)] == [True, False, False]


def test_an_unregistered_user_is_named() -> None:
    with pytest.raises(ValueError, match=r"users -1\.\.2, expected 0\.\.1"):
        identify(torch.zeros(2, 4), torch.tensor([2, -1]), torch.zeros(2, 4), 4)


def test_no_items_give_no_answers() -> None:
    found = identify(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(2, 4), 4)
    assert [len(field) for field in found] == [0] * 5


def test_pooling_takes_whole_groups_of_one_user_in_item_order() -> None:
    soft = torch.tensor([[1.0], [10], [2], [20], [4], [40], [8], [100]])
    pooled, users = pool(soft, [3, 1, 3, 1, 3, 1, 3, 9], 2)
    assert pooled.flatten().tolist() == [3, 12, 30]
    assert users.tolist() == [3, 3, 1]
    assert torch.equal(pool(soft[:4], [0, 0, 1, 1], 1)[0], soft[:4])
    assert pool(soft, [0] * 8, 20)[0].shape == (0, 1)


def test_an_unreadable_item_does_not_spoil_its_group() -> None:
    pooled, _ = pool(torch.tensor([[NAN, NAN], [1.0, -2.0]]), [0, 0], 2)
    assert pooled.tolist() == [[1.0, -2.0]]


def test_pooling_independent_items_gains_as_their_number() -> None:
    """The sum of n antipodal bits in unit noise is right with probability Phi(sqrt(n)/2) at half amplitude."""
    bits = torch.randint(0, 2, (64,), generator=stream(0, "bits"))
    soft = (bits - 0.5) + torch.randn(20_000, 64, generator=stream(0, "noise"))
    for size, expected in ((1, 0.69146), (5, 0.86819), (20, 0.98733)):
        pooled, users = pool(soft, [0] * len(soft), size)
        assert len(users) == len(soft) // size
        assert float(bit_accuracy(pooled, bits).mean()) == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize(("groups", "size"), (([0], 1), ([0, 0], 0)))
def test_impossible_pools_are_refused(groups: list[int], size: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        pool(torch.zeros(2, 4), groups, size)
