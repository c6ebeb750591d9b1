"""The whole run on the toy modality: what it measures, that it repeats, that it goes on where it was stopped."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bench.calibration import threshold
from bench.codebook import coalition_members, code_book, user_codes
from bench.latents import cached_latents
from bench.presets import Plan
from bench.printed import read_csv
from bench.protocol import Codec, Generator, Modality, Scheme, UserError
from bench.results import Store
from bench.rng import stream
from bench.rows import column
from tests.conftest import PLAN, Bench
from tests.toy import ATTACKS, Toy, ToyAverage, ToyCodec, ToyGenerator, ToyNoise, ToyScheme, ToyWeightNoise

TABLES = ("leaderboard.csv", "attacks.csv", "capacity.csv", "rows.parquet", "report.md")


def files(folder: Path, names: Sequence[str] = ("leaderboard.csv", "attacks.csv")) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def rows(folder: Path) -> pa.Table:
    return pq.read_table(folder / "rows.parquet")


def test_toy_satisfies_the_contracts(toy: Bench) -> None:
    assert isinstance(toy.modality, Modality)
    assert isinstance(toy.generator, Generator)
    assert isinstance(toy.codec, Codec)
    assert isinstance(ToyScheme(), Scheme)


def test_clean_items_are_read_without_an_error_and_strong_noise_brings_chance(toy_folder: Path) -> None:
    table = rows(toy_folder).to_pandas().query("not is_negative")
    accuracy = table.groupby("repr").bit_accuracy.mean()
    assert accuracy["none"] == 1
    assert accuracy["ToyNoise(std=0.05)"] > 0.99
    assert accuracy["ToyNoise(std=1.0)"] == pytest.approx(0.5, abs=0.15)


def test_two_colluders_keep_three_quarters_of_each_ones_bits(toy_folder: Path) -> None:
    """Averaged marks keep every bit that both share; a bit that they do not share is a coin toss: 3/4 together."""
    table = rows(toy_folder).to_pandas().query("target == 'coalition'")
    codes = user_codes(PLAN, "ToyScheme", 32)
    groups = coalition_members(PLAN, 2)
    for group, (a, b) in enumerate(groups):
        shared = float((codes[a] == codes[b]).float().mean())
        expected = shared + (1 - shared) / 2  # whoever wins a contested bit, the two members' mean gains a half
        assert table[table.group == group].bit_accuracy.mean() == pytest.approx(expected, abs=1e-9)
        assert table[table.group == group].members.iloc[0].tolist() == [a, b]


def test_one_row_per_item_attack_and_user_plus_the_negatives(toy_folder: Path) -> None:
    table = rows(toy_folder).to_pandas()
    counts = table.groupby(["repr", "kind"]).size().to_dict()
    references = len(Toy().reference())
    assert counts == {
        ("none", "fingerprinted"): 20,
        ("none", "original"): 20,
        ("none", "reference"): references,
        **{(f"ToyNoise(std={std})", kind): n for std in (0.05, 1.0) for kind, n in KINDS.items()},
        ("ToyWeightNoise(std=0.02)", "fingerprinted"): 3 * 4,
        ("ToyAverage(users=2)", "fingerprinted"): 3 * 4,
    }
    assert (table.is_negative == (table.kind != "fingerprinted")).all()
    assert table[table.is_negative].user.eq(-1).all()
    assert table.soft_bits.map(len).eq(32).all()
    assert table[~table.is_negative].psnr.notna().all()


KINDS = {"fingerprinted": 20, "original": 8, "reference": 8}


def test_rows_agree_with_each_other(toy_folder: Path) -> None:
    table = rows(toy_folder)
    frame = table.to_pandas().query("kind == 'fingerprinted' and target != 'coalition'")
    codes = code_book(PLAN, "ToyScheme", 32)
    soft = torch.tensor(np.stack(frame.soft_bits.to_list()))
    truth = codes[torch.tensor(frame.user.to_numpy()).long()]
    assert ((soft > 0) == (truth > 0)).sum(1).tolist() == frame.matches.tolist()
    tau = threshold(32, 100, PLAN.fpr)
    assert frame.correct.tolist() == ((frame["rank"] == 1) & (frame.matches >= tau)).tolist()
    assert set(column(table, "registered")) == {100}


def test_a_second_run_writes_the_same_bytes(toy: Bench, toy_folder: Path, tmp_path: Path) -> None:
    """All but the measured seconds: those are kept by the cells of one folder, and differ between two."""
    toy(tmp_path / "out")
    ours, theirs = rows(tmp_path / "out"), rows(toy_folder)
    assert ours.replace_schema_metadata().equals(theirs.replace_schema_metadata())
    assert files(tmp_path / "out", ["capacity.csv"]) == files(toy_folder, ["capacity.csv"])


def test_the_batch_changes_no_row(toy: Bench, toy_folder: Path, tmp_path: Path) -> None:
    toy(tmp_path / "out", plan=dataclasses.replace(PLAN, batch=64))
    for name in ("matches", "rank", "accepted", "p_value"):
        assert rows(tmp_path / "out")[name].equals(rows(toy_folder)[name])


def test_adding_an_attack_changes_no_other_row(toy: Bench, toy_folder: Path, tmp_path: Path) -> None:
    toy(tmp_path / "out", attacks=[ATTACKS[2], ToyNoise(0.3), ATTACKS[0]])
    ours, theirs = (rows(folder).to_pandas() for folder in (tmp_path / "out", toy_folder))
    for name in ("none", "ToyNoise(std=0.05)", "ToyWeightNoise(std=0.02)"):
        a, b = (frame[frame["repr"] == name].reset_index(drop=True) for frame in (ours, theirs))
        assert len(a) and a.drop(columns=["soft_bits", "members"]).equals(b.drop(columns=["soft_bits", "members"]))


def test_adding_a_scheme_changes_no_other_row(toy: Bench, toy_folder: Path, tmp_path: Path) -> None:
    from bench.run import run

    other = ToyScheme(bits=16).fit(toy.modality, toy.generator, stream(1))
    both = {"Another": other, "ToyScheme": toy.codec}
    run(modality=Toy(), generator=toy.generator, codecs=both, attacks=ATTACKS, plan=PLAN, folder=tmp_path / "out")
    ours = rows(tmp_path / "out").to_pandas().query("scheme == 'ToyScheme'").reset_index(drop=True)
    theirs = rows(toy_folder).to_pandas()
    lists = ["soft_bits", "members"]
    assert ours.drop(columns=lists).equals(theirs.drop(columns=lists))


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    toy: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """With a clock that stands still, even the columns of seconds are those of a run that was never stopped."""
    monkeypatch.setattr("bench.cells.time.perf_counter", lambda: 0.0)
    folder, measured, write = tmp_path / "out", list[str](), Store.write

    def stop(self: Store, key: str, cell: Any) -> Any:
        if len(measured) == after:
            raise KeyboardInterrupt
        measured.append(key)
        return write(self, key, cell)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Store, "write", stop)
        toy(folder)
    kept = {path.name: path.read_bytes() for path in (folder / "cells").iterdir()}
    assert len(kept) == after and not (folder / "leaderboard.csv").exists()
    toy(folder)
    toy(tmp_path / "whole")
    assert all((folder / "cells" / name).read_bytes() == raw for name, raw in kept.items()), "measured again"
    assert files(folder, TABLES) == files(tmp_path / "whole", TABLES)


def test_a_finished_run_measures_nothing_again(toy: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(tmp_path / "out")
    whole = files(tmp_path / "out", TABLES)
    monkeypatch.setattr(ToyGenerator, "decode", None)
    monkeypatch.setattr(ToyCodec, "read", None)
    toy(tmp_path / "out")
    assert files(tmp_path / "out", TABLES) == whole


def test_a_killed_process_leaves_only_whole_cells(toy: Bench, toy_folder: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of a cell's write, then the same run again: like one that was never stopped."""
    folder = tmp_path / "out"
    environment = os.environ | {"GENPRINT_CACHE": str(tmp_path / "cache"), "OUT": str(folder)}
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment, cwd=Path(__file__).parent.parent)
    assert killed.returncode == -signal.SIGKILL
    kept = {path: path.read_bytes() for path in (folder / "cells").glob("*.parquet")}
    assert len(kept) == 2
    toy(folder)
    assert all(path.read_bytes() == raw for path, raw in kept.items())
    for name in ("leaderboard.csv", "attacks.csv"):
        ours, theirs = (read_csv(each / name) for each in (folder, toy_folder))
        assert [untimed(line) for line in ours] == [untimed(line) for line in theirs]


