"""The check that every attack makes of its own strength."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from bench.protocol import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def check_strength(attack: DataclassInstance, low: float, high: float = math.inf) -> None:
    """Refuse an attack whose strength, its first field, lies outside [low, high].

    Raises:
        UserError: naming the attack, the range and the strength.
    """
    strength = getattr(attack, dataclasses.fields(attack)[0].name)
    if not low <= strength <= high:
        raise UserError(f"{attack!r}: the strength must lie in [{low:g}, {high:g}], found {strength:g}")
