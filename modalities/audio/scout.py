"""The latent space of the embedded generator, found by a cheap autoencoder before the real one is trained.

An Oobleck autoencoder spends most of its time on activations at the full sampling rate, and learning both of its ends
from nothing had not left 0 dB after 400 steps (a second each on one core). This scout turns pieces of 64 samples into
channels at once and does all its work at 250 Hz and below. Its code is then fixed: the Oobleck encoder learns it by
Gaussian likelihood, the Oobleck decoder learns to invert it, and the denoiser can train at the same time.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.rng import fenced, stream
from modalities.audio import data
from modalities.audio.spectra import stft_distance
from modalities.training import Loop, Schedule

SCHEDULE = Schedule(steps=2000, batch=16, rate=2e-3, warmup=30, ema=0.99, weight_decay=0.01, clip=1e9, muon_rate=0.02)
CHANNELS, HOP, PIECE = 32, 512, 64
WIDTHS = (96, 128, 192, 256)
"""Channels at 250, 125, 62.5 and 31.25 Hz."""
CROP = 8192
NOISE = 0.15
"""Standard deviation of the noise on the code in training, about a tenth of the code's own."""


class Kernel(nn.Module):
    """A convolution, or its transpose, whose kernel is a matrix (out, in · k), as the optimiser wants it."""

    def __init__(self, channels: tuple[int, int], size: int, stride: int = 1, *, up: bool = False, gain: float = 1.0):
        super().__init__()
        self.shape, self.stride, self.up = (channels[1], channels[0], size), stride, up
        self.padding = (size - stride) // 2 if stride > 1 else size // 2
        spread = gain / math.sqrt(channels[0] * size / (stride if up else 1))
        self.matrix = nn.Parameter(torch.randn(channels[1], channels[0] * size) * spread)
        self.bias = nn.Parameter(torch.zeros(channels[1]))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, T) to (B, out, T / stride), or to (B, out, T · stride)."""
        kernel = self.matrix.view(self.shape)
        if self.up:
            kernel = kernel.transpose(0, 1)
            return F.conv_transpose1d(x, kernel, self.bias, stride=self.stride, padding=self.padding)
        return F.conv1d(x, kernel, self.bias, stride=self.stride, padding=self.padding)


class Norm(nn.Module):
    """Root-mean-square normalisation over channels. Zhang and Sennrich, NeurIPS 2019, arXiv:1910.07467."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to the same shape."""
        return x * (self.gain * torch.rsqrt(x.float().square().mean(1, keepdim=True) + 1e-6)).to(x.dtype)


class Block(nn.Module):
    """Residual block of two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = Norm(width)
        self.first, self.second = Kernel((width, width), 5), Kernel((width, width), 3, gain=0.2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, T) to the same shape."""
        y: Tensor = x + self.second(F.gelu(self.first(self.norm(x))))
        return y


class Scout(nn.Module):
    """Waveform (B, 1, T) to code (B, 32, T / 512) and back."""

    def __init__(self) -> None:
        super().__init__()
        down: list[nn.Module] = [Kernel((1, WIDTHS[0]), 3 * PIECE, PIECE), Block(WIDTHS[0]), Block(WIDTHS[0])]
        for a, b in itertools.pairwise(WIDTHS):
            down += [Kernel((a, b), 4, 2), Block(b), Block(b)]
        self.encoder = nn.Sequential(*down, Norm(WIDTHS[-1]), Kernel((WIDTHS[-1], CHANNELS), 3))
        up: list[nn.Module] = [Kernel((CHANNELS, WIDTHS[-1]), 3), Block(WIDTHS[-1]), Block(WIDTHS[-1])]
        for a, b in itertools.pairwise(WIDTHS[::-1]):
            up += [Kernel((a, b), 4, 2, up=True), Block(b), Block(b)]
        self.decoder = nn.Sequential(*up, Norm(WIDTHS[0]), Kernel((WIDTHS[0], 1), 3 * PIECE, PIECE, up=True))


