"""Fixtures shared by the tests: nothing here or below touches the network or a folder that is not temporary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.presets import Plan
from bench.results import Results
from bench.rng import stream
from bench.run import run
from tests.toy import ATTACKS, Toy, ToyCodec, ToyGenerator, ToyScheme

PLAN = Plan("tiny", 5, 4, 3, 3, 8, False, registered=100, public_items=4, batch=7)


@dataclass(frozen=True)
class Bench:
    """A toy run, ready to start."""

    modality: Toy
    generator: ToyGenerator
    codec: ToyCodec

    def __call__(self, folder: Path, *, attacks: Sequence[Any] = ATTACKS, plan: Plan = PLAN) -> Results:
        return run(
            modality=self.modality,
            generator=self.generator,
            codecs={"ToyScheme": self.codec},
            attacks=attacks,
            plan=plan,
            folder=folder,
        )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own for one test."""
    monkeypatch.setenv("GENPRINT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def toy(cache: Path) -> Bench:
    """The toy modality with a fitted codec."""
    modality, generator = Toy(), ToyGenerator()
    return Bench(modality, generator, ToyScheme().fit(modality, generator, stream(0, "fit", "ToyScheme")))


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a finished toy run; read it, do not write into it."""
    folder = tmp_path_factory.mktemp("finished")
    modality, generator = Toy(), ToyGenerator()
    codec = ToyScheme().fit(modality, generator, stream(0, "fit", "ToyScheme"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENPRINT_CACHE", str(folder / "cache"))
        Bench(modality, generator, codec)(folder / "out")
    return folder / "out"
