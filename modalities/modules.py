"""Plain networks as GenPrint generators: any ``nn.Module`` from noise to pictures or waveforms is its own decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.protocol import UserError
from bench.rng import child
from bench.weights import input_channels, weighted_layers
from modalities.exported import is_exported, save_exported
from modalities.rounding import as_loaded
from modalities.settings import Settings

WIDTHS = ("z_dim", "latent_dim", "nz")
"""Attributes by which networks tell the width of their noise."""
FAILED = (RuntimeError, TypeError, ValueError, IndexError, AssertionError)
"""What networks raise for tensors that they do not take."""


@dataclass(frozen=True)
class ModuleGenerator:
    """Noise to content; the prompt only counts. The whole network is fingerprinted.

    Attributes:
        name: what tables call it.
        decoder: the network.
        shape: of one item's noise.
        output_range: lowest and highest value of what the network puts out.
        field_range: lowest and highest value of the modality's fields.
        rate_hz: samples per second, of a network that makes sound.
        batch: items per call when pairs are made.
        source: file that it was read from.
    """

    name: str
    decoder: nn.Module = field(repr=False)
    shape: tuple[int, ...] = ()
    output_range: tuple[float, float] = (-1.0, 1.0)
    field_range: tuple[float, float] = (-1.0, 1.0)
    rate_hz: int = 0
    batch: int = 16
    source: Path | None = field(default=None, repr=False)

    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """Standard normal noise (B, ...), each item's its own."""
        return torch.stack([torch.randn(self.shape, generator=child(rng, "latent", i)) for i in range(len(prompts))])

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        """Fields of noise; differentiable."""
        first = next(decoder.parameters())
        with as_loaded(decoder):
            made: Tensor = decoder(latents.to(first.device, first.dtype)).float()
        (low, high), (bottom, top) = self.output_range, self.field_range
        if self.output_range == self.field_range:
            return made
        return (made - low) * ((top - bottom) / (high - low)) + bottom

    def training_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Standard normal noise."""
        return torch.randn(n, *self.shape, generator=rng)

    def public_pairs(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise and what the public network makes of it; there is no encoder."""
        latents = self.training_latents(n, rng)
        with torch.no_grad():
            return latents, torch.cat([self.decode(self.decoder, part).cpu() for part in latents.split(self.batch)])

    def export(self, decoder: nn.Module, folder: Path) -> None:
        """Write ``model.safetensors``, or ``model.pt2`` where the network came from such a file."""
        if self.source is not None and is_exported(self.source):
            save_exported(self.source, decoder, folder / "model.pt2")
            return
        state = {name: value.detach().cpu().clone().contiguous() for name, value in decoder.state_dict().items()}
        save_file(state, folder / "model.safetensors", {"format": "pt"})


def noise_shape(name: str, network: nn.Module, settings: Settings) -> tuple[int, ...]:
    """Shape of one item's noise: as set, as the network says, or as its first layer takes it.

    Raises:
        UserError: when none of these tells.
    """
    if settings.latent is not None:
        return settings.latent
    if isinstance(shape := getattr(network, "latent_shape", None), tuple | list):
        return tuple(int(side) for side in shape)
    layers = list(weighted_layers(network).values())
    told = [value for key in WIDTHS if isinstance(value := getattr(network, key, None), int)]
    if not told and not layers:
        raise UserError(f"generator {name}: expected ?latent=NUMBERxNUMBER, the network says not what it takes")
    width = told[0] if told else input_channels(layers[0])
    rank = 0 if not layers or isinstance(layers[0], nn.Linear) else layers[0].weight.ndim - 2  # type: ignore[operator]
    return (width, *[1] * rank)


@torch.no_grad()
def tried(name: str, network: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """What the network makes of a batch of two zeros.

    Raises:
        UserError: when it makes nothing of them.
    """
    first = next(network.parameters(), None)
    if first is None:
        raise UserError(f"generator {name}: expected a network with parameters, found {type(network).__name__}")
    try:
        made = network(torch.zeros(2, *shape, device=first.device, dtype=first.dtype))
    except FAILED as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"generator {name}: expected a network of noise {(2, *shape)}, found: {reason}") from error
    if not isinstance(made, Tensor) or not made.is_floating_point():
        raise UserError(f"generator {name}: expected a network that makes a tensor, found {type(made).__name__}")
    return made
