"""Stable Signature: one reader, trained once; each user's decoder is fine-tuned until the reader reads the user's code.

Fernandez et al., "The Stable Signature: Rooting Watermarks in Latent Diffusion Models", ICCV 2023, arXiv:2303.15435.
The extractor is that of a post-hoc scheme (its encoder is thrown away), its bits whitened on unmarked content; the copy
of a user stays near the public decoder's output. A copy costs minutes, not milliseconds.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.pool import training_latents
from bench.precision import mixed
from bench.protocol import Generator, Modality
from bench.rng import child, stream
from bench.weights import detached_copy
from schemes import files, weight_modulation
from schemes.encoder import HiDDeN
from schemes.files import check_fingerprint, signs
from schemes.training import Recipe
from schemes.unmarked import originals
from schemes.weight_modulation import WeightModulation

FORMAT = "genprint-stable-signature-1"


@dataclass(frozen=True)
class Tuning:
    """How a user's decoder is made.

    Attributes:
        steps: of AdamW, a fifth of them warming up.
        rate: largest learning rate.
        batch: latents per step.
        bit_weight: of the cross-entropy of ten times the whitened soft bits, as in the authors' code.
        pool: latents kept with the codec.
    """

    steps: int = 100
    rate: float = 5e-4
    batch: int = 4
    bit_weight: float = 1.0
    pool: int = 64


@dataclass(frozen=True)
class StableSignature:
    """Extractor of a post-hoc scheme, whitened; per-user fine-tuning towards a fixed code.

    Attributes:
        extractor: the scheme whose reader is used.
        tuning: how a user's decoder is made.
    """

    extractor: WeightModulation = field(
        default_factory=lambda: WeightModulation(HiDDeN(), recipe=Recipe(augment=True, psnr_db=28.0))
    )
    tuning: Tuning = field(default_factory=Tuning)

    @property
    def bits(self) -> int:
        """Fingerprint length."""
        return self.extractor.bits

    def fit(self, modality: Modality, generator: Generator, rng: torch.Generator) -> StableSignatureCodec:
        """Train the extractor and whiten its bits on what the public decoder makes."""
        began = time.monotonic()
        trained = self.extractor.fit(modality, generator, child(rng, "extractor"))
        latents = training_latents(generator, max(self.tuning.pool, 16 * self.bits), child(rng, "latents"))
        content = originals(modality, generator, latents)
        device = next(generator.decoder.parameters()).device
        soft = torch.cat([trained.read(part.float().to(device)) for part in content.split(32)])
        mean, matrix = whitening(soft.cpu())
        about = dict(trained.about) | {
            "format": FORMAT,
            "scheme": repr(self),
            "tuning": json.dumps(dataclasses.asdict(self.tuning)),
            "fit_seconds": f"{time.monotonic() - began:.1f}",
        }
        parts = {
            "reader": trained.reader.state_dict(),
            "modulator": trained.modulator.state_dict(),
            "whitening": {"mean": mean, "matrix": matrix},
            "pool": {"latents": latents[: self.tuning.pool].cpu()},
        }
        rounded = {part: {key: _rounded(value) for key, value in values.items()} for part, values in parts.items()}
        return bind(modality, generator, about, rounded)


def whitening(soft: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and matrix that make soft bits of unmarked content (N, bits) uncorrelated, with mean 0 and variance 1.

    A thousandth of the largest variance keeps directions without any from becoming all noise.
    """
    mean = soft.mean(0)
    levels, axes = torch.linalg.eigh(torch.cov(soft.T).double().reshape(soft.shape[1], soft.shape[1]))
    # Symmetric, so that each whitened bit is the one next to the trained bit.
    matrix = axes @ torch.diag((levels.clamp_min(0) + 1e-3 * levels.max()).rsqrt()) @ axes.T
    return mean, matrix.float()


