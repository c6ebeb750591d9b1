"""MusicGen, AudioGen and MAGNeT of audiocraft as GenPrint generators, by their members alone.

Copet et al., 2023, arXiv:2306.05284. audiocraft 1.3 pins torch 2.1 and cannot be installed beside GenPrint's torch; the
adapter imports nothing of it, so it works wherever both can be imported (docs/generators.md says how).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.protocol import Clips
from bench.rng import child
from modalities.audio import LENGTH, data, material
from modalities.audio.language import entering, fenced_on, trainable_recurrence
from modalities.export import with_decoder
from modalities.rounding import as_loaded


@dataclass(frozen=True)
class AudiocraftGenerator:
    """Text to audio by a model with ``compression_model``, ``generate`` and ``set_generation_params``.

    Attributes:
        name: what tables call it.
        model: of audiocraft.
        networks: its language model and codec; they determine the latents, so cached latents are named by them.
        batch: prompts that are sampled, and share their draws, at a time.
        seconds: length of what it makes.
    """

    name: str
    model: Any = field(repr=False)
    networks: nn.ModuleDict = field(repr=False, default_factory=nn.ModuleDict)
    batch: int = 8
    seconds: float = 4.0

    @property
    def codec(self) -> Any:
        """The compression model, a SEANet autoencoder with a quantiser."""
        return self.model.compression_model

    @property
    def decoder(self) -> nn.Module:
        """The public decoder."""
        decoder: nn.Module = self.codec.decoder
        return decoder

    @property
    def rate_hz(self) -> int:
        """Samples per second of what it makes."""
        return int(self.codec.sample_rate)

    @property
    def channels(self) -> int:
        """1 or 2."""
        return int(self.codec.channels)

    @property
    def hop(self) -> int:
        """Samples per latent frame."""
        return round(float(self.codec.sample_rate) / float(self.codec.frame_rate))

    @torch.no_grad()
    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """What enters the decoder for each prompt, (B, D, frames) float32 on the CPU."""
        made, device = [], next(self.decoder.parameters()).device
        self.model.set_generation_params(duration=self.seconds)
        for start in range(0, len(prompts), self.batch):
            seed = child(rng, "latent", start).initial_seed()
            with fenced_on(seed, device), as_loaded(self.networks), entering(self.decoder) as caught:
                self.model.generate(list(prompts[start : start + self.batch]))
            made.append(torch.cat(caught).float().cpu())
        return torch.cat(made)

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        """Waveforms (B, channels, T), nominally in [-1, 1]; differentiable."""
        first = next(decoder.parameters())
        with trainable_recurrence(), as_loaded(decoder):
            waves: Tensor = decoder(latents.to(first.device, first.dtype)).float()
        return waves

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Latents (B, D, frames) of waveforms (B, channels, T) in [-1, 1]."""
        where = next(self.decoder.parameters()).device
        parts = [self.codec.decode_latent(self.codec.encode(part.to(where))[0]) for part in x.split(8)]
        return torch.cat(parts).float().cpu()

    def training_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Codes of public clips, and one in eight as the generator makes them, in windows of what readers hear."""
        frames = math.ceil(self.seconds * self.rate_hz / self.hop)
        heard = min(frames, math.ceil(LENGTH / data.RATE_HZ * self.rate_hz / self.hop))
        return material.mixed_latents(self, heard, n, rng)

    def public_pairs(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents and waveforms of ``n`` shipped public clips; all of them when ``n`` is more than there are."""
        return material.public_pairs(self, n, rng)

    def reconstruct(self, clips: Clips) -> Clips:
        """Encode and decode with the public codec: the regeneration attack; same rate, channels and length."""
        return material.reconstruct(self, clips)

    def export(self, decoder: nn.Module, folder: Path) -> None:
        """Write ``compression_model.safetensors``: what ``compression_model.load_state_dict`` takes."""
        with with_decoder(self.codec, "decoder", decoder):
            state = {name: value.detach().cpu().clone() for name, value in self.codec.state_dict().items()}
        save_file(state, folder / "compression_model.safetensors", {"format": "pt"})
