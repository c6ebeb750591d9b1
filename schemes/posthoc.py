"""Classical marks behind the decoder, which need no training: what a user who holds the model can leave out.

The mark stage is a hook behind a copy of the decoder, whose state-dict keys stay as they are.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.pool import training_latents
from bench.protocol import Generator, Modality, UserError
from bench.rng import child, stream
from bench.weights import detached_copy
from schemes import files
from schemes.files import check_bits, check_fingerprint, signs

FORMAT = "genprint-post-hoc-1"
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
PERIODS = {1: 2048}
"""By rank, samples after which patterns repeat. Readers of clips see the loudest part, which begins at a multiple."""


class Mark(Protocol):
    """A mark on observed tensors (B, C, ...) of rank 1, 2 or 3; a frozen dataclass."""

    def embed(self, x: Tensor, code: Tensor, strength: float, key: int) -> Tensor:
        """Marked tensors under one ±1 code (bits,)."""

    def extract(self, x: Tensor, bits: int, strength: float, key: int) -> Tensor:
        """Soft bits (B, bits)."""


@dataclass(frozen=True)
class Additive:
    """Add each bit's secret ± pattern with its sign; read by correlation, the content's local mean taken out.

    Cox et al., IEEE TIP 6(12), 1997, eq. 1; Kirovski and Malvar, "Spread-Spectrum Watermarking of Audio Signals", IEEE
    Trans. Signal Processing 51(4), 2003.

    Attributes:
        chip: samples on each axis that share a sign: what survives compression.
    """

    chip: int = 2

    def embed(self, x: Tensor, code: Tensor, strength: float, key: int) -> Tensor:
        """Marked tensors; ``strength`` is the root mean square of what is added."""
        mark = torch.tensordot(code / len(code) ** 0.5, self._patterns(x, len(code), key), 1)
        found: Tensor = x + strength * mark.to(x.dtype)
        return found

    def extract(self, x: Tensor, bits: int, strength: float, key: int) -> Tensor:
        """Correlations with the patterns, both without their local means."""
        content, patterns = _detail(x.float()).flatten(1), _detail(self._patterns(x, bits, key)).flatten(1)
        found: Tensor = content @ patterns.T / content.norm(dim=1, keepdim=True).clamp_min(1e-9) / patterns.norm(dim=1)
        return found

    def _patterns(self, x: Tensor, bits: int, key: int) -> Tensor:
        """Signs (bits, C, ...)."""
        sides = [-(-min(side, PERIODS.get(x.ndim - 2, side)) // self.chip) for side in x.shape[2:]]
        chips = torch.randint(2, (bits, x.shape[1], *sides), generator=stream(key, "chips")) * 2.0 - 1
        for axis, side in enumerate(x.shape[2:], 2):
            period = chips.repeat_interleave(self.chip, axis)
            chips = torch.cat([period] * -(-side // period.shape[axis]), axis).narrow(axis, 0, side)
        return chips.to(x.device)


def _detail(x: Tensor) -> Tensor:
    rank = x.ndim - 2
    return x - POOLS[rank](x, 5, stride=1, padding=2, count_include_pad=False)


@dataclass(frozen=True)
class HaarCosine:
    """Quantise one cosine coefficient of each block of the approximation band of a Haar wavelet transform.

    Al-Haj, "Combined DWT-DCT Digital Image Watermarking", J. Computer Science 3(9), 2007, with the interleaved lattices
    of Chen and Wornell, IEEE Trans. Inf. Theory 47(4), 2001, in place of its additive sequences. Both transforms are
    orthonormal, so each coefficient is the correlation with one pattern of its block.

    Attributes:
        side: samples of a block on each axis, before the wavelet transform; even.
        order: index of the coefficient on each axis.
    """

    side: int = 8
    order: int = 1

    def embed(self, x: Tensor, code: Tensor, strength: float, key: int) -> Tensor:
        """Marked tensors; ``strength`` is the lattice step. The gradient is that of ``x``, straight through."""
        rank, kernel = x.ndim - 2, self._kernel(x)
        coefficients = CONVOLUTIONS[rank](x, kernel, stride=self.side, groups=x.shape[1])
        place = code[self._bits(coefficients, len(code), key)] / 4
        moved = ((coefficients / strength - place).round() + place) * strength - coefficients
        change = TRANSPOSED[rank](moved.detach(), kernel, stride=self.side, groups=x.shape[1])
        rest = [pad for side in reversed(x.shape[2:]) for pad in (0, side % self.side)]
        return x + F.pad(change, rest)

    def extract(self, x: Tensor, bits: int, strength: float, key: int) -> Tensor:
        """Sum over a bit's blocks of how near its coefficient is to which lattice."""
        coefficients = CONVOLUTIONS[x.ndim - 2](x.float(), self._kernel(x.float()), stride=self.side, groups=x.shape[1])
        near = (2 * math.pi * coefficients / strength).sin().flatten(1)
        soft = near.new_zeros(len(x), bits)
        return soft.index_add(1, self._bits(coefficients, bits, key).flatten(), near)

    def _kernel(self, x: Tensor) -> Tensor:
        """Separable pattern of the coefficient, norm 1, (C, 1, side, ...)."""
        half = self.side // 2
        n = torch.arange(half, dtype=torch.float64)
        row = torch.cos(math.pi / half * self.order * (n + 0.5)).repeat_interleave(2)
        kernel = (row / row.norm()).to(x)
        for _ in range(x.ndim - 3):
            kernel = kernel[..., None] * (row / row.norm()).to(x)
        found: Tensor = kernel.expand(x.shape[1], 1, *kernel.shape)
        return found

    def _bits(self, coefficients: Tensor, bits: int, key: int) -> Tensor:
        """Which bit each coefficient carries, (C, ...).

        Raises:
            UserError: when there are fewer coefficients than bits.
        """
        shape = coefficients.shape[1:]
        if shape.numel() < bits:
            raise UserError(f"mark: expected at least {bits} blocks, found {shape.numel()}")
        order = torch.randperm(shape.numel(), generator=stream(key, "blocks")) % bits
        return order.view(shape).to(coefficients.device)


