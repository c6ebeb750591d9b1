"""The contracts of GenPrint, structural: an outside class that has these members works, importing nothing of ours.

The way of the data::

    prompts -> latents() -> latents -> decode(decoder_u) -> field -> release() -> content -> attack -> content'
    content' -> observe() -> tensor -> read() -> soft bits

A *field* is what a decoder puts out, differentiable. *Content* is what a user would publish: a uint8 RGB batch,
:class:`Clips`, a list of :class:`Mesh`. It always supports ``len`` and slicing. A *tensor* is what readers see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bench.content import Clips as Clips
from bench.content import Mesh as Mesh

Content = Any
"""A batch of published items: uint8 tensor (B, 3, H, W), :class:`Clips`, or a list of :class:`Mesh`."""

Target = Literal["none", "content", "model", "coalition", "framing"]


class UserError(ValueError):
    """Something the user gave does not work; one line names it, what was expected and what was found."""


@runtime_checkable
class Generator(Protocol):
    """A generative model, split where the fingerprint goes."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def decoder(self) -> nn.Module:
        """The public decoder: frozen, in eval mode, never changed in place."""

    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """Sample one latent per prompt, (B, ...) float32; depends on the prompts and ``rng`` only."""

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        """Field of each latent; differentiable in the decoder's weights and the latents."""

    def training_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """``n`` latents for fitting a codec, disjoint from the benchmark's prompts."""

    def public_pairs(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents and the real fields they encode, as anyone with the public encoder can make them."""


@runtime_checkable
class Modality(Protocol):
    """What an item is, where real ones come from, and how fidelity is judged.

    Two more members are optional and give runs a comparison sheet: ``picture(content) -> Tensor``, how items look,
    uint8 (B, 3, H, W), and ``difference(a, b) -> (str, Content)``, the name and content of what sets b apart from a.
    With ``opinion(a, b) -> Tensor``, (B,) predicted opinion scores, runs of the full grid judge one item of each user
    and name the score by ``opinion_metric``.
    """

    @property
    def name(self) -> str:
        """``image``, ``audio`` or ``3d``."""

    @property
    def quality_metric(self) -> str:
        """Column name of the Fréchet distance, naming its features: ``fd_mobilenetv2``."""

    @property
    def paired_metric(self) -> str:
        """The key of :meth:`paired` that heads the leaderboard: ``psnr``; higher is better."""

    def generator(self, spec: str | None) -> Generator:
        """The embedded generator (None), or one loaded from a hub id or a local folder."""

    def prompts(self, n: int, rng: torch.Generator) -> list[str]:
        """``n`` held-out prompts."""

    def release(self, field: Tensor) -> Content:
        """What a user would publish."""

    def soft_release(self, field: Tensor) -> Tensor:
        """The value of ``observe(release(field))`` with a gradient (straight-through).

        Descent must not push further out what release clips: see :func:`bench.bounds.bounded`.
        """

    def observe(self, content: Content) -> Tensor:
        """The tensor that readers see."""

    def augment(self, tensor: Tensor, rng: torch.Generator) -> Tensor:
        """A random, differentiable distortion of observed tensors, for training readers."""

    def check(self, content: Content) -> None:
        """Raise ``UserError`` unless ``content`` is valid."""

    def reference(self, n: int | None = None) -> Content:
        """Real held-out content; all of it when ``n`` is None."""

    def features(self, content: Content) -> Tensor:
        """Features (B, d), or (B, frames, d) with frames pooled, float32, for Fréchet and kernel distances."""

    def paired(self, a: Content, b: Content) -> dict[str, Tensor]:
        """Fidelity of each pair (a is the original), name to (B,) float32."""

    def perceptual_loss(self, a: Tensor, b: Tensor) -> Tensor:
        """Differentiable perceptual distance (B,) of observed tensors."""

    def save(self, content: Content, path: Path) -> None:
        """Write one item (a batch of one) in the format of the path's suffix."""

    def load(self, path: Path) -> Content:
        """Read one item as a batch of one; ``UserError`` when it is not valid."""


@runtime_checkable
class Codec(Protocol):
    """A trained fingerprint: writes codes into decoders and reads soft bits from content.

    ``rival``, optional, is a codec of the same scheme that an attacker fitted with an own key, or None.
    """

    @property
    def bits(self) -> int:
        """Fingerprint length."""

    @property
    def removable(self) -> bool:
        """True when a user who holds the model can drop the stage that marks."""

    def modulate(self, decoder: nn.Module, fingerprint: Tensor) -> nn.Module:
        """A copy of ``decoder`` carrying ``fingerprint`` ((bits,), values in {0, 1}), with the same state-dict keys."""

    def read(self, tensor: Tensor) -> Tensor:
        """Soft bits (B, bits) of observed tensors; positive means 1."""

    def save(self, path: Path) -> None:
        """Write safetensors, atomically."""


@runtime_checkable
class Scheme(Protocol):
    """A description of a fingerprint; fitting returns a :class:`Codec`."""

    @property
    def bits(self) -> int:
        """Fingerprint length."""

    def fit(self, modality: Modality, generator: Generator, rng: torch.Generator) -> Codec:
        """Train a codec for one generator."""


@dataclass(frozen=True)
class Attacker:
    """What the adversary of a model attack holds beside the decoder under attack.

    Attributes:
        public_decoder: the unfingerprinted decoder.
        latents: latents of clean content, (B, ...).
        fields: the clean content that those latents encode, in the range that ``decode`` puts out.
        decode: the generator's decode function.
        perceptual_loss: the modality's perceptual distance.
        vocoder: another public vocoder for the spectrograms of an audio decoder that ends in one, or None.
        rival: a codec of the scheme under attack that the attacker fitted with an own key, or None.
    """

    public_decoder: nn.Module
    latents: Tensor
    fields: Tensor
    decode: Callable[[nn.Module, Tensor], Tensor]
    perceptual_loss: Callable[[Tensor, Tensor], Tensor]
    vocoder: nn.Module | None = None
    rival: Codec | None = None


@runtime_checkable
class ContentAttack(Protocol):
    """Changes published content. A frozen dataclass; its first field is its strength, its class name its name."""

    target: ClassVar[Target]  # "content"

    def __call__(self, content: Content, rng: torch.Generator) -> Content:
        """Attacked content of the same length; the input is left as it is."""


@runtime_checkable
class ModelAttack(Protocol):
    """Changes one user's decoder, on its effective weights (``bench.weights``).

    With the target ``framing`` it makes a decoder whose content is to be traced to that user, from its output only.
    """

    target: ClassVar[Target]  # "model" or "framing"

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: torch.Generator) -> nn.Module:
        """An attacked copy."""


