"""White-box embedding: bits in projections of one layer's mean filter, read from the weights.

Uchida et al., "Embedding Watermarks into Deep Neural Networks", ICMR 2017, arXiv:1701.04082. The reference channel
beside attacks on models: it tells a code that is lost in the weights from one that content no longer shows. There, the
regulariser Σ BCE(σ(Xᵀw), b) pulls w during training; the decoder here is trained, and w moves by the smallest change
that brings every projection to a margin.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.protocol import Generator, Modality, UserError
from bench.rng import stream
from bench.weights import effective_weight, replaced_copy
from schemes import files
from schemes.files import check_bits, check_fingerprint, signs
from schemes.modulations.layers import canonical, modulated_layers, restored

FORMAT = "genprint-uchida-1"


@dataclass(frozen=True)
class Uchida:
    """w is the mean over filters of the largest modulated layer, X random normal, a bit the sign of its projection.

    Attributes:
        bits: fingerprint length; at most as many as w has values.
        margin: least magnitude of a projection, in units of what a random pattern has, ‖w‖.
    """

    bits: int = 32
    margin: float = 1.0

    def fit(self, modality: Modality, generator: Generator, rng: torch.Generator) -> UchidaCodec:
        """Choose the layer and draw a key; nothing is trained.

        Raises:
            UserError: when ``bits`` is not positive, or no layer has room.
        """
        check_bits(self.bits)
        began, decoder = time.monotonic(), generator.decoder
        layers = modulated_layers(decoder, attention=False)
        room = {name: _mean_filter(layer).numel() for name, layer in layers.items()}
        name = max(room, key=lambda each: room[each])
        if room[name] < self.bits:
            raise UserError(f"bits: expected at most {room[name]}, the size of a filter, found {self.bits}")
        about = {
            "format": FORMAT,
            "scheme": repr(self),
            "bits": str(self.bits),
            "embedding": json.dumps(
                {"layer": name, "key": int(torch.randint(2**62, (1,), generator=rng)), "margin": self.margin}
            ),
            "decoder": files.decoder_digest(decoder),
            "generator": generator.name,
            "fit_seconds": f"{time.monotonic() - began:.1f}",
        }
        return bind(modality, generator, about, {})


@dataclass(frozen=True, eq=False)
class UchidaCodec:
    """Where the code is and with what key.

    Attributes:
        layer: name of the layer.
        key: seeds the projections.
        margin: see :class:`Uchida`.
        about: facts kept in the file.
    """

    layer: str
    key: int
    margin: float
    about: Mapping[str, str]
    removable: ClassVar[bool] = False
    reads_weights: ClassVar[bool] = True

    @property
    def bits(self) -> int:
        """Fingerprint length."""
        return int(self.about["bits"])

    @property
    def fit_seconds(self) -> float:
        """Wall time of the fit."""
        return float(self.about["fit_seconds"])

    @torch.no_grad()
    def modulate(self, decoder: nn.Module, fingerprint: Tensor) -> nn.Module:
        """A copy of ``decoder`` that carries ``fingerprint`` in its weights.

        Raises:
            UserError: when the code has another length or another value.
        """
        check_fingerprint(fingerprint, self.bits)
        layer, code = decoder.get_submodule(self.layer), signs(fingerprint, decoder)
        mean = _mean_filter(layer)
        projections = self._matrix(mean).T @ mean
        wanted = code * torch.maximum(code * projections, self.margin * mean.norm())
        matrix = self._matrix(mean)
        change = matrix @ torch.linalg.solve(matrix.T @ matrix, wanted - projections)
        weight = canonical(layer, effective_weight(layer).float())  # (groups, out, in, kernel)
        moved = restored(layer, weight + change.view(1, 1, *weight.shape[2:]))
        return replaced_copy(decoder, {self.layer: moved})

    def read(self, tensor: Tensor) -> Tensor:
        """Undecided (B, bits): content does not tell."""
        return tensor.new_zeros(len(tensor), self.bits, dtype=torch.float32)

    @torch.no_grad()
    def read_weights(self, decoder: nn.Module, public: nn.Module) -> Tensor:
        """Soft bits (bits,): projections of the mean filter. The public decoder is not needed."""
        mean = _mean_filter(decoder.get_submodule(self.layer))
        soft: Tensor = self._matrix(mean).T @ mean / mean.norm().clamp_min(1e-12)
        return soft

    def save(self, path: Path) -> None:
        """Write the facts; there are no weights."""
        files.write(path, self.about, {})

    def _matrix(self, mean: Tensor) -> Tensor:
        """X, (values, bits)."""
        return torch.randn(len(mean), self.bits, generator=stream(self.key, "projections")).to(mean.device)


def bind(
    modality: Modality, generator: Generator, about: dict[str, str], parts: dict[str, dict[str, Tensor]]
) -> UchidaCodec:
    """The codec in a file; see :func:`schemes.files.read`."""
    if parts:
        raise ValueError(f"an unknown part {sorted(parts)[0]!r}")
    settings = json.loads(about["embedding"])
    generator.decoder.get_submodule(settings["layer"])
    int(about["bits"])
    return UchidaCodec(settings["layer"], int(settings["key"]), float(settings["margin"]), about)


def _mean_filter(layer: nn.Module) -> Tensor:
    """Mean over filters, (inputs per group · kernel,)."""
    return canonical(layer, effective_weight(layer).detach().float()).mean((0, 1)).flatten()
