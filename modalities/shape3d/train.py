"""Train the embedded text-to-3D generator from scratch: ``make embedded MODALITY=3d``.

Writes a folder of diffusers and transformers models in half precision, and the PointNet of the quality metric. Every
stage resumes from its last checkpoint; the same script runs on CPU and GPU. The training logs go to ``docs/training``.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import T5Tokenizer

from bench.folders import cache_folder
from modalities.shape3d import autoencoder, categories, prior, text
from modalities.shape3d.grid import Conditioned, GridAutoencoder
from modalities.shape3d.grid_generator import EMBEDDED, PIPELINE

LOGS = Path("docs/training")
STAGES = ("categories", "autoencoder", "prior")
LOGGED = ("3d_categories", "3d_autoencoder", "3d_prior")


def main(
    seed: Annotated[int, typer.Option(help="Determines everything that is random.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    only: Annotated[str, typer.Option(help=f"One stage of {', '.join(STAGES)}.")] = "",
) -> None:
    """Train the category network, the autoencoder and the prior, then assemble the generator."""
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if only and only not in STAGES:
        raise typer.BadParameter(f"expected one of {', '.join(STAGES)}, found {only!r}")
    if only in ("", "categories"):
        _, accuracy, count = categories.train(seed)
        print(f"category network: {accuracy:.3f} right of {count} held-out parts")
    if only == "categories":
        return
    model = autoencoder.train(seed, place)
    if only == "autoencoder":
        return
    tokenizer = text.build_tokenizer()
    conditioned = prior.train(seed, place, model, tokenizer)
    assemble(model, conditioned, tokenizer)
    LOGS.mkdir(parents=True, exist_ok=True)
    for name in LOGGED:
        if (log := cache_folder() / "training" / f"{name}.csv").is_file():
            shutil.copyfile(log, LOGS / log.name)


def assemble(model: GridAutoencoder, conditioned: Conditioned, tokenizer: T5Tokenizer, folder: Path = EMBEDDED) -> None:
    """Write the generator's folder; it replaces the old one only when it is complete."""
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "model_index.json").write_text(json.dumps({"_class_name": PIPELINE}, indent=2) + "\n", encoding="utf-8")
    model.save(partial / "autoencoder")
    prior_network: Any = conditioned.prior
    prior_network.cpu().half().save_pretrained(partial / "prior", safe_serialization=True)
    conditioned.encoder.cpu().half().save_pretrained(partial / "text_encoder", safe_serialization=True)
    tokenizer.save_pretrained(partial / "tokenizer")
    prior.solver().save_pretrained(partial / "scheduler")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    total = sum(p.numel() for part in (model, conditioned) for p in part.parameters())
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"wrote {folder}: {total / 1e6:.2f} M parameters, {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    typer.run(main)
