"""A learned mark stage behind the decoder: the post-hoc baseline, as every scheme trained by the same loop.

Zhu et al., "HiDDeN: Hiding Data with Deep Networks", ECCV 2018, arXiv:1807.09937: convolutions on the cover, the
message repeated at every place and joined, convolutions to the marked item. As in the revisited form of Fernandez et
al., "The Stable Signature", ICCV 2023, arXiv:2303.15435, there is no adversary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.protocol import UserError
from bench.rng import child, fenced
from bench.weights import detached_copy, effective_weight, weighted_layers
from schemes.modulations.layers import hooked, output_channels
from schemes.readers import CONVOLUTIONS, NORMS


@dataclass(frozen=True)
class HiDDeN:
    """What the decoder puts out, plus what an encoder makes of it and of the code.

    In the place of a modulation: it changes no weight. Cover features, the code at every place and the cover itself are
    joined as in the paper; the loop's rule for fidelity stands for its fixed weight of the cover's loss.

    Attributes:
        width: channels; 64 in the paper.
        depth: convolutions on the cover before the code joins; 4 in the paper.
    """

    width: int = 32
    depth: int = 4

    def bind(self, decoder: nn.Module, bits: int, rng: torch.Generator) -> Encoder:
        """Fresh encoder of what ``decoder`` puts out.

        Raises:
            UserError: when the last layer of the decoder is no convolution, so that its output has no places.
        """
        layers = list(weighted_layers(decoder).values())
        rank = effective_weight(layers[-1]).ndim - 2 if layers else 0
        if rank not in CONVOLUTIONS:
            raise UserError(f"decoder {type(decoder).__name__}: expected a convolution as its last layer, found none")
        with fenced(child(rng, "encoder").initial_seed()):
            return Encoder(rank, output_channels(layers[-1]), bits, self)


class Layer(nn.Module):
    """Convolution of side 3, batch normalisation, ReLU."""

    def __init__(self, rank: int, channels: tuple[int, int]) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(channels[1], channels[0], *[3] * rank))
        nn.init.kaiming_normal_(self.kernel)
        self.norm = NORMS[rank](channels[1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, ...) to (B, out, ...)."""
        y: Tensor = F.relu(self.norm(CONVOLUTIONS[x.ndim - 2](x, self.kernel, padding=1)))
        return y


class Encoder(nn.Module):
    """See :class:`HiDDeN`. The last kernel starts at a hundredth: the mark is quiet first."""

    def __init__(self, rank: int, channels: int, bits: int, spec: HiDDeN) -> None:
        super().__init__()
        self.bits = bits
        widths = [channels, *[spec.width] * spec.depth]
        self.cover = nn.Sequential(*[Layer(rank, pair) for pair in pairwise(widths)])
        self.joined = Layer(rank, (spec.width + bits + channels, spec.width))
        self.last = nn.Parameter(torch.randn(channels, spec.width, *[1] * rank) * 0.01)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        """Marked items (B, C, ...) under ±1 codes (B, bits)."""
        scale = x.detach().float().std().clamp_min(1e-6).to(x.dtype)  # a decoder's output has a range of its own
        cover = x / scale
        message = codes.to(x.dtype).view(*codes.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
        joined = self.joined(torch.cat([message, self.cover(cover), cover], 1))
        return x + scale * CONVOLUTIONS[x.ndim - 2](joined, self.last)

    def weights(self, decoder: nn.Module, code: Tensor) -> dict[str, Tensor]:
        """None: no weight changes."""
        return {}

    def applied(self, decoder: nn.Module, codes: Tensor) -> contextlib.AbstractContextManager[None]:
        """Within the context, item b leaves ``decoder`` marked by ``codes[b]``."""
        return hooked([decoder.register_forward_hook(self._stage(codes))])

    def staged(self, decoder: nn.Module, code: Tensor) -> nn.Module:
        """A copy of ``decoder`` with the mark stage behind it."""
        copy = detached_copy(decoder)
        copy.register_forward_hook(self._stage(code[None]))
        return copy

    def _stage(self, codes: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def stage(_: nn.Module, __: Any, out: Tensor) -> Tensor:
            marked: Tensor = self(out, codes.expand(len(out), -1))
            return marked

        return stage


STAGES: dict[str, type[Any]] = {"HiDDeN": HiDDeN}
"""What can stand in the place of a modulation without changing a weight."""