MARKS: dict[str, type[Any]] = {"Additive": Additive, "HaarCosine": HaarCosine}


@dataclass(frozen=True)
class PostHoc:
    """A mark stage behind the decoder, as strong as the asked-for fidelity allows.

    Attributes:
        mark: how a code changes what the decoder puts out.
        bits: fingerprint length.
        psnr_db: fidelity to the unmarked output, PSNR.
        pool: training latents on which the strength is set.
    """

    mark: Additive | HaarCosine = field(default_factory=Additive)
    bits: int = 32
    psnr_db: float = 31.0
    pool: int = 64

    def fit(self, modality: Modality, generator: Generator, rng: torch.Generator) -> PostHocCodec:
        """Draw a key and set the strength.

        Raises:
            UserError: when ``bits`` is not positive, or content has another shape than the decoder's output.
        """
        check_bits(self.bits)
        began = time.monotonic()
        latents = training_latents(generator, self.pool, child(rng, "latents"))
        key = int(torch.randint(2**62, (1,), generator=rng))
        scale, offset, original = _calibrated(modality, generator, latents)
        stage = Stage(self.mark, torch.ones(self.bits), 1.0, key, scale, offset)
        code = torch.randint(2, (self.bits,), generator=child(rng, "code")) * 2.0 - 1
        strength = 10 ** (-self.psnr_db / 20)
        for _ in range(6):
            trial = Stage(self.mark, code, strength, key, scale, offset)
            seen = _observed(modality, generator, _staged(generator.decoder, trial), latents)
            error = float((seen - original).square().mean())
            strength *= (10 ** (-self.psnr_db / 10) / max(error, 1e-12)) ** 0.5
        described = {"name": type(self.mark).__name__, **asdict(self.mark)}
        about = {
            "format": FORMAT,
            "scheme": repr(self),
            "bits": str(self.bits),
            "mark": json.dumps(described),
            "stage": json.dumps({"strength": strength, "key": stage.key, "scale": scale, "offset": offset}),
            "decoder": files.decoder_digest(generator.decoder),
            "generator": generator.name,
            "fit_seconds": f"{time.monotonic() - began:.1f}",
        }
        return bind(modality, generator, about, {})


