"""A StableAudioPipeline folder with a few thousand random weights, and its parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderOobleck,
    CosineDPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    StableAudioDiTModel,
    StableAudioPipeline,
)
from diffusers.pipelines.stable_audio import StableAudioProjectionModel
from transformers import T5Config, T5EncoderModel

from bench.rng import fenced
from modalities.audio.text import build_tokenizer

LATENT, FRAMES, HOP, WIDTH = 4, 24, 32, 8


def tiny_vae(rate_hz: int = 16_000, channels: int = 1) -> Any:
    with fenced(0):
        return AutoencoderOobleck(
            encoder_hidden_size=2 * LATENT,
            downsampling_ratios=[4, 8],  # odd ones would lose samples
            channel_multiples=[1, 2],
            decoder_channels=4,
            decoder_input_channels=LATENT,
            audio_channels=channels,
            sampling_rate=rate_hz,
        ).eval()


def tiny_transformer() -> Any:
    with fenced(0):
        return StableAudioDiTModel(
            sample_size=FRAMES,
            in_channels=LATENT,
            out_channels=LATENT,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=1,
            num_key_value_attention_heads=1,
            cross_attention_dim=8,
            time_proj_dim=8,
            global_states_input_dim=2 * WIDTH,
            cross_attention_input_dim=WIDTH,
        )


def tiny_text_encoder(words: int) -> Any:
    config = T5Config(vocab_size=words, d_model=WIDTH, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    with fenced(0):
        return T5EncoderModel(config)


def tiny_projection() -> Any:
    with fenced(0):
        return StableAudioProjectionModel(text_encoder_dim=WIDTH, conditioning_dim=WIDTH, min_value=0, max_value=3)


def solver(cosine: bool) -> Any:
    """Stable Audio Open's stochastic solver, or the embedded generator's."""
    if cosine:
        return CosineDPMSolverMultistepScheduler(
            sigma_min=0.3, sigma_max=500, sigma_data=1.0, prediction_type="v_prediction", sigma_schedule="exponential"
        )
    return EDMDPMSolverMultistepScheduler(sigma_data=1.0, prediction_type="v_prediction")


def save_tiny(folder: Path, *, rate_hz: int = 16_000, channels: int = 1, cosine: bool = False) -> Path:
    """Write the pipeline to ``folder/tiny``."""
    tokenizer = build_tokenizer()
    pipeline = StableAudioPipeline(
        vae=tiny_vae(rate_hz, channels),
        text_encoder=tiny_text_encoder(len(tokenizer)),
        projection_model=tiny_projection(),
        tokenizer=tokenizer,
        transformer=tiny_transformer(),
        scheduler=solver(cosine),
    )
    pipeline.save_pretrained(folder / "tiny", safe_serialization=True)
    return folder / "tiny"
