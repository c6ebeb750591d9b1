"""The comparison: the same training budget and clean quality for all, kept codecs, and one run of model attacks.

Everything stops and goes on: a codec that its folder holds is not trained again, a cell not measured again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from bench.digest import codec_digest, digest_of, generator_digest
from bench.engine import logger, pick_device
from bench.environment import describe_device
from bench.presets import Plan
from bench.protocol import Attack, Codec, Generator, Modality, Scheme, UserError
from bench.results import write_json
from bench.rng import stream
from bench.run import run

FORMAT = 1
"""Version of ``compare.json``."""


class Entrant(Protocol):
    """A scheme with its place in the heat map."""

    @property
    def modulation(self) -> str:
        """Row."""

    @property
    def recipe(self) -> str:
        """Column."""

    @property
    def scheme(self) -> Scheme:
        """What is fitted."""


@dataclass(frozen=True)
class Size:
    """How large a comparison is.

    Attributes:
        steps: of each training, at most.
        pool: latents drawn for it.
        seeds: trainings of those that are repeated.
        plan: of the run; all users' decoders are attacked, so that losses are those of the same items.
        attacks: strengths by the name of the attack's family.
        only: names of the entrants; empty means all.
    """

    steps: int
    pool: int
    seeds: int
    plan: Plan
    attacks: Mapping[str, tuple[float, ...]]
    only: tuple[str, ...] = ()


SIZES: dict[str, Size] = {
    "smoke": Size(
        steps=100,
        pool=64,
        seeds=1,
        plan=Plan("smoke", 4, 2, 4, 0, 4, True, public_items=16),
        attacks={"weight-noise": (0.1, 0.5), "weight-quantization": (4,), "interpolation": (0.5,)},
        only=("amplitude", "amplitude+noise", "uchida"),
    ),
    "quick": Size(
        steps=1500,
        pool=1024,
        seeds=1,
        plan=Plan("quick", 16, 4, 16, 0, 64, True, public_items=64),
        attacks={
            "weight-noise": (0.02, 0.05, 0.1, 0.2, 0.35),
            "absolute-weight-noise": (0.005, 0.02),
            "weight-quantization": (6, 4, 3),
            "magnitude-pruning": (0.2, 0.3, 0.5),
            "fine-tune": (10,),
            "interpolation": (0.25, 0.5, 0.75),
        },
    ),
    "standard": Size(
        steps=10_000,
        pool=4096,
        seeds=3,
        plan=Plan("standard", 32, 4, 32, 0, 128, True),
        attacks={
            "weight-noise": (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5),
            "absolute-weight-noise": (0.002, 0.005, 0.01, 0.02, 0.05),
            "weight-quantization": (8, 6, 5, 4, 3),
            "magnitude-pruning": (0.1, 0.2, 0.3, 0.5, 0.7),
            "fine-tune": (10, 30, 100),
            "interpolation": (0.25, 0.5, 0.75, 0.9),
        },
    ),
}


class Trained(NamedTuple):
    """One codec of the comparison.

    Attributes:
        codec: as its file gives it.
        about: what ``compare.json`` says of it.
    """

    codec: Codec
    about: dict[str, Any]


class Bench(NamedTuple):
    """What is fingerprinted, where results go, and what reads a codec's file."""

    modality: Modality
    generator: Generator
    folder: Path
    load: Callable[[Path], Codec]