@dataclass(frozen=True, eq=False)
class Stage:
    """Forward hook that marks what a decoder puts out; content is ``scale`` times that plus ``offset``."""

    mark: Mark
    code: Tensor
    strength: float
    key: int
    scale: float
    offset: float

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> Tensor:
        """Marked output."""
        content = self.scale * out.float() + self.offset
        marked = self.mark.embed(content, self.code.to(out.device), self.strength, self.key)
        return out + ((marked - content) / self.scale).to(out.dtype)


@dataclass(frozen=True, eq=False)
class PostHocCodec:
    """A mark stage with its key, bound to one public decoder.

    Attributes:
        mark: how a code changes what the decoder puts out.
        stage: strength, key, and the scale and offset from output to content.
        about: facts kept in the file.
    """

    mark: Mark
    stage: Mapping[str, Any]
    about: Mapping[str, str]
    removable: ClassVar[bool] = True

    @property
    def bits(self) -> int:
        """Fingerprint length."""
        return int(self.about["bits"])

    @property
    def fit_seconds(self) -> float:
        """Wall time of the fit."""
        return float(self.about["fit_seconds"])

    def modulate(self, decoder: nn.Module, fingerprint: Tensor) -> nn.Module:
        """A copy of ``decoder`` with the mark stage behind it.

        Raises:
            UserError: when the code has another length or another value.
        """
        check_fingerprint(fingerprint, self.bits)
        return _staged(decoder, Stage(self.mark, signs(fingerprint, decoder), **self.stage))

    @torch.inference_mode()
    def read(self, tensor: Tensor) -> Tensor:
        """Soft bits (B, bits) of observed tensors; positive means 1."""
        return self.mark.extract(tensor, self.bits, self.stage["strength"], self.stage["key"])

    def save(self, path: Path) -> None:
        """Write the facts; there are no weights."""
        files.write(path, self.about, {})


def bind(
    modality: Modality, generator: Generator, about: dict[str, str], parts: dict[str, dict[str, Tensor]]
) -> PostHocCodec:
    """The codec in a file; see :func:`schemes.files.read`."""
    if parts:
        raise ValueError(f"an unknown part {sorted(parts)[0]!r}")
    described = json.loads(about["mark"])
    mark = MARKS[described.pop("name")](**described)
    return PostHocCodec(mark, json.loads(about["stage"]), about)


def _staged(decoder: nn.Module, stage: Stage) -> nn.Module:
    copy = detached_copy(decoder)
    copy.register_forward_hook(stage)
    return copy


@torch.no_grad()
def _observed(modality: Modality, generator: Generator, decoder: nn.Module, latents: Tensor) -> Tensor:
    parts = [modality.soft_release(generator.decode(decoder, z)).float().cpu() for z in latents.split(16)]
    return torch.cat(parts)


def _calibrated(modality: Modality, generator: Generator, latents: Tensor) -> tuple[float, float, Tensor]:
    """Scale and offset from the decoder's own output to content, by least squares where nothing is clipped; content."""
    raw: list[Tensor] = []
    copy = detached_copy(generator.decoder)
    copy.register_forward_hook(lambda module, inputs, out: raw.append(out.detach().float().cpu()))
    content = _observed(modality, generator, copy, latents)
    out = torch.cat(raw)
    if out.shape != content.shape:
        raise UserError(
            f"content: expected the shape {tuple(out.shape)} of the decoder's output, found {tuple(content.shape)}"
        )
    inside = (content > content.min()) & (content < content.max())
    x, y = out[inside].double(), content[inside].double()
    scale = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum().clamp_min(1e-12))
    return scale, float(y.mean() - scale * x.mean()), content
