"""Train the embedded generator's denoiser: a text-conditioned latent diffusion transformer, with its text encoder.

`StableAudioDiTModel` as in Evans et al., "Stable Audio Open", 2024, arXiv:2407.14358; v-prediction of Salimans and Ho,
ICLR 2022, arXiv:2202.00512, sec. 4, preconditioned as in Karras et al., NeurIPS 2022, arXiv:2206.00364; prompt dropout
for classifier-free guidance of Ho and Salimans, arXiv:2207.12598.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from diffusers import EDMDPMSolverMultistepScheduler, StableAudioDiTModel
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from diffusers.pipelines.stable_audio import StableAudioProjectionModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import T5EncoderModel, T5Tokenizer

from bench.precision import mixed
from bench.rng import fenced, stream
from modalities.audio import data, text
from modalities.audio.scout import CHANNELS, HOP, Code
from modalities.training import Loop, Schedule


@dataclass(frozen=True)
class Round:
    """One of the trainings that follow each other.

    Attributes:
        name: of the checkpoint and the log.
        schedule: see :class:`Schedule`.
        frames: latent frames, from the beginning of each clip, that are denoised.
    """

    name: str
    schedule: Schedule
    frames: int


ROUNDS = (
    Round(
        "audio_denoiser",
        Schedule(3500, batch=32, rate=1e-3, warmup=100, ema=0.998, weight_decay=0.01, muon_rate=0.006),
        frames=64,
    ),
    Round(
        "audio_denoiser_whole",
        Schedule(1000, batch=24, rate=5e-4, warmup=50, ema=0.998, weight_decay=0.01, muon_rate=0.003),
        frames=128,
    ),
    Round(
        "audio_denoiser_longer",
        Schedule(5000, batch=16, rate=5e-4, warmup=50, ema=0.998, weight_decay=0.01, muon_rate=0.003),
        frames=128,
    ),
)
"""Half clips first: the attack and the first second hold most of what there is to learn, at half the time."""
FRAMES = data.LENGTH // HOP
SECONDS = data.LENGTH / data.RATE_HZ
EMPTY_PROMPTS = 0.1
NOISE_LEVELS = (0.002, 80.0)
HEAD = 32


class Conditioned(nn.Module):
    """A denoiser, the text encoder that it listens to, and the projection between them.

    Attributes:
        transformer: predicts the velocity of a noisy latent.
        encoder: token ids to text states.
        projection: text states and seconds to the transformer's conditions.
    """

    def __init__(
        self, transformer: StableAudioDiTModel, encoder: T5EncoderModel, projection: StableAudioProjectionModel
    ) -> None:
        super().__init__()
        self.transformer, self.encoder, self.projection = transformer, encoder, projection

    def forward(self, noisy: Tensor, sigma: Tensor, ids: Tensor, mask: Tensor, heard: Tensor) -> Tensor:
        """Velocity like ``noisy`` (B, 32, 128), latents with noise of deviation ``sigma`` (B,), as the pipeline asks.

        Args:
            noisy: latents plus noise, not scaled.
            sigma: (B,), above 0.
            ids: tokens (B, 12).
            mask: which of them are not padding.
            heard: (B,), 0 where the prompt is dropped, else 1.
        """
        count = len(noisy)
        states = self.encoder(ids, mask).last_hidden_state * mask.unsqueeze(-1)
        seconds = torch.tensor([0.0, SECONDS], device=noisy.device).expand(count, 2)
        about = self.projection(states, seconds[:, 0].contiguous(), seconds[:, 1].contiguous())
        ends = about.seconds_start_hidden_states, about.seconds_end_hidden_states  # each (B, 1, width)
        conditions = torch.cat([about.text_hidden_states, *ends], 1) * heard.view(-1, 1, 1)
        velocity: Tensor = self.transformer(
            noisy / (1 + sigma.square()).sqrt().view(-1, 1, 1),
            sigma.log() / 4,
            encoder_hidden_states=conditions,
            global_hidden_states=torch.cat(ends, 2),
            rotary_embedding=get_1d_rotary_pos_embed(
                HEAD // 2, noisy.shape[2] + 1, use_real=True, repeat_interleave_real=False
            ),
            return_dict=False,
        )[0]
        return velocity


def build() -> StableAudioDiTModel:
    """The untrained denoiser, 4.7 M parameters."""
    width = 192
    return StableAudioDiTModel(
        sample_size=FRAMES,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=6,
        attention_head_dim=HEAD,
        num_attention_heads=width // HEAD,
        num_key_value_attention_heads=width // HEAD,
        cross_attention_dim=width,
        time_proj_dim=64,
        global_states_input_dim=2 * text.WIDTH,
        cross_attention_input_dim=text.WIDTH,
    )


def solver() -> EDMDPMSolverMultistepScheduler:
    """The few-step solver of sampling; without noise of its own, unlike Stable Audio Open's."""
    low, high = NOISE_LEVELS
    return EDMDPMSolverMultistepScheduler(
        sigma_min=low, sigma_max=high, sigma_data=1.0, prediction_type="v_prediction", num_train_timesteps=1000
    )


