"""Measuring one scheme under one attack: fingerprint, generate, attack, read, decide."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.access import Access, armed
from bench.calibration import threshold
from bench.coalitions import Coalition, ContentCoalition, InformedCoalition
from bench.codebook import coalition_members, code_book
from bench.digest import plain_repr
from bench.engine import report
from bench.ground import Ground
from bench.metrics.frechet import frechet_distance, kernel_distance, paired_delta
from bench.metrics.intervals import clustered
from bench.metrics.unbiased import FEWEST_TO_EXTRAPOLATE, frechet_infinity, kernel_audio_distance
from bench.naming import attack_name, attack_strength
from bench.protocol import Attack, Attacker, Codec, Content, ContentAttack, ModelAttack
from bench.results import Cell
from bench.rng import child, stream
from bench.rows import Book, Kind, Label, coalition_rows, fingerprinted_rows, negative_rows, stack
from bench.white_box import weight_accuracy, white_box


class Subject:
    """One codec under test. Content and features are made when the first cell needs them.

    Args:
        scheme: its name in every table.
        codec: what writes and reads the fingerprints.
        ground: what it is compared with.
    """

    def __init__(self, scheme: str, codec: Codec, ground: Ground) -> None:
        self.scheme = scheme
        self.codec = codec
        self.ground = ground
        self.engine = ground.engine
        self.plan = ground.plan
        codes = code_book(ground.plan, scheme, codec.bits)
        self.book = Book(codes, threshold(codec.bits, len(codes), ground.plan.fpr))
        self.copy_seconds: list[float] = []
        self.copies_read: list[float | None] = []

    def measure(self, attack: Attack | None) -> Cell:
        """The cell of ``attack``, or of no attack."""
        began = time.perf_counter()
        if attack is None:
            cell = self._clean()
        elif attack.target == "content":
            cell = self._content(cast(ContentAttack, attack))
        elif attack.target in ("model", "framing"):
            cell = self._model(cast(ModelAttack, attack))
        else:
            cell = self._coalition(cast(Coalition, attack))
        shared = {"scheme": self.scheme, "bits": self.codec.bits, "wall_seconds": time.perf_counter() - began}
        return Cell(cell.rows, {**describe(attack), **shared, **cell.summary})

    def decoder(self, user: int) -> nn.Module:
        """The decoder that ``user`` receives."""
        return self.codec.modulate(self.ground.decoder, self.book.codes[user].to(self.engine.device))

    @cached_property
    def attacker(self) -> Attacker:
        """What the adversary of a model attack on this codec holds."""
        return dataclasses.replace(self.ground.attacker, rival=getattr(self.codec, "rival", None))

    @cached_property
    def fingerprinted(self) -> list[Content]:
        """Content of every user's own decoder, one chunk per user."""
        content: list[Content] = []
        for user in range(self.plan.users):
            began = time.perf_counter()
            decoder = self.decoder(user)
            self.copy_seconds.append(time.perf_counter() - began)
            self.copies_read.append(self._read_weights(decoder, user))
            content.append(self.engine.content(decoder, self.ground.latents[user]))
            report(f"{self.scheme}: fingerprinted content", user + 1, self.plan.users)
        return content

    @cached_property
    def features(self) -> Tensor:
        """Features (users * items, d) of :attr:`fingerprinted`."""
        return self.engine.features(self.fingerprinted)

    def _clean(self) -> Cell:
        label = self._label(None)
        soft = self.engine.read(self.codec, self.fingerprinted)
        paired = self.engine.paired(self.ground.original, self.fingerprinted)
        tables = [fingerprinted_rows(label, soft, self.book, paired, self.plan.items)]
        for kind, chunks in self._negatives(all_of_them=True).items():
            tables.append(negative_rows(label, self.engine.read(self.codec, chunks), self.book, kind))
        speed = {
            "seconds_per_copy": statistics.median(self.copy_seconds),
            "fit_seconds": getattr(self.codec, "fit_seconds", None),
            "removable": self.codec.removable,
        }
        return Cell(stack(tables), {"seconds": 0.0, **speed, **self._quality(), **white_box(self.copies_read)})

    def _quality(self) -> dict[str, float]:
        """Fréchet and kernel distance to real content, before and after fingerprinting, on the same latents."""
        before, after, real = self.ground.original_features, self.features, self.ground.reference_features
        users = torch.arange(len(before)) // self.plan.items
        delta = (math.nan, math.nan, math.nan)
        if len(before) > 1:
            delta = paired_delta(before, after, real, users, rng=stream(self.plan.seed, "quality", self.scheme))
        return {
            "quality_original": _distance(frechet_distance, before, real),
            "quality_fingerprinted": _distance(frechet_distance, after, real),
            "quality_delta": delta[0],
            "quality_delta_lo": delta[1],
            "quality_delta_hi": delta[2],
            **self._kernel_distances({"original": before, "fingerprinted": after}),
            **self._extrapolated({"original": before, "fingerprinted": after}),
            **self._opinion(),
        }

    def _kernel_distances(self, sets: dict[str, Tensor]) -> dict[str, float]:
        """The modality's unbiased kernel distance of each set to real content: KID of items, KAD of frames."""
        name: str = getattr(self.engine.modality, "kernel_metric", "kid")
        distance = {"kid": kernel_distance, "kad": kernel_audio_distance}[name]
        real = self.ground.reference_features
        return {"_".join(filter(None, (name, key))): _distance(distance, each, real) for key, each in sets.items()}

    def _extrapolated(self, sets: dict[str, Tensor]) -> dict[str, float]:
        """Fréchet distance at infinitely many items, where items have frames enough to draw a line through."""
        if any(each.ndim < 3 or len(each) < FEWEST_TO_EXTRAPOLATE for each in sets.values()):
            return {}
        rng = stream(self.plan.seed, "infinity")
        real = self.ground.reference_features
        return {
            f"quality_infinity_{key}": _distance(
                lambda a, b: frechet_infinity(a, b, rng=child(rng, "draws")).distance, each, real
            )
            for key, each in sets.items()
        }

    def _opinion(self) -> dict[str, Any]:
        """The modality's predicted opinion score of one item of each user beside the original; too slow for more."""
        judge: Callable[[Content, Content], Tensor] | None = getattr(self.engine.modality, "opinion", None)
        if judge is None or not self.plan.full_grid:
            return {}
        with self.engine.clock.time("opinion"):
            pairs = zip(self.ground.original, self.fingerprinted, strict=True)
            scores = torch.cat([judge(original[:1], marked[:1]) for original, marked in pairs])
        rng = stream(self.plan.seed, "opinion", self.scheme)
        mean, low, high = clustered(scores, torch.arange(len(scores)), rng=rng)
        name = getattr(self.engine.modality, "opinion_metric", "")
        found = {"opinion": mean, "opinion_lo": low, "opinion_hi": high}
        return {"opinion_metric": name, **found, "opinion_items": len(scores)}

    def _content(self, attack: ContentAttack) -> Cell:
        label, seconds = self._label(attack), 0.0
        attack = armed(attack, Access(self.codec, self.book.codes, self.ground), self.ground)
        attacked: list[Content] = []
        for user, chunk in enumerate(self.fingerprinted):
            began = time.perf_counter()
            attacked.append(attack(chunk, self.ground.attack_stream(plain_repr(attack), user)))
            seconds += time.perf_counter() - began
        soft = self.engine.read(self.codec, attacked)
        paired = self.engine.paired(self.fingerprinted, attacked)
        tables = [fingerprinted_rows(label, soft, self.book, paired, self.plan.items)]
        for kind, chunks in self._negatives(all_of_them=False).items():
            # Unfingerprinted twins meet the very damage that the fingerprinted ones met.
            owner = ("reference",) if kind == "reference" else ()
            worn = [
                attack(chunk, self.ground.attack_stream(plain_repr(attack), *owner, index))
                for index, chunk in enumerate(chunks)
            ]
            tables.append(negative_rows(label, self.engine.read(self.codec, worn), self.book, kind))
        return Cell(stack(tables), {"seconds": seconds})

    def _negatives(self, *, all_of_them: bool) -> dict[Kind, list[Content]]:
        chunks: dict[Kind, list[Content]] = {"original": self.ground.original, "reference": self.ground.reference}
        if not all_of_them:
            chunks = {kind: _first(self.plan.negatives, these) for kind, these in chunks.items()}
        return {kind: these for kind, these in chunks.items() if these}

    def _model(self, attack: ModelAttack) -> Cell:
        users = range(self.plan.attacked_users)
        label, attacker, seconds = self._label(attack), self.attacker, 0.0
        attacked: list[Content] = []
        weights: list[float | None] = []
        for user in users:
            decoder, rng = self.decoder(user), self.ground.attack_stream(plain_repr(attack), user)
            began = time.perf_counter()
            decoder = attack(decoder, attacker, rng)
            seconds += time.perf_counter() - began
            weights.append(self._read_weights(decoder, user))
            attacked.append(self.engine.content(decoder, self.ground.latents[user]))
            report(f"{self.scheme}: {label.repr}", user + 1, len(users))
        soft, paired = self._read_and_compare(attacked, users)
        rows = fingerprinted_rows(label, soft, self.book, paired, self.plan.items)
        return Cell(rows, {"seconds": seconds, **self._damage(attacked, users), **white_box(weights)})

    def _read_weights(self, decoder: nn.Module, user: int) -> float | None:
        return weight_accuracy(self.codec, decoder, self.ground.decoder, self.book.codes[user])

    def _coalition(self, attack: Coalition) -> Cell:
        groups = coalition_members(self.plan, attack.users)
        label, seconds = self._label(cast(Attack, attack)), 0.0
        attacked: list[Content] = []
        for index, members in enumerate(groups):
            rng = self.ground.attack_stream(plain_repr(attack), index)
            content, spent = self._merged(attack, members, rng)
            seconds += spent
            attacked.append(content)
            report(f"{self.scheme}: {label.repr}", index + 1, len(groups))
        owners = [members[0] for members in groups]
        soft, paired = self._read_and_compare(attacked, owners)
        rows = coalition_rows(label, soft, self.book, paired, groups)
        return Cell(rows, {"seconds": seconds, **self._damage(attacked, owners)})

    def _merged(self, attack: Coalition, members: Sequence[int], rng: torch.Generator) -> tuple[Content, float]:
        """What a coalition publishes of the first member's latents, and the seconds that the attack took."""
        decoders, latents = [self.decoder(user) for user in members], self.ground.latents[members[0]]
        if isinstance(attack, ContentCoalition):
            contents = [self.engine.content(decoder, latents) for decoder in decoders]
            began = time.perf_counter()
            return attack.mix(contents, rng), time.perf_counter() - began
        if isinstance(attack, InformedCoalition):
            attacker, began = self.attacker, time.perf_counter()
            merged = attack.merge(decoders, attacker, rng)
        else:
            began = time.perf_counter()
            merged = attack(decoders, rng)
        seconds = time.perf_counter() - began
        return self.engine.content(merged, latents), seconds

    def _read_and_compare(self, attacked: list[Content], owners: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Soft bits of an attacked decoder's content, and its fidelity to the public decoder's on the same latents."""
        originals = [self.ground.original[user] for user in owners]
        return self.engine.read(self.codec, attacked), self.engine.paired(originals, attacked)

    def _damage(self, attacked: list[Content], owners: Sequence[int]) -> dict[str, float]:
        """Quality of an attacked decoder, next to that of the fingerprinted one on the same items."""
        real, after = self.ground.reference_features, self.engine.features(attacked)
        items = torch.arange(self.plan.items)
        before = self.features[torch.cat([user * self.plan.items + items for user in owners])]
        return {
            "quality": _distance(frechet_distance, after, real),
            "quality_unattacked": _distance(frechet_distance, before, real),
            **self._kernel_distances({"": after}),
        }

    def _label(self, attack: Attack | None) -> Label:
        about, engine = describe(attack), self.engine
        named = (about["attack"], about["target"], about["strength"], about["repr"])
        return Label(engine.modality.name, engine.generator.name, self.scheme, *named)


def describe(attack: Attack | None) -> dict[str, Any]:
    """How tables name an attack; its first field's name is the unit of its strength."""
    if attack is None:
        return {"attack": "none", "target": "none", "strength": 0.0, "unit": "", "repr": "none"}
    names: list[str] = [field.name for field in dataclasses.fields(attack)] if dataclasses.is_dataclass(attack) else []
    return {
        "attack": attack_name(attack),
        "target": attack.target,
        "strength": attack_strength(attack),
        "unit": names[0].replace("_", " ") if names else "",
        "repr": plain_repr(attack),
    }


def _distance(distance: Callable[[Tensor, Tensor], float], a: Tensor, b: Tensor) -> float:
    """Distance of two sets of features; NaN when there are too few, or an attack made content that has none."""
    usable = min(len(a), len(b)) > 1 and bool(a.isfinite().all())
    return distance(a, b) if usable else math.nan


def _first(count: int, chunks: Sequence[Content]) -> list[Content]:
    """Leading chunks that hold ``count`` items in all, the last one cut."""
    kept: list[Content] = []
    for chunk in chunks:
        if count > 0:
            kept.append(chunk[:count])
            count -= len(chunk)
    return kept