@dataclass(frozen=True, eq=False)
class StableSignatureCodec:
    """A whitened extractor with what it takes to fine-tune a user's decoder.

    Attributes:
        modality: releases and judges fidelity.
        generator: decodes.
        trained: the extractor's codec.
        parts: ``whitening`` and ``pool``.
        about: facts kept in the file.
    """

    modality: Modality
    generator: Generator
    trained: Any
    parts: Mapping[str, dict[str, Tensor]]
    about: Mapping[str, str]
    removable: ClassVar[bool] = False

    @property
    def bits(self) -> int:
        """Fingerprint length."""
        return int(self.about["bits"])

    @property
    def fit_seconds(self) -> float:
        """Wall time of the fit."""
        return float(self.about["fit_seconds"])

    @torch.enable_grad()
    def modulate(self, decoder: nn.Module, fingerprint: Tensor) -> nn.Module:
        """A copy of ``decoder``, fine-tuned until it carries ``fingerprint``.

        Raises:
            UserError: when the code has another length or another value.
        """
        check_fingerprint(fingerprint, self.bits)
        tuning, tuned = Tuning(**json.loads(self.about["tuning"])), detached_copy(decoder)
        wanted = (signs(fingerprint, decoder) > 0).float()
        latents = self.parts["pool"]["latents"].to(wanted.device)
        rng = stream(0, "stable signature", fingerprint.long().tolist())
        optimiser = torch.optim.AdamW(tuned.requires_grad_(True).parameters(), lr=tuning.rate)
        for step in range(tuning.steps):
            optimiser.param_groups[0]["lr"] = tuning.rate * min(1.0, (step + 1) / (0.2 * tuning.steps))
            z = latents[torch.randint(len(latents), (tuning.batch,), generator=rng).to(wanted.device)]
            optimiser.zero_grad(set_to_none=True)
            self._loss(decoder, tuned, z, wanted, tuning.bit_weight).backward()
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return tuned.requires_grad_(False)

    def _loss(self, decoder: nn.Module, tuned: nn.Module, z: Tensor, wanted: Tensor, weight: float) -> Tensor:
        """Bits, and distance to what the public decoder makes: 20 times the squared error and the perceptual one."""
        with mixed(z.device):
            marked = self.modality.soft_release(self.generator.decode(tuned, z))
            with torch.no_grad():
                original = self.modality.soft_release(self.generator.decode(decoder, z))
            near = 20 * F.mse_loss(marked, original) + self.modality.perceptual_loss(original, marked).mean()
            soft = 10 * self._whitened(self.trained.reader(marked))
            bits = F.binary_cross_entropy_with_logits(soft, wanted.expand_as(soft))
        return weight * bits + near

    def _whitened(self, soft: Tensor) -> Tensor:
        mean, matrix = (self.parts["whitening"][key].to(soft.device) for key in ("mean", "matrix"))
        return (soft.float() - mean) @ matrix.T

    @torch.inference_mode()
    def read(self, tensor: Tensor) -> Tensor:
        """Soft bits (B, bits) of observed tensors; positive means 1."""
        return self._whitened(self.trained.read(tensor))

    def save(self, path: Path) -> None:
        """Write extractor, whitening and latents as half-precision safetensors, atomically."""
        states = {"reader": self.trained.reader.state_dict(), "modulator": self.trained.modulator.state_dict()}
        files.write(path, self.about, {**states, **self.parts})


def bind(
    modality: Modality, generator: Generator, about: dict[str, str], parts: dict[str, dict[str, Tensor]]
) -> StableSignatureCodec:
    """The codec in a file; see :func:`schemes.files.read`."""
    own = {part: parts[part] for part in ("whitening", "pool")}
    networks = {part: values for part, values in parts.items() if part not in own}
    trained = weight_modulation.bind(modality, generator, about, networks)
    return StableSignatureCodec(modality, generator, trained, own, about)


def _rounded(value: Tensor) -> Tensor:
    """As it will be read from the file."""
    return files.half(value).to(value.dtype)
