"""Item by item on all cores, for libraries that take one item at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

R = TypeVar("R")


def in_parallel(change: Callable[..., R], *items: Sequence[Any]) -> list[R]:
    """What ``change`` makes of each item, or of each row of several sequences of one length, in their order.

    Codecs and geometry libraries let go of Python's lock while they work, so threads suffice; there are as many as
    torch has.

    Args:
        change: must not depend on what it was called with before.
        items: any number.
    """
    workers = min(torch.get_num_threads(), len(items[0]))
    if workers < 2:
        return list(map(change, *items))
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(change, *items))
