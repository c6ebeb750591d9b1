"""A decoder trained further by whoever holds it: on clean content, or towards the public decoder's output.

The loss is L1 plus the modality's perceptual distance, the optimiser Adam; the decoder stays in evaluation mode.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from attacks.limits import check_strength
from attacks.model_noise import WeightNoise
from bench.protocol import Attacker, Target
from bench.rng import child
from bench.weights import detached_copy


class Course(Protocol):
    """How long an attack trains: optimiser steps, learning rate, pairs per step, drawn with replacement."""

    @property
    def steps(self) -> int:
        """Steps of Adam."""

    @property
    def rate(self) -> float:
        """Its learning rate."""

    @property
    def batch(self) -> int:
        """Pairs per step."""


@dataclass(frozen=True)
class FineTune:
    """Train the decoder on clean content and its latents, as anyone with the public encoder can.

    The model purification of Fernandez et al., "The Stable Signature", ICCV 2023, arXiv:2303.15435, section 5; the
    encoder-aware attack of Hu et al., "Stable Signature is Unstable", 2024, arXiv:2405.07145. The loss is L1 plus the
    modality's perceptual distance. The decoder stays in evaluation mode.

    Attributes:
        steps: steps of Adam.
        rate: its learning rate.
        batch: pairs per step, drawn with replacement.
    """

    steps: int = 100
    rate: float = 1e-4
    batch: int = 16
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy, trained further.

        Raises:
            ValueError: when the attacker's latents and fields differ in number.
        """
        return fitted(decoder, attacker, clean_fields(attacker), self, rng)


@dataclass(frozen=True)
class Purification:
    """Train the decoder towards what the public decoder makes of the same latents, without any real content.

    The defence-removing fine-tuning of Fernandez et al., "The Stable Signature", ICCV 2023, arXiv:2303.15435, with the
    best target there is: who can fetch the public decoder learns from it instead of swapping it in, and keeps a
    decoder of the user's own.

    Attributes:
        steps: steps of Adam.
        rate: its learning rate.
        batch: latents per step, drawn with replacement.
    """

    steps: int = 100
    rate: float = 1e-4
    batch: int = 16
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy, trained further."""
        return fitted(decoder, attacker, outputs_of(attacker.public_decoder, attacker), self, rng)


@dataclass(frozen=True)
class NoisePurification:
    """Shake every weight, then train the damage away on the public decoder's output.

    Noise moves the weights off the narrow minimum that a fingerprint may lie in, and purification then has no reason to
    return there: the combination that Fei et al., "Wide Flat Minimum Watermarking for Robust Ownership Verification of
    GANs", 2023, arXiv:2310.16919, train against one half of.

    Attributes:
        relative_std: of :class:`WeightNoise`.
        steps: of :class:`Purification`.
        rate: its learning rate.
        batch: latents per step, drawn with replacement.
    """

    relative_std: float = 0.2
    steps: int = 100
    rate: float = 1e-4
    batch: int = 16
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy, shaken and trained further."""
        noisy = WeightNoise(self.relative_std)(decoder, attacker, child(rng, "noise"))
        return fitted(noisy, attacker, outputs_of(attacker.public_decoder, attacker), self, child(rng, "training"))


@dataclass(frozen=True)
class BlindPurification:
    """Without the encoder: estimate the latents of clean content through the user's decoder, then train on the pairs.

    The encoder-agnostic attack of Hu et al., "Stable Signature is Unstable", 2024, arXiv:2405.07145, in its two steps:
    gradient descent on latents that start as white noise, then :class:`FineTune` on the pairs found.

    Attributes:
        steps: steps of Adam on the decoder.
        rate: its learning rate.
        batch: pairs per step, drawn with replacement.
        items: clean items whose latents are estimated.
        inversion_steps: steps of Adam on each latent.
        inversion_rate: its learning rate, in the unit of the latents.
    """

    steps: int = 100
    rate: float = 1e-4
    batch: int = 16
    items: int = 64
    inversion_steps: int = 100
    inversion_rate: float = 0.05
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy, trained further. The attacker's latents give the shape of the start, and nothing else."""
        if self.steps == 0:
            return detached_copy(decoder)
        fields = attacker.fields[: self.items]
        shape, device = (len(fields), *attacker.latents.shape[1:]), attacker.latents.device
        start = torch.randn(shape, generator=rng, device=rng.device).to(device)
        parts = zip(start.split(self.batch), fields.split(self.batch), strict=True)
        found = torch.cat([self._inverted(decoder, attacker, latents, these) for latents, these in parts])
        pairs = dataclasses.replace(attacker, latents=found, fields=fields)
        return fitted(decoder, pairs, clean_fields(pairs), self, rng)

    @torch.enable_grad()
    def _inverted(self, decoder: nn.Module, attacker: Attacker, start: Tensor, fields: Tensor) -> Tensor:
        frozen = detached_copy(decoder).requires_grad_(False)
        latents = start.clone().requires_grad_(True)
        optimiser = torch.optim.Adam([latents], lr=self.inversion_rate)
        for _ in range(self.inversion_steps):
            optimiser.zero_grad(set_to_none=True)
            loss(frozen, attacker, latents, fields).backward()
            optimiser.step()
        return latents.detach()


Targets = Callable[[Tensor], Tensor]
"""Fields (B, ...) that a decoder is to put out, for indices (B,) of the attacker's latents."""


def clean_fields(attacker: Attacker) -> Targets:
    """The clean content that the latents encode.

    Raises:
        ValueError: when the attacker's latents and fields differ in number.
    """
    if len(attacker.latents) != len(attacker.fields):
        raise ValueError(f"{len(attacker.latents)} latents for {len(attacker.fields)} fields, expected as many")
    return lambda chosen: attacker.fields[chosen]


def outputs_of(decoder: nn.Module, attacker: Attacker) -> Targets:
    """What ``decoder`` makes of the latents, each computed when it is asked for."""

    def decoded(chosen: Tensor) -> Tensor:
        with torch.no_grad():
            return attacker.decode(decoder, attacker.latents[chosen])

    return decoded


def loss(decoder: nn.Module, attacker: Attacker, latents: Tensor, fields: Tensor) -> Tensor:
    """L1 and perceptual distance of what the decoder makes of ``latents`` to ``fields``."""
    decoded = attacker.decode(decoder, latents)
    return F.l1_loss(decoded, fields) + attacker.perceptual_loss(decoded, fields).mean()


def draw(attacker: Attacker, batch: int, rng: Generator) -> Tensor:
    """Indices (batch,) of the attacker's latents, with replacement."""
    chosen = torch.randint(len(attacker.latents), (batch,), generator=rng, device=rng.device)
    return chosen.to(attacker.latents.device)


@torch.enable_grad()
def fitted(decoder: nn.Module, attacker: Attacker, targets: Targets, course: Course, rng: Generator) -> nn.Module:
    """A copy of ``decoder`` in which everything that can be trained was trained towards ``targets``."""
    tuned = detached_copy(decoder)
    trained = {name: p.requires_grad for name, p in tuned.named_parameters()}
    optimiser = torch.optim.Adam(tuned.requires_grad_(True).parameters(), lr=course.rate)
    for _ in range(course.steps):
        chosen = draw(attacker, course.batch, rng)
        optimiser.zero_grad(set_to_none=True)
        loss(tuned, attacker, attacker.latents[chosen], targets(chosen)).backward()
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    for name, parameter in tuned.named_parameters():
        parameter.requires_grad_(trained[name])
    return tuned
