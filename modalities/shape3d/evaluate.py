"""Measure the embedded generator: ``python -m modalities.shape3d.evaluate`` after ``make data MODALITY=3d``.

Reconstruction of learned and of held-out parts, how often the category network names the category that was asked for,
set scores beside real parts, time to sample; and a sheet of rendered samples. Writes ``docs/3d_generator.json`` and
``docs/3d_sheet.png``.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import cast

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bench.metrics.intervals import Interval, clustered
from bench.protocol import Mesh
from bench.rng import stream
from modalities.shape3d import Shape3D, data, perceptual, sets
from modalities.shape3d.autoencoder import grid_iou
from modalities.shape3d.categories import truth
from modalities.shape3d.grid_generator import GridGenerator, load
from modalities.shape3d.parts import VARIANTS, Part, every_part, largest_categories
from modalities.shape3d.pictures import rendered

DOCS = Path("docs")
SEED = 0
SHOWN = 32
ASKED = 320
COMPARED = 128


def reconstruction(generator: GridGenerator, fields: Tensor, parts: list[Part], name: str) -> Interval:
    """Intersection over union at 32³ of fields encoded and decoded, clustered by mould."""
    with torch.inference_mode():
        parted = generator.encode(fields).split(generator.batch)
        restored = torch.cat([generator.decode(generator.decoder, z).cpu() for z in parted])
    return _interval(grid_iou(restored, fields), parts, name)


def agreement(generator: GridGenerator, split: str) -> tuple[Interval, int]:
    """How often the category network names what was asked for, of prompts of the ten largest categories.

    Returns:
        The share with its interval, and how many samples.
    """
    asked = _asked(split, ASKED)
    meshes = sampled(generator, [part.caption(variant) for part, variant in asked], stream(SEED, "agreement", split))
    guesses = _guesses(meshes)
    right = (guesses == truth([part for part, _ in asked])).float()
    return _interval(right, [part for part, _ in asked], f"agreement {split}"), len(asked)


def _asked(split: str, count: int) -> list[tuple[Part, int]]:
    known = [p for p in every_part() if p.split == split and p.category in largest_categories()]
    order = torch.randperm(len(known), generator=stream(SEED, "asked", split)).tolist()
    return [(known[i], place % VARIANTS) for place, i in enumerate(order[:count])]


def _guesses(meshes: list[Mesh]) -> Tensor:
    network = perceptual.pointnet()
    with torch.inference_mode():
        x = torch.cat([perceptual.oriented_points([mesh], stream(0, "features")) for mesh in meshes])
        guesses: Tensor = network(x.nan_to_num(0.0)).argmax(1)
    return guesses


def real_accuracy() -> dict[str, float | int]:
    """The category network on every held-out part of the ten largest categories."""
    rows = [row for row in data.rows_of(("reference",)) if every_part()[row].category in largest_categories()]
    meshes: list[Mesh] = []
    for part in (rows[at : at + 64] for at in range(0, len(rows), 64)):
        meshes += Shape3D().release(data.fields(part, [0] * len(part)))
    right = _guesses(meshes) == truth([every_part()[row] for row in rows])
    return {"mean": round(float(right.float().mean()), 4), "n": len(rows)}


def sampled(generator: GridGenerator, prompts: list[str], rng: torch.Generator) -> list[Mesh]:
    """Released samples of prompts."""
    latents = generator.latents(prompts, rng)
    with torch.inference_mode():
        fields = torch.cat([generator.decode(generator.decoder, z).cpu() for z in latents.split(generator.batch)])
    return Shape3D().release(fields)


def _interval(values: Tensor, parts: list[Part], name: str) -> Interval:
    return clustered(values.numpy(), [part.mould for part in parts], rng=stream(SEED, "interval", name))


def show(generator: GridGenerator) -> None:
    """Draw 32 samples, the first benchmark prompts of a seed, not a selection."""
    prompts = Shape3D().prompts(SHOWN, stream(SEED, "sheet"))
    pictures = rendered(sampled(generator, prompts, stream(SEED, "sheet latents")))
    figure = Figure(figsize=(14, 8), dpi=90, layout="constrained")
    for index, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True)):
        axes = figure.add_subplot(4, 8, index + 1)
        axes.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        words = prompt.split()
        axes.set_title(" ".join(words[:4]) + "\n" + " ".join(words[4:])[:28], fontsize=7)
    figure.savefig(DOCS / "3d_sheet.png", metadata={"Software": None})


def main() -> None:
    """Measure everything, print it, and write it under ``docs``."""
    generator = cast(GridGenerator, load(None, torch.device("cpu")))
    report: dict[str, object] = {"torch_threads": torch.get_num_threads()}
    for name, split in (("learned", "fit"), ("held_out", "reference")):
        fields, chosen = data.shipped(split)
        found = reconstruction(generator, fields, [part for part, _ in chosen], name)
        report[f"reconstruction_iou_{name}"] = found._asdict() | {"n": len(fields)}
    report["category_network_on_real"] = real_accuracy() | {"chance": 1 / (len(largest_categories()) + 1)}
    for name, split in (("learned", "prompts"), ("held_out", "reference")):
        interval, count = agreement(generator, split)
        report[f"category_{name}"] = interval._asdict() | {"n": count}
    began = time.perf_counter()
    asked = Shape3D().prompts(COMPARED, stream(SEED, "sets"))
    meshes = sampled(generator, asked, stream(SEED, "set latents"))
    report["seconds_for_128_samples"] = round(time.perf_counter() - began, 2)
    report["sets"] = sets.compared(meshes, Shape3D().reference(COMPARED))._asdict() | {"n": COMPARED}
    report["parameters"] = sum(p.numel() for p in generator.networks.parameters())
    DOCS.mkdir(exist_ok=True)
    show(generator)
    text = json.dumps(report, indent=2)
    (DOCS / "3d_generator.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
