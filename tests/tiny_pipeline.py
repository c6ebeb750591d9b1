"""A StableDiffusionPipeline folder with a few thousand random weights, and its parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from bench.rng import fenced
from modalities.image import text


def tiny_vae(blocks: tuple[int, ...] = (4, 8), channels: int = 4, **options: Any) -> Any:
    with fenced(0):
        return AutoencoderKL(
            block_out_channels=blocks,
            down_block_types=("DownEncoderBlock2D",) * len(blocks),
            up_block_types=("UpDecoderBlock2D",) * len(blocks),
            latent_channels=channels,
            norm_num_groups=2,
            **options,
        ).eval()


def tiny_unet() -> Any:
    with fenced(0):
        return UNet2DConditionModel(
            sample_size=32,
            block_out_channels=(4, 8),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=8,
            norm_num_groups=2,
        )


def tiny_text_encoder(words: int) -> Any:
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=text.LENGTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    with fenced(0):
        return CLIPTextModel(config)


def save_tiny(folder: Path) -> Path:
    """Write the pipeline to ``folder/tiny``."""
    tokenizer = text.train_tokenizer(folder / "tokenizer")
    pipeline = StableDiffusionPipeline(
        vae=tiny_vae(),
        unet=tiny_unet(),
        text_encoder=tiny_text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / "tiny", safe_serialization=True)
    return folder / "tiny"
