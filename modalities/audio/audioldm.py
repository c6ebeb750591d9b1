"""Any `AudioLDM2Pipeline` of diffusers as a GenPrint generator: two networks between latents and waveform.

Liu et al., "AudioLDM 2", 2023, arXiv:2308.05734. An autoencoder makes mel spectrograms of latents, and a vocoder
(Kong et al., "HiFi-GAN", 2020, arXiv:2010.05646) waveforms of those. Either can carry the fingerprint; a user can
exchange the one that does for its public twin, which the benchmark measures as a change of the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from modalities.audio import LENGTH, data, material
from modalities.export import with_decoder
from modalities.pipelines import sample, sample_for_training
from modalities.rounding import as_loaded


@dataclass(frozen=True)
class AudioLDM2Generator:
    """Text to audio through an `AudioLDM2Pipeline`.

    Attributes:
        name: hub id or folder name.
        pipeline: a loaded pipeline with ``vae`` and ``vocoder``.
        networks: all its networks by name; they determine the latents, so cached latents are named by them.
        part: which of the two networks is fingerprinted.
        steps: solver steps.
        guidance: classifier-free guidance scale.
        batch: prompts sampled at a time.
        seconds: length of what it makes; None is the pipeline's own, 10.24 of the released models.
    """

    name: str
    pipeline: Any = field(repr=False)
    networks: nn.ModuleDict = field(repr=False, default_factory=nn.ModuleDict)
    part: Literal["vae", "vocoder"] = "vae"
    steps: int = 50
    guidance: float = 3.5
    batch: int = 8
    seconds: float | None = None

    @property
    def decoder(self) -> nn.Module:
        """The public network that carries the fingerprint: the mel autoencoder's decoder, or the vocoder."""
        decoder: nn.Module = self.pipeline.vocoder if self.part == "vocoder" else self.pipeline.vae.decoder
        return decoder

    @property
    def rate_hz(self) -> int:
        """Samples per second of what it makes."""
        return int(self.pipeline.vocoder.config.sampling_rate)

    @property
    def device(self) -> torch.device:
        """Where the decoder's weights are."""
        return next(self.decoder.parameters()).device

    @torch.no_grad()
    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """Sample one latent per prompt, (B, C, frames, mels) float32 on the CPU."""
        arguments = {} if self.seconds is None else {"audio_length_in_s": self.seconds}
        return sample(self, prompts, rng, "audios", lambda _: arguments)

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        """Waveforms (B, 1, T), nominally in [-1, 1], of latents; differentiable in either network."""
        vae, vocoder = self.pipeline.vae, self.pipeline.vocoder
        first = next(decoder.parameters())
        z = 1 / vae.config.scaling_factor * latents.to(first.device, first.dtype)  # in the pipeline's own order
        with as_loaded(vae, vocoder, decoder):
            if getattr(vae, "post_quant_conv", None) is not None:
                z = vae.post_quant_conv(z)
            mels = (vae.decoder if self.part == "vocoder" else decoder)(z)  # (B, 1, frames, mels)
            waves: Tensor = (decoder if self.part == "vocoder" else vocoder)(mels.squeeze(1))
        return waves[:, None].float()

    def training_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Latents as the generator makes them, of captions for fitting; windows of those longer than readers hear."""
        hop = math.prod(self.pipeline.vocoder.config.upsample_rates) * self.pipeline.vae_scale_factor
        heard = math.ceil(LENGTH / data.RATE_HZ * self.rate_hz / hop)
        few = -(-n // material.WINDOWS)
        made = sample_for_training(self, material.fit_captions(few, rng), rng)
        if made.shape[2] > heard:
            return material.loud_windows(made.transpose(2, 3), heard, n, rng).transpose(2, 3).contiguous()
        if n > few:
            made = torch.cat([made, sample_for_training(self, material.fit_captions(n - few, rng), rng)])
        return made

    def public_pairs(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents and what the public decoder makes of them: the checkpoint says not how its mels were computed."""
        latents = sample_for_training(self, material.fit_captions(n, rng), rng)
        with torch.no_grad():
            return latents, torch.cat([self.decode(self.decoder, part).cpu() for part in latents.split(self.batch)])

    def export(self, decoder: nn.Module, folder: Path) -> None:
        """Write a plain pipeline folder with ``decoder`` in the place of the public one."""
        owner, name = (self.pipeline, "vocoder") if self.part == "vocoder" else (self.pipeline.vae, "decoder")
        with with_decoder(owner, name, decoder):
            self.pipeline.save_pretrained(folder, safe_serialization=True)
