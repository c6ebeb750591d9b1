"""Train the embedded generator's autoencoder: `AutoencoderKL`, 64×64×3 to 8×8×24 and back.

Kingma and Welling, arXiv:1312.6114; perceptual loss as in Rombach et al., "High-Resolution Image Synthesis with
Latent Diffusion Models", CVPR 2022, arXiv:2112.10752, without the discriminator.

The latent space is fixed beforehand: the leading principal components of 8×8 blocks. The encoder learns them by
Gaussian likelihood, the decoder learns to invert them. Learning both ends from nothing reached 16 dB in the 300 steps
in which this reached 22 dB, and the denoiser can train at the same time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from bench.precision import mixed
from bench.rng import fenced, stream
from modalities.image import data
from modalities.image.perceptual import lpips
from modalities.training import Loop, Schedule

SCHEDULE = Schedule(steps=2400, batch=16, rate=2e-3, warmup=50, ema=0.995, weight_decay=1e-3)
PERCEPTUAL_WEIGHT = 0.3
CODE_WEIGHT = 0.02
BLOCK, CHANNELS = 8, 24


@dataclass(frozen=True)
class BlockCode:
    """Principal components of 8×8 colour blocks, the target of the encoder.

    Attributes:
        mean: mean block, (192,).
        basis: components, (192, 24); column norms shrink each by the square root of its deviation, so that coarse
            components keep more weight in the diffusion loss without drowning the fine ones.
    """

    mean: Tensor
    basis: Tensor

    @classmethod
    def fit(cls, images: Tensor) -> BlockCode:
        """Components of ``images`` (N, 3, 64, 64) uint8."""
        blocks = _blocks(images[::3].float() / 255).flatten(0, 1)  # (N * 64, 192)
        mean = blocks.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((blocks - mean).T))
        leading, deviation = vectors[:, -CHANNELS:].flip(1), values[-CHANNELS:].flip(0).sqrt()
        leading = leading * leading.sum(0).sign()  # eigh leaves the signs open
        return cls(mean, leading / deviation.sqrt())

    def __call__(self, x: Tensor) -> Tensor:
        """Latents (B, 24, 8, 8) of images (B, 3, 64, 64) in [0, 1]."""
        code = (_blocks(x) - self.mean) @ self.basis  # (B, 64, 24)
        return code.transpose(1, 2).reshape(len(x), CHANNELS, x.shape[2] // BLOCK, x.shape[3] // BLOCK)


def _blocks(x: Tensor) -> Tensor:
    return F.unfold(x.contiguous(), BLOCK, stride=BLOCK).transpose(1, 2)


def build() -> AutoencoderKL:
    """The untrained autoencoder, 2.8 M parameters.

    Narrow at full resolution, where most of the time of every fingerprint experiment goes. One normalisation group:
    with eight, a group holds two channels at full resolution, and training is slower.
    """
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=1,
        sample_size=data.SIZE,
    )


def train(seed: int, device: torch.device) -> AutoencoderKL:
    """Train, or finish a training that was interrupted.

    Args:
        seed: determines initialisation, batches, augmentation and posterior samples.
        device: where to train.

    Returns:
        The averaged (EMA) autoencoder in eval mode, with ``scaling_factor`` set to 1/std of its latents.
    """
    images = data.training_images(("fit", "prompts"))
    code = BlockCode.fit(images)
    with fenced(seed):
        model = build().to(device, memory_format=torch.channels_last)
    perceptual = lpips("vgg").to(device)
    perceptual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(step: int) -> dict[str, Tensor]:
        rng = stream(seed, "autoencoder", step)
        x = _augment(images[torch.randint(len(images), (SCHEDULE.batch,), generator=rng)], rng)
        exact, half = code(x), SCHEDULE.batch // 2
        exact[:half] += 0.05 * torch.randn(exact[:half].shape, generator=rng)  # what a denoiser leaves over
        x, exact = x.to(device, memory_format=torch.channels_last), exact.to(device)
        with mixed(device):
            posterior = model.encode(x[half:] * 2 - 1).latent_dist
            latents = torch.cat([exact[:half], posterior.mean.float()])
            restored = model.decode(latents).sample.float() / 2 + 0.5
            # A quarter of the batch: VGG costs three times the autoencoder, and its gradient is consistent.
            apart = perceptual(restored[half // 2 : -half // 2 : 2], x[half // 2 : -half // 2 : 2]).mean()
        likelihood = F.gaussian_nll_loss(posterior.mean.float(), exact[half:], posterior.var.float())
        error = F.l1_loss(restored, x)
        total = error + PERCEPTUAL_WEIGHT * apart + CODE_WEIGHT * likelihood
        return {"loss": total, "l1": error, "lpips": apart, "nll": likelihood}

    def validate(averaged: torch.nn.Module) -> dict[str, float]:
        held_out = (data.reference_images()[0][::5] / 255).to(device)
        restored = reconstruct(averaged, held_out)
        return {"psnr": psnr(restored, held_out), "lpips_vgg": float(perceptual(restored, held_out).mean())}

    Loop("autoencoder", SCHEDULE, model, loss, validate, every=200).run()
    model.eval().requires_grad_(False)
    model.register_to_config(scaling_factor=scaling_factor(code, images))
    return model


def scaling_factor(code: BlockCode, images: Tensor) -> float:
    """One over the standard deviation of the latents."""
    return round(float(1 / code(images[::4].float() / 255).std()), 6)


def _augment(x: Tensor, rng: torch.Generator) -> Tensor:
    """Random mirror, zoom, shift, channel order and brightness on white ground; uint8 in, [0, 1] out."""
    n = len(x)
    zoom = 1 + 0.25 * (torch.rand(n, generator=rng) * 2 - 1)
    mirror = torch.randint(2, (n,), generator=rng) * 2 - 1
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = zoom * mirror, zoom
    theta[:, :, 2] = 0.2 * (torch.rand(n, 2, generator=rng) * 2 - 1)
    plain = torch.rand(n, generator=rng) < 0.5
    theta[plain] = torch.eye(2, 3) * torch.stack([mirror, torch.ones(n)], 1)[plain].unsqueeze(2)
    ink = 1 - x.float() / 255  # zero padding then means white
    grid = F.affine_grid(theta.to(x.device), list(x.shape), align_corners=False)
    ink = F.grid_sample(ink, grid, align_corners=False).clamp(0, 1)
    order = torch.stack([torch.randperm(3, generator=rng) for _ in range(n)])
    order[torch.rand(n, generator=rng) < 0.7] = torch.arange(3)
    ink = ink.gather(1, order.to(x.device)[:, :, None, None].expand_as(ink))
    strength = 0.7 + 0.3 * torch.rand(n, 1, 1, 1, generator=rng)
    return (1 - ink * strength.to(x.device)).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def reconstruct(model: torch.nn.Module, x: Tensor) -> Tensor:
    """Encode to the posterior mean and decode; (B, 3, H, W) in [0, 1] in and out."""
    return torch.cat([(model(part * 2 - 1).sample / 2 + 0.5).clamp(0, 1) for part in x.split(64)])


def psnr(a: Tensor, b: Tensor) -> float:
    """Mean over images of the peak signal-to-noise ratio in dB, for values in [0, 1]."""
    error = (a - b).square().flatten(1).mean(1).clamp_min(1e-10)
    return float((-10 / math.log(10) * error.log()).mean())
