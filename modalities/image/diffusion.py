"""Any diffusers text-to-image pipeline with an autoencoder as a GenPrint generator.

Stable Diffusion 1.x, 2.x, XL and 3, Flux, Sana and the like, with their own autoencoder or another one, such as
``AutoencoderTiny``. The embedded generator is a folder in the same format and goes through the same code.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.protocol import UserError
from modalities.export import with_decoder
from modalities.image import data
from modalities.image.repaint import repaint
from modalities.pipelines import load_pipeline, sample, sample_for_training
from modalities.rounding import as_loaded
from modalities.settings import PIPELINE, split

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
        size: side of what it makes in pixels; None is the pipeline's own.
    """

    name: str
    pipeline: Any = field(repr=False)
    networks: nn.ModuleDict = field(repr=False, default_factory=nn.ModuleDict)
    steps: int = 20
    guidance: float = 3.0
    batch: int = 32
    size: int | None = None

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
            UserError: when the pipeline has latents of another form.
        """
        arguments: dict[str, Any] = {}
        binned = "use_resolution_binning" in _parameters(self.pipeline)  # Sana: 1024 unasked, and then another size
        if (side := self.size or (_own_size(self.pipeline) if binned else None)) is not None:
            arguments = {"height": side, "width": side} | ({"use_resolution_binning": False} if binned else {})
        z = sample(self, prompts, rng, "images", lambda _: arguments)
        if z.ndim == 3 and hasattr(self.pipeline, "_unpack_latents"):  # Flux packs squares of 2×2 into sequences
            side = self.size or self.pipeline.default_sample_size * self.pipeline.vae_scale_factor
            z = self.pipeline._unpack_latents(z, side, side, self.pipeline.vae_scale_factor)
        if z.ndim != 4:
            raise UserError(f"generator {self.name}: expected latents (B, C, h, w), found {tuple(z.shape)}")
        return z

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W), nominally in [0, 1], from scaled latents; differentiable."""
        if not torch.is_grad_enabled() and len(latents) > (most := self._at_once(latents)):
            return torch.cat([self.decode(decoder, part) for part in latents.split(most)])
        vae = self.pipeline.vae
        first = next(decoder.parameters())
        z = _unscaled(vae, latents.to(first.device, first.dtype))
        with as_loaded(vae, decoder):
            if getattr(vae, "post_quant_conv", None) is not None:
                z = vae.post_quant_conv(z)
            images: Tensor = decoder(z).float() / 2 + 0.5
        return images

    def _at_once(self, latents: Tensor) -> int:
        """Items that a decoder takes together: four of 512×512 pixels, for all of whose channels there is memory."""
        pixels = latents.shape[2] * latents.shape[3] * _factor(self.pipeline.vae) ** 2
        return max(1, PIXELS // int(pixels))

    @torch.no_grad()
    def encode(self, x: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Scaled latents of images (B, 3, H, W) in [0, 1]: posterior mean, or a sample when ``rng`` is given.

        Autoencoders without a posterior, such as Sana's, have one latent of an image.
        """
        vae, parts = self.pipeline.vae, []
        for part in x.split(self.batch):
            encoded = vae.encode((part * 2 - 1).to(self.device, vae.dtype))
            posterior = getattr(encoded, "latent_dist", None)
            if posterior is None:
                parts.append(encoded.latents if hasattr(encoded, "latents") else encoded.latent)
                continue
            noise = (
                torch.zeros(posterior.mean.shape) if rng is None else torch.randn(posterior.mean.shape, generator=rng)
            )
            parts.append(posterior.mean + posterior.std * noise.to(posterior.mean))
        return _scaled(vae, torch.cat(parts).float().cpu())

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
        size = self.size or _own_size(self.pipeline)
        if size is None:
            return x
        if x.shape[2:] == (size, size):
            return x
        return F.interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(0, 1)

    def export(self, decoder: nn.Module, folder: Path) -> None:
        """Write a plain pipeline folder with ``decoder`` in the place of the public one."""
        with with_decoder(self.pipeline.vae, "decoder", decoder):
            self.pipeline.save_pretrained(folder, safe_serialization=True)


PIXELS = 4 * 512 * 512


def load(spec: str | None, device: torch.device) -> DiffusionGenerator:
    """Load a pipeline; see :func:`modalities.pipelines.load_pipeline`."""
    source, settings = split(spec)
    settings.limited(str(source), *PIPELINE, "size")
    name, pipeline, networks = load_pipeline(source, EMBEDDED, device, settings)
    generator = DiffusionGenerator(name, pipeline, networks)
    return replace(generator, **settings.chosen("steps", "guidance", "batch", "size"))


def _parameters(pipeline: Any) -> set[str]:
    return set(inspect.signature(type(pipeline).__call__).parameters)


def _own_size(pipeline: Any) -> int | None:
    """Side in pixels of what a pipeline makes unasked, where it says so."""
    denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    cells = denoiser.config.get("sample_size") if denoiser is not None else None
    cells = cells or getattr(pipeline, "default_sample_size", None)
    return cells * _factor(pipeline.vae) if isinstance(cells, int) else None


def _factor(vae: Any) -> int:
    """Pixels of a latent's cell along one side."""
    widths = vae.config.get("block_out_channels") or vae.config.get("decoder_block_out_channels")
    return int(2 ** (len(widths) - 1))


def _unscaled(vae: Any, z: Tensor) -> Tensor:
    """Latents as the decoder takes them, from those that the denoiser makes."""
    mean, std, scale = _statistics(vae, z)
    return z * std / scale + mean if isinstance(std, Tensor) else z / scale + mean  # rounded as by the pipelines


def _scaled(vae: Any, z: Tensor) -> Tensor:
    mean, std, scale = _statistics(vae, z)
    return (z - mean) * (scale / std)


def _statistics(vae: Any, z: Tensor) -> tuple[Tensor | float, Tensor | float, float]:
    """Shift, spread and scale of an autoencoder's latents; the first two for all channels or one each, (1, C, 1, 1)."""
    scale, means = float(vae.config.scaling_factor), vae.config.get("latents_mean")
    if means is None:
        return float(vae.config.get("shift_factor") or 0.0), 1.0, scale
    mean, std = (z.new_tensor(each).view(1, -1, 1, 1) for each in (means, vae.config.latents_std))
    return mean, std, scale
