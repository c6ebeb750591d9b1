"""The embedded text-to-audio generator's tokenizer and untrained text encoder, in T5's formats."""

from __future__ import annotations

from diffusers.pipelines.stable_audio import StableAudioProjectionModel
from torch import Tensor
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from modalities.audio.notes import every_note

WIDTH, LENGTH = 160, 12


def build_tokenizer() -> T5Tokenizer:
    """Every word of the captions as one piece; letters and digits spell what is no such word.

    A unigram model as in Kudo and Richardson, "SentencePiece", 2018, arXiv:1808.06226, with fixed scores: the
    vocabulary is closed, so there is nothing to estimate.
    """
    words = sorted({f"▁{word}" for note in every_note() for word in note.caption.replace(",", "").split()})
    letters = ["▁", ",", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789#-.'"]
    special = ["<pad>", "</s>", "<unk>"]
    pieces = [(name, 0.0) for name in special] + [(word, -1.0) for word in words] + [(one, -10.0) for one in letters]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=LENGTH)


def build_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    """Two small T5 layers; the denoiser's training teaches them."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=WIDTH,
            d_kv=40,
            d_ff=2 * WIDTH,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def build_projection() -> StableAudioProjectionModel:
    """Passes text states on, and turns the seconds at which a clip starts and ends into two more."""
    return StableAudioProjectionModel(text_encoder_dim=WIDTH, conditioning_dim=WIDTH, min_value=0, max_value=3)


def tokens(tokenizer: T5Tokenizer, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Token ids and attention masks, each (B, 12), padded and cut as the pipeline does."""
    encoded = tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    return encoded.input_ids, encoded.attention_mask