def train(seed: int, device: torch.device, code: Code, tokenizer: T5Tokenizer) -> Conditioned:
    """Train, or finish a training that was interrupted.

    Returns:
        The averaged (EMA) denoiser with its text encoder and projection.
    """
    with fenced(seed):
        model = Conditioned(build(), text.build_encoder(tokenizer), text.build_projection()).to(device)
    latents = latents_of(code, device)
    notes = [data.full_set()[1][row] for row in data.training_rows(("fit", "prompts"))]
    ids, mask = (each.to(device) for each in text.tokens(tokenizer, [note.caption for note in notes]))
    for part in ROUNDS:
        _train_round(part, model, (latents[..., : part.frames].contiguous(), ids, mask), seed)
    return model.eval().requires_grad_(False)


def _train_round(part: Round, model: Conditioned, pool: tuple[Tensor, Tensor, Tensor], seed: int) -> None:
    """Train on a ``pool`` of latents with token ids and masks of their captions."""
    latents, ids, mask = pool
    device = latents.device

    def terms(conditioned: nn.Module, rng: torch.Generator, count: int) -> Tensor:
        """Squared error (B,) of the predicted velocity at random noise levels."""
        rows = torch.randint(len(latents), (count,), generator=rng).to(device)
        z = latents[rows]
        noise = torch.randn(z.shape, generator=rng).to(device)
        sigma = (math.pi / 2 * torch.rand(count, generator=rng)).tan().clamp(*NOISE_LEVELS).to(device)
        heard = (torch.rand(count, generator=rng) >= EMPTY_PROMPTS).float().to(device)
        wide = sigma.view(-1, 1, 1)
        with mixed(device), _attention(device):
            predicted = conditioned(z + wide * noise, sigma, ids[rows], mask[rows], heard).float()
        target = (noise - wide * z) / (1 + wide.square()).sqrt()
        return F.mse_loss(predicted, target, reduction="none").mean((1, 2))

    def loss(step: int) -> dict[str, Tensor]:
        return {"loss": terms(model, stream(seed, part.name, step), part.schedule.batch).mean()}

    def validate(averaged: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"averaged": float(terms(averaged, stream(seed, part.name, "validation"), 256).mean())}

    Loop(part.name, part.schedule, model, loss, validate, every=250).run()


def _attention(device: torch.device) -> AbstractContextManager[None]:
    """On a CPU the fused kernel's backward pass is slow for so few tokens."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def latents_of(code: Code, device: torch.device) -> Tensor:
    """Latents (N, 32, 128) of every clip that is not reference."""
    clips, _ = data.full_set()
    rows = data.training_rows(("fit", "prompts"))
    parts = [rows[start : start + 64] for start in range(0, len(rows), 64)]
    return torch.cat([code(clips[part].float().to(device) / 32768) for part in parts])