@dataclass(frozen=True)
class Code:
    """The scout's encoder, its channels standardised: mean 0 and deviation 1 over the training clips.

    Attributes:
        encoder: the frozen network.
        mean: (32, 1).
        deviation: (32, 1).
    """

    encoder: nn.Module
    mean: Tensor
    deviation: Tensor

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Latents (B, 32, T / 512) of waveforms (B, 1, T) in [-1, 1]."""
        with torch.autocast(x.device.type, torch.bfloat16):
            z: Tensor = self.encoder(x)
        return (z.float() - self.mean.to(x.device)) / self.deviation.to(x.device)


def train(seed: int, device: torch.device) -> Code:
    """Train the scout, or finish a training that was interrupted, and return its code."""
    with fenced(seed):
        model = Scout().to(device)

    def loss(step: int) -> dict[str, Tensor]:
        rng = stream(seed, "scout", step)
        x = crops(SCHEDULE.batch, rng).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            z = model.encoder(x).float()
            restored = model.decoder(z + NOISE * torch.randn(z.shape, generator=rng).to(device)).float()
        error = relative_error(restored, x)
        spectral = stft_distance(x[::2, 0], restored[::2, 0]).mean()  # on half of the batch: it is as dear as the rest
        total = (error + 0.003).log().mean() + 0.5 * spectral + 0.03 * z.square().mean()
        return {"loss": total, "snr_db": -10 * (error + 1e-6).log10().mean(), "stft": spectral}

    def validate(averaged: nn.Module) -> dict[str, float]:
        x = data.shipped("reference")[0][::8].float().to(device) / 32768
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            restored = averaged.decoder(averaged.encoder(x)).float()  # type: ignore[operator]
        ratio = -10 * relative_error(restored, x).log10()
        return {
            "held_out_snr_db": float(ratio.mean()),
            "held_out_stft": float(stft_distance(x[:, 0], restored[:, 0]).mean()),
        }

    Loop("audio_scout", SCHEDULE, model, loss, validate, every=100).run()
    model.eval().requires_grad_(False)
    clips, _ = data.full_set()
    sample = Code(model.encoder, torch.zeros(CHANNELS, 1), torch.ones(CHANNELS, 1))
    rows = data.training_rows(("fit", "prompts"))[::20]
    z = torch.cat([sample(clips[rows[i : i + 32]].float().to(device) / 32768) for i in range(0, len(rows), 32)]).cpu()
    return Code(model.encoder, z.mean((0, 2))[:, None], z.std((0, 2))[:, None])


def relative_error(restored: Tensor, x: Tensor) -> Tensor:
    """Energy of the error over that of the clip, (B,); the floor is that of noise at -80 dB."""
    return (restored - x).square().mean((1, 2)) / (x.square().mean((1, 2)) + 1e-8)


def crops(count: int, rng: torch.Generator) -> Tensor:
    """Random pieces (count, 1, 8192) in [-1, 1] of clips that are not reference, at random gain and polarity.

    Half of them from the first half second, where notes differ most; none from after a note has died away.
    """
    clips, _ = data.full_set()
    rows = data.training_rows(("fit", "prompts"))
    drawn = torch.randint(len(rows), (count,), generator=rng).tolist()
    starts = torch.rand(count, generator=rng) * (data.LENGTH - CROP)
    starts = torch.where(torch.rand(count, generator=rng) < 0.5, starts / 3, starts).long().tolist()
    x = torch.stack([_piece(clips[rows[row]], start) for row, start in zip(drawn, starts, strict=True)])
    gain = 10 ** (torch.rand(count, 1, 1, generator=rng) * 0.3 - 0.2)  # -4 to +2 dB
    sign = torch.randint(2, (count, 1, 1), generator=rng) * 2 - 1
    return (x.float() / 32768 * gain * sign).clamp(-1, 1)


def _piece(clip: Tensor, start: int) -> Tensor:
    piece = clip[:, start : start + CROP]
    return piece if piece.abs().amax() > 100 else clip[:, :CROP]
