"""What an adversary gets of a scheme: the service's answer, an own copy, and what a third user published."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Generator, Tensor

from bench.access import Access, armed
from bench.codebook import code_book
from bench.engine import Engine
from bench.ground import Ground
from tests.conftest import PLAN, Bench
from tests.toy import ToyNoise

CPU = torch.device("cpu")


@pytest.fixture
def access(toy: Bench) -> Access:
    ground = Ground(Engine(toy.modality, toy.generator, CPU, 4), replace(PLAN, public_items=12))
    return Access(toy.codec, code_book(PLAN, "ToyScheme", toy.codec.bits), ground)


def test_the_service_is_surer_of_fingerprinted_content(access: Access) -> None:
    marked, clean = access.query(access.owned(6)), access.query(access.clean(6))
    assert marked.shape == (6,) and (marked.abs() <= 1).all()
    assert marked.min() > clean.max()


def test_nobodys_content_is_under_attack(access: Access, toy: Bench) -> None:
    """The last two codes belong to no user of the run, unless every registered code does."""
    codes = code_book(PLAN, "ToyScheme", toy.codec.bits)
    for content, index in ((access.owned(6), -2), (access.published(6), -1)):
        soft = toy.codec.read(toy.modality.observe(content)).mean(0)
        assert ((soft > 0) == (codes[index] == 1)).all()
    assert len(codes) == 100 > PLAN.users + 2


def test_an_own_copy_makes_the_same_items_as_the_public_generator(access: Access) -> None:
    """The toy's fingerprint is one addition to all items, so what is left of the difference is clipping."""
    clean = access.clean(6).float()
    own, other = ((content.float() - clean).std(0).mean() for content in (access.owned(6), access.published(6)))
    assert own < 0.2 * other and (access.owned(6).float() - clean).abs().mean() > 1
    assert len(access.owned(100)) == len(access.published(100)) == 6, "half of what is public for each"


@dataclass(frozen=True)
class Erased:
    """Hands back what it holds of the scheme instead of the content."""

    strength: float = 1.0
    held: Any = None
    target: ClassVar[str] = "content"

    def armed(self, access: Access, rng: Generator) -> Erased:
        return replace(self, held=access.clean(4))

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        rows = torch.arange(len(content)) % len(self.held)
        erased: Tensor = self.held[rows]
        return erased


def test_a_run_arms_an_attack_once_for_every_scheme(toy: Bench, tmp_path: Path) -> None:
    plain: Any = ToyNoise()
    assert armed(plain, Access(toy.codec, torch.zeros(2, 32), Ground.__new__(Ground)), Ground.__new__(Ground)) is plain
    results = toy(tmp_path / "out", attacks=[Erased()], plan=replace(PLAN, public_items=12))
    (cell,) = [cell for cell in results.cells if cell.summary["attack"] == "Erased"]
    rows = [row for row in cell.rows.to_pylist() if row["kind"] == "fingerprinted"]
    assert len(rows) == PLAN.users * PLAN.items and not any(row["accepted"] for row in rows)
