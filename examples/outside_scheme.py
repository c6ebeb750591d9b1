"""A scheme from outside: additive spread spectrum behind the decoder. It imports nothing of GenPrint.

python -m bench run --modality image --scheme examples.outside_scheme:SpreadSpectrum

Cox et al., "Secure Spread Spectrum Watermarking for Multimedia", IEEE Transactions on Image Processing 1997, here with
one secret pattern per bit, added to whatever the decoder puts out. Works for sound, pictures and volumes alike.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Generator, Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class SpreadSpectrumCodec:
    """What a fit returns: it writes codes into decoders and reads them from content.

    Attributes:
        patterns: the secret key, (bits, C, ...), in the shape of an observed item.
        strength: standard deviation of the mark on what the decoder puts out.
    """

    patterns: Tensor
    strength: float

    @property
    def bits(self) -> int:
        """Fingerprint length."""
        return len(self.patterns)

    @property
    def removable(self) -> bool:
        """Whoever holds the model can drop the hook that marks: a post-hoc scheme, and the tables say so."""
        return True

    def modulate(self, decoder: nn.Module, fingerprint: Tensor) -> nn.Module:
        """A copy of ``decoder`` whose output carries the code (bits,) of zeros and ones; its keys are unchanged."""
        signs = 2.0 * fingerprint.float() - 1
        mark = torch.tensordot(signs, self.patterns.to(signs.device), 1)  # (C, ...)
        mark = mark * self.strength / mark.std()
        marked = copy.deepcopy(decoder)
        marked.register_forward_hook(lambda _, inputs, field: field + F.interpolate(mark[None], field.shape[2:]))
        return marked

    def read(self, tensor: Tensor) -> Tensor:
        """Soft bits (B, bits) of observed items; differences of neighbours hide the content, not the pattern."""
        patterns = self.patterns.to(tensor.device).diff().flatten(1)
        soft: Tensor = tensor.diff().flatten(1) @ patterns.T / patterns.shape[1] ** 0.5
        return soft

    def save(self, path: Path) -> None:
        """Write safetensors."""
        save_file({"patterns": self.patterns, "strength": torch.tensor(self.strength)}, path)


@dataclass(frozen=True)
class SpreadSpectrum:
    """One random pattern per bit.

    Attributes:
        bits: fingerprint length.
        strength: standard deviation of the mark on what the decoder puts out.
    """

    bits: int = 32
    strength: float = 0.03

    def fit(self, modality: Any, generator: Any, rng: Generator) -> SpreadSpectrumCodec:
        """Draw the key; a learned scheme would train here. The shape is that of what readers see."""
        latents = generator.training_latents(1, rng)
        with torch.no_grad():
            observed = modality.soft_release(generator.decode(generator.decoder, latents))
        return SpreadSpectrumCodec(torch.randn((self.bits, *observed.shape[1:]), generator=rng), self.strength)
