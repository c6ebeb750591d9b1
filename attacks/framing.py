"""Attacks that make an innocent user the suspect."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, nn

from attacks.grids import Card, Grid, weights_family
from attacks.limits import check_strength
from attacks.model_training import fitted, outputs_of
from bench.protocol import Attacker, Target


@dataclass(frozen=True)
class Imitation:
    """Train the public decoder to put out what the victim publishes, so that its content is traced to the victim.

    The forger never holds the victim's decoder: it asks the victim's service for content of prompts and seeds of its
    own, whose latents the public generator gives it. The transfer of Yu et al., "Artificial Fingerprinting for
    Generative Models", ICCV 2021, arXiv:2007.08457, from training content to what is trained on it, turned against a
    user. The victim's fields are taken unrounded, in the forger's favour.

    Attributes:
        items: items of the victim that the forger has.
        steps: steps of Adam.
        rate: its learning rate.
        batch: items per step, drawn with replacement.
    """

    items: int = 64
    steps: int = 300
    rate: float = 1e-4
    batch: int = 16
    target: ClassVar[Target] = "framing"

    def __post_init__(self) -> None:
        check_strength(self, 1)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """The forger's decoder. Of ``decoder``, the victim's, only what it puts out is used."""
        seen = dataclasses.replace(attacker, latents=attacker.latents[: self.items])
        return fitted(attacker.public_decoder, seen, outputs_of(decoder, seen), self, rng)


FAMILIES = (
    weights_family(
        "imitation",
        lambda s: Imitation(int(s)),
        Grid((4, 16, 64, 256), 2, "items of the victim"),
        Card(
            "Trains the public decoder on an innocent user's items until its own content is traced to that user.",
            "Yu et al. 2021, arXiv:2007.08457",
            "the public decoder, and items of the victim with their latents",
        ),
        standard=(),
    ),
)