def compare(
    bench: Bench,
    entrants: Mapping[str, Entrant],
    seeds: Mapping[str, int],
    attacks: Sequence[Attack],
    plan: Plan,
) -> list[str]:
    """Train who is not trained yet, then measure all under ``attacks`` and write ``compare.json``.

    Args:
        bench: see :class:`Bench`; the run goes to its ``folder / "run"``, codecs to ``folder / "codecs"``.
        entrants: by name.
        seeds: trainings of each; 1 where it is not named.
        attacks: on models.
        plan: of the run.

    Returns:
        Who was left out, and why, one line each: a decoder without norms has nothing for a modulation of norms.
    """
    trained: dict[str, Trained] = {}
    left_out: list[str] = []
    for name, entrant in entrants.items():
        for seed in range(seeds.get(name, 1)):
            try:
                trained[f"{name}@{seed}"] = kept(bench, (name, seed), entrant, plan)
            except UserError as error:
                left_out.append(f"{name}: {error}")
                logger.warning("left out %s: %s", name, error)
                break
    if not trained:
        raise UserError(f"compare: expected a scheme that fits {bench.generator.name!r}, found none: {left_out[0]}")
    codecs = {name: each.codec for name, each in trained.items()}
    bench.folder.mkdir(parents=True, exist_ok=True)
    run(
        modality=bench.modality,
        generator=bench.generator,
        codecs=codecs,
        attacks=attacks,
        plan=plan,
        folder=bench.folder / "run",
    )
    members = {name: each.about for name, each in trained.items()}
    about = {"format": FORMAT, "modality": bench.modality.name, "paired_metric": bench.modality.paired_metric}
    write_json(about | {"members": members, "left_out": left_out}, bench.folder / "compare.json")
    return left_out


def kept(bench: Bench, title: tuple[str, int], entrant: Entrant, plan: Plan) -> Trained:
    """The codec in the folder that was trained just so, or a new one; the facts of its training lie beside it."""
    name, seed = title
    start: Codec | None = getattr(entrant.scheme, "start", None)
    what = {"scheme": repr(entrant.scheme), "generator": generator_digest(bench.generator), "seed": seed}
    key = digest_of(what | ({} if start is None else {"start": codec_digest(start)}))
    path = bench.folder / "codecs" / f"{name}-{seed}-{key[:12]}.safetensors"
    facts = path.with_suffix(".json")
    if not (path.is_file() and facts.is_file()):
        began = time.perf_counter()
        logger.info("compare: training %s with seed %d", name, seed)
        codec = entrant.scheme.fit(bench.modality, bench.generator, stream(plan.seed, "compare", seed))
        path.parent.mkdir(parents=True, exist_ok=True)
        codec.save(path)
        seconds = getattr(codec, "fit_seconds", time.perf_counter() - began)  # with those of what it went on from
        device = None if codec is start else describe_device(pick_device(plan.device))
        write_json({"device": device, "fit_seconds": round(seconds, 1)}, facts)
    loaded = bench.load(path)
    about = {
        "name": name,
        "modulation": entrant.modulation,
        "recipe": entrant.recipe,
        "seed": seed,
        "scheme": repr(entrant.scheme),
        "codec": path.name,
        "megabytes": round(path.stat().st_size / 1e6, 3),
        **json.loads(facts.read_text(encoding="utf-8")),
        **learning(getattr(loaded, "about", {}).get("log", "[]")),
        **footprint(bench.generator.decoder, loaded),
    }
    return Trained(loaded, about)


def learning(log: str) -> dict[str, float | None]:
    """Steps and seconds until the running bit accuracy in a training's log was 0.9, and 0.99; None for never."""
    rows = json.loads(log)
    found: dict[str, float | None] = {}
    for label, level in (("90", 0.9), ("99", 0.99)):
        row: dict[str, float] = next((each for each in rows if each["bit_accuracy"] >= level), {})
        found |= {f"steps_to_{label}": row.get("step"), f"seconds_to_{label}": row.get("seconds")}
    return found


def footprint(decoder: nn.Module, codec: Codec) -> dict[str, float | None]:
    """What one user's copy has otherwise than the public decoder.

    ``changed_bytes`` is what storing it would cost; ``energy_per_bit`` is ‖W' - W‖² / ‖W‖² over the tensors that
    differ, for each bit: against white noise on the weights, E_b of digital communications. None where none differs.
    """
    code = torch.randint(2, (codec.bits,), generator=stream(0, "footprint"))
    copy, public = codec.modulate(decoder, code).state_dict(), decoder.state_dict()
    changed = {name: each for name, each in copy.items() if name not in public or not torch.equal(each, public[name])}
    known = {name: public[name].double() for name in changed if name in public}
    change = sum(float((changed[name] - value).square().sum()) for name, value in known.items())
    base = sum(float(value.square().sum()) for value in known.values())
    size = sum(each.numel() * each.element_size() for each in changed.values())
    return {"changed_bytes": size, "energy_per_bit": change / base / codec.bits if base else None}
