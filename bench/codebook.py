"""Who is registered: the generated users' random codes first, then codes of users who made nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.presets import Plan
from bench.rng import stream


def user_codes(plan: Plan, scheme: str, bits: int) -> Tensor:
    """Code of each generated user, (users, bits) int64; depends on the seed and the scheme's name."""
    return torch.randint(2, (plan.users, bits), generator=stream(plan.seed, "codes", scheme))


def code_book(plan: Plan, scheme: str, bits: int) -> Tensor:
    """All registered codes, (registered, bits) int64: those of :func:`user_codes`, then random ones."""
    others = (plan.registered - plan.users, bits)
    unused = torch.randint(2, others, generator=stream(plan.seed, "registered", scheme))
    return torch.cat([user_codes(plan, scheme, bits), unused])


def coalition_members(plan: Plan, size: int) -> list[list[int]]:
    """Users of each coalition, the same for every scheme: ``coalitions`` draws of ``size`` distinct users."""
    draws = (
        torch.randperm(plan.users, generator=stream(plan.seed, "coalition", size, k)) for k in range(plan.coalitions)
    )
    return [draw[:size].tolist() for draw in draws]
