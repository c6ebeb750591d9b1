"""How large a run is: four named plans, and which attacks each one takes from the families."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from bench.protocol import Attack, AttackFamily, Modality, UserError

LIMITS = {
    "users": (1, 100_000),
    "items": (1, 10_000),
    "model_users": (0, 100_000),
    "coalitions": (0, 100_000),
    "negatives": (0, 1_000_000),
    "registered": (1, 10_000_000),
    "seed": (0, 2**63 - 1),
    "batch": (1, 65_536),
    "public_items": (1, 1_000_000),
}
LARGEST_RUN = 10_000_000

logger = logging.getLogger("genprint")


@dataclass(frozen=True)
class Plan:
    """The numbers of one run.

    Attributes:
        name: preset that it comes from.
        users: fingerprints, each with its own content.
        items: items per user.
        model_users: users whose decoders are attacked by model attacks.
        coalitions: groups of users that merge their decoders, per coalition attack.
        negatives: attacked negatives of each kind (unfingerprinted content, real content) per content attack.
        full_grid: True for every strength of every attack, False for the family's ``quick`` one.
        only: names of the attack families that run; empty means all of them.
        registered: size N of the code book for identification: the users' codes and random ones.
        fpr: largest accepted rate of false positives over all N registered users together.
        seed: run seed.
        batch: items per network call; changes no number beyond rounding.
        public_items: clean latents and fields that the attacker of a model attack holds.
        device: ``auto``, or a torch device.
        content_bound: a content attack stays within the bound while the mean of the modality's paired metric, in dB,
            between unattacked and attacked content is at least this; None is the modality's ``paired_bound``, or 20.
        model_bound: the same for model attacks and coalitions, between the public and the attacked decoder's output.
        model_quality_bound: and the Fréchet distance may rise by this share of the fingerprinted decoder's own.
    """

    name: str
    users: int
    items: int
    model_users: int
    coalitions: int
    negatives: int
    full_grid: bool
    only: tuple[str, ...] = ()
    registered: int = 1000
    fpr: float = 1e-6
    seed: int = 0
    batch: int = 64
    public_items: int = 256
    device: str = "auto"
    content_bound: float | None = None
    model_bound: float | None = None
    model_quality_bound: float = 0.25

    def __post_init__(self) -> None:
        """Refuse counts that no run can have."""
        for name, (low, high) in LIMITS.items():
            if not low <= (found := getattr(self, name)) <= high:
                raise UserError(f"{name}: expected {low} to {high}, found {found}")
        if self.users * self.items > LARGEST_RUN:
            raise UserError(f"users x items: expected at most {LARGEST_RUN}, found {self.users * self.items}")
        if self.registered < self.users:
            raise UserError(f"registered: expected at least the {self.users} users, found {self.registered}")
        if not 0 < self.fpr < 1:
            raise UserError(f"fpr: expected a rate between 0 and 1, found {self.fpr}")

    def bounded(self, modality: Modality) -> Plan:
        """The same plan with the modality's bounds where it has none of its own."""
        own: float = getattr(modality, "paired_bound", 20.0)
        content, model = (own if bound is None else bound for bound in (self.content_bound, self.model_bound))
        return replace(self, content_bound=content, model_bound=model)

    @property
    def attacked_users(self) -> int:
        """Users that model attacks reach: ``model_users``, or all when there are fewer."""
        return min(self.model_users, self.users)

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> Plan:
        """The plan that ``dataclasses.asdict`` and JSON made ``numbers`` from."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(numbers) ^ known):
            raise UserError(f"plan: expected the fields {sorted(known)}, these differ: {unknown}")
        return cls(**{**numbers, "only": tuple(numbers["only"])})


PRESETS: dict[str, Plan] = {
    plan.name: plan
    for plan in (
        Plan(
            "smoke",
            4,
            2,
            2,
            2,
            4,
            False,
            only=("jpeg", "gaussian-noise", "mp3", "white-noise", "vertex-noise", "weight-noise", "average-weights"),
            public_items=32,
        ),
        Plan("quick", 32, 4, 8, 8, 32, False),
        Plan("standard", 64, 8, 6, 32, 256, True),
        Plan("paper", 256, 20, 32, 128, 1024, True),
    )
}


def attacks_of(plan: Plan, families: Mapping[str, AttackFamily]) -> list[Attack]:
    """The attacks of suite ``standard`` or ``quick``, whichever the plan's grid is, in the order of the families.

    See :func:`within` for the ones that are left out.

    Args:
        plan: says which families instead of the suite's (``only``, unknown ones are passed over), and which suite.
        families: command-line name to family, those of one modality.
    """
    suite = "standard" if plan.full_grid else "quick"
    chosen = [f for name, f in families.items() if (name in plan.only if plan.only else suite in f.suites)]
    return within(plan, [attack for family in chosen for attack in sweep(family, full=plan.full_grid)])


def sweep(family: AttackFamily, *, full: bool) -> list[Attack]:
    """A family at the strengths of suite ``standard``, or at its ``quick`` one."""
    if full and family.standard:
        return [family.make(strength) for strength in family.standard]
    return grid(family, full=full)


def grid(family: AttackFamily, *, full: bool) -> list[Attack]:
    """Every strength of a family, or its ``quick`` one."""
    strengths = family.strengths if full else family.strengths[family.quick : family.quick + 1]
    return [family.make(strength) for strength in strengths]


def within(plan: Plan, attacks: Sequence[Attack]) -> list[Attack]:
    """Attacks that the plan has decoders for; the others are left out, with a line in the log."""
    kept = [attack for attack in attacks if _has_decoders(plan, attack)]
    for attack in attacks:
        if attack not in kept:
            logger.warning("left out %r: the plan has no decoders for it", attack)
    return kept


def _has_decoders(plan: Plan, attack: Attack) -> bool:
    if attack.target == "coalition":
        return plan.coalitions > 0 and getattr(attack, "users", 1) <= plan.users
    return attack.target not in ("model", "framing") or plan.attacked_users > 0
