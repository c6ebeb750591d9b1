"""The comparison sheet of a run: original, fingerprinted, difference, attacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from bench.cells import Subject
from bench.digest import plain_repr
from bench.engine import Engine, join, pick_device
from bench.ground import Ground
from bench.presets import Plan
from bench.protocol import Attack, Codec, Content, ContentAttack, Generator, Modality

SHOWN = 8


@runtime_checkable
class Pictured(Protocol):
    """The optional members of a :class:`bench.protocol.Modality`."""

    def picture(self, content: Content) -> Tensor:
        """How items look, uint8 (B, 3, H, W)."""
        ...

    def difference(self, a: Content, b: Content) -> tuple[str, Content]:
        """What sets ``b`` apart from ``a``: its name, and content."""
        ...


def write_sheets(
    modality: Modality,
    generator: Generator,
    codecs: Mapping[str, Codec],
    attacks: Sequence[Attack],
    plan: Plan,
    folder: Path,
) -> list[Path]:
    """Write ``figures/sheet_<scheme>.png`` for each codec, from the first item of the first users.

    A modality that does not say how its items look, or a run without content attacks, has no sheet.
    """
    attack = next((cast(ContentAttack, attack) for attack in attacks if attack.target == "content"), None)
    if attack is None or not isinstance(modality, Pictured):
        return []
    from bench.figures import sheet

    ground = Ground(Engine(modality, generator, pick_device(plan.device), plan.batch), plan)
    users = range(min(SHOWN, plan.users))
    originals = [ground.engine.content(ground.decoder, ground.latents[user][:1]) for user in users]
    written: list[Path] = []
    for scheme, codec in codecs.items():
        subject = Subject(scheme, codec, ground)
        decoders = (subject.decoder(user) for user in users)
        marked: list[Content] = [
            ground.engine.content(decoder, ground.latents[user][:1]) for user, decoder in enumerate(decoders)
        ]
        attacked = [attack(one, ground.attack_stream("sheet", user)) for user, one in zip(users, marked, strict=True)]
        changed, change = modality.difference(join(originals), join(marked))
        lines = {"original": originals, "fingerprinted": marked, changed: [change], plain_repr(attack): attacked}
        rows = {name: torch.cat([modality.picture(one) for one in line]) for name, line in lines.items()}
        written.append(sheet(rows, folder / "figures" / f"sheet_{scheme}.png"))
    return written
