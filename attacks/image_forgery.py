"""Image attacks with the residual of collected pictures: pasted on others it frames, subtracted it removes.

Yang et al., "Can Simple Averaging Defeat Modern Watermarks?", NeurIPS 2024, arXiv:2406.09026: what fingerprinted
pictures have in common, and clean ones have not, is close to the fingerprint when the fingerprint depends little on
the content.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Generator, Tensor
from torch.nn import functional as F

from attacks.grids import Card, Grid, image_family
from attacks.image_pixels import to_bytes, to_unit
from attacks.limits import check_strength
from attacks.tools import Access
from bench.protocol import Target, UserError

AVERAGING = "Yang et al. 2024, arXiv:2406.09026"


@dataclass(frozen=True)
class CopyForgery:
    """Add a third user's residual: on clean content it frames that user, who made nothing of it.

    The attacker has that user's published pictures only, and compares their mean with that of other, clean ones.

    Attributes:
        gain: factor of the residual.
        items: pictures of that user, and clean ones, that the attacker collects.
        residual: (3, H, W), in [-1, 1]; held by an armed copy.
    """

    gain: float = 1.0
    items: int = 128
    residual: Tensor | None = field(default=None, repr=False, compare=False)
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def armed(self, access: Access, rng: Generator) -> CopyForgery:
        """The same attack with the residual of collected pictures."""
        return replace(self, residual=residual_of(access.published(self.items), access.clean(self.items)))

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 with the residual on them."""
        return _added(content, self.residual, self.gain, self)


@dataclass(frozen=True)
class ResidualRemoval:
    """Subtract the attacker's own residual, or what all copies of one scheme have in common.

    The attacker makes the same pictures with an own copy and with the public generator.

    Attributes:
        gain: factor of the residual.
        items: pictures that the attacker makes with either.
        residual: (3, H, W), in [-1, 1]; held by an armed copy.
    """

    gain: float = 1.0
    items: int = 128
    residual: Tensor | None = field(default=None, repr=False, compare=False)
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def armed(self, access: Access, rng: Generator) -> ResidualRemoval:
        """The same attack with the residual of collected pictures."""
        return replace(self, residual=residual_of(access.owned(self.items), access.clean(self.items)))

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 without the residual."""
        return _added(content, self.residual, -self.gain, self)


def residual_of(marked: Tensor, clean: Tensor) -> Tensor:
    """Mean of marked minus mean of clean pictures (n, 3, H, W) uint8, in [-1, 1], (3, H, W)."""
    return to_unit(marked).mean(0) - to_unit(clean).mean(0)


def _added(content: Tensor, residual: Tensor | None, gain: float, attack: CopyForgery | ResidualRemoval) -> Tensor:
    if residual is None:
        raise UserError(f"{attack!r}: expected the residual of the scheme's pictures, found none; see `armed`")
    fitted = residual[None].to(content.device)
    if fitted.shape[-2:] != content.shape[-2:]:
        fitted = F.interpolate(fitted, content.shape[-2:], mode="bicubic", antialias=True)
    return to_bytes(to_unit(content) + gain * fitted)


GRID = Grid((0.5, 1.0, 2.0, 4.0), 1, "factor of the residual")
FAMILIES = (
    image_family(
        "copy-forgery",
        CopyForgery,
        GRID,
        Card(
            "Puts what a user's pictures have in common on others, to frame that user.",
            AVERAGING,
            "128 published pictures",
        ),
        standard=(),
    ),
    image_family(
        "residual-removal",
        ResidualRemoval,
        GRID,
        Card(
            "Subtracts what fingerprinted pictures have in common.", AVERAGING, "an own copy and the public generator"
        ),
        standard=(),
    ),
)
