"""How long a fit is to be, and how near copies are to stay."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from bench.protocol import UserError


def adjusted(scheme: Any, steps: int, batch: int = 0, psnr_db: float = 0.0) -> Any:
    """The same scheme with other ``steps``, ``batch`` or ``psnr_db`` of its recipe; 0 leaves them as they are.

    Raises:
        UserError: when it is not trained so, or one of them is less than 1 or infinite.
    """
    for name, value in (("steps", steps), ("batch", batch), ("psnr_db", psnr_db)):
        if not value:
            continue
        shown = name.replace("_", "-")
        recipe: Any = getattr(scheme, "recipe", None)
        if not hasattr(recipe, name):
            raise UserError(f"{shown}: expected a scheme whose training has it, found {type(scheme).__name__}")
        if not 1 <= value < math.inf:
            raise UserError(f"{shown}: expected at least 1, and finite, found {value:g}")
        scheme = dataclasses.replace(scheme, recipe=dataclasses.replace(recipe, **{name: value}))
    return scheme


def told(rehearsal: Any) -> str:
    """What a fit would take, in one line.

    Args:
        rehearsal: see :class:`schemes.rehearsal.Rehearsal`.
    """
    whole = f"at most {rehearsal.steps} steps of {rehearsal.batch} items, {rehearsal.seconds_per_step:.3g} s each"
    pool = f"{rehearsal.pool} latents first, about {duration(rehearsal.latents_seconds)}"
    memory = f"peak memory {rehearsal.peak_bytes / 1e9:.1f} GB"
    return f"{whole}; {pool}; about {duration(rehearsal.seconds)} in all; {memory}; nothing was kept"


def duration(seconds: float) -> str:
    """Seconds in words.

    Example:
        >>> duration(5400)
        '1.5 h'
    """
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
