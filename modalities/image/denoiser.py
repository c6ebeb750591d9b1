"""Train the embedded generator's denoiser: a text-conditioned latent diffusion U-Net.

In two rounds: alone, then together with the text encoder, as latent diffusion was first trained.

Rombach et al., arXiv:2112.10752; v-prediction of Salimans and Ho, "Progressive Distillation for Fast Sampling of
Diffusion Models", ICLR 2022, arXiv:2202.00512, sec. 4; zero terminal SNR of Lin et al., WACV 2024, arXiv:2305.08891;
prompt dropout for classifier-free guidance of Ho and Salimans, arXiv:2207.12598.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from bench.precision import mixed
from bench.rng import fenced, stream
from modalities.image import data, text
from modalities.image.autoencoder import CHANNELS, BlockCode, scaling_factor
from modalities.training import Loop, Schedule


@dataclass(frozen=True)
class Round:
    """One of the trainings that follow each other.

    Attributes:
        name: of the checkpoint and the log.
        schedule: see :class:`Schedule`.
        words: whether the text encoder learns too.
        late: whether the times drawn lean towards noise, where the prompt decides what the picture shows. Below the
            middle of the schedule a prompt lowers the error by 6 % at most.
    """

    name: str
    schedule: Schedule
    words: bool
    late: bool


ROUNDS = (
    Round("denoiser", Schedule(4000, batch=64, rate=1.5e-3, warmup=100, ema=0.998), words=False, late=False),
    Round("denoiser_text", Schedule(9500, batch=64, rate=1e-3, warmup=200, ema=0.999), words=True, late=True),
)
TIMES = 1000
EMPTY_PROMPTS = 0.1
VARIANTS = 3


class Conditioned(nn.Module):
    """A denoiser and the text encoder that it listens to.

    Attributes:
        unet: predicts the velocity of a noisy latent, given text states.
        encoder: token ids to text states.
    """

    def __init__(self, unet: UNet2DConditionModel, encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.encoder = unet, encoder

    def forward(self, noisy: Tensor, time: Tensor, ids: Tensor) -> Tensor:
        """Velocity like ``noisy`` (B, 24, 8, 8) at times (B,) under prompts (B, 20)."""
        velocity: Tensor = self.unet(noisy, time, self.encoder(ids).last_hidden_state).sample
        return velocity


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
        num_train_timesteps=TIMES,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def train(seed: int, device: torch.device, tokenizer: CLIPTokenizer, encoder: CLIPTextModel) -> Conditioned:
    """Train, or finish a training that was interrupted.

    Returns:
        The averaged (EMA) denoiser, and the text encoder as it has become.
    """
    with fenced(seed):
        unet = build().to(device, memory_format=torch.channels_last)
    if device.type == "cpu":  # the fused kernels' backward is slow for so few tokens
        unet.set_attn_processor(AttnProcessor())
        encoder.set_attn_implementation("eager")
    model = Conditioned(unet, encoder.to(device))
    latents, ids = _latents().to(device), _captions(seed, tokenizer).to(device)
    for part in ROUNDS:
        model.encoder.requires_grad_(part.words)
        _train_round(part, model, latents, ids, seed)
    return model.eval().requires_grad_(False)


def _train_round(part: Round, model: Conditioned, latents: Tensor, ids: Tensor, seed: int) -> None:
    schedule = noise_schedule()
    device = latents.device

    def terms(conditioned: nn.Module, rng: torch.Generator, count: int) -> Tensor:
        """Squared error (B,) of the predicted velocity at random times."""
        rows = torch.randint(len(latents), (count,), generator=rng)
        variant = torch.randint(VARIANTS, (count,), generator=rng)
        prompt = torch.where(torch.rand(count, generator=rng) < EMPTY_PROMPTS, len(ids) - 1, rows * VARIANTS + variant)
        z = latents[rows.to(device)]
        noise = torch.randn(z.shape, generator=rng).to(device)
        drawn = torch.rand(count, generator=rng)
        time = (TIMES * (drawn.sqrt() if part.late else drawn)).long().to(device)
        noisy = schedule.add_noise(z, noise, time).contiguous(memory_format=torch.channels_last)
        with mixed(device):
            predicted = conditioned(noisy, time, ids[prompt.to(device)]).float()
        target = schedule.get_velocity(z, noise, time)
        return F.mse_loss(predicted, target, reduction="none").mean((1, 2, 3))

    def loss(step: int) -> dict[str, Tensor]:
        return {"loss": terms(model, stream(seed, part.name, step), part.schedule.batch).mean()}

    def validate(averaged: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"averaged": float(terms(averaged, stream(seed, part.name, "validation"), 256).mean())}

    Loop(part.name, part.schedule, model, loss, validate, every=250).run()


def _latents() -> Tensor:
    """Scaled latents (N, 24, 8, 8) of every image that is not reference."""
    images = data.training_images(("fit", "prompts"))
    code = BlockCode.fit(images)
    return code(images / 255) * scaling_factor(code, images)


def _captions(seed: int, tokenizer: CLIPTokenizer) -> Tensor:
    """Token ids ``(N * VARIANTS + 1, 20)``: plain caption, then variants with tags; last the empty prompt."""
    _, codes, styles = data.full_set()
    by_code = {concept.code: concept for concept in data.concepts()}
    rng = stream(seed, "captions")
    captions: list[str] = []
    for code, style in zip(codes, styles, strict=True):
        if by_code[code].split != "reference":
            captions.append(by_code[code].caption(style))
            captions += [text.varied_caption(by_code[code], style, rng) for _ in range(VARIANTS - 1)]
    return text.tokens(tokenizer, [*captions, ""])
