"""Residual amplitude modulation: a gain added to the weight, from nothing.

The ``weight_offset`` variant of the code of Kim et al., "WOUAF", CVPR 2024, arXiv:2306.04744: W' = W + W · diag(s). Its
bias starts at 1 there, which is twice the weight; here at 0, which is the weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from schemes.modulations.amplitude import Amplitude, GainMap


@dataclass(frozen=True)
class Residual:
    """W' = W + W · diag(s) over input channels, s = A · code, A = 0 at the start.

    It reaches what :class:`Amplitude` reaches and differs in the start: identity, no fidelity has to be won back.

    Attributes:
        attention: whether queries, keys and values are modulated too.
    """

    attention: bool = True

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> GainMap:
        """Fresh gain map for ``decoder``, all its gains 1."""
        return Amplitude(depth=0.0, attention=self.attention).bind(decoder, bits, rng)
