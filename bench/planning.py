"""How long a fit is to be."""

from __future__ import annotations

import dataclasses
from typing import Any

from bench.protocol import UserError


def adjusted(scheme: Any, steps: int) -> Any:
    """The same scheme with other ``steps`` of its recipe; 0 leaves them as they are.

    Raises:
        UserError: when it is not trained in steps, or there are fewer than one.
    """
    if not steps:
        return scheme
    recipe: Any = getattr(scheme, "recipe", None)
    if not hasattr(recipe, "steps"):
        raise UserError(f"steps: expected a scheme whose training has it, found {type(scheme).__name__}")
    if steps < 1:
        raise UserError(f"steps: expected at least 1, found {steps}")
    return dataclasses.replace(scheme, recipe=dataclasses.replace(recipe, steps=steps))
