"""Any diffusers text-to-image pipeline with a variational autoencoder as a GenPrint generator.

The embedded generator is a folder in the same format and goes through the same code.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.protocol import UserError
from modalities.image import data
from modalities.image.repaint import repaint
from modalities.pipelines import load_pipeline, sample, sample_for_training

logger = logging.getLogger("genprint")

EMBEDDED = Path(__file__).parent / "weights" / "emoji64"


@dataclass(frozen=True)
class DiffusionGenerator:
    """Text to image through a diffusers pipeline; the fingerprint sits in ``vae.decoder``.

    Rombach et al., arXiv:2112.10752, for the split of latent diffusion and decoder.

    Attributes:
        name: hub id or folder name.
        pipeline: a loaded pipeline with ``vae``.
        networks: all its networks by name; they determine the latents, so cached latents are named by them.
        steps: solver steps.
        guidance: classifier-free guidance scale.
        batch: prompts sampled at a time.
    """

    name: str
    pipeline: Any = field(repr=False)
    networks: nn.ModuleDict = field(repr=False, default_factory=nn.ModuleDict)
    steps: int = 20
    guidance: float = 3.0
    batch: int = 32

    @property
    def decoder(self) -> nn.Module:
        """The public decoder."""
        decoder: nn.Module = self.pipeline.vae.decoder
        return decoder

    @property
    def device(self) -> torch.device:
        """Where the decoder's weights are."""
        return next(self.decoder.parameters()).device

    @torch.no_grad()
    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """Sample one latent per prompt with the pipeline's own solver, (B, C, h, w) float32 on the CPU.

        Raises:
            UserError: when the pipeline packs its latents into sequences, as Flux does.
        """
        z = sample(self, prompts, rng, "images")
        if z.ndim != 4:
            raise UserError(f"generator {self.name}: expected latents (B, C, h, w), found {tuple(z.shape)}")
        return z

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W), nominally in [0, 1], from scaled latents; differentiable."""
        vae = self.pipeline.vae
        first = next(decoder.parameters())
        z = latents.to(first.device, first.dtype) / vae.config.scaling_factor + _shift(vae)
        if getattr(vae, "post_quant_conv", None) is not None:
            z = vae.post_quant_conv(z)
        images: Tensor = decoder(z.contiguous(memory_format=torch.channels_last)).float() / 2 + 0.5
        return images

    @torch.no_grad()
    def encode(self, x: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Scaled latents of images (B, 3, H, W) in [0, 1]: posterior mean, or a sample when ``rng`` is given."""
        vae, parts = self.pipeline.vae, []
        for part in x.split(self.batch):
            posterior = vae.encode((part * 2 - 1).to(self.device, vae.dtype)).latent_dist
            noise = (
                torch.zeros(posterior.mean.shape) if rng is None else torch.randn(posterior.mean.shape, generator=rng)
            )
            parts.append(posterior.mean + posterior.std * noise.to(posterior.mean))
        z = torch.cat(parts).float().cpu()
        scaled: Tensor = (z - _shift(vae)) * vae.config.scaling_factor
        return scaled

    def training_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Latents as the generator makes them (three of eight) and posterior samples of training images (the rest).

        WOUAF trains on posterior samples and is read on both. Sampling costs a hundred times as much. None of the
        images, and none of the prompts, is behind a benchmark prompt.
        """
        images = data.training_images(("fit",))  # first: a missing data set must not be found after minutes of sampling
        sampled = [concept for concept in data.concepts() if concept.split == "fit"]
        captions = [concept.caption(style) for concept in sampled for style in data.STYLES]
        chosen = torch.randint(len(captions), (3 * n // 8,), generator=rng).tolist()
        made = [sample_for_training(self, [captions[i] for i in chosen], rng)] if chosen else []
        rows = torch.randint(len(images), (n - len(chosen),), generator=rng)
        return torch.cat([*made, self.encode(self._sized(images[rows].float() / 255), rng)])

    def public_pairs(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents and images of ``n`` shipped public images, as an attacker with the public encoder has them.

        All of them when ``n`` is more than there are.
        """
        images = data.public_images()
        x = self._sized(images[torch.randperm(len(images), generator=rng)[:n]].float() / 255)
        return self.encode(x), x

    def reconstruct(self, x: Tensor) -> Tensor:
        """Encode and decode with the public autoencoder, [0, 1] in and out: the regeneration attack."""
        with torch.inference_mode():
            fitted = self._sized(x)
            restored = torch.cat([self.decode(self.decoder, z) for z in self.encode(fitted).split(self.batch)])
            return F.interpolate(restored.clamp(0, 1).cpu(), x.shape[2:], mode="bilinear", antialias=True)

    def embed(self, x: Tensor) -> Tensor:
        """Posterior means (B, C, h, w) of the public encoder, differentiable, of images (B, 3, H, W) in [0, 1]."""
        vae = self.pipeline.vae
        means: Tensor = vae.encode((self._sized(x) * 2 - 1).to(self.device, vae.dtype)).latent_dist.mean
        return means.float().to(x.device)

    @torch.no_grad()
    def regenerate(self, x: Tensor, share: float, rng: torch.Generator) -> Tensor:
        """Images in [0, 1] painted anew from latents with noise on them; see :func:`modalities.image.repaint.repaint`.

        Args:
            x: images (B, 3, H, W).
            share: of the noise schedule's steps.
            rng: of the noise.
        """
        z = repaint(self.pipeline, self.encode(self._sized(x)), share, rng)
        painted = torch.cat([self.decode(self.decoder, part) for part in z.split(self.batch)])
        return F.interpolate(painted.clamp(0, 1).cpu(), x.shape[2:], mode="bilinear", antialias=True)

    def _sized(self, x: Tensor) -> Tensor:
        """``x`` at the side that the pipeline generates."""
        denoiser = getattr(self.pipeline, "unet", None) or getattr(self.pipeline, "transformer", None)
        cells = denoiser.config.get("sample_size") if denoiser is not None else None
        if not isinstance(cells, int):
            return x
        size = cells * 2 ** (len(self.pipeline.vae.config.block_out_channels) - 1)
        if x.shape[2:] == (size, size):
            return x
        return F.interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(0, 1)


def load(spec: str | None, device: torch.device) -> DiffusionGenerator:
    """Load a pipeline; see :func:`modalities.pipelines.load_pipeline`."""
    name, pipeline, networks = load_pipeline(spec, EMBEDDED, device)
    pipeline.vae.to(memory_format=torch.channels_last)
    return DiffusionGenerator(name, pipeline, networks)


def _shift(vae: Any) -> float:
    return float(vae.config.get("shift_factor") or 0.0)
