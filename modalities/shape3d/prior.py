"""Train the embedded generator's prior: a diffusion over latents conditioned on text."""

from __future__ import annotations

import math

import torch
from diffusers import EDMDPMSolverMultistepScheduler, PriorTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import T5Tokenizer

from bench.precision import mixed
from bench.rng import fenced, stream
from modalities.shape3d import data, text
from modalities.shape3d.grid import NOISE_LEVELS, PATCH, PLACES, Conditioned, GridAutoencoder
from modalities.shape3d.parts import VARIANTS, every_part
from modalities.training import Loop, Schedule

SCHEDULE = Schedule(steps=4000, batch=64, rate=1e-3, warmup=50, ema=0.995, weight_decay=0.01, muon_rate=0.005)
EMPTY_PROMPTS = 0.1
LAYERS, HEAD = 5, 48


def build(channels: int) -> PriorTransformer:
    """The untrained prior of latents with so many channels."""
    return PriorTransformer(
        num_attention_heads=text.WIDTH // HEAD,
        attention_head_dim=HEAD,
        num_layers=LAYERS,
        embedding_dim=channels * PATCH**3,
        num_embeddings=PLACES,
        additional_embeddings=0,
        embedding_proj_dim=text.WIDTH,
        clip_embed_dim=channels * PATCH**3,
        time_embed_act_fn="silu",
        norm_in_type="layer",
        encoder_hid_proj_type=None,
        added_emb_type=None,
    )


def solver() -> EDMDPMSolverMultistepScheduler:
    """The few-step solver of sampling, without noise of its own."""
    low, high = NOISE_LEVELS
    return EDMDPMSolverMultistepScheduler(
        sigma_min=low, sigma_max=high, sigma_data=1.0, prediction_type="v_prediction", num_train_timesteps=1000
    )


def train(seed: int, device: torch.device, autoencoder: GridAutoencoder, tokenizer: T5Tokenizer) -> Conditioned:
    """Train, or finish a training that was interrupted; returns the averaged (EMA) networks."""
    with fenced(seed):
        model = Conditioned(build(autoencoder.config.latent), text.build_encoder(tokenizer)).to(device)
        nn.init.normal_(
            model.prior.get_parameter("positional_embedding"), std=0.02
        )  # zero in diffusers, where weights are loaded
    latents, rows = latents_of(autoencoder, device)
    known = [every_part()[row].caption(variant) for row in rows for variant in range(VARIANTS)]
    ids, mask = (each.to(device) for each in text.tokens(tokenizer, known))

    def terms(conditioned: nn.Module, rng: torch.Generator, count: int) -> Tensor:
        """Squared error (B,) of the predicted velocity at random noise levels."""
        chosen = torch.randint(len(latents), (count,), generator=rng).to(device)
        z = latents[chosen].float()
        noise = torch.randn(z.shape, generator=rng).to(device)
        sigma = (math.pi / 2 * torch.rand(count, generator=rng)).tan().clamp(*NOISE_LEVELS).to(device)
        heard = (torch.rand(count, generator=rng) >= EMPTY_PROMPTS).float().to(device)
        wide = sigma.view(-1, 1, 1, 1, 1)
        # On processors the plain form of attention is faster than the fused one for so few tokens.
        with mixed(device), sdpa_kernel(SDPBackend.MATH):
            predicted = conditioned(z + wide * noise, sigma, ids[chosen], mask[chosen], heard)
        target = (noise - wide * z) / (1 + wide.square()).sqrt()
        return F.mse_loss(predicted.float(), target, reduction="none").flatten(1).mean(1)

    def loss(step: int) -> dict[str, Tensor]:
        return {"loss": terms(model, stream(seed, "3d prior", step), SCHEDULE.batch).mean()}

    def validate(averaged: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"averaged": float(terms(averaged, stream(seed, "3d prior", "validation"), 128).mean())}

    Loop("3d_prior", SCHEDULE, model, loss, validate, every=100).run()
    return model.eval().requires_grad_(False)


@torch.no_grad()
def latents_of(autoencoder: GridAutoencoder, device: torch.device) -> tuple[Tensor, list[int]]:
    """Scaled latents (3 N, 4, 8, 8, 8) of every part that is not reference in its colours; the parts' rows."""
    rows = data.rows_of(("fit", "prompts"))
    pairs = [(row, variant) for row in rows for variant in range(VARIANTS)]
    parts = []
    for start in range(0, len(pairs), 16):
        some, colours = zip(*pairs[start : start + 16], strict=True)
        parts.append(autoencoder.encode(data.fields(list(some), list(colours)).to(device)).half())
    return torch.cat(parts), rows
