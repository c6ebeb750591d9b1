"""Painting a picture anew: noise on its latent, taken away by the diffusion model without a prompt."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bench.protocol import UserError

FEWEST_STEPS = 4
PART = 32


def repaint(pipeline: Any, latents: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Latents (B, C, h, w) after noise was added and removed.

    Meng et al., "SDEdit", ICLR 2022, arXiv:2108.01073; as an attack Zhao et al., arXiv:2306.01953. The solver is
    DPM-Solver++ (Lu et al., arXiv:2211.01095), which draws nothing itself.

    Args:
        pipeline: a diffusers pipeline with one U-Net and one text encoder, as Stable Diffusion has.
        latents: scaled, on any device.
        share: part of the noise schedule that is gone through, in (0, 1).
        rng: of the noise.

    Raises:
        UserError: for a pipeline of another kind.
    """
    from diffusers import DPMSolverMultistepScheduler  # takes seconds to import

    if getattr(pipeline, "unet", None) is None or getattr(pipeline, "text_encoder_2", None) is not None:
        kind = type(pipeline).__name__
        raise UserError(f"regeneration: expected a pipeline with one U-Net and one text encoder, found {kind}")
    noise = torch.randn(latents.shape, generator=rng, device=rng.device).cpu()
    parts = []
    for z, fresh in zip(latents.split(PART), noise.split(PART), strict=True):
        scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, algorithm_type="dpmsolver++")
        parts.append(_denoised(pipeline, scheduler, z, fresh, share))
    return torch.cat(parts)


def _denoised(pipeline: Any, scheduler: Any, latents: Tensor, noise: Tensor, share: float) -> Tensor:
    unet = pipeline.unet
    device, dtype = unet.device, unet.dtype
    total = max(20, math.ceil(FEWEST_STEPS / share))
    scheduler.set_timesteps(total, device=device)
    start = total - max(1, round(total * share))
    scheduler.set_begin_index(start)
    steps = scheduler.timesteps[start:]
    z = scheduler.add_noise(latents.to(device, dtype), noise.to(device, dtype), steps[:1].expand(len(latents)))
    empty, _ = pipeline.encode_prompt("", device, len(latents), False)
    for step in steps:
        guess = unet(scheduler.scale_model_input(z, step), step, encoder_hidden_states=empty).sample
        z = scheduler.step(guess, step, z).prev_sample
    painted: Tensor = z.float().cpu()
    return painted
