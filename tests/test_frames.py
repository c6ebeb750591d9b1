"""A whole run with frames as features, an opinion score and a bound of its own: what audio asks of the harness."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import Tensor

from bench.presets import Plan
from bench.protocol import Attack, Modality
from bench.run import run
from tests.conftest import PLAN
from tests.toy import Toy, ToyGenerator, ToyNoise, ToyScheme, ToyWeightNoise, seeded


@dataclass(frozen=True)
class Framed(Toy):
    """The toy, each row of pixels a frame."""

    kernel_metric: str = "kad"
    paired_bound: float = 5.0
    opinion_metric: str = "mos"

    def opinion(self, a: Tensor, b: Tensor) -> Tensor:
        assert len(a) == len(b) == 1, "one item of each user"
        return 5 - 10 * (self.observe(a) - self.observe(b)).abs().mean((1, 2, 3))

    def features(self, content: Tensor) -> Tensor:
        return self.observe(content).permute(0, 2, 1, 3).flatten(2)[..., ::6]  # (B, 16, 8)


def measured(place: Path, plan: Plan, attacks: Sequence[Attack]) -> Path:
    modality, generator = Framed(), ToyGenerator()
    codec = ToyScheme().fit(modality, generator, seeded(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENPRINT_CACHE", str(place / "cache"))
        run(
            modality=modality,
            generator=generator,
            codecs={"toy": codec},
            attacks=attacks,
            plan=plan,
            folder=place / "out",
        )
    return place / "out"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    full = dataclasses.replace(PLAN, full_grid=True)
    return measured(tmp_path_factory.mktemp("framed"), full, [ToyNoise(0.1), ToyWeightNoise(0.1)])


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_tables_hold_the_audio_distances_and_no_kid(folder: Path) -> None:
    assert isinstance(Framed(), Modality)
    (line,), attacks = table(folder / "leaderboard.csv"), table(folder / "attacks.csv")
    wanted = [f"{name}_{side}" for name in ("kad", "quality_infinity") for side in ("original", "fingerprinted")]
    assert all(abs(float(line[name])) < 1e6 for name in wanted) and line["quality_infinity_original"] != ""
    assert not any(name.startswith("kid") for name in (*line, *attacks[0]))
    (model,) = [each for each in attacks if each["target"] == "model"]
    assert float(model["kad"]) != float(line["kad_fingerprinted"])


def test_one_item_of_each_user_is_judged_in_a_full_run(folder: Path) -> None:
    (line,) = table(folder / "leaderboard.csv")
    assert (line["opinion_metric"], int(line["opinion_items"])) == ("mos", PLAN.users)
    assert 1 < float(line["opinion_lo"]) <= float(line["opinion"]) <= float(line["opinion_hi"]) < 5


def test_nothing_is_judged_in_a_quick_run(tmp_path: Path) -> None:
    (line,) = table(measured(tmp_path, PLAN, []) / "leaderboard.csv")
    assert not [name for name in line if name.startswith("opinion")]


def test_the_modalitys_bound_is_the_plans(folder: Path) -> None:
    plan = json.loads((folder / "run.json").read_text())["plan"]
    assert (plan["content_bound"], plan["model_bound"]) == (5.0, 5.0)
    own = dataclasses.replace(PLAN, content_bound=12.0).bounded(Framed())
    assert (own.content_bound, own.model_bound) == (12.0, 5.0)
    assert PLAN.bounded(Toy()).content_bound == 20.0, "where the modality has none"
