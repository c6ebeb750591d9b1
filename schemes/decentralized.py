"""Decentralized attribution: one key for each user, a linear test, and a decoder fine-tuned to one side of it.

Kim, Ren and Yang, "Decentralized Attribution of Generative Models", ICLR 2021, arXiv:2010.13974. Authentic content x
has φᵀx ≥ m for every key φ; content of a user's own decoder has φᵀx ≤ -m for that user's key. A code of several ones is
the same with several keys at once; user j of the paper is the code that is 1 at j only.

What differs: keys are orthogonal and of unit length exactly, by projection, where the authors add a penalty for both;
the weight of the squared error follows the fidelity asked for, where theirs stays at 10 to 1000; and keys lie where
changes of the weights move content, since a convolutional decoder, unlike the authors' networks from noise to pictures,
cannot paint a fixed pattern wherever it wants.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.pool import training_latents
from bench.precision import mixed
from bench.protocol import Generator, Modality, UserError
from bench.rng import child, stream
from bench.weights import detached_copy
from schemes import files, training
from schemes.files import check_bits, check_fingerprint, signs
from schemes.orthogonal_keys import reachable, trained_keys
from schemes.unmarked import originals

FORMAT = "genprint-decentralized-1"
PROBED = 16
"""Items over which the effect of a change of the weights is averaged."""


@dataclass(frozen=True)
class KeyTuning:
    """How a user's decoder is made.

    Attributes:
        steps: of Adam, with the authors' moments, 0.5 and 0.99.
        rate: learning rate, falling to 2 % over the second half.
        batch: latents per step.
        psnr_db: fidelity to the public decoder's output asked for.
        pool: latents kept with the codec.
        augment: whether half of the steps see distorted content, the authors' robust training.
    """

    steps: int = 200
    rate: float = 5e-4
    batch: int = 8
    psnr_db: float = 31.0
    pool: int = 64
    augment: bool = False


@dataclass(frozen=True)
class DecentralizedAttribution:
    """Keys that authentic content is on one side of, and decoders moved to the other side.

    Attributes:
        bits: number of keys, which is the number of users in the paper; at most the size of an item.
        key_steps: of Adam for each key.
        key_rate: its learning rate.
        margin: of the hinge losses, 1 in the paper, whose pixels span twice the range of ours.
        authentic: items that keys are trained on, half of them real and half of the public decoder.
        probes: random changes of the decoder's weights, whose effects on the mean item span what keys are made of.
        tuning: how a user's decoder is made.
    """

    bits: int = 32
    key_steps: int = 200
    key_rate: float = 1e-3
    margin: float = 0.5
    authentic: int = 512
    probes: int = 128
    tuning: KeyTuning = field(default_factory=KeyTuning)

    def fit(self, modality: Modality, generator: Generator, rng: torch.Generator) -> DecentralizedCodec:
        """Train the keys one after the other.

        Raises:
            UserError: when ``bits`` is not positive, or there are fewer probes than that, or fewer values in an item.
        """
        check_bits(self.bits)
        began = time.monotonic()
        latents = training_latents(generator, max(self.authentic // 2, self.tuning.pool), child(rng, "latents"))
        made = originals(modality, generator, latents[: self.authentic // 2])
        _, fields = generator.public_pairs(self.authentic // 2, child(rng, "authentic"))
        with torch.no_grad():
            real = modality.soft_release(fields)
        content = torch.cat([real.float().cpu(), made.float()]).flatten(1)
        if self.bits > (room := min(self.probes, content.shape[1])):
            raise UserError(f"bits: expected at most {room}, the probes or the size of an item, found {self.bits}")
        basis = reachable(modality, generator, latents[:PROBED], self.probes, child(rng, "probes"))
        basis = basis[: 2 * self.bits]
        keys = trained_keys(content @ basis.T, self, child(rng, "keys")) @ basis
        about = {
            "format": FORMAT,
            "scheme": repr(self),
            "bits": str(self.bits),
            "tuning": json.dumps(dataclasses.asdict(self.tuning)),
            "decoder": files.decoder_digest(generator.decoder),
            "generator": generator.name,
            "margin": str(self.margin),
            "authentic_side": f"{float((content @ keys.T > 0).float().mean()):.4f}",
            "fit_seconds": f"{time.monotonic() - began:.1f}",
        }
        parts = {"keys": {"matrix": keys}, "pool": {"latents": latents[: self.tuning.pool].cpu()}}
        rounded = {
            part: {name: files.half(value).to(value.dtype) for name, value in values.items()}
            for part, values in parts.items()
        }
        return bind(modality, generator, about, rounded)


class Judgement(NamedTuple):
    """What the paper's scores are means of, sec. 2, when each user's decoder holds one key.

    Attributes:
        users: whose decoder made each item, (B,).
        attributed: whether it lies on the far side of its user's key and of no other, (B,); attributability is
            the mean.
        far: whether it lies on the far side of its user's key, (B,).
        near: whether the public decoder's item of the same latent lies on the near side of that key, (B,);
            distinguishability is the mean of this and ``far``. The authors ask it of real items.
        shift: length of the change of the item, (B,).
    """

    users: Tensor
    attributed: Tensor
    far: Tensor
    near: Tensor
    shift: Tensor


def attributed(projections: Tensor, users: Tensor) -> Tensor:
    """For each item, whether φ_uᵀx < 0 for its user u and φ_jᵀx > 0 for all j ≠ u, (B,).

    Args:
        projections: φ_jᵀx of each item and key, (B, keys).
        users: index of the key of each item's user, (B,).

    Example:
        >>> attributed(torch.tensor([[-1.0, 2.0], [-1.0, -2.0], [3.0, -1.0]]), torch.tensor([0, 0, 1]))
        tensor([ True, False,  True])
    """
    wanted = F.one_hot(users, projections.shape[1]).bool()
    return (torch.where(wanted, -projections, projections) > 0).all(1)


@dataclass(frozen=True, eq=False)
class DecentralizedCodec:
    """Keys, with what it takes to fine-tune a user's decoder.

    Attributes:
        modality: releases and judges fidelity.
        generator: decodes.
        keys: (bits, values).
        latents: (pool, ...), on the CPU.
        about: facts kept in the file; ``authentic_side`` is the share of key and item pairs with φᵀx > 0.
    """

    modality: Modality
    generator: Generator
    keys: Tensor
    latents: Tensor
    about: Mapping[str, str]
    removable: ClassVar[bool] = False

    @property
    def bits(self) -> int:
        """Fingerprint length: one key for each bit."""
        return int(self.about["bits"])

    @property
    def margin(self) -> float:
        """Of the hinge losses."""
        return float(self.about["margin"])

    @property
    def fit_seconds(self) -> float:
        """Wall time of the fit: of all keys, and of no user's decoder."""
        return float(self.about["fit_seconds"])

    @torch.enable_grad()
    def modulate(self, decoder: nn.Module, fingerprint: Tensor) -> nn.Module:
        """A copy of ``decoder``, fine-tuned to the far side of the keys of ones and the near side of the others.

        Raises:
            UserError: when the code has another length or another value.
        """
        check_fingerprint(fingerprint, self.bits)
        tuning, tuned = KeyTuning(**json.loads(self.about["tuning"])), detached_copy(decoder)
        code, progress = signs(fingerprint, decoder), training.Progress()
        latents, rng = self.latents.to(code.device), stream(0, "decentralized", fingerprint.long().tolist())
        optimiser = torch.optim.Adam(tuned.requires_grad_(True).parameters(), lr=tuning.rate, betas=(0.5, 0.99))
        for step in range(tuning.steps):
            optimiser.param_groups[0]["lr"] = tuning.rate * min(1.0, 2 - 1.96 * (step + 1) / tuning.steps)
            z = latents[torch.randint(len(latents), (tuning.batch,), generator=rng).to(code.device)]
            with mixed(code.device):
                marked = self.modality.soft_release(self.generator.decode(tuned, z))
                with torch.no_grad():
                    original = self.modality.soft_release(self.generator.decode(decoder, z))
            distorts = tuning.augment and bool(torch.rand((), generator=rng) < 0.5)
            seen = self.modality.augment(marked, rng) if distorts else marked
            hinge = F.relu(self.margin + code * self.projections(seen)).sum(1).mean()
            error = F.mse_loss(marked.float(), original.float())
            optimiser.zero_grad(set_to_none=True)
            (hinge + 20 * progress.weight * error).backward()
            optimiser.step()
            progress.update(0.0, -10 * math.log10(max(error.item(), 1e-9)), tuning.psnr_db)
        optimiser.zero_grad(set_to_none=True)
        return tuned.requires_grad_(False)

    def projections(self, tensor: Tensor) -> Tensor:
        """φᵀx, (B, bits)."""
        return tensor.float().flatten(1) @ self.keys.to(tensor.device).T

    @torch.inference_mode()
    def read(self, tensor: Tensor) -> Tensor:
        """Soft bits (B, bits), -φᵀx: positive on the far side. Unmarked content reads as zeros."""
        return -self.projections(tensor)

    @torch.no_grad()
    def judged(self, users: int, items: int, rng: torch.Generator) -> Judgement:
        """Make the decoders of the first users, each with its own key alone, and judge ``items`` of held-out prompts.

        Raises:
            UserError: when there are fewer keys than users.
        """
        if users > self.bits:
            raise UserError(f"users: expected at most {self.bits}, one for each key, found {users}")
        found, shifts, public = [], [], []
        decoder = self.generator.decoder
        for user in range(users):
            copy = self.modulate(decoder, F.one_hot(torch.tensor(user), self.bits))
            prompts = self.modality.prompts(items, child(rng, "prompts", user))
            z = self.generator.latents(prompts, child(rng, "latents", user))
            original, marked = (self.modality.soft_release(self.generator.decode(each, z)) for each in (decoder, copy))
            found.append(self.projections(marked))
            public.append(self.projections(original)[:, user])
            shifts.append((marked - original).flatten(1).norm(dim=1))
        projections, owners = torch.cat(found).cpu(), torch.arange(users).repeat_interleave(items)
        own = projections.gather(1, owners[:, None])[:, 0]
        near, shift = torch.cat(public).cpu() > 0, torch.cat(shifts).cpu()
        return Judgement(owners, attributed(projections, owners), own < 0, near, shift)

    def save(self, path: Path) -> None:
        """Write keys and latents as half-precision safetensors, atomically."""
        files.write(path, self.about, {"keys": {"matrix": self.keys}, "pool": {"latents": self.latents}})


def bind(
    modality: Modality, generator: Generator, about: dict[str, str], parts: dict[str, dict[str, Tensor]]
) -> DecentralizedCodec:
    """The codec in a file; see :func:`schemes.files.read`."""
    keys, latents = parts["keys"]["matrix"], parts["pool"]["latents"]
    if len(keys) != int(about["bits"]):
        raise ValueError(f"{len(keys)} keys of {about['bits']} bits")
    return DecentralizedCodec(modality, generator, keys, latents, about)
