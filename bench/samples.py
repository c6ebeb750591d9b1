"""The comparison sheet of a run of images: original, fingerprinted, difference, attacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from bench.cells import Subject
from bench.digest import plain_repr
from bench.engine import Engine, join, pick_device
from bench.ground import Ground
from bench.presets import Plan
from bench.protocol import Attack, Codec, Content, ContentAttack, Generator, Modality

SHOWN = 8


def write_sheets(
    modality: Modality,
    generator: Generator,
    codecs: Mapping[str, Codec],
    attacks: Sequence[Attack],
    plan: Plan,
    folder: Path,
) -> list[Path]:
    """Write ``figures/sheet_<scheme>.png`` for each codec, from the first item of the first users.

    Content that is no uint8 image batch, or a run without content attacks, has no sheet.
    """
    ground = Ground(Engine(modality, generator, pick_device(plan.device), plan.batch), plan)
    attack = next((cast(ContentAttack, attack) for attack in attacks if attack.target == "content"), None)
    users = range(min(SHOWN, plan.users))
    originals = [ground.engine.content(ground.decoder, ground.latents[user][:1]) for user in users]
    if attack is None or not _are_images(originals[0]):
        return []
    from bench.figures import sheet

    written: list[Path] = []
    for scheme, codec in codecs.items():
        subject = Subject(scheme, codec, ground)
        decoders = (subject.decoder(user) for user in users)
        marked: list[Content] = [
            ground.engine.content(decoder, ground.latents[user][:1]) for user, decoder in enumerate(decoders)
        ]
        attacked = [attack(one, ground.attack_stream("sheet", user)) for user, one in zip(users, marked, strict=True)]
        place = folder / "figures" / f"sheet_{scheme}.png"
        written.append(sheet(join(originals), join(marked), join(attacked), place, plain_repr(attack)))
    return written


def _are_images(content: object) -> bool:
    return isinstance(content, Tensor) and content.dtype == torch.uint8 and content.ndim == 4 and content.shape[1] == 3
