"""The phone book of attacks: command-line names and strength grids."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from attacks import coalition, image, model
from bench.protocol import AttackFamily


def families(reconstruct: Callable[[Tensor], Tensor] | None = None) -> dict[str, AttackFamily]:
    """Every attack by its name.

    Args:
        reconstruct: an autoencoder's pass over images (see :class:`attacks.image.Regeneration`); without one there is
            no regeneration.
    """
    listed = [*image.FAMILIES, *model.FAMILIES, *coalition.FAMILIES]
    if reconstruct is not None:
        listed.insert(len(image.FAMILIES), image.regeneration_family(reconstruct))
    return {family.name: family for family in listed}


def families_for(modality: str, reconstruct: Callable[[Tensor], Tensor] | None = None) -> dict[str, AttackFamily]:
    """The attacks that apply to one modality, by name; see :func:`families`."""
    return {name: family for name, family in families(reconstruct).items() if family.modality in (modality, "any")}


ATTACKS = families()
