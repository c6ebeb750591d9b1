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
FLOOR = 3e-3
"""Added to amplitudes before the logarithm: a listener names an instrument by what is heard, not by silence between."""


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
        image = (mel_spectrum(x[:, 0], data.RATE_HZ) + FLOOR).log()[:, None] / 2 + 1.5  # (B, 1, 80, 129)
        logits: Tensor = self.head(self.layers(image).mean((2, 3)))
        return logits


def train(seed: int = 0) -> tuple[FamilyClassifier, float, int]:
    """Train on every clip that is not reference, under random filters and noise; see :func:`roughened`.

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
        x = roughened(clips[drawn].float() / 32768, rng)
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


def roughened(x: Tensor, rng: torch.Generator) -> Tensor:
    """Clips (B, 1, T) with coloured noise that follows their envelope, 6 to 40 dB below it, and a short random filter.

    An autoencoder leaves such noise.
    """
    envelope = F.avg_pool1d(x.square(), 257, 1, 128).sqrt()
    level = 10 ** (-(6 + 34 * torch.rand(len(x), 1, 1, generator=rng)) / 20)
    everywhere = 0.1 * x.square().mean((1, 2), keepdim=True).sqrt()
    follows = torch.rand(len(x), 1, 1, generator=rng) < 0.7
    noise, tilt = torch.randn(x.shape, generator=rng), 1.6 * torch.rand(len(x), 1, 1, generator=rng) - 0.8
    noise = noise + tilt * F.pad(noise[..., :-1], (1, 0))
    taps = 0.25 * torch.rand(len(x), 1, 1, generator=rng) * torch.randn(len(x), 1, 9, generator=rng)
    taps[:, :, 4] += 1
    rough = x + level * (envelope * follows + everywhere) * noise
    return F.conv1d(rough.transpose(0, 1), taps, padding=4, groups=len(x)).transpose(0, 1)


def truth(notes: list[Note]) -> Tensor:
    """Index of each note's family."""
    return torch.tensor([NAMES.index(note.family) for note in notes])
