"""Pipeline folders of the other image families, each with a few thousand random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderDC,
    AutoencoderTiny,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from bench.rng import fenced
from tests.tiny_pipeline import save_tiny, tiny_vae

LETTERS = sorted(ByteLevel.alphabet())


def clip_tokenizer() -> Any:
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


def clip_config(projection: int) -> Any:
    return CLIPTextConfig(
        vocab_size=2 + 2 * len(LETTERS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=projection,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def t5(width: int) -> tuple[Any, Any]:
    tokenizer = T5Tokenizer(model_max_length=32)
    config = T5Config(vocab_size=len(tokenizer) + 8, d_model=width, d_ff=16, d_kv=4, num_heads=2, num_layers=1)
    return tokenizer, T5EncoderModel(config)


def sdxl() -> Any:
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=1,
        projection_class_embeddings_input_dim=64,  # 6 sizes × 8 and the projection's 16
        cross_attention_dim=32,  # both text encoders' 16
        norm_num_groups=2,
    )
    return StableDiffusionXLPipeline(
        vae=tiny_vae(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[0.5, 0.6, 0.7, 0.8], scaling_factor=0.5),
        unet=unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        text_encoder=CLIPTextModel(clip_config(16)),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(16)),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        add_watermarker=False,
    )


def shifted_vae(channels: int) -> Any:
    return tiny_vae(
        (4, 8),
        channels,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0609,
        scaling_factor=1.5035,
    )


def sd3() -> Any:
    transformer = SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=32,
    )
    tokenizer, encoder = t5(32)
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=shifted_vae(4),
        text_encoder=CLIPTextModelWithProjection(clip_config(16)),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(16)),
        text_encoder_3=encoder,
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        tokenizer_3=tokenizer,
    )


def flux() -> Any:
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,  # 4 channels, packed in squares of 2×2
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        axes_dims_rope=[4, 4, 8],
    )
    tokenizer, encoder = t5(32)
    return FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=shifted_vae(4),
        text_encoder=CLIPTextModel(clip_config(16)),
        text_encoder_2=encoder,
        tokenizer=clip_tokenizer(),
        tokenizer_2=tokenizer,
    )


def sana() -> Any:
    transformer = SanaTransformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
    )
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    gemma = Gemma2Config(
        vocab_size=8,
        head_dim=4,
        hidden_size=8,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        num_key_value_heads=2,
    )
    return SanaPipeline(
        tokenizer=GemmaTokenizer(model_max_length=300),
        text_encoder=Gemma2Model(gemma),
        vae=vae,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def save_tiny_decoder(folder: Path) -> Path:
    """An AutoencoderTiny for the pipeline of ``tests.tiny_pipeline``, whose latents are of half the pictures' side."""
    widths = {"encoder_block_out_channels": (4, 4), "decoder_block_out_channels": (4, 4), "num_encoder_blocks": (1, 1)}
    with fenced(0):
        AutoencoderTiny(**widths, num_decoder_blocks=(1, 1), latent_channels=4).save_pretrained(folder / "taesd")
    return folder / "taesd"


BUILDERS: dict[str, Callable[[], Any]] = {"sdxl": sdxl, "sd3": sd3, "flux": flux, "sana": sana}


def save_family(name: str, folder: Path) -> Path:
    """Write a tiny pipeline of the family to ``folder/name``."""
    if name == "sd":
        return save_tiny(folder)
    with fenced(0):
        BUILDERS[name]().save_pretrained(folder / name, safe_serialization=True)
    return folder / name
