"""Fine-tuning by low-rank changes that are merged into the weights at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from attacks.limits import check_strength
from attacks.model_training import clean_fields, draw, loss
from bench.protocol import Attacker, Target
from bench.weights import (
    detached_copy,
    effective_weight,
    input_axis,
    mapped_copy,
    set_effective_weight,
    weighted_layers,
)


@dataclass(frozen=True)
class LoRAFineTune:
    """Train a low-rank change of every effective weight on clean content and its latents, and merge it.

    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, arXiv:2106.09685, without scaling, on
    convolutions seen as the matrix outputs × (inputs · kernel). Biases and norms stay. The loss is that of
    :class:`attacks.model_training.FineTune`.

    Attributes:
        steps: steps of Adam.
        rate: its learning rate.
        batch: pairs per step, drawn with replacement.
        rank: of each change, or the layer's own where that is smaller.
    """

    steps: int = 100
    rate: float = 1e-3
    batch: int = 16
    rank: int = 8
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    @torch.enable_grad()
    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy, trained further.

        Raises:
            ValueError: when the attacker's latents and fields differ in number.
        """
        targets, scratch = clean_fields(attacker), _plain_copy(decoder)
        changes = {name: _start(layer, self.rank, rng) for name, layer in weighted_layers(decoder).items()}
        optimiser = torch.optim.Adam([part for change in changes.values() for part in change[:2]], lr=self.rate)
        for _ in range(self.steps):
            chosen = draw(attacker, self.batch, rng)
            scratch.zero_grad(set_to_none=True)
            loss(scratch, attacker, attacker.latents[chosen], targets(chosen)).backward()
            for name, layer in weighted_layers(scratch).items():
                changes[name].receive(layer)
            optimiser.step()
            for name, layer in weighted_layers(scratch).items():
                set_effective_weight(layer, changes[name].merged())
        return mapped_copy(decoder, lambda name, layer, weight: changes[name].merged())


class _Change(NamedTuple):
    """A low-rank change of one effective weight: ``before`` + ``up`` @ ``down``.

    Attributes:
        up: (out, r), zero at the start.
        down: (r, in · kernel).
        before: the weight as it was.
        axis: of its output channels.
    """

    up: Tensor
    down: Tensor
    before: Tensor
    axis: int

    def receive(self, layer: nn.Module) -> None:
        """Take the gradient of the loss in both factors from that in the layer's whole weight, by the chain rule."""
        whole = layer.get_parameter("weight").grad
        if whole is not None:
            matrix = whole.movedim(self.axis, 0).flatten(1)
            self.up.grad, self.down.grad = matrix @ self.down.detach().T, self.up.detach().T @ matrix

    def merged(self) -> Tensor:
        """The changed weight."""
        turned = self.before.movedim(self.axis, 0)
        product = (self.up.detach() @ self.down.detach()).view(turned.shape)
        return self.before + product.movedim(0, self.axis)


def _start(layer: nn.Module, rank: int, rng: Generator) -> _Change:
    weight, axis = effective_weight(layer).detach().clone(), 1 - input_axis(layer)
    rows, columns = weight.movedim(axis, 0).flatten(1).shape
    rank = min(rank, rows, columns)
    drawn = torch.randn(rank, columns, generator=rng, device=rng.device).to(weight) / columns**0.5
    return _Change(weight.new_zeros(rows, rank).requires_grad_(True), drawn.requires_grad_(True), weight, axis)


def _plain_copy(decoder: nn.Module) -> nn.Module:
    """A copy in which no weight is normalised, so that gradients arrive at effective weights."""
    scratch = detached_copy(decoder)
    for layer in weighted_layers(scratch).values():
        weight = nn.Parameter(effective_weight(layer).detach().clone())
        if parametrize.is_parametrized(layer, "weight"):
            # torch's own removal would take the property from a class that the user's decoder shares.
            layer.__class__ = type(layer).__mro__[1]
            del layer.parametrizations
        elif hasattr(layer, "weight_g"):
            torch.nn.utils.remove_weight_norm(layer)
        layer.weight = weight
    return scratch
