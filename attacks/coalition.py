"""Attacks of several users who put their decoders together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Generator, Tensor, nn

from attacks.limits import check_strength
from bench.protocol import AttackFamily, CoalitionAttack, Target
from bench.weights import effective_weight, mapped_copy, other_parameters, weighted_layers


@dataclass(frozen=True)
class AverageWeights:
    """Take the mean of all users' effective weights, other parameters and running statistics, in float32.

    The model collusion of "Efficient, Robust, and Anti-Collusion Fingerprinting of Image Diffusion Models", 2026,
    arXiv:2606.12977; averaged networks of one origin still work: Wortsman et al., "Model soups", ICML 2022,
    arXiv:2203.05482.

    Attributes:
        users: how many collude, at least 2.
    """

    users: int = 3
    target: ClassVar[Target] = "coalition"

    def __post_init__(self) -> None:
        check_strength(self, 2)

    @torch.no_grad()
    def __call__(self, decoders: Sequence[nn.Module], rng: Generator) -> nn.Module:
        """The averaged decoder.

        Raises:
            ValueError: when the decoders are not ``users`` many, or differ in their state-dict keys.
        """
        if len(decoders) != self.users:
            raise ValueError(f"{len(decoders)} decoders, expected {self.users}")
        _check_keys(decoders)
        weights = [
            {name: effective_weight(layer) for name, layer in weighted_layers(decoder).items()} for decoder in decoders
        ]
        merged = mapped_copy(decoders[0], lambda name, layer, weight: _mean([held[name] for held in weights]))
        rest = [other_parameters(decoder) | dict(decoder.named_buffers()) for decoder in decoders]
        for name, tensor in (other_parameters(merged) | dict(merged.named_buffers())).items():
            if tensor.is_floating_point():
                tensor.copy_(_mean([held[name] for held in rest]))
        return merged


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.float() for tensor in tensors]).mean(0)


def _check_keys(decoders: Sequence[nn.Module]) -> None:
    expected = decoders[0].state_dict().keys()
    for index, decoder in enumerate(decoders):
        found = decoder.state_dict().keys()
        if found != expected:
            odd = sorted(found ^ expected)[0]
            raise ValueError(
                f"decoder {index} has {len(found)} state-dict keys, expected the {len(expected)} of decoder 0; "
                f"only one of the two has {odd}"
            )


FAMILIES = (
    AttackFamily(
        name="average-weights",
        modality="any",
        target="coalition",
        make=lambda s: cast(CoalitionAttack, AverageWeights(int(s))),
        strengths=(2, 3, 5),
        quick=1,
        unit="users",
        source="arXiv:2606.12977; Wortsman et al. 2022, arXiv:2203.05482",
    ),
)