@runtime_checkable
class CoalitionAttack(Protocol):
    """Merges the decoders of several users into one."""

    target: ClassVar[Target]  # "coalition"

    @property
    def users(self) -> int:
        """How many decoders it merges."""

    def __call__(self, decoders: Sequence[nn.Module], rng: torch.Generator) -> nn.Module:
        """The merged decoder."""


Attack = ContentAttack | ModelAttack | CoalitionAttack


@dataclass(frozen=True)
class AttackFamily:
    """An attack with its strength grid, as the command line lists it.

    Attributes:
        name: command-line name, kebab-case.
        modality: modality it applies to, or ``any``.
        target: what it acts on.
        make: makes the attack from one strength; ignores it when the attack has none.
        strengths: grid, mildest first.
        quick: index into ``strengths`` of the one that the quick preset uses.
        unit: unit of the strength.
        source: paper or suite that the attack and its grid come from.
        requires: importable module of an optional dependency, or None.
        card: one line: what somebody who attacks this way does.
        needs: what that takes beside the published file or the decoder itself.
        suites: which of the suites ``quick`` and ``standard`` it is part of; every family is part of ``all``.
        standard: strengths that suite ``standard`` takes; empty means the whole grid.
        missing: says in one line what else the attack lacks on this machine and how to get it, such as weights; None
            when it lacks nothing.
    """

    name: str
    modality: str
    target: Target
    make: Callable[[float], Attack]
    strengths: tuple[float, ...]
    quick: int
    unit: str
    source: str
    requires: str | None = None
    card: str = ""
    needs: str = "nothing else"
    suites: tuple[str, ...] = ("quick", "standard")
    standard: tuple[float, ...] = ()
    missing: Callable[[], str | None] | None = None

    def severity(self, level: int) -> float:
        """Strength of a severity from 1, the mildest of the grid, to 5, its strongest."""
        if not 1 <= level <= 5:
            raise UserError(f"severity: expected 1 to 5, found {level}")
        return self.strengths[round((level - 1) / 4 * (len(self.strengths) - 1))]
