"""The phone book of attacks: command-line names and strength grids."""

from __future__ import annotations

from attacks import audio, coalition, framing, image, model, shape3d
from attacks.tools import LISTED, Tools
from bench.protocol import AttackFamily

__all__ = ["ATTACKS", "LISTED", "Tools", "families", "families_for"]


def families(tools: Tools | None = None) -> dict[str, AttackFamily]:
    """Every attack that the tools allow, by its name.

    Args:
        tools: what the adversary holds; only tools of the generator's own modality can be used. Without any, no
            attack that needs one is there.
    """
    held = tools or Tools()
    content = [
        family for module in (image, audio, shape3d) for family in (*module.FAMILIES, *module.tool_families(held))
    ]
    listed = [*content, *model.FAMILIES, *coalition.FAMILIES, *framing.FAMILIES]
    found = {family.name: family for family in listed}
    if len(found) < len(listed):
        twice = sorted({family.name for family in listed if found[family.name] is not family})
        raise ValueError(f"attacks: expected a name of its own for each, found twice: {', '.join(twice)}")
    return found


def families_for(modality: str, tools: Tools | None = None) -> dict[str, AttackFamily]:
    """The attacks that apply to one modality, by name; see :func:`families`."""
    return {name: family for name, family in families(tools).items() if family.modality in (modality, "any")}


ATTACKS = families()
