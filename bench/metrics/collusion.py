"""What theory expects of colluders."""

from __future__ import annotations

import math


def expected_match(colluders: int) -> float:
    """Share of one colluder's bits that a bitwise majority vote of all of them keeps, ties decided by a coin.

    Codes are independent and fair. A bit keeps a member's value unless the others outvote it, and a member's vote
    decides when the others are split evenly (or but for one, where the tie that it makes is a coin toss), so the
    expectation is 1/2 + C(c - 1, ⌊(c - 1)/2⌋) / 2^c.

    Args:
        colluders: c, at least 1.

    Returns:
        The expectation, in (0.5, 1]; averaging marks or weights tends to such a vote.

    Raises:
        ValueError: when there is no colluder.

    Example:
        >>> [expected_match(c) for c in (1, 2, 3, 4, 5)]
        [1.0, 0.75, 0.75, 0.6875, 0.6875]
    """
    if colluders < 1:
        raise ValueError(f"{colluders} colluders, expected at least 1")
    return 0.5 + math.comb(colluders - 1, (colluders - 1) // 2) / 2.0**colluders
