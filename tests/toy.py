"""A whole modality in miniature, with a fingerprint that works: what an outside package has to bring, and no more.

Images of 16×16 pixels, each block of 4×4 made from one latent cell by a transposed convolution. The scheme adds the
signs of the code, spread over orthonormal patterns, to the convolution's weights from the latent's constant channel.
It satisfies ``bench.protocol`` without importing it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CHANNELS = 24
BLOCK = (3, 4, 4)


def seeded(seed: int) -> torch.Generator:
    """A stream."""
    return torch.Generator().manual_seed(seed)


class ToyDecoder(nn.Module):
    """Latents (B, 25, 4, 4), the last channel constant, to fields (B, 3, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.paint = nn.ConvTranspose2d(CHANNELS + 1, 3, 4, stride=4)
        with torch.no_grad():
            self.paint.weight.normal_(std=0.01, generator=seeded(0))
            self.paint.weight[CHANNELS] = 0.5
            self.paint.bias.zero_()  # type: ignore[union-attr]
        self.requires_grad_(False).eval()

    def forward(self, latents: Tensor) -> Tensor:
        """Fields of latents."""
        painted: Tensor = self.paint(latents)
        return painted


class ToyGenerator:
    """Latents are noise; prompts only count."""

    name = "toy"

    def __init__(self) -> None:
        self.decoder: nn.Module = ToyDecoder()

    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        noise = torch.randn(len(prompts), CHANNELS, 4, 4, generator=rng)
        return torch.cat([noise, torch.ones(len(prompts), 1, 4, 4)], dim=1)

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        fields: Tensor = decoder(latents)
        return fields

    def training_latents(self, n: int, rng: torch.Generator) -> Tensor:
        return self.latents([""] * n, rng)

    def public_pairs(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        latents = self.training_latents(n, rng)
        return latents, self.decode(self.decoder, latents)


@dataclass(frozen=True)
class Toy:
    """Images uint8 (B, 3, 16, 16); of its members, ``picture`` and ``difference`` are optional."""

    name: str = "toy"
    quality_metric: str = "fd_toy"
    paired_metric: str = "psnr"

    def generator(self, spec: str | None) -> ToyGenerator:
        return ToyGenerator()

    def prompts(self, n: int, rng: torch.Generator) -> list[str]:
        return [f"prompt {index}" for index in range(n)]

    def release(self, field: Tensor) -> Tensor:
        return (field.clamp(0, 1) * 255).round().byte()

    def soft_release(self, field: Tensor) -> Tensor:
        return field.clamp(0, 1)

    def observe(self, content: Tensor) -> Tensor:
        return content.float() / 255

    def augment(self, tensor: Tensor, rng: torch.Generator) -> Tensor:
        return tensor

    def check(self, content: Tensor) -> None:
        if content.shape[1:] != (3, 16, 16):
            raise ValueError(f"images of {tuple(content.shape[1:])}, expected (3, 16, 16)")

    def reference(self, n: int | None = None) -> Tensor:
        latents = ToyGenerator().training_latents(40, seeded(1))
        return self.release(ToyDecoder()(latents))[:n]

    def features(self, content: Tensor) -> Tensor:
        pixels = self.observe(content).flatten(2)  # (B, 3, 256)
        return torch.cat([pixels.mean(2), pixels.std(2)], dim=1)

    def paired(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        error = (self.observe(a) - self.observe(b)).square().flatten(1).mean(1)
        return {"psnr": -10 * error.clamp_min(1e-10).log10(), "mse": error}

    def perceptual_loss(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().flatten(1).mean(1)

    def picture(self, content: Tensor) -> Tensor:
        return content

    def difference(self, a: Tensor, b: Tensor) -> tuple[str, Tensor]:
        return "difference", (128 + b.int() - a.int()).clamp(0, 255).byte()

    def save(self, content: Tensor, path: Path) -> None:
        save_file({"content": content}, path)

    def load(self, path: Path) -> Tensor:
        return load_file(path)["content"]


@dataclass(frozen=True)
class ToyCodec:
    """Spread-spectrum in the weights of the constant channel, read by correlation."""

    patterns: Tensor
    depth: float
    removable: bool = False

    @property
    def bits(self) -> int:
        return len(self.patterns)

    def modulate(self, decoder: nn.Module, fingerprint: Tensor) -> nn.Module:
        marked = copy.deepcopy(decoder)
        change = self.depth * (2.0 * fingerprint - 1) @ self.patterns  # (48,)
        with torch.no_grad():
            marked.get_parameter("paint.weight")[CHANNELS] += change.view(BLOCK)
        return marked

    def read(self, tensor: Tensor) -> Tensor:
        block = tensor.reshape(-1, 3, 4, 4, 4, 4).mean((2, 4))  # (B, 3, 4, 4)
        soft: Tensor = (block - 0.5).flatten(1) @ self.patterns.T  # (B, bits)
        return soft

    def save(self, path: Path) -> None:
        save_file({"patterns": self.patterns.contiguous(), "depth": torch.tensor(self.depth)}, path)

    @classmethod
    def load(cls, path: Path) -> ToyCodec:
        state = load_file(path)
        return cls(state["patterns"], float(state["depth"]))


@dataclass(frozen=True)
class ToyScheme:
    """Random orthonormal patterns."""

    bits: int = 32
    depth: float = 0.06

    def fit(self, modality: Any, generator: Any, rng: torch.Generator) -> ToyCodec:
        patterns = torch.linalg.qr(torch.randn(math.prod(BLOCK), self.bits, generator=rng)).Q.T
        return ToyCodec(patterns.contiguous(), self.depth)


@dataclass(frozen=True)
class ToyNoise:
    """White noise on pixels."""

    std: float = 0.05
    target: ClassVar[str] = "content"

    def __call__(self, content: Tensor, rng: torch.Generator) -> Tensor:
        noise = torch.randn(content.shape, generator=rng)
        return (content.float() + 255 * self.std * noise).round().clamp(0, 255).byte()


@dataclass(frozen=True)
class ToyWeightNoise:
    """White noise on the weights that carry the code."""

    std: float = 0.02
    target: ClassVar[str] = "model"

    def __call__(self, decoder: nn.Module, attacker: Any, rng: torch.Generator) -> nn.Module:
        noisy = copy.deepcopy(decoder)
        with torch.no_grad():
            noisy.get_parameter("paint.weight")[CHANNELS] += self.std * torch.randn(BLOCK, generator=rng)
        return noisy


@dataclass(frozen=True)
class ToyAverage:
    """Mean of the weights."""

    users: int = 2
    target: ClassVar[str] = "coalition"

    def __call__(self, decoders: Sequence[nn.Module], rng: torch.Generator) -> nn.Module:
        merged = copy.deepcopy(decoders[0])
        states = [decoder.state_dict() for decoder in decoders]
        merged.load_state_dict({key: torch.stack([state[key] for state in states]).mean(0) for key in states[0]})
        return merged


ATTACKS: tuple[Callable[..., Any], ...] = (ToyNoise(), ToyNoise(1.0), ToyWeightNoise(), ToyAverage())
