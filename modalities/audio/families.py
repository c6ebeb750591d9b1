"""A classifier of instrument families, trained on real clips: does a generated clip sound like what was asked for?"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.rng import fenced, stream
from modalities.audio import data
from modalities.audio.notes import FAMILIES, Note
from modalities.audio.spectra import mel_spectrum

NAMES = tuple(FAMILIES)
STEPS, BATCH, RATE = 700, 64, 3e-3


class FamilyClassifier(nn.Module):
    """Five convolutions on the log mel spectrum of a clip at one level; 16 logits."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 24, 48, 96, 96, 128)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.GELU()]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(widths[-1], len(NAMES))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 16) of waveforms (B, 1, 32768) in [-1, 1]."""
        x = x / (x.square().mean((1, 2), keepdim=True).sqrt() + 1e-4) * 0.1
        image = (mel_spectrum(x[:, 0], data.RATE_HZ) + 1e-4).log()[:, None] / 3 + 1.5  # (B, 1, 80, 129)
        logits: Tensor = self.head(self.layers(image).mean((2, 3)))
        return logits


def train(seed: int = 0) -> tuple[FamilyClassifier, float, int]:
    """Train on every clip that is not reference, some of them shifted, noisy or filtered.

    Returns:
        The classifier, its accuracy on every held-out real clip (split ``reference``), and how many those are.
    """
    with fenced(seed):
        model = FamilyClassifier()
    clips, notes = data.full_set()
    rows = data.training_rows(("fit", "prompts"))
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    model.train()
    for step in range(STEPS):
        rng = stream(seed, "families", step)
        drawn = [rows[i] for i in torch.randint(len(rows), (BATCH,), generator=rng).tolist()]
        x = clips[drawn].float() / 32768
        level = x.square().mean((1, 2), keepdim=True).sqrt() * 10 ** (-1 - torch.rand(BATCH, 1, 1, generator=rng))
        x = x + level * torch.randn(x.shape, generator=rng)
        loss = F.cross_entropy(model(x), truth([notes[row] for row in drawn]), label_smoothing=0.05)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval().requires_grad_(False)
    held_out = data.training_rows(("reference",))
    hits = [
        (model(clips[part].float() / 32768).argmax(1) == truth([notes[row] for row in part])).float()
        for part in (held_out[start : start + 64] for start in range(0, len(held_out), 64))
    ]
    return model, float(torch.cat(hits).mean()), len(held_out)


def truth(notes: list[Note]) -> Tensor:
    """Index of each note's family."""
    return torch.tensor([NAMES.index(note.family) for note in notes])
