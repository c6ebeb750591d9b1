"""The phone book of attacks: command-line names and strength grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attacks import audio, coalition, image, model
from bench.protocol import AttackFamily

Reconstruct = Callable[[Any], Any]
"""An autoencoder's pass: over images, see :class:`attacks.image.Regeneration`, or over clips, see
:class:`attacks.audio.AudioRegeneration`."""


def families(reconstruct: Reconstruct | None = None) -> dict[str, AttackFamily]:
    """Every attack by its name.

    Args:
        reconstruct: a generator's autoencoder; every regeneration listed goes through it, and only that of the
            generator's own modality can be used. Without one there is no regeneration.
    """
    listed = [*image.FAMILIES, *audio.FAMILIES, *model.FAMILIES, *coalition.FAMILIES]
    if reconstruct is not None:
        listed.insert(len(image.FAMILIES) + len(audio.FAMILIES), audio.regeneration_family(reconstruct))
        listed.insert(len(image.FAMILIES), image.regeneration_family(reconstruct))
    return {family.name: family for family in listed}


def families_for(modality: str, reconstruct: Reconstruct | None = None) -> dict[str, AttackFamily]:
    """The attacks that apply to one modality, by name; see :func:`families`."""
    return {name: family for name, family in families(reconstruct).items() if family.modality in (modality, "any")}


ATTACKS = families()
