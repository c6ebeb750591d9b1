"""How a family of attacks is written down: its strengths, and what people should know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from bench.protocol import AttackFamily, ContentAttack


class Grid(NamedTuple):
    """Strengths, mildest first, the index of the one that the quick preset uses, and their unit."""

    strengths: tuple[float, ...]
    quick: int
    unit: str


class Card(NamedTuple):
    """What somebody who attacks this way does, where the attack or its grid comes from, and what it takes."""

    does: str
    source: str
    needs: str = "nothing else"


def image_family(
    name: str,
    make: Callable[[float], ContentAttack],
    grid: Grid,
    card: Card,
    *,
    standard: tuple[float, ...] | None = None,
    missing: Callable[[], str | None] | None = None,
) -> AttackFamily:
    """A family of content attacks on images.

    Args:
        name: command-line name.
        make: the attack of one strength.
        grid: see :class:`Grid`.
        card: see :class:`Card`.
        standard: strengths that suite ``standard`` takes, none for a family that only ``all`` runs; by default the
            whole grid, and the family is part of suite ``quick`` too.
        missing: see :class:`bench.protocol.AttackFamily`.
    """
    suites = ("quick", "standard") if standard is None else ("standard",) if standard else ()
    return AttackFamily(
        name=name,
        modality="image",
        target="content",
        make=make,
        strengths=grid.strengths,
        quick=grid.quick,
        unit=grid.unit,
        source=card.source,
        card=card.does,
        needs=card.needs,
        suites=suites,
        standard=standard or (),
        missing=missing,
    )


def weights_family(
    name: str,
    make: Callable[[float], Any],
    grid: Grid,
    card: Card,
    *,
    standard: tuple[float, ...] | None = None,
) -> AttackFamily:
    """A family of attacks on decoders, whatever they decode; its target is that of the attacks it makes.

    Args:
        name: command-line name.
        make: the attack of one strength, on one decoder or by a coalition.
        grid: see :class:`Grid`.
        card: see :class:`Card`.
        standard: strengths that suite ``standard`` takes, none for a family that only ``all`` runs; by default the
            whole grid, and the family is part of suite ``quick`` too.
    """
    family = image_family(name, make, grid, card, standard=standard)
    return replace(family, modality="any", target=make(grid.strengths[0]).target)
