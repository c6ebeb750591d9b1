"""What the embedded generator shapes: LDraw's parts, each in several colours, with captions."""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SHIPPED = Path(__file__).parent / "reference"

COLOURS = {
    "black": (0x05, 0x13, 0x1D),
    "blue": (0x00, 0x55, 0xBF),
    "green": (0x25, 0x7A, 0x3E),
    "red": (0xC9, 0x1A, 0x09),
    "pink": (0xC8, 0x70, 0xA0),
    "yellow": (0xF2, 0xCD, 0x37),
    "white": (0xFF, 0xFF, 0xFF),
    "tan": (0xE4, 0xCD, 0x9E),
    "orange": (0xFE, 0x8A, 0x18),
    "lime": (0xBB, 0xE9, 0x0B),
    "brown": (0x58, 0x2A, 0x12),
    "grey": (0xA0, 0xA5, 0xA9),
}
"""Solid colours of LDConfig.ldr, in plain words: what a part's own surface, not what is printed on it, takes."""
VARIANTS = 3
"""Colours of each part."""


@dataclass(frozen=True)
class Part:
    """One part of the library.

    Attributes:
        code: its file's name without the suffix, such as ``3001``.
        description: in plain lower-case words, such as ``brick 2 x 4``.
        category: LDraw's, such as ``brick``.
    """

    code: str
    description: str
    category: str

    @property
    def mould(self) -> str:
        """Number shared by all printed and moulded variants of one thing: ``3001`` for ``3001p01`` and ``3001a``."""
        found = re.match(r"[a-z]*\d+", self.code)
        return found[0] if found else self.code

    @property
    def split(self) -> str:
        """``fit``, ``prompts`` or ``reference``: all variants of one mould fall into one."""
        share = _share("split", self.mould)
        return "reference" if share < 0.15 else "prompts" if share < 0.30 else "fit"

    @property
    def draw(self) -> float:
        """A fixed number in [0, 1) that picks the parts which ship."""
        return _share("draw", self.code)

    @property
    def colours(self) -> tuple[str, ...]:
        """Its colours by name, different ones."""
        return tuple(sorted(COLOURS, key=lambda name: _share("colour", self.code, name))[:VARIANTS])

    def caption(self, variant: int) -> str:
        """Prompt in plain words, such as ``red brick 2 x 4``."""
        return f"{self.colours[variant]} {self.description}"


def _share(*what: object) -> float:
    return int(hashlib.sha256(repr(what).encode()).hexdigest()[:8], 16) / 2**32


@lru_cache(maxsize=1)
def every_part() -> tuple[Part, ...]:
    """All parts, in a fixed order, from the shipped table."""
    with (SHIPPED / "parts.csv").open(encoding="utf-8", newline="") as file:
        return tuple(Part(row["code"], row["description"], row["category"]) for row in csv.DictReader(file))


def captions(split: str) -> list[str]:
    """Captions of every part of a split in every one of its colours, each once, in a fixed order."""
    return list(dict.fromkeys(p.caption(v) for p in every_part() if p.split == split for v in range(VARIANTS)))


@lru_cache(maxsize=1)
def largest_categories(count: int = 10) -> tuple[str, ...]:
    """Categories with the most parts that are not reference, largest first."""
    known = [part.category for part in every_part() if part.split != "reference"]
    return tuple(sorted(set(known), key=lambda name: (-known.count(name), name))[:count])
