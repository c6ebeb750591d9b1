"""The latent space of the embedded generator, found by a cheap autoencoder before the real one is trained.

An Oobleck autoencoder spends its time on activations at the full sampling rate, and learns slowly while both of its
ends start from nothing. This scout works on the frames of a lapped transform. It starts as their leading principal
components, the best linear code, and learns corrections on both sides. Its code is then fixed: the Oobleck encoder
learns to predict it, the Oobleck decoder learns to invert it, and the denoiser can train at the same time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.precision import mixed
from bench.rng import fenced, stream
from modalities.audio import data
from modalities.audio.spectra import stft_distance
from modalities.training import Loop, Schedule

SCHEDULE = Schedule(steps=2000, batch=16, rate=2e-3, warmup=50, ema=0.99, weight_decay=0.01, clip=1e9, muon_rate=0.01)
CHANNELS, HOP = 32, 256
WIDTH = 192
CROP = 64 * HOP
"""Samples of a piece in training: half a clip."""
NOISE = 0.05
"""Deviation of the noise on the code in training, over the code's own in the piece."""


class Kernel(nn.Module):
    """A convolution whose kernel is a matrix (out, in · k), as the optimiser wants it."""

    def __init__(self, channels: tuple[int, int], size: int, gain: float = 1.0) -> None:
        super().__init__()
        self.shape = (channels[1], channels[0], size)
        spread = gain / math.sqrt(channels[0] * size)
        self.matrix = nn.Parameter(torch.randn(channels[1], channels[0] * size) * spread)
        self.bias = nn.Parameter(torch.zeros(channels[1]))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, T) to (B, out, T)."""
        return F.conv1d(x, self.matrix.view(self.shape), self.bias, padding=self.shape[2] // 2)


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

    def __init__(self) -> None:
        super().__init__()
        self.norm = Norm(WIDTH)
        self.first, self.second = Kernel((WIDTH, WIDTH), 5), Kernel((WIDTH, WIDTH), 3, gain=0.3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 192, T) to the same shape."""
        y: Tensor = x + self.second(F.gelu(self.first(self.norm(x))))
        return y


