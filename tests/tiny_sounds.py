"""Folders of the other audio families, each with a few thousand random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers import (
    AceStepPipeline,
    AudioLDM2Pipeline,
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
    AutoencoderKL,
    AutoencoderOobleck,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.models.transformers.ace_step_transformer import AceStepTransformer1DModel
from diffusers.pipelines.ace_step import AceStepConditionEncoder
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BarkConfig,
    BarkModel,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    EncodecConfig,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    RobertaTokenizer,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from bench.rng import fenced

RATE_HZ = 8000


def letters() -> Any:
    """A tokenizer of bytes, of any class that is asked for at loading."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *alphabet])}
    inner = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def clap() -> Any:
    text = {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "vocab_size": 300,
        "projection_dim": 8,
    }
    sound = {
        "spec_size": 8,
        "window_size": 4,
        "num_mel_bins": 8,
        "depths": [1, 1],
        "num_attention_heads": [1, 1],
        "num_hidden_layers": 1,
        "hidden_size": 192,
        "patch_size": 2,
        "patch_stride": 2,
        "patch_embed_input_channels": 4,
        "projection_dim": 8,
    }
    return ClapModel(ClapConfig(text_config=text, audio_config=sound, projection_dim=16))


def audioldm2() -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *alphabet]
    roberta = RobertaTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[], model_max_length=32)
    unet = AudioLDM2UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=32,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=(8, 16),
    )
    vae = AutoencoderKL(
        block_out_channels=[8, 16],
        in_channels=1,
        out_channels=1,
        norm_num_groups=8,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
    )
    vocoder = SpeechT5HifiGanConfig(
        model_in_dim=8,
        sampling_rate=RATE_HZ,
        upsample_initial_channel=16,
        upsample_rates=[4, 4],
        upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3, 7],
        resblock_dilation_sizes=[[1, 3, 5], [1, 3, 5]],
        normalize_before=False,
        initializer_range=0.1,  # at 0.01 it is silent
    )
    t5 = T5Tokenizer(model_max_length=32)
    language = GPT2Config(n_embd=16, n_head=1, n_layer=1, vocab_size=1000, n_ctx=99, n_positions=99)
    language.max_new_tokens = 8
    return AudioLDM2Pipeline(
        vae=vae,
        text_encoder=clap(),
        text_encoder_2=T5EncoderModel(T5Config(vocab_size=300, d_model=32, d_ff=37, d_kv=8, num_heads=1, num_layers=1)),
        projection_model=AudioLDM2ProjectionModel(text_encoder_dim=16, text_encoder_1_dim=32, langauge_model_dim=16),
        language_model=GPT2LMHeadModel(language),
        tokenizer=roberta,
        tokenizer_2=t5,
        feature_extractor=ClapFeatureExtractor(hop_length=7900, feature_size=8),
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        vocoder=SpeechT5HifiGan(vocoder),
    )


def ace_step() -> Any:
    attention = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 16}
    width = {"hidden_size": 16, "intermediate_size": 32}
    transformer = AceStepTransformer1DModel(
        **width, **attention, num_hidden_layers=1, in_channels=12, audio_acoustic_hidden_dim=4, patch_size=2
    )
    conditions = AceStepConditionEncoder(
        **width,
        **attention,
        text_hidden_dim=16,
        timbre_hidden_dim=4,
        num_lyric_encoder_hidden_layers=1,
        num_timbre_encoder_hidden_layers=1,
    )
    tokenizer = letters()
    qwen = {name: value for name, value in attention.items() if name != "sliding_window"}
    text_encoder = Qwen3Model(
        Qwen3Config(**width, **qwen, num_hidden_layers=1, vocab_size=len(tokenizer), max_position_embeddings=256)
    )
    vae = AutoencoderOobleck(
        encoder_hidden_size=8,
        downsampling_ratios=[4, 8],
        channel_multiples=[1, 2],
        decoder_channels=4,
        decoder_input_channels=4,
        audio_channels=2,
        sampling_rate=RATE_HZ,
    )
    return AceStepPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=transformer,
        condition_encoder=conditions,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
    )


