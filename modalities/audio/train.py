"""Train the embedded text-to-audio generator from scratch: ``make embedded MODALITY=audio``.

Writes a `StableAudioPipeline` folder in half precision. Every stage resumes from its last checkpoint; the same script
runs on CPU and GPU. The training logs go to ``docs/training``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderOobleck, StableAudioPipeline
from torch import nn
from transformers import T5Tokenizer

from bench.folders import cache_folder
from modalities.audio import autoencoder, denoiser, scout, text
from modalities.audio.denoiser import Conditioned
from modalities.audio.stable_audio import EMBEDDED

LOGS = Path("docs/training")
STAGES = ("scout", "decoder", "encoder", "denoiser")
LOGGED = ("audio_scout", *autoencoder.DECODER, "audio_encoder", *(part.name for part in denoiser.ROUNDS))


def main(
    seed: Annotated[int, typer.Option(help="Determines everything that is random.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    only: Annotated[str, typer.Option(help=f"One stage of {', '.join(STAGES)}, to run stages beside each other.")] = "",
) -> None:
    """Train the latent space, the autoencoder and the denoiser, then assemble the pipeline."""
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if only and only not in STAGES:
        raise typer.BadParameter(f"expected one of {', '.join(STAGES)}, found {only!r}")
    code = scout.train(seed, place)
    tokenizer = text.build_tokenizer()
    vae = autoencoder.build()
    if only in ("", "decoder"):
        vae.decoder = autoencoder.train_decoder(seed, place, code)
    if only in ("", "encoder"):
        vae.encoder = autoencoder.train_encoder(seed, place, code)
    if only in ("", "denoiser"):
        model = denoiser.train(seed, place, code, tokenizer)
    if only:
        return
    assemble(vae, model, tokenizer)
    LOGS.mkdir(parents=True, exist_ok=True)
    for name in LOGGED:
        shutil.copyfile(cache_folder() / "training" / f"{name}.csv", LOGS / f"{name}.csv")


def assemble(vae: AutoencoderOobleck, model: Conditioned, tokenizer: T5Tokenizer) -> None:
    """Write the pipeline folder; it replaces the old one only when it is complete."""
    parts: dict[str, nn.Module] = {
        "vae": vae.cpu(),
        "text_encoder": model.encoder.cpu(),
        "projection_model": model.projection.cpu(),
        "transformer": model.transformer.cpu(),
    }
    pipeline = StableAudioPipeline(**parts, tokenizer=tokenizer, scheduler=denoiser.solver())
    partial = EMBEDDED.with_name(f".{EMBEDDED.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.to(dtype=torch.float16).save_pretrained(partial, safe_serialization=True)
    shutil.rmtree(EMBEDDED, ignore_errors=True)
    os.replace(partial, EMBEDDED)
    total = sum(p.numel() for part in parts.values() for p in part.parameters())
    size = sum(path.stat().st_size for path in EMBEDDED.rglob("*") if path.is_file())
    print(f"wrote {EMBEDDED}: {total / 1e6:.2f} M parameters, {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    typer.run(main)
