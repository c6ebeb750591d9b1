"""How results name an attack: its class with its switches, and its first field as the strength."""

from __future__ import annotations

import dataclasses
import math


def attack_name(attack: object) -> str:
    """Class name of an attack, such as ``GaussianNoise``, and what of it is switched on."""
    fields = dataclasses.fields(attack) if dataclasses.is_dataclass(attack) else ()
    switches = [field.name.replace("_", " ") for field in fields if getattr(attack, field.name) is True]
    return ", ".join([type(attack).__name__, *switches])


def attack_strength(attack: object) -> float:
    """First field of an attack as a number; NaN when it has none.

    Raises:
        ValueError: when the first field is no number.
    """
    if not dataclasses.is_dataclass(attack) or not (fields := dataclasses.fields(attack)):
        return math.nan
    value = getattr(attack, fields[0].name)
    if not isinstance(value, int | float):
        raise ValueError(f"{attack!r}: the first field is {type(value).__name__}, expected a number, the strength")
    return float(value)
