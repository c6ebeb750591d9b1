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

from bench.protocol import Clips, UserError
from modalities.audio import LENGTH, data, material
from modalities.export import with_decoder
from modalities.pipelines import load_pipeline, sample, sample_for_training
from modalities.rounding import as_loaded
from modalities.settings import PIPELINE, Settings, split

logger = logging.getLogger("genprint")

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
    def channels(self) -> int:
        """1 or 2."""
        return int(self.pipeline.vae.config.audio_channels)

    @property
    def hop(self) -> int:
        """Samples per latent frame."""
        return int(self.pipeline.vae.hop_length)

    @property
    def frames(self) -> int:
        """Latent frames of one sampled item."""
        return int(self.pipeline.transformer.config.sample_size)

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
        with as_loaded(decoder):
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
        means: Tensor = vae.encode(material.fitted(self, clips).to(self.device, vae.dtype)).latent_dist.mean
        return means.float().to(clips.samples.device)

    def training_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Latents as the generator makes them, of captions whose notes are behind no benchmark prompt.

        Of a sampled latent longer than what readers hear come four windows of that length, drawn from those that are
        within 1 dB of the loudest, since readers hear the loudest and hardly ever what is left of a note. All are
        sampled: the encoder of an Oobleck autoencoder takes as long for a clip as the sampler.
        """
        heard = math.ceil(LENGTH / data.RATE_HZ * self.rate_hz / self.hop)
        longer = self.frames > heard
        captions = material.fit_captions(-(-n // material.WINDOWS) if longer else n, rng)
        whole = sample_for_training(self, captions, rng)
        return material.loud_windows(whole, heard, n, rng) if longer else whole

    def public_pairs(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents and waveforms of ``n`` shipped public clips, as an attacker with the public encoder has them.

        All of them when ``n`` is more than there are.
        """
        return material.public_pairs(self, n, rng)

    def reconstruct(self, clips: Clips) -> Clips:
        """Encode and decode with the public autoencoder: the regeneration attack; same rate, channels and length."""
        return material.reconstruct(self, clips)

    def export(self, decoder: nn.Module, folder: Path) -> None:
        """Write a plain pipeline folder with ``decoder`` in the place of the public one."""
        with with_decoder(self.pipeline.vae, "decoder", decoder):
            self.pipeline.save_pretrained(folder, safe_serialization=True)


@dataclass(frozen=True)
class AceStepGenerator(StableAudioGenerator):
    """Text to music through an `AceStepPipeline`, whose autoencoder is Stable Audio's; no lyrics.

    Gong et al., "ACE-Step", 2025, arXiv:2506.00045.

    Attributes:
        seconds: length of what it makes.
    """

    steps: int = 8
    seconds: float = 10.0

    @property
    def frames(self) -> int:
        """Latent frames of one sampled item."""
        return math.ceil(self.seconds * self.rate_hz / self.hop)

    @torch.no_grad()
    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """Sample one latent per prompt, (B, C, frames) float32 on the CPU; the pipeline has frames first."""
        settings = {"audio_duration": self.seconds}
        made = sample(self, prompts, rng, "audios", lambda count: {"lyrics": [""] * count, **settings})
        return made.transpose(1, 2).contiguous()

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        """Waveforms (B, channels, T) at the level that the pipeline publishes: a peak of -1 dB."""
        waves = super().decode(decoder, latents)
        peak = waves.abs().amax(dim=(1, 2), keepdim=True)
        waves = waves / peak.clamp_min(1)
        return waves * (10**-0.05 / waves.abs().amax(dim=(1, 2), keepdim=True).clamp_min(1e-6))


def load(spec: str | None, device: torch.device) -> StableAudioGenerator:
    """Load a Stable Audio pipeline; see :func:`modalities.pipelines.load_pipeline`.

    Raises:
        UserError: also when it is no Stable Audio pipeline.
    """
    source, settings = split(spec)
    name, pipeline, networks = load_pipeline(source, EMBEDDED, device, settings)
    if type(pipeline).__name__ != "StableAudioPipeline":
        raise UserError(f"generator {name}: expected a StableAudioPipeline, found {type(pipeline).__name__}")
    return built(name, pipeline, networks, settings)


def built(name: str, pipeline: Any, networks: nn.ModuleDict, settings: Settings) -> StableAudioGenerator:
    """The generator around a loaded pipeline."""
    settings.limited(name, *PIPELINE)
    # The embedded one takes few steps, and no guidance, as the codec that ships was fitted.
    own: dict[str, Any] = {"steps": 16, "guidance": 1.0} if name == EMBEDDED.name else {}
    return StableAudioGenerator(name, pipeline, networks, **own | settings.chosen("steps", "guidance", "batch"))
