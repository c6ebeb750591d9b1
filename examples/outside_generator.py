"""A generator from outside: clouds coloured by the prompt's words. It imports nothing of GenPrint.

python -m bench run --modality image --generator examples.outside_generator:Clouds \
    --scheme examples.outside_scheme:SpreadSpectrum
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

CHANNELS = 16


class Clouds:
    """Latents (B, 16, 4, 4), text and noise, to pictures (B, 3, 64, 64) by four convolutions.

    A generator is split where the fingerprint goes: ``latents`` holds everything before the decoder, ``decoder`` is
    what a user receives. Here both are stand-ins; with a trained model, ``latents`` samples it and ``decoder`` is its
    last network, frozen and in eval mode.
    """

    name = "clouds"

    def __init__(self) -> None:
        """Weights are the same in every process, so results can be resumed; a real model loads them from a file."""
        rng, layers = torch.Generator().manual_seed(0), []
        for depth in range(4):
            layer = nn.Conv2d(CHANNELS, CHANNELS if depth < 3 else 3, 3, padding=1)
            with torch.no_grad():
                for parameter in layer.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=rng) / (3 * CHANNELS) ** 0.5)
            layers += [nn.Upsample(scale_factor=2, mode="bilinear"), layer, nn.Tanh() if depth < 3 else nn.Sigmoid()]
        self.decoder: nn.Module = nn.Sequential(*layers).eval().requires_grad_(False)

    def latents(self, prompts: Sequence[str], rng: Generator) -> Tensor:
        """One latent per prompt; depends on the prompts and ``rng`` only."""
        noise = torch.randn(len(prompts), CHANNELS, 4, 4, generator=rng)
        return noise + torch.stack([_embedding(prompt) for prompt in prompts])[:, :, None, None]

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        """Pictures in [0, 1] of latents, by the decoder of any user; differentiable."""
        pictures: Tensor = decoder(latents)
        return pictures

    def training_latents(self, n: int, rng: Generator) -> Tensor:
        """Latents for fitting a scheme, disjoint from those of the benchmark's prompts."""
        return self.latents([f"training {int(i)}" for i in torch.randint(10_000, (n,), generator=rng)], rng)

    def public_pairs(self, n: int, rng: Generator) -> tuple[Tensor, Tensor]:
        """Latents and the pictures they encode, as an attacker has them; real pictures, where there is an encoder."""
        latents = self.training_latents(n, rng)
        return latents, self.decode(self.decoder, latents)


def _embedding(prompt: str) -> Tensor:
    """Mean of one fixed random vector per word, (16,)."""
    seeds = [int.from_bytes(hashlib.sha256(word.encode()).digest()[:6], "big") for word in prompt.split() or [""]]
    return torch.stack([torch.randn(CHANNELS, generator=torch.Generator().manual_seed(s)) for s in seeds]).mean(0)
