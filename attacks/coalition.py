"""Attacks of several users who put their decoders together, entry by entry of their effective weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from attacks import coalition_content
from attacks.coalition_entries import check_team, entrywise, median, merged, picked
from attacks.grids import Card, Grid, weights_family
from attacks.limits import check_strength
from bench.protocol import Attacker, Target, UserError


@dataclass(frozen=True)
class AverageWeights:
    """Take the mean of all users' effective weights, other parameters and running statistics, in float32.

    The model collusion of "Efficient, Robust, and Anti-Collusion Fingerprinting of Image Diffusion Models", 2026,
    arXiv:2606.12977; averaged networks of one origin still work: Wortsman et al., "Model soups", ICML 2022,
    arXiv:2203.05482.

    Attributes:
        users: how many collude, at least 2.
    """

    users: int = 3
    target: ClassVar[Target] = "coalition"

    def __post_init__(self) -> None:
        check_strength(self, 2)

    def __call__(self, decoders: Sequence[nn.Module], rng: Generator) -> nn.Module:
        """The averaged decoder.

        Raises:
            ValueError: when the decoders are not ``users`` many, or differ in their state-dict keys.
        """
        return merged(decoders, self.users, lambda entries: entries.mean(0))


@dataclass(frozen=True)
class MedianWeights:
    """Take the median of all users' values of every parameter; of an even number, the mean of the middle two.

    Median collusion of media fingerprints (Wu et al., "Collusion-Resistant Fingerprinting for Multimedia", IEEE Signal
    Processing Magazine 2004), on weights. Of two users it is their average.

    Attributes:
        users: how many collude, at least 2.
    """

    users: int = 3
    target: ClassVar[Target] = "coalition"

    def __post_init__(self) -> None:
        check_strength(self, 2)

    def __call__(self, decoders: Sequence[nn.Module], rng: Generator) -> nn.Module:
        """The merged decoder.

        Raises:
            ValueError: when the decoders are not ``users`` many, or differ in their state-dict keys.
        """
        return merged(decoders, self.users, median)


@dataclass(frozen=True)
class MinimumWeights:
    """Take the least of all users' values of every parameter: Wu et al. 2004, as for :class:`MedianWeights`.

    Attributes:
        users: how many collude, at least 2.
    """

    users: int = 3
    target: ClassVar[Target] = "coalition"

    def __post_init__(self) -> None:
        check_strength(self, 2)

    def __call__(self, decoders: Sequence[nn.Module], rng: Generator) -> nn.Module:
        """The merged decoder.

        Raises:
            ValueError: when the decoders are not ``users`` many, or differ in their state-dict keys.
        """
        return merged(decoders, self.users, lambda entries: entries.amin(0))


@dataclass(frozen=True)
class MaximumWeights:
    """Take the greatest of all users' values of every parameter: Wu et al. 2004, as for :class:`MedianWeights`.

    Attributes:
        users: how many collude, at least 2.
    """

    users: int = 3
    target: ClassVar[Target] = "coalition"

    def __post_init__(self) -> None:
        check_strength(self, 2)

    def __call__(self, decoders: Sequence[nn.Module], rng: Generator) -> nn.Module:
        """The merged decoder.

        Raises:
            ValueError: when the decoders are not ``users`` many, or differ in their state-dict keys.
        """
        return merged(decoders, self.users, lambda entries: entries.amax(0))


@dataclass(frozen=True)
class MixedParameters:
    """Take every single parameter from one user, whichever chance picks: cut and paste of media, on weights.

    Attributes:
        users: how many collude, at least 2.
    """

    users: int = 3
    target: ClassVar[Target] = "coalition"

    def __post_init__(self) -> None:
        check_strength(self, 2)

    def __call__(self, decoders: Sequence[nn.Module], rng: Generator) -> nn.Module:
        """The mixed decoder.

        Raises:
            ValueError: when the decoders are not ``users`` many, or differ in their state-dict keys.
        """
        return merged(decoders, self.users, lambda entries: picked(entries, entries[0].shape, rng))


@dataclass(frozen=True)
class MixedLayers:
    """Take every tensor whole from one user, whichever chance picks.

    Attributes:
        users: how many collude, at least 2.
    """

    users: int = 3
    target: ClassVar[Target] = "coalition"

    def __post_init__(self) -> None:
        check_strength(self, 2)

    def __call__(self, decoders: Sequence[nn.Module], rng: Generator) -> nn.Module:
        """The mixed decoder.

        Raises:
            ValueError: when the decoders are not ``users`` many, or differ in their state-dict keys.
        """
        return merged(decoders, self.users, lambda entries: picked(entries, (), rng))


@dataclass(frozen=True)
class ExtrapolatedWeights:
    """Start at the first user's decoder, go to the mean of the others, and on beyond it.

    What tells the first user from the others is negated, as task arithmetic does it: Ilharco et al., "Editing Models
    with Task Arithmetic", ICLR 2023, arXiv:2212.04089.

    Attributes:
        users: how many collude, at least 2.
        factor: how far, in distances between the first and the others' mean; 1 is there.
    """

    users: int = 3
    factor: float = 1.5
    target: ClassVar[Target] = "coalition"

    def __post_init__(self) -> None:
        check_strength(self, 2)

    def __call__(self, decoders: Sequence[nn.Module], rng: Generator) -> nn.Module:
        """The extrapolated decoder.

        Raises:
            ValueError: when the decoders are not ``users`` many, or differ in their state-dict keys.
        """
        return merged(decoders, self.users, lambda entries: entries[0].lerp(entries[1:].mean(0), self.factor))


@dataclass(frozen=True)
class TIESMerge:
    """Merge the members' changes of the public decoder: trim each, elect a sign for every entry, average who agrees.

    Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023, arXiv:2306.01708, algorithm
    1, with λ = 1, tensor by tensor. The public decoder is the common origin.

    Attributes:
        users: how many collude, at least 2.
        keep_ratio: share of each member's entries that is kept, the largest changes; the paper's top 20 %.
    """

    users: int = 3
    keep_ratio: float = 0.2
    target: ClassVar[Target] = "coalition"

    def __post_init__(self) -> None:
        check_strength(self, 2)
        if not 0 < self.keep_ratio <= 1:
            raise UserError(f"{self!r}: expected a share of entries in (0, 1], found {self.keep_ratio:g}")

    def merge(self, decoders: Sequence[nn.Module], attacker: Attacker, rng: Generator) -> nn.Module:
        """The merged decoder.

        Raises:
            ValueError: when the decoders are not ``users`` many, or differ in their state-dict keys.
        """
        check_team(decoders, self.users)
        return entrywise(decoders[0], [attacker.public_decoder, *decoders], self._merged_entries)

    def _merged_entries(self, entries: Tensor) -> Tensor:
        origin, changes = entries[0], entries[1:] - entries[0]
        sizes = changes.abs().flatten(1)  # (users, entries)
        kept = max(1, round(self.keep_ratio * sizes.shape[1]))
        least = sizes.kthvalue(sizes.shape[1] - kept + 1, dim=1).values
        trimmed = torch.where(changes.abs() >= least.view(-1, *[1] * origin.ndim), changes, 0)
        sign = trimmed.sum(0).sign()  # of the larger total movement
        agree = (trimmed.sign() == sign) & (trimmed != 0)
        return origin + torch.where(agree, trimmed, 0).sum(0) / agree.sum(0).clamp_min(1)


OTHERS = "other users' decoders"
PUBLIC = f"{OTHERS} and the public one"
USERS = Grid((2, 3, 5, 10), 1, "users")
WU = "Wu et al. 2004, on weights"

FAMILIES = (
    weights_family(
        "average-weights",
        lambda s: AverageWeights(int(s)),
        USERS,
        Card("Users average their decoders.", "arXiv:2606.12977; Wortsman et al. 2022, arXiv:2203.05482", OTHERS),
    ),
    weights_family(
        "median-weights",
        lambda s: MedianWeights(int(s)),
        USERS,
        Card("Users take the median of their decoders.", WU, OTHERS),
        standard=(5,),
    ),
    weights_family(
        "minimum-weights",
        lambda s: MinimumWeights(int(s)),
        USERS,
        Card("Users take the least value of every parameter.", WU, OTHERS),
        standard=(),
    ),
    weights_family(
        "maximum-weights",
        lambda s: MaximumWeights(int(s)),
        USERS,
        Card("Users take the greatest value of every parameter.", WU, OTHERS),
        standard=(),
    ),
    weights_family(
        "mixed-parameters",
        lambda s: MixedParameters(int(s)),
        USERS,
        Card("Users take every parameter from one of them at random.", WU, OTHERS),
        standard=(3,),
    ),
    weights_family(
        "mixed-layers",
        lambda s: MixedLayers(int(s)),
        USERS,
        Card("Users take every tensor from one of them at random.", "own", OTHERS),
        standard=(3,),
    ),
    weights_family(
        "extrapolated-weights",
        lambda s: ExtrapolatedWeights(int(s)),
        USERS,
        Card("One user goes past the others' mean, away from the own fingerprint.", "arXiv:2212.04089", OTHERS),
        standard=(2, 3),
    ),
    weights_family(
        "ties-merge",
        lambda s: TIESMerge(int(s)),
        USERS,
        Card("Users merge their changes of the public decoder.", "Yadav et al. 2023, arXiv:2306.01708", PUBLIC),
        standard=(3,),
    ),
    *coalition_content.FAMILIES,
)
