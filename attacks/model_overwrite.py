"""A second fingerprint over the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, nn

from attacks.limits import check_strength
from bench.protocol import Attacker, Target, UserError
from bench.weights import detached_copy, effective_weight, mapped_copy, other_parameters, weighted_layers


@dataclass(frozen=True)
class Overwrite:
    """Write a random code over the user's with a codec of the same scheme that the attacker fitted.

    Overwriting in Lukas et al., "SoK: How Robust is Image Classification Deep Neural Network Watermarking?", IEEE S&P
    2022, arXiv:2108.04974. The attacker's codec has its own key, from another seed of the fit, and comes as
    ``Attacker.rival``. A codec that marks outside the weights overwrites nothing here.

    Attributes:
        share: of the change that the second fingerprint makes to the weights; above 1 it is stronger than its own.
    """

    share: float = 1.0
    target: ClassVar[Target] = "model"
    uses_rival: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_strength(self, 0, 10)

    @torch.no_grad()
    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy with two fingerprints.

        Raises:
            UserError: when the attacker has no codec.
        """
        if attacker.rival is None:
            raise UserError(
                f"{self!r}: expected a codec of the same scheme that the attacker fitted, found none; make one with "
                "`python -m bench fit --seed 1` and --out as the scheme's codec file with -rival before its suffix"
            )
        code = torch.randint(2, (attacker.rival.bits,), generator=rng, device=rng.device)
        device = next(decoder.parameters()).device
        marked = attacker.rival.modulate(detached_copy(decoder), code.to(device))
        layers, others = weighted_layers(marked), other_parameters(marked)
        changed = mapped_copy(decoder, lambda name, _, weight: weight.lerp(effective_weight(layers[name]), self.share))
        for name, parameter in other_parameters(changed).items():
            parameter.lerp_(others[name], self.share)
        return changed
