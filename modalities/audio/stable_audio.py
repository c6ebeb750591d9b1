"""Any `StableAudioPipeline` of diffusers as a GenPrint generator: Stable Audio Open, and the embedded one.

Evans et al., "Stable Audio Open", 2024, arXiv:2407.14358. Both are folders in the same format and go through this code.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.protocol import Clips, UserError
from modalities.audio import LENGTH, data
from modalities.audio.notes import every_note
from modalities.audio.rates import resampled
from modalities.pipelines import load_pipeline, sample, sample_for_training

logger = logging.getLogger("genprint")

WINDOWS = 4
"""Pieces of one sampled latent that a fit takes when it is longer than what readers hear."""

EMBEDDED = Path(__file__).parent / "weights" / "notes16k"


@dataclass(frozen=True)
class StableAudioGenerator:
    """Text to audio through a `StableAudioPipeline`; the fingerprint sits in ``vae.decoder``.

    Attributes:
        name: hub id or folder name.
        pipeline: a loaded pipeline whose ``vae`` is an ``AutoencoderOobleck``.
        networks: all its networks by name; they determine the latents, so cached latents are named by them.
        steps: solver steps.
        guidance: classifier-free guidance scale.
        batch: prompts sampled at a time.
    """

    name: str
    pipeline: Any = field(repr=False)
    networks: nn.ModuleDict = field(repr=False, default_factory=nn.ModuleDict)
    steps: int = 25
    guidance: float = 7.0
    batch: int = 32

    @property
    def decoder(self) -> nn.Module:
        """The public decoder."""
        decoder: nn.Module = self.pipeline.vae.decoder
        return decoder

    @property
    def rate_hz(self) -> int:
        """Samples per second of what it makes."""
        return int(self.pipeline.vae.config.sampling_rate)

    @property
    def device(self) -> torch.device:
        """Where the decoder's weights are."""
        return next(self.decoder.parameters()).device

    @torch.no_grad()
    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """Sample one latent per prompt with the pipeline's own solver, (B, C, frames) float32 on the CPU."""
        return sample(self, prompts, rng, "audios")

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        """Waveforms (B, channels, T), nominally in [-1, 1], from latents (B, C, frames); differentiable."""
        first = next(decoder.parameters())
        waves: Tensor = decoder(latents.to(first.device, first.dtype)).float()
        return waves

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Posterior means (B, C, frames) of waveforms (B, channels, T) in [-1, 1]; T a multiple of the hop.

        One by one on a processor: the activations of eight leave its caches, and each then takes 1.7 times as long.
        """
        vae, together = self.pipeline.vae, 1 if self.device.type == "cpu" else 8
        parts = [vae.encode(part.to(self.device, vae.dtype)).latent_dist.mean for part in x.split(together)]
        return torch.cat(parts).float().cpu()

    def embed(self, clips: Clips) -> Tensor:
        """Posterior means (B, C, frames) of the public encoder, differentiable in the samples when those are floats."""
        vae = self.pipeline.vae
        means: Tensor = vae.encode(self._fitted(clips).to(self.device, vae.dtype)).latent_dist.mean
        return means.float().to(clips.samples.device)

    def training_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Latents as the generator makes them, of captions whose notes are behind no benchmark prompt.

        Of a sampled latent longer than what readers hear come four windows of that length, drawn from those that are
        within 1 dB of the loudest, since readers hear the loudest and hardly ever what is left of a note. All are
        sampled: the encoder of an Oobleck autoencoder takes as long for a clip as the sampler.
        """
        heard = math.ceil(LENGTH / data.RATE_HZ * self.rate_hz / self.pipeline.vae.hop_length)
        longer = int(self.pipeline.transformer.config.sample_size) > heard
        captions = [note.caption for note in every_note() if note.split == "fit"]
        chosen = torch.randint(len(captions), (-(-n // WINDOWS) if longer else n,), generator=rng).tolist()
        whole = sample_for_training(self, [captions[i] for i in chosen], rng)
        if not longer:
            return whole
        energy = whole.square().mean(1).unfold(1, heard, 1).mean(2)  # (n, places)
        loud = (energy >= 10**-0.1 * energy.amax(1, keepdim=True)).float()
        starts = torch.multinomial(loud, WINDOWS, True, generator=rng)
        windows = [z[:, at : at + heard] for z, row in zip(whole, starts.tolist(), strict=True) for at in row]
        return torch.stack(windows)[:n].contiguous()

    def public_pairs(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents and waveforms of ``n`` shipped public clips, as an attacker with the public encoder has them.

        All of them when ``n`` is more than there are.
        """
        clips, _ = data.shipped("fit")
        chosen = clips[torch.randperm(len(clips), generator=rng)[:n]]
        x = self._fitted(Clips(chosen, data.RATE_HZ))
        return self.encode(x), x

    def reconstruct(self, clips: Clips) -> Clips:
        """Encode and decode with the public autoencoder: the regeneration attack; same rate, channels and length."""
        with torch.inference_mode():
            z = self.encode(self._fitted(clips))
            waves = torch.cat([self.decode(self.decoder, part) for part in z.split(self.batch)]).cpu()
        waves = resampled(waves, self.rate_hz, clips.rate_hz)[..., : clips.samples.shape[2]]
        waves = F.pad(waves, (0, clips.samples.shape[2] - waves.shape[2]))
        return Clips.from_unit(_channels(waves, clips.samples.shape[1]), clips.rate_hz)

    def _fitted(self, clips: Clips) -> Tensor:
        """Waveforms as the encoder takes them: its rate and channels, padded with silence to whole hops."""
        x = resampled(clips.unit(), clips.rate_hz, self.rate_hz)
        x = _channels(x, int(self.pipeline.vae.config.audio_channels))
        return F.pad(x, (0, -x.shape[2] % int(self.pipeline.vae.hop_length)))


def _channels(x: Tensor, count: int) -> Tensor:
    """(B, 1 or 2, T) as (B, count, T): stereo is averaged, mono repeated."""
    return x if x.shape[1] == count else x.mean(1, keepdim=True).expand(-1, count, -1)


def load(spec: str | None, device: torch.device) -> StableAudioGenerator:
    """Load a pipeline; see :func:`modalities.pipelines.load_pipeline`.

    Raises:
        UserError: also when it is no Stable Audio pipeline.
    """
    name, pipeline, networks = load_pipeline(spec, EMBEDDED, device)
    if type(pipeline).__name__ != "StableAudioPipeline":
        raise UserError(f"generator {name}: expected a StableAudioPipeline, found {type(pipeline).__name__}")
    if name == EMBEDDED.name:  # few steps, and without guidance, as the codec that ships was fitted
        return StableAudioGenerator(name, pipeline, networks, steps=16, guidance=1.0)
    return StableAudioGenerator(name, pipeline, networks)
