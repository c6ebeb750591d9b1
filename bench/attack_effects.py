"""What each attack does to a few shipped items, or to copies of a shipped decoder: damage, and speed.

Speed is counted in seconds of the processor that the attack itself used, on one thread, so that other work on the
machine changes little. The tables lie in ``attacks/measured``; ``python -m bench.attack_page`` writes them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.access import Access, armed
from bench.cells import Subject
from bench.coalitions import ContentCoalition, InformedCoalition
from bench.engine import Engine, join
from bench.printed import read_csv
from bench.protocol import AttackFamily, Content, ContentAttack, UserError
from bench.report import Row
from bench.rng import stream
from bench.weights import effective_weight, other_parameters, weighted_layers

SEED = 0
ITEMS = {"image": 8}
"""Items that content attacks are measured on; of modalities whose items are larger, ``FEW``."""
FEW = 4
FEWEST = 2
"""Items for attacks that need networks or readers, which are slow."""
LEVELS = (1, 3, 5)
"""Severities that are measured: the mildest strength, a middle one, the strongest."""
MOST_STEPS = 10
"""Attacks that train are measured up to so many steps; more take minutes."""
LEAST_SECONDS = 0.05
"""What is faster is repeated until so much time is spent, and the fastest repetition counts."""
FIRST = ("attack", "strength", "items", "per_second", "lacks")


def table_path(modality: str) -> Path:
    """Where the measured effects of a modality lie; ``any`` stands for attacks on weights."""
    return Path(str(files("attacks"))) / "measured" / f"{modality}.csv"


@lru_cache(maxsize=8)
def effects(modality: str) -> dict[str, list[Row]]:
    """Measured rows of each attack, mildest first; empty when nothing of the modality was measured."""
    path, found = table_path(modality), dict[str, list[Row]]()
    for row in read_csv(path) if path.is_file() else []:
        found.setdefault(row["attack"], []).append(row)
    return found


def damage(family: AttackFamily) -> list[Row]:
    """What was measured of one attack, a row for each strength, without what was not."""
    rows = effects(family.modality).get(family.name, [])
    told = ({key: value for key, value in row.items() if value is not None and key != "attack"} for row in rows)
    return [row for row in told if "strength" in row]


def shown_strengths(family: AttackFamily) -> list[float]:
    """The strengths of ``LEVELS``, each once."""
    return list(dict.fromkeys(family.severity(level) for level in LEVELS))


@dataclass(frozen=True)
class Stand:
    """What attacks are measured on.

    Attributes:
        engine: of the modality that items are of.
        subject: a scheme with its codec, and what attackers of it hold; attacks on content that ask no reader
            need none.
        shown: the first attacked items of what was measured so far, by attack and strength, for the sheets.
    """

    engine: Engine
    subject: Subject | None = None
    shown: dict[tuple[str, float], Content] = field(default_factory=dict)

    @cached_property
    def content(self) -> Content:
        """Real held-out items, evenly thinned."""
        modality = self.engine.modality
        held, count = modality.reference(None), ITEMS.get(modality.name, FEW)
        places = torch.linspace(0, len(held) - 1, count).round().int().tolist()
        return join([held[place : place + 1] for place in places])

    @cached_property
    def latents(self) -> Tensor:
        """Latents of clean content that decoders are compared on."""
        return self.fingerprinted.attacker.latents[:FEW]

    @property
    def fingerprinted(self) -> Subject:
        """The subject.

        Raises:
            UserError: if there is none.
        """
        if self.subject is None:
            raise UserError(f"attacks on {self.engine.modality.name!r}: expected a fitted codec, found none")
        return self.subject

    def row(self, family: AttackFamily, strength: float) -> Row:
        """Measured effect and speed of an attack at one strength."""
        if family.target == "content":
            count, seconds, found = self._content(family, strength)
        else:
            count, seconds, found = self._decoders(family, strength)
        return {"attack": family.name, "strength": strength, "items": count, "per_second": count / seconds, **found}

    def _content(self, family: AttackFamily, strength: float) -> tuple[int, float, Row]:
        """Number of items, seconds, and the damage."""
        slow, attack = family.needs != "nothing else", cast(ContentAttack, family.make(strength))
        if hasattr(attack, "armed"):
            asked = self.fingerprinted
            attack = armed(attack, Access(asked.codec, asked.book.codes, asked.ground), asked.ground)
        before = self.content[:FEWEST] if slow else self.content
        if not slow:
            attack(before[:1], stream(SEED))  # tables and codecs load at the first call
        after, seconds = timed(lambda: attack(before, stream(SEED, "effect", family.name, strength)))
        self.shown[family.name, strength] = after[:FEWEST]
        return len(before), seconds, self._paired(before, after)

    def _decoders(self, family: AttackFamily, strength: float) -> tuple[int, float, Row]:
        """Number of decoders or of mixed items, seconds, and the change."""
        attack: Any = family.make(strength)
        subject, rng = self.fingerprinted, stream(SEED, "effect", family.name, strength)
        members = [subject.decoder(user) for user in range(getattr(attack, "users", 1))]
        if isinstance(attack, ContentCoalition):
            contents = [self._made(member) for member in members]
            mixed, seconds = timed(lambda: attack.mix(contents, stream(SEED, "effect", family.name, strength)))
            return len(mixed), seconds, self._paired(contents[0], mixed)
        began = time.process_time()
        if isinstance(attack, InformedCoalition):
            made = attack.merge(members, subject.attacker, rng)
        elif family.target == "coalition":
            made = attack(members, rng)
        else:
            made = attack(members[0], subject.attacker, rng)
        seconds = time.process_time() - began
        return 1, seconds, weight_change(members[0], made) | self._paired(self._made(members[0]), self._made(made))

    def _made(self, decoder: nn.Module) -> Content:
        return self.engine.content(decoder, self.latents)

    def _paired(self, before: Content, after: Content) -> Row:
        found = self.engine.paired([before], [after])
        return {name: float(values.mean()) for name, values in found.items()}


def measured(
    stand: Stand, families: Sequence[AttackFamily], lack: Callable[[AttackFamily], str | None]
) -> Iterator[Row]:
    """A row of each attack and strength, as far as it can run here and is cheap enough.

    Args:
        stand: what they are measured on.
        families: attacks to measure.
        lack: what an attack lacks on this machine; its row says so.
    """
    for family in families:
        if lacks := lack(family):
            yield {"attack": family.name, "lacks": lacks}
            continue
        for strength in shown_strengths(family):
            if family.target == "content" or _steps(family.make(strength)) <= MOST_STEPS:
                yield stand.row(family, strength)


def _steps(attack: Any) -> int:
    """Steps of the longest training that an attack does."""
    return max((value for name, value in vars(attack).items() if name.endswith("steps")), default=0)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What ``work`` returns, and processor seconds of its fastest repetition."""
    best, spent, made = math.inf, 0.0, None
    while spent < LEAST_SECONDS:
        began = time.process_time()
        made = work()
        seconds = max(time.process_time() - began, 1e-6)
        best, spent = min(best, seconds), spent + seconds
    return made, best


@torch.no_grad()
def weight_change(before: nn.Module, after: nn.Module) -> Row:
    """How far the weights of a decoder moved.

    Returns:
        ``relative_change``, the norm of the change over that of the weights, all layers together;
        ``largest_layer``, the same of the layer where it is largest; ``zeroed``, the share of weights that were not
        zero and are.
    """
    old, new = _weights(before), _weights(after)
    moved = {name: float((new[name] - weight).square().sum()) for name, weight in old.items()}
    norms = {name: float(weight.square().sum()) for name, weight in old.items()}
    gone = sum(int(((new[name] == 0) & (weight != 0)).sum()) for name, weight in old.items())
    layers = [math.sqrt(moved[name] / norms[name]) for name in weighted_layers(before) if norms[name] > 0]
    return {
        "relative_change": math.sqrt(sum(moved.values()) / sum(norms.values())),
        "largest_layer": max(layers),
        "zeroed": gone / sum(weight.numel() for weight in old.values()),
    }


def _weights(decoder: nn.Module) -> dict[str, Tensor]:
    layers = {name: effective_weight(layer) for name, layer in weighted_layers(decoder).items()}
    return {name: value.detach().double() for name, value in (layers | dict(other_parameters(decoder))).items()}
