"""One user's decoder in a training: its weights, what it makes, and the losses that hardening asks for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.precision import mixed
from bench.protocol import Generator, Modality
from bench.weights import effective_state, effective_weight, other_parameters, swapped, weighted_layers
from schemes.modulations import other_values
from schemes.readers import settled


@dataclass(frozen=True, eq=False)
class Weights:
    """All of one user's decoder: effective weights by layer, and the other parameters by dotted name."""

    effective: dict[str, Tensor]
    others: dict[str, Tensor]

    @classmethod
    def of(cls, decoder: nn.Module) -> Weights:
        """The decoder's own, without a graph."""
        layers = {name: effective_weight(layer).detach() for name, layer in weighted_layers(decoder).items()}
        return cls(layers, {name: value.detach() for name, value in other_parameters(decoder).items()})

    def within(self, decoder: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Within the context, the decoder has these; see :func:`bench.weights.swapped`."""
        return swapped(decoder, {**self.others, **effective_state(decoder, self.effective)})

    def mapped(self, change: Callable[[Tensor], Tensor], *, others: bool = True) -> Weights:
        """With every tensor changed, or the effective weights only."""
        rest = {name: change(value) for name, value in self.others.items()} if others else self.others
        return Weights({name: change(value) for name, value in self.effective.items()}, rest)


@dataclass(frozen=True, eq=False)
class Setting:
    """What is trained, and on what.

    Attributes:
        modality: releases and observes.
        generator: decodes.
        networks: modulator and reader.
        pool: latents and what the public decoder makes of them, observed.
    """

    modality: Modality
    generator: Generator
    networks: tuple[Any, nn.Module]
    pool: tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Trial:
    """One user's decoder on some latents, and the losses that a change of weights may look at.

    Attributes:
        setting: what is trained.
        latents: (items, ...).
        original: what the public decoder makes of them, observed.
        code: ±1, (bits,).
    """

    setting: Setting
    latents: Tensor
    original: Tensor
    code: Tensor

    def weights(self) -> Weights:
        """The user's decoder as it would be shipped, with a graph to the modulator."""
        modulator, decoder = self.setting.networks[0], self.setting.generator.decoder
        public, changed = Weights.of(decoder), other_values(modulator, decoder, self.code)
        return Weights(public.effective | modulator.weights(decoder, self.code), public.others | changed)

    def field(self, weights: Weights) -> Tensor:
        """What the decoder puts out with these weights."""
        generator = self.setting.generator
        decoder = generator.decoder
        with weights.within(decoder), mixed(self.latents.device):
            return generator.decode(decoder, self.latents)

    def bit_loss(self, seen: Tensor) -> Tensor:
        """Cross-entropy of the bits in observed tensors."""
        reader = self.setting.networks[1]
        with mixed(seen.device), settled(reader):
            soft = reader(seen)
        targets = (self.code > 0).to(soft.dtype).expand_as(soft)
        return F.binary_cross_entropy_with_logits(soft, targets)

    def content_loss(self, weights: Weights) -> Tensor:
        """Squared distance to unmarked content: what a purifier minimises."""
        return F.mse_loss(self.seen(weights), self.original)

    def seen(self, weights: Weights) -> Tensor:
        """What is observed of the content made with these weights."""
        return self.setting.modality.soft_release(self.field(weights))


def noisy(value: Tensor, relative: float, rng: torch.Generator) -> Tensor:
    """A tensor with Gaussian noise, its standard deviation ``relative`` to that of the tensor."""
    noise = torch.randn(value.shape, generator=rng).to(value.device)
    return value + relative * value.detach().std(correction=0) * noise