def untimed(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if not name.startswith("seconds")}


KILLED = """
import os, signal, sys
from pathlib import Path
from bench.run import run
from bench.rng import stream
from tests.conftest import PLAN
from tests.toy import ATTACKS, Toy, ToyScheme

done, replace = [], os.replace
def kill(source, target):
    if str(target).endswith(".parquet"):
        done.append(target)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = kill
toy = Toy()
codec = ToyScheme().fit(toy, toy.generator(None), stream(0, "fit", "ToyScheme"))
run(modality=toy, generator=toy.generator(None), codecs={"ToyScheme": codec}, attacks=ATTACKS, plan=PLAN,
    folder=Path(os.environ["OUT"]))
"""


def test_latents_are_sampled_once_and_survive_a_broken_cache(
    toy: Bench, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cached_latents(toy.modality, toy.generator, PLAN)
    assert first.shape == (5, 4, 25, 4, 4)
    (path,) = (cache / "latents").iterdir()
    path.write_bytes(b"broken")
    assert torch.equal(cached_latents(toy.modality, toy.generator, PLAN), first)
    monkeypatch.setattr(ToyGenerator, "latents", None)
    assert torch.equal(cached_latents(toy.modality, toy.generator, PLAN), first)
    assert [each.name for each in (cache / "latents").iterdir()] == [path.name], "a partial file stayed"


def test_latents_depend_on_the_decoder_and_the_seed(toy: Bench) -> None:
    first = cached_latents(toy.modality, toy.generator, PLAN)
    with torch.no_grad():
        toy.generator.decoder.get_parameter("paint.bias").add_(1e-3)
    cached_latents(toy.modality, toy.generator, PLAN)
    other = cached_latents(toy.modality, toy.generator, dataclasses.replace(PLAN, seed=1))
    assert not torch.equal(first, other)


def test_the_public_decoder_is_left_as_it_was(toy: Bench, tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in toy.generator.decoder.state_dict().items()}
    toy(tmp_path / "out", attacks=[ToyWeightNoise(), ToyAverage()])
    after = toy.generator.decoder.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_attacks_that_cannot_run_leave_their_axis_empty(toy: Bench, tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, model_users=0, coalitions=0)
    info = toy(tmp_path / "out", plan=plan, attacks=[*ATTACKS, ToyAverage(9)]).info
    assert info["attacks"] == ["ToyNoise(std=0.05)", "ToyNoise(std=1.0)"]


def test_nothing_to_measure_is_said_before_a_folder_is_made(toy: Bench, tmp_path: Path) -> None:
    from bench.run import run

    with pytest.raises(UserError, match="expected at least one codec, found none"):
        run(modality=Toy(), generator=toy.generator, codecs={}, attacks=(), plan=PLAN, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": -3}, "users: expected 1 to 100000, found -3"),
        ({"items": 0}, "items: expected 1 to 10000, found 0"),
        ({"users": 10**9}, "users: expected 1 to 100000, found 1000000000"),
        ({"users": 10**5, "items": 10**4}, "users x items: expected at most"),
        ({"users": 200}, "registered: expected at least the 200 users, found 100"),
        ({"fpr": 0.0}, "fpr: expected a rate between 0 and 1, found 0.0"),
        ({"seed": -1}, "seed: expected 0 to"),
    ],
)
def test_absurd_plans_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        dataclasses.replace(PLAN, **change)


def test_a_plan_survives_json() -> None:
    assert Plan.from_dict(dataclasses.asdict(dataclasses.replace(PLAN, only=("a", "b")))).only == ("a", "b")