def encodec(channels: int = 1) -> Any:
    """Frames of 32 samples in 4 codebooks: 250 a second at 8 kHz."""
    return EncodecConfig(
        hidden_size=8,
        num_filters=4,
        codebook_size=64,
        codebook_dim=8,
        upsampling_ratios=[8, 4],
        num_lstm_layers=1,
        target_bandwidths=[6.0],
        sampling_rate=RATE_HZ,
        audio_channels=channels,
    )


def filled(codec: Any) -> None:
    """Codebooks of a fresh EnCodec are zeros: give them vectors."""
    for layer in codec.quantizer.layers:
        layer.codebook.embed.normal_(std=0.3)


def musicgen(channels: int = 1) -> Any:
    books = 4 * channels
    decoder = MusicgenDecoderConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=32,
        num_codebooks=books,
        pad_token_id=64,
        bos_token_id=64,
        tie_word_embeddings=False,
        audio_channels=channels,
        max_position_embeddings=2000,
    )
    tokenizer = T5Tokenizer(model_max_length=32)
    text = T5Config(vocab_size=len(tokenizer) + 8, d_model=16, d_ff=16, d_kv=4, num_layers=1, num_heads=2)
    model = MusicgenForConditionalGeneration(
        MusicgenConfig(text_encoder=text.to_dict(), audio_encoder=encodec().to_dict(), decoder=decoder.to_dict())
    )
    filled(model.audio_encoder)
    for name in ("pad_token_id", "bos_token_id", "decoder_start_token_id"):
        setattr(model.generation_config, name, 64)
    return model, tokenizer


BUILDERS: dict[str, Callable[[], Any]] = {"audioldm2": audioldm2, "ace-step": ace_step}


def save_sound(name: str, folder: Path) -> Path:
    """Write a tiny model of the family to ``folder/name``."""
    with fenced(0):
        made = {**BUILDERS, "musicgen": musicgen, "musicgen-stereo": lambda: musicgen(2), "bark": bark}[name]()
    parts = made if isinstance(made, tuple) else (made,)
    for part in parts:
        part.save_pretrained(folder / name)
    return folder / name


def bark() -> Any:
    """Its four networks; a prompt of at most 8 tokens becomes 12 semantic ones."""
    width = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "block_size": 256}
    semantic = {**width, "input_vocab_size": 600, "output_vocab_size": 65}
    coarse = {**width, "input_vocab_size": 200, "output_vocab_size": 200}
    fine = {**width, "input_vocab_size": 65, "output_vocab_size": 65, "n_codes_total": 4, "n_codes_given": 1}
    config = BarkConfig(
        semantic_config=semantic,
        coarse_acoustics_config=coarse,
        fine_acoustics_config=fine,
        codec_config=encodec().to_dict(),
    )
    model = BarkModel(config)
    filled(model.codec_model)
    model.generation_config = GenerationConfig(  # as a released folder is read: Bark's own class cannot be written
        semantic_config={
            "text_encoding_offset": 70,
            "text_pad_token": 400,
            "semantic_infer_token": 401,
            "semantic_vocab_size": 64,
            "eos_token_id": 64,
            "max_input_semantic_length": 8,
            "max_new_tokens": 12,
            "do_sample": True,
        },
        coarse_acoustics_config={
            "coarse_semantic_pad_token": 193,
            "coarse_infer_token": 194,
            "max_coarse_input_length": 32,
            "max_coarse_history": 60,
            "do_sample": True,
        },
        fine_acoustics_config={"max_fine_history_length": 32, "max_fine_input_length": 64, "n_fine_codebooks": 4},
        sample_rate=RATE_HZ,
        codebook_size=64,
    )
    return model, letters()
