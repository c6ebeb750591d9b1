"""What audio generators with an encoder do alike: captions and windows to fit on, public pairs, reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.protocol import Clips
from modalities.audio import data
from modalities.audio.notes import every_note
from modalities.audio.rates import resampled
from modalities.pipelines import sample_for_training

WINDOWS = 4
"""Pieces of one sampled latent that a fit takes when it is longer than what readers hear."""

SAMPLED = 8
"""Of training latents, one in this many is sampled by a language model; codes of clips come a hundred times as fast."""


class Autoencoding(Protocol):
    """An audio generator whose checkpoint holds an encoder too."""

    @property
    def decoder(self) -> nn.Module:
        """The public decoder."""
        ...

    @property
    def rate_hz(self) -> int:
        """Samples per second."""
        ...

    @property
    def channels(self) -> int:
        """1 or 2."""
        ...

    @property
    def hop(self) -> int:
        """Samples per latent frame."""
        ...

    @property
    def batch(self) -> int:
        """Latents decoded at a time."""
        ...

    def encode(self, x: Tensor) -> Tensor:
        """Latents of waveforms (B, channels, T)."""
        ...

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        """Waveforms (B, channels, T) of latents."""
        ...


class Sampled(Autoencoding, Protocol):
    """One that can be asked for latents of prompts."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """Latents of prompts."""
        ...


def fit_captions(n: int, rng: torch.Generator) -> list[str]:
    """``n`` captions of notes that are behind no benchmark prompt, drawn with repetition."""
    captions = [note.caption for note in every_note() if note.split == "fit"]
    return [captions[i] for i in torch.randint(len(captions), (n,), generator=rng).tolist()]


def loud_windows(latents: Tensor, frames: int, n: int, rng: torch.Generator) -> Tensor:
    """``n`` windows of ``frames`` of latents (N, ..., T), four of each, drawn from those within 1 dB of its loudest.

    Readers hear the loudest part and hardly ever what is left of a note.
    """
    flat = latents.flatten(1, -2)  # (N, C, T)
    energy = flat.square().mean(1).unfold(1, frames, 1).mean(2)  # (N, places)
    loud = (energy >= 10**-0.1 * energy.amax(1, keepdim=True)).float()
    starts = torch.multinomial(loud, WINDOWS, True, generator=rng)
    windows = [z[..., at : at + frames] for z, row in zip(latents, starts.tolist(), strict=True) for at in row]
    return torch.stack(windows)[:n].contiguous()


def mixed_latents(generator: Sampled, frames: int, n: int, rng: torch.Generator) -> Tensor:
    """``n`` windows of ``frames``: of public clips' codes, and one in eight of what the generator makes of captions."""
    own = -(-n // SAMPLED)
    captions = fit_captions(-(-own // WINDOWS), rng)
    made = [loud_windows(sample_for_training(generator, captions, rng), frames, own, rng)]
    if n > own:
        clips, _ = data.shipped("fit")
        rows = torch.randint(len(clips), (-(-(n - own) // WINDOWS),), generator=rng)
        x = fitted(generator, Clips(clips[rows], data.RATE_HZ))
        made.append(loud_windows(generator.encode(x), frames, n - own, rng))
    return torch.cat(made)


def public_pairs(generator: Autoencoding, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Latents and waveforms of ``n`` shipped public clips; all of them when ``n`` is more than there are."""
    clips, _ = data.shipped("fit")
    chosen = clips[torch.randperm(len(clips), generator=rng)[:n]]
    x = fitted(generator, Clips(chosen, data.RATE_HZ))
    return generator.encode(x), x


def reconstruct(generator: Autoencoding, clips: Clips) -> Clips:
    """Encode and decode with the public autoencoder; same rate, channels and length."""
    with torch.inference_mode():
        z = generator.encode(fitted(generator, clips))
        waves = torch.cat([generator.decode(generator.decoder, part) for part in z.split(generator.batch)]).cpu()
    waves = resampled(waves, generator.rate_hz, clips.rate_hz)[..., : clips.samples.shape[2]]
    waves = F.pad(waves, (0, clips.samples.shape[2] - waves.shape[2]))
    return Clips.from_unit(_channels(waves, clips.samples.shape[1]), clips.rate_hz)


def fitted(generator: Autoencoding, clips: Clips) -> Tensor:
    """Waveforms as the encoder takes them: its rate and channels, padded with silence to whole hops."""
    x = resampled(clips.unit(), clips.rate_hz, generator.rate_hz)
    x = _channels(x, generator.channels)
    return F.pad(x, (0, -x.shape[2] % generator.hop))


def _channels(x: Tensor, count: int) -> Tensor:
    """(B, 1 or 2, T) as (B, count, T): stereo is averaged, mono repeated."""
    return x if x.shape[1] == count else x.mean(1, keepdim=True).expand(-1, count, -1)
