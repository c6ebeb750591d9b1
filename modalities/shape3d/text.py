"""The embedded text-to-3D generator's tokenizer and untrained text encoder, in T5's formats."""

from __future__ import annotations

from torch import Tensor
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from modalities.shape3d.parts import COLOURS, every_part

WIDTH, LENGTH = 192, 16
RARE = 2
"""Parts that a word must name to be a piece of its own; rarer ones are spelled."""


def build_tokenizer() -> T5Tokenizer:
    """Frequent words of the captions as one piece each; letters and digits spell what is no such word.

    A unigram model as in Kudo and Richardson, "SentencePiece", 2018, arXiv:1808.06226, with fixed scores.
    """
    counts: dict[str, int] = dict.fromkeys(COLOURS, RARE)
    for part in every_part():
        for word in set(part.description.split()):
            counts[word] = counts.get(word, 0) + 1
    words = sorted(f"▁{word}" for word, count in counts.items() if count >= RARE)
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz0123456789./-"]
    special = ["<pad>", "</s>", "<unk>"]
    single = [(one, -10.0) for one in letters if one not in words]
    pieces = [(name, 0.0) for name in special] + [(word, -1.0) for word in words] + single
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=LENGTH)


def build_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    """Two small T5 layers; the prior's training teaches them."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=WIDTH,
            d_kv=48,
            d_ff=2 * WIDTH,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def tokens(tokenizer: T5Tokenizer, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Token ids and attention masks, each (B, 16), padded and cut."""
    encoded = tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    return encoded.input_ids, encoded.attention_mask
