"""Item by item on all cores, for libraries that take one item at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(change: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """What ``change`` makes of each item, in their order.

    Codecs let go of Python's lock while they work, so threads suffice; there are as many as torch has.

    Args:
        change: must not depend on what it was called with before.
        items: any number.
    """
    workers = min(torch.get_num_threads(), len(items))
    if workers < 2:
        return [change(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(change, items))