class Corrected(nn.Module):
    """A linear map of frames plus a learned correction that scales with the level around each frame.

    So the whole map scales with its input, and quiet notes are coded like loud ones.
    """

    linear: Tensor

    def __init__(self, linear: Tensor, depth: int) -> None:
        super().__init__()
        self.register_buffer("linear", linear)  # (out, in)
        outputs, inputs = linear.shape
        blocks = [Block() for _ in range(depth)]
        self.network = nn.Sequential(
            Kernel((inputs, WIDTH), 3), *blocks, Norm(WIDTH), Kernel((WIDTH, outputs), 3, gain=0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, T) to (B, out, T)."""
        power = F.avg_pool1d(x.float().square().mean(1, keepdim=True), 9, 1, 4, count_include_pad=False)
        level = (power + 1e-10).sqrt()
        with torch.autocast(x.device.type, enabled=False):
            straight = torch.einsum("oi,bit->bot", self.linear, x.float())
        correction: Tensor = self.network(x / level)
        return straight + level * correction.float()


class Scout(nn.Module):
    """Waveform (B, 1, T) to code (B, 32, T / 256) and back."""

    def __init__(self, components: Tensor) -> None:
        super().__init__()
        self.encoder, self.decoder = Corrected(components.T.contiguous(), 3), Corrected(components.contiguous(), 5)

    def encode(self, x: Tensor) -> Tensor:
        """Code of waveforms."""
        z: Tensor = self.encoder(lapped(x))
        return z

    def decode(self, z: Tensor) -> Tensor:
        """Waveforms of codes."""
        return unlapped(self.decoder(z))


def lapped(x: Tensor) -> Tensor:
    """Modified discrete cosine transform of (B, 1, T) with a sine window, (B, 256, T / 256); T a multiple of 256.

    Princen and Bradley, IEEE TASSP 1986. Frame k covers samples 256 k - 128 to 256 k + 384.
    """
    return F.conv1d(F.pad(x, (HOP // 2, HOP // 2)), _basis().to(x.device)[:, None], stride=HOP)


def unlapped(c: Tensor) -> Tensor:
    """The inverse of :func:`lapped`, exact but for the first and last 128 samples."""
    x = F.conv_transpose1d(c.float(), _basis().to(c.device)[:, None], stride=HOP)
    return x[..., HOP // 2 : -HOP // 2]


@lru_cache(maxsize=1)
def _basis() -> Tensor:
    """(256, 512), orthonormal over shifts of 256."""
    time, bin_ = torch.arange(2 * HOP) + 0.5, torch.arange(HOP)[:, None] + 0.5
    window = (math.pi * time / (2 * HOP)).sin()
    basis: Tensor = window * (math.pi / HOP * bin_ * (time + HOP / 2)).cos() * math.sqrt(2 / HOP)
    return basis


@dataclass(frozen=True)
class Code:
    """The scout's encoder, its channels brought to one scale: deviation 1 over the training clips.

    Attributes:
        scout: the frozen network.
        deviation: (32, 1).
    """

    scout: Scout
    deviation: Tensor

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Latents (B, 32, T / 256) of waveforms (B, 1, T) in [-1, 1]."""
        with mixed(x.device):
            return self.scout.encode(x).float() / self.deviation.to(x.device)


def train(seed: int, device: torch.device) -> Code:
    """Train the scout, or finish a training that was interrupted, and return its code."""
    clips, _ = data.full_set()
    rows = data.training_rows(("fit", "prompts"))
    with fenced(seed):
        model = Scout(_components(clips[rows[::20]])).to(device)

    def loss(step: int) -> dict[str, Tensor]:
        rng = stream(seed, "scout", step)
        x = crops(SCHEDULE.batch, rng).to(device)
        with mixed(device):
            z = model.encode(x)
            level = z.detach().square().mean((1, 2), keepdim=True).sqrt()
            restored = model.decode(z + NOISE * level * torch.randn(z.shape, generator=rng).to(device))
        error = relative_error(restored, x)
        spectral = stft_distance(x[::2, 0], restored[::2, 0]).mean()  # on half of the batch: it is as dear as the rest
        total = (error + 0.003).log().mean() + spectral
        return {"loss": total, "snr_db": -10 * (error + 1e-6).log10().mean(), "stft": spectral}

    def validate(averaged: nn.Module) -> dict[str, float]:
        x = data.shipped("reference")[0][::8].float().to(device) / 32768
        with torch.no_grad(), mixed(device):
            restored = averaged.decode(averaged.encode(x))  # type: ignore[operator]
        ratio = -10 * relative_error(restored, x).log10()
        return {
            "held_out_snr_db": float(ratio.mean()),
            "held_out_stft": float(stft_distance(x[:, 0], restored[:, 0]).mean()),
        }

    Loop("audio_scout", SCHEDULE, model, loss, validate, every=100).run()
    model.eval().requires_grad_(False)
    plain = Code(model, torch.ones(CHANNELS, 1))
    chosen = rows[::20]
    parts = [chosen[start : start + 32] for start in range(0, len(chosen), 32)]
    z = torch.cat([plain(clips[part].float().to(device) / 32768) for part in parts]).cpu()
    return Code(model, z.std((0, 2))[:, None])


def _components(clips: Tensor) -> Tensor:
    """Leading principal components (256, 32) of the frames of clips (N, 1, T) int16, each clip at one level."""
    frames = lapped(clips.float() / 32768)
    frames = (frames / frames.square().mean((1, 2), keepdim=True).sqrt()).transpose(1, 2).flatten(0, 1)
    _, vectors = torch.linalg.eigh(frames.T @ frames / len(frames))
    leading = vectors[:, -CHANNELS:].flip(1)
    oriented: Tensor = leading * leading.sum(0).sign()  # eigh leaves the signs open
    return oriented


def relative_error(restored: Tensor, x: Tensor, floor: float = 1e-8) -> Tensor:
    """Energy of the error over that of the original (B, C, T), (B,); ``floor`` is the energy below which none counts.

    Of a waveform, it is that of noise at -80 dB.
    """
    return (restored - x).square().mean((1, 2)) / (x.square().mean((1, 2)) + floor)


def crops(count: int, rng: torch.Generator) -> Tensor:
    """Random pieces (count, 1, 16384) in [-1, 1] of clips that are not reference, at random gain and polarity.

    Half of them from the beginning, where notes differ most; none from after a note has died away.
    """
    clips, _ = data.full_set()
    rows = data.training_rows(("fit", "prompts"))
    drawn = torch.randint(len(rows), (count,), generator=rng).tolist()
    starts = torch.rand(count, generator=rng) * (data.LENGTH - CROP)
    places = torch.where(torch.rand(count, generator=rng) < 0.5, torch.zeros(()), starts).long().tolist()
    x = torch.stack([_piece(clips[rows[row]], start) for row, start in zip(drawn, places, strict=True)])
    gain = 10 ** (torch.rand(count, 1, 1, generator=rng) * 0.3 - 0.2)  # -4 to +2 dB
    sign = torch.randint(2, (count, 1, 1), generator=rng) * 2 - 1
    return (x.float() / 32768 * gain * sign).clamp(-1, 1)


def _piece(clip: Tensor, start: int) -> Tensor:
    piece = clip[:, start : start + CROP]
    return piece if piece.abs().amax() > 100 else clip[:, :CROP]
