"""Published content that is no plain tensor: sounds and meshes. Pictures are uint8 tensors (B, 3, H, W)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Clips:
    """Published audio: a batch of 16-bit PCM clips of one length. Without the rate, no filter means anything.

    Attributes:
        samples: int16, (B, C, T); C is 1 or 2.
        rate_hz: samples per second.
    """

    samples: Tensor
    rate_hz: int

    @classmethod
    def from_unit(cls, x: Tensor, rate_hz: int) -> Clips:
        """Rounded and clipped to 16 bits from floats (B, C, T) in [-1, 1)."""
        return cls((x.detach().float() * 32768).round().clamp(-32768, 32767).to(torch.int16), rate_hz)

    def unit(self) -> Tensor:
        """Floats (B, C, T) in [-1, 1), exact."""
        return self.samples.float() / 32768

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, items: slice) -> Clips:
        return Clips(self.samples[items], self.rate_hz)

    def to(self, device: torch.device) -> Clips:
        """The same clips with their samples on ``device``."""
        return Clips(self.samples.to(device), self.rate_hz)


@dataclass(frozen=True, eq=False)
class Mesh:
    """A published triangle mesh with vertex colours. A batch of them is a list: each has a size of its own.

    Attributes:
        vertices: float32 (V, 3), in any unit.
        faces: int64 (F, 3), rows of ``vertices``, counter-clockwise seen from outside.
        colours: uint8 (V, 3), sRGB.
    """

    vertices: Tensor
    faces: Tensor
    colours: Tensor
