"""Who made this: from soft bits to matches, ranks and accepted identifications."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 2**22
"""Largest number of match counts held at once."""


class Identification(NamedTuple):
    """Outcome of looking up each item among N registered users.

    Attributes:
        matches: bits that agree with the true user's code, (B,) int64.
        rank: 1 + the number of other users that match at least as well, (B,) int64; a tie is not a win.
        accepted: whether the best user reaches the threshold, (B,) bool.
        correct: whether the true user has rank 1 and reaches the threshold, (B,) bool.
        best: index of the best user, the lowest among equals, (B,) int64.
    """

    matches: Tensor
    rank: Tensor
    accepted: Tensor
    correct: Tensor
    best: Tensor


def hard_matches(soft: Tensor, codes: Tensor) -> Tensor:
    """Number of bits in which each item agrees with each code.

    Args:
        soft: soft bits, shape (B, bits); positive means 1. A tie (0) or NaN agrees with neither bit value.
        codes: shape (N, bits), values in {0, 1}.

    Returns:
        Matches, shape (B, N), int64.

    Raises:
        ValueError: if the two bit lengths differ.

    Example:
        >>> hard_matches(torch.tensor([[2.0, -1.0, 0.0]]), torch.tensor([[1, 0, 0], [0, 0, 1]]))
        tensor([[2, 1]])
    """
    _check_bits(soft, codes)
    return _matches(_signs(soft), codes).long()


def own_matches(soft: Tensor, fingerprint: Tensor) -> Tensor:
    """Number of bits in which each item agrees with its own code.

    Args:
        soft: soft bits, shape (B, bits); positive means 1. A tie (0) or NaN is wrong.
        fingerprint: true bits, shape (bits,) or (B, bits), values in {0, 1}.

    Returns:
        Matches, shape (B,), int64.

    Raises:
        ValueError: if the two bit lengths or batch sizes differ.
    """
    _check_bits(soft, fingerprint)
    if fingerprint.ndim == 2 and len(fingerprint) != len(soft):
        raise ValueError(f"{len(fingerprint)} fingerprints, expected one for each of {len(soft)} items")
    return torch.where(fingerprint.to(soft.device) > 0, soft > 0, soft < 0).sum(1)


def bit_accuracy(soft: Tensor, fingerprint: Tensor) -> Tensor:
    """Fraction of fingerprint bits read correctly from each sample.

    Args:
        soft: soft bits, shape (B, bits), any real unit; positive means 1. Ties (0) and NaN count as wrong.
        fingerprint: true bits, shape (bits,) or (B, bits), values in {0, 1}.

    Returns:
        Accuracy in [0, 1], shape (B,), float32. Chance level is 0.5.

    Raises:
        ValueError: if the two bit lengths or batch sizes differ.

    Source:
        Definition as in Kim et al., "WOUAF", CVPR 2024, arXiv:2306.04744.

    Example:
        >>> bit_accuracy(torch.tensor([[2.0, -1.0, 0.5, 3.0]]), torch.tensor([1, 0, 0, 1]))
        tensor([0.7500])
    """
    return own_matches(soft, fingerprint).float() / soft.shape[1]


def identify(soft: Tensor, truth: Tensor, codes: Tensor, tau: int | None) -> Identification:
    """Look up each item among the registered codes, with rejection.

    Memory stays bounded for any number of codes: they are compared in chunks.

    Args:
        soft: soft bits, shape (B, bits).
        truth: index of each item's true user in ``codes``, shape (B,), int64.
        codes: registered codes, shape (N, bits), values in {0, 1}.
        tau: fewest matches that are accepted (``bench.calibration.threshold``); None accepts nothing.

    Returns:
        See :class:`Identification`.

    Raises:
        ValueError: if bit lengths or batch sizes differ, or ``truth`` names a user that is not registered.

    Source:
        Identification by binomial threshold as in Fernandez et al., "Stable Signature", ICCV 2023, arXiv:2303.15435.
    """
    if len(truth) and not 0 <= int(truth.min()) <= int(truth.max()) < len(codes):
        raise ValueError(f"users {int(truth.min())}..{int(truth.max())}, expected 0..{len(codes) - 1}")
    own = own_matches(soft, codes[truth.to(codes.device)])
    most = torch.full_like(own, -1)
    best, reached = torch.zeros_like(own), torch.zeros_like(own)
    for start, matches in _chunks(soft, codes):  # (B, chunk)
        top = matches.argmax(1)  # the first of equals
        value = matches.gather(1, top[:, None])[:, 0].long()
        best = torch.where(value > most, top + start, best)
        most = torch.maximum(most, value)
        reached += (matches >= own[:, None]).sum(1)  # counts the true user too, so it is the rank
    enough = soft.shape[1] + 1 if tau is None else tau
    return Identification(own, reached, most >= enough, (reached == 1) & (own >= enough), best)


def best_matches(soft: Tensor, codes: Tensor) -> Tensor:
    """Matches of each item with the registered code that fits it best, shape (B,), int64.

    Args:
        soft: soft bits, shape (B, bits).
        codes: registered codes, shape (N, bits), values in {0, 1}.

    Raises:
        ValueError: if the two bit lengths differ.
    """
    _check_bits(soft, codes)
    most = torch.zeros(len(soft), dtype=torch.int64, device=soft.device)
    for _, matches in _chunks(soft, codes):
        most = torch.maximum(most, matches.amax(1).long())
    return most


def pool(soft: Tensor, groups: Sequence[int], size: int) -> tuple[Tensor, Tensor]:
    """Sum the soft bits of ``size`` items of one user, in item order; items that fill no whole group are left out.

    Args:
        soft: soft bits, shape (B, bits); NaN adds nothing.
        groups: user id of each item.
        size: items per group.

    Returns:
        Summed soft bits, shape (G, bits), and the user id of each group, shape (G,), int64; users in order of
        first appearance.

    Raises:
        ValueError: if ``size`` is below 1 or ``groups`` is not one id per item.

    Example:
        >>> pool(torch.tensor([[1.0], [2.0], [4.0], [8.0]]), [7, 5, 7, 5], 2)
        (tensor([[ 5.],
                [10.]]), tensor([7, 5]))
    """
    if size < 1:
        raise ValueError(f"group size {size}, expected at least 1")
    if len(groups) != len(soft):
        raise ValueError(f"{len(groups)} user ids, expected one for each of {len(soft)} items")
    items: dict[int, list[int]] = {}
    for item, user in enumerate(groups):
        items.setdefault(int(user), []).append(item)
    whole = {user: own[: len(own) // size * size] for user, own in items.items()}
    index = torch.tensor([item for own in whole.values() for item in own], dtype=torch.int64)
    users = torch.tensor([user for user, own in whole.items() for _ in own[::size]], dtype=torch.int64)
    chosen = soft[index.to(soft.device)].nan_to_num(nan=0.0)  # (G * size, bits)
    return chosen.reshape(len(users), size, soft.shape[1]).sum(1), users


def _signs(soft: Tensor) -> Tensor:
    """Hard decisions in {-1, 0, 1}, float32; ties and NaN are 0."""
    return (soft > 0).float() - (soft < 0).float()


def _matches(signs: Tensor, codes: Tensor) -> Tensor:
    """Match counts (B, N) as float32, exact below 2^24 bits: (agreements - disagreements + decided bits) / 2."""
    antipodal = codes.to(signs.device).float() * 2 - 1
    return (signs @ antipodal.T + signs.abs().sum(1, keepdim=True)) / 2


def _chunks(soft: Tensor, codes: Tensor) -> Iterator[tuple[int, Tensor]]:
    """First code and match counts (B, chunk) of each chunk of codes."""
    signs, step = _signs(soft), max(1, CHUNK // max(1, len(soft)))
    for start in range(0, len(codes), step):
        yield start, _matches(signs, codes[start : start + step])


def _check_bits(soft: Tensor, codes: Tensor) -> None:
    if soft.shape[-1] != codes.shape[-1]:
        raise ValueError(f"read {soft.shape[-1]} bits, expected {codes.shape[-1]}")
