"""Train the embedded generator's tokenizer and text encoder.

Byte-pair tokenizer on the captions; then a small CLIP text model whose pooled output is aligned with MobileNetV2
features of the captioned images by the symmetric contrastive loss of Radford et al., "Learning Transferable Visual
Models From Natural Language Supervision", ICML 2021, arXiv:2103.00020, fig. 3. The denoiser then starts from words that
mean something.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bench.precision import mixed
from bench.rng import fenced, stream
from modalities.image import data
from modalities.image.perceptual import mobilenet
from modalities.training import Loop, Schedule

SCHEDULE = Schedule(steps=500, batch=256, rate=2e-3, warmup=50, ema=0.99, weight_decay=0.05)
WIDTH, LENGTH, VOCABULARY = 160, 20, 3000
START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(folder: Path) -> CLIPTokenizer:
    """Byte-pair encoding of all captions and tags, in CLIP's format, written to ``folder``."""
    tokenizer = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(False, False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    known = [c for c in data.concepts() if c.split != "reference"]
    lines = [c.caption(style) for c in known for style in data.STYLES] + [tag for c in known for tag in c.tags]
    tokenizer.train_from_iterator(lines, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    # CLIP's byte alphabet appears both bare and as the end of a word; captions hold every bare byte only by luck.
    vocabulary = dict(model["vocab"])
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary.setdefault(f"{byte}</w>", len(vocabulary))
    merges = [tuple(pair) for pair in model["merges"]]
    clip = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH, pad_token=END, unk_token=END)
    clip.save_pretrained(folder)
    return clip


def build(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The untrained text encoder."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def tokens(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids (B, 20), padded and cut as the pipeline does."""
    encoded = tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    ids: Tensor = encoded.input_ids
    return ids


def varied_caption(concept: data.Concept, style: str, rng: torch.Generator) -> str:
    """The caption, half of the time followed by one to three of the concept's tags."""
    caption = concept.caption(style)
    if not concept.tags or torch.rand((), generator=rng) < 0.5:
        return caption
    count = int(torch.randint(1, 4, (), generator=rng))
    picked = [concept.tags[i] for i in torch.randperm(len(concept.tags), generator=rng)[:count]]
    return ", ".join([caption, *picked])


class _Aligned(nn.Module):
    """Text encoder with the two projections of the contrastive loss."""

    def __init__(self, encoder: CLIPTextModel, features: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.words, self.pictures = nn.Linear(WIDTH, 128, bias=False), nn.Linear(features, 128, bias=False)
        self.temperature = nn.Parameter(torch.tensor(2.5))

    def forward(self, ids: Tensor, features: Tensor) -> Tensor:
        """Logits (B, B) of every text with every picture."""
        text = F.normalize(self.words(self.encoder(ids).pooler_output), dim=1)
        picture = F.normalize(self.pictures(features), dim=1)
        return self.temperature.clamp(max=4.6).exp() * text @ picture.T


def train(seed: int, device: torch.device, folder: Path) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """Train tokenizer (written to ``folder``) and text encoder, or finish an interrupted training."""
    tokenizer = train_tokenizer(folder)
    images, codes, styles = data.full_set()
    by_code = {concept.code: concept for concept in data.concepts()}
    kept = [i for i, code in enumerate(codes) if by_code[code].split != "reference"]
    with torch.no_grad():
        features = torch.cat([mobilenet()(part / 255) for part in images[kept].split(128)])
    features = ((features - features.mean(0)) / (features.std(0) + 1e-3)).to(device)
    with fenced(seed):
        model = _Aligned(build(tokenizer), features.shape[1]).to(device)

    def loss(step: int) -> dict[str, Tensor]:
        rng = stream(seed, "text", step)
        rows = torch.randperm(len(kept), generator=rng)[: SCHEDULE.batch]
        captions = [varied_caption(by_code[codes[kept[i]]], styles[kept[i]], rng) for i in rows.tolist()]
        noise = 0.3 * torch.randn(len(rows), features.shape[1], generator=rng)
        with mixed(device):
            logits = model(tokens(tokenizer, captions).to(device), features[rows] + noise.to(device)).float()
        truth = torch.arange(len(rows), device=device)
        total = (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2
        return {"loss": total, "hit": (logits.argmax(1) == truth).float().mean()}

    Loop("text", SCHEDULE, model, loss, lambda _: {}, every=100).run()
    return tokenizer, model.encoder.eval().requires_grad_(False)
