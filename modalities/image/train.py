"""Train the embedded text-to-image generator from scratch: ``make embedded MODALITY=image``.

Writes a `StableDiffusionPipeline` folder in half precision. Every stage resumes from its last checkpoint; the same
script runs on CPU and GPU. The training logs go to ``docs/training``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from bench.folders import cache_folder
from modalities.image import autoencoder, denoiser, text
from modalities.image.diffusion import EMBEDDED

LOGS = Path("docs/training")


def main(
    seed: Annotated[int, typer.Option(help="Determines everything that is random.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
) -> None:
    """Train text encoder, autoencoder and denoiser, then assemble the pipeline."""
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    folder = cache_folder() / "training"
    tokenizer, encoder = text.train(seed, place, folder / "tokenizer")
    vae = autoencoder.train(seed, place)
    model = denoiser.train(seed, place, tokenizer, encoder)
    assemble(vae, model.unet, model.encoder, tokenizer)
    LOGS.mkdir(parents=True, exist_ok=True)
    for stage in ("text", "autoencoder", *(part.name for part in denoiser.ROUNDS)):
        shutil.copyfile(folder / f"{stage}.csv", LOGS / f"image_{stage}.csv")


def assemble(vae: AutoencoderKL, unet: UNet2DConditionModel, encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> None:
    """Write the pipeline folder; it replaces the old one only when it is complete."""
    base = denoiser.noise_schedule().config
    shared = {key: base[key] for key in ("beta_start", "beta_end", "beta_schedule", "prediction_type")}
    solver = DPMSolverMultistepScheduler(
        **shared, rescale_betas_zero_snr=True, timestep_spacing="trailing", algorithm_type="dpmsolver++", steps_offset=1
    )
    pipeline = StableDiffusionPipeline(
        vae=vae.cpu(),
        text_encoder=encoder.cpu(),
        tokenizer=tokenizer,
        unet=unet.cpu(),
        scheduler=solver,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    partial = EMBEDDED.with_name(f".{EMBEDDED.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.to(dtype=torch.float16).save_pretrained(partial, safe_serialization=True)
    shutil.rmtree(EMBEDDED, ignore_errors=True)
    os.replace(partial, EMBEDDED)
    total = sum(p.numel() for m in (vae, unet, encoder) for p in m.parameters())
    size = sum(path.stat().st_size for path in EMBEDDED.rglob("*") if path.is_file())
    print(f"wrote {EMBEDDED}: {total / 1e6:.2f} M parameters, {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    typer.run(main)
