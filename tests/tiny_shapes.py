"""Text-to-3D folders with a few thousand random weights: Shap-E's, and one like the embedded generator's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import HeunDiscreteScheduler, PriorTransformer, ShapEPipeline
from diffusers.pipelines.shap_e.renderer import ShapERenderer
from transformers import CLIPTextModelWithProjection

from bench.rng import fenced
from modalities.shape3d import prior, text, train
from modalities.shape3d.grid import Conditioned, GridAutoencoder, GridConfig
from tests.tiny_families import clip_config, clip_tokenizer


def renderer() -> Any:
    """Eight wide; 32 rows of 16 numbers are one shape's latent."""
    shapes = ((8, 93), (8, 8), (8, 8), (8, 8))
    return ShapERenderer(param_shapes=shapes, d_latent=16, d_hidden=8, n_output=12, background=(0.1,) * 3)


def shap_e() -> Any:
    with fenced(0):
        denoiser = PriorTransformer(
            num_attention_heads=2,
            attention_head_dim=8,
            embedding_dim=16,
            num_embeddings=32,
            embedding_proj_dim=16,
            time_embed_dim=32,
            num_layers=1,
            clip_embed_dim=32,
            additional_embeddings=0,
            time_embed_act_fn="gelu",
            norm_in_type="layer",
            embedding_proj_norm_type=None,
            encoder_hid_proj_type=None,
            added_emb_type=None,
        )
        return ShapEPipeline(
            prior=denoiser,
            text_encoder=CLIPTextModelWithProjection(clip_config(16)),
            tokenizer=clip_tokenizer(),
            scheduler=HeunDiscreteScheduler(
                beta_schedule="exp",
                num_train_timesteps=1024,
                prediction_type="sample",
                use_karras_sigmas=True,
                clip_sample=True,
                clip_sample_range=1.0,
            ),
            shap_e_renderer=renderer(),
        )


def save_grid(folder: Path) -> Path:
    """Write untrained networks as training writes them, to ``folder/grid``."""
    tokenizer = text.build_tokenizer()
    with fenced(0):
        model = GridAutoencoder(GridConfig(latent=4, coarse=8, fine=8))
        conditioned = Conditioned(prior.build(4), text.build_encoder(tokenizer))
    train.assemble(model, conditioned, tokenizer, folder / "grid")
    return folder / "grid"


def save_shape(name: str, folder: Path) -> Path:
    """Write a tiny generator to ``folder/name``."""
    if name == "grid":
        return save_grid(folder)
    shap_e().save_pretrained(folder / name, safe_serialization=True)
    return folder / name
