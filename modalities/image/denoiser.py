"""Train the embedded generator's denoiser: a text-conditioned latent diffusion U-Net.

Rombach et al., arXiv:2112.10752; v-prediction of Salimans and Ho, "Progressive Distillation for Fast Sampling of
Diffusion Models", ICLR 2022, arXiv:2202.00512, sec. 4; zero terminal SNR of Lin et al., WACV 2024, arXiv:2305.08891;
prompt dropout for classifier-free guidance of Ho and Salimans, arXiv:2207.12598.
"""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from bench.rng import fenced, stream
from modalities.image import data, text
from modalities.image.autoencoder import CHANNELS, BlockCode, scaling_factor
from modalities.training import Loop, Schedule

SCHEDULE = Schedule(steps=4000, batch=64, rate=1.5e-3, warmup=100, ema=0.998, weight_decay=1e-2)
EMPTY_PROMPTS = 0.1
VARIANTS = 3


def build() -> UNet2DConditionModel:
    """The untrained denoiser; attention only at 8×8, since a 4×4 map of an emoji has little to attend to."""
    return UNet2DConditionModel(
        sample_size=data.SIZE // 8,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(96, 176),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=text.WIDTH,
        attention_head_dim=2,  # diffusers reads this as the number of heads
        norm_num_groups=16,
    )


def noise_schedule() -> DDPMScheduler:
    """The schedule of training; the few-step solver of sampling shares its configuration."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def train(seed: int, device: torch.device, tokenizer: CLIPTokenizer, encoder: CLIPTextModel) -> UNet2DConditionModel:
    """Train, or finish a training that was interrupted; returns the averaged (EMA) denoiser."""
    latents, words = _latents(), _words(seed, tokenizer, encoder)
    latents, words = latents.to(device), words.to(device)
    schedule = noise_schedule()
    with fenced(seed):
        model = build().to(device, memory_format=torch.channels_last)
    if device.type == "cpu":
        model.set_attn_processor(AttnProcessor())  # the fused kernel's backward is slow for 64 tokens

    def terms(unet: nn.Module, rows: Tensor, rng: torch.Generator) -> Tensor:
        """Squared error (B,) of the predicted velocity at random times."""
        count = len(rows)
        z = latents[rows.to(device)]
        variant = torch.randint(VARIANTS, (count,), generator=rng)
        row = torch.where(torch.rand(count, generator=rng) < EMPTY_PROMPTS, len(words) - 1, rows * VARIANTS + variant)
        noise = torch.randn(z.shape, generator=rng).to(device)
        time = torch.randint(1000, (count,), generator=rng).to(device)
        noisy = schedule.add_noise(z, noise, time).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            predicted = unet(noisy, time, words[row.to(device)]).sample.float()
        target = schedule.get_velocity(z, noise, time)
        return F.mse_loss(predicted, target, reduction="none").mean((1, 2, 3))

    def loss(step: int) -> dict[str, Tensor]:
        rng = stream(seed, "denoiser", step)
        return {"loss": terms(model, torch.randint(len(latents), (SCHEDULE.batch,), generator=rng), rng).mean()}

    def validate(averaged: nn.Module) -> dict[str, float]:
        rng = stream(seed, "denoiser", "validation")
        rows = torch.randint(len(latents), (256,), generator=rng)
        with torch.no_grad():
            return {"averaged": float(terms(averaged, rows, rng).mean())}

    Loop("denoiser", SCHEDULE, model, loss, validate, every=250).run()
    return model.eval().requires_grad_(False)


def _latents() -> Tensor:
    """Scaled latents (N, 24, 8, 8) of every image that is not reference."""
    images = data.training_images(("fit", "prompts"))
    code = BlockCode.fit(images)
    return code(images / 255) * scaling_factor(code, images)


@torch.no_grad()
def _words(seed: int, tokenizer: CLIPTokenizer, encoder: CLIPTextModel) -> Tensor:
    """Text states ``(N * VARIANTS + 1, 20, width)``: plain caption, then variants with tags; last the empty prompt."""
    _, codes, styles = data.full_set()
    by_code = {concept.code: concept for concept in data.concepts()}
    rng = stream(seed, "captions")
    captions: list[str] = []
    for code, style in zip(codes, styles, strict=True):
        if by_code[code].split != "reference":
            captions.append(by_code[code].caption(style))
            captions += [text.varied_caption(by_code[code], style, rng) for _ in range(VARIANTS - 1)]
    ids = text.tokens(tokenizer, [*captions, ""])
    encoder = encoder.cpu()
    return torch.cat([encoder(part).last_hidden_state for part in ids.split(512)])
