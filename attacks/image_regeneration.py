"""Image attacks that let a diffusion model paint the picture anew: regeneration and rinsing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Generator, Tensor

from attacks.grids import Card, Grid, image_family
from attacks.image_pixels import to_bytes, to_unit
from attacks.limits import check_strength
from attacks.tools import Tools
from bench.protocol import AttackFamily, Target
from bench.rng import child

WAVES = "WAVES, arXiv:2401.08573"
NEEDS = "a diffusion generator that can start from a noisy picture (regenerate)"
Regenerate = Callable[[Tensor, float, Generator], Tensor]


@dataclass(frozen=True)
class DiffusionRegeneration:
    """Add noise to the picture's latent and let a diffusion model, which knows no fingerprint, remove it.

    Zhao et al., "Invisible Image Watermarks Are Provably Removable Using Generative AI", NeurIPS 2024,
    arXiv:2306.01953, algorithm 1, without a prompt.

    Attributes:
        share: steps of the noise schedule that are added and taken away, as a share of all; 0.06 is WAVES' 60 of 1000.
        regenerate: see :class:`attacks.tools.Tools`.
    """

    share: float
    regenerate: Regenerate = field(repr=False, compare=False)
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1e-3, 0.99)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, painted anew."""
        return _painted(content, self.share, self.regenerate, rng)


@dataclass(frozen=True)
class Rinsing:
    """Regenerate several times over, each time from the published (8-bit) picture of the last.

    An et al., "WAVES", ICML 2024, arXiv:2401.08573: 2 and 4 times.

    Attributes:
        passes: how often.
        regenerate: see :class:`attacks.tools.Tools`.
        share: see :class:`DiffusionRegeneration`.
    """

    passes: int
    regenerate: Regenerate = field(repr=False, compare=False)
    share: float = 0.06
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, painted anew ``passes`` times."""
        for index in range(self.passes):
            content = _painted(content, self.share, self.regenerate, child(rng, "pass", index))
        return content


@torch.no_grad()
def _painted(content: Tensor, share: float, regenerate: Regenerate, rng: Generator) -> Tensor:
    painted = regenerate(to_unit(content), share, rng)
    if painted.shape != content.shape:
        raise ValueError(f"regenerated images {tuple(painted.shape)}, expected {tuple(content.shape)}")
    return to_bytes(painted.float()).to(content.device)


def tool_families(tools: Tools) -> tuple[AttackFamily, ...]:
    """Both, where there is a diffusion generator."""
    regenerate = tools.regenerate
    if regenerate is None:
        return ()
    return (
        image_family(
            "diffusion-regeneration",
            lambda s: DiffusionRegeneration(s, regenerate),
            Grid((0.02, 0.06, 0.12, 0.2, 0.3), 1, "share of the steps"),
            Card("Adds noise and lets a public diffusion model paint the picture anew.", f"{WAVES}; W-Bench", NEEDS),
            standard=(),
        ),
        image_family(
            "rinsing",
            lambda s: Rinsing(int(s), regenerate),
            Grid((1, 2, 3, 4), 1, "passes at share 0.06"),
            Card("Lets a public diffusion model paint the picture anew, again and again.", WAVES, NEEDS),
            standard=(),
        ),
    )
