"""Attacks of several users who decode the same latents, each with the own decoder, and mix what comes out.

What :class:`attacks.coalition.AverageWeights` does to weights, Wu et al., "Collusion-Resistant Fingerprinting for
Multimedia", IEEE Signal Processing Magazine 2004, do to published items. Content is uint8 images (B, C, H, W) or clips,
aligned sample by sample; meshes of different topology are not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from attacks.grids import Card, Grid, weights_family
from attacks.limits import check_strength
from bench.protocol import AttackFamily, Clips, Content, Target, UserError


@dataclass(frozen=True)
class OutputAverage:
    """Average the members' versions of each item, rounded to the nearest value of the format.

    Attributes:
        users: how many collude, at least 2.
    """

    users: int = 3
    target: ClassVar[Target] = "coalition"

    def __post_init__(self) -> None:
        check_strength(self, 2)

    def mix(self, contents: Sequence[Content], rng: Generator) -> Content:
        """The averaged content.

        Raises:
            UserError: when the contents are not ``users`` many, or not aligned images or clips.
        """
        return _like(contents[0], _stacked(self, contents, self.users).mean(0))


@dataclass(frozen=True)
class OutputMedian:
    """Take the median of the members' versions of every sample; of an even number, the mean of the middle two.

    Attributes:
        users: how many collude, at least 2.
    """

    users: int = 3
    target: ClassVar[Target] = "coalition"

    def __post_init__(self) -> None:
        check_strength(self, 2)

    def mix(self, contents: Sequence[Content], rng: Generator) -> Content:
        """The median content.

        Raises:
            UserError: when the contents are not ``users`` many, or not aligned images or clips.
        """
        ordered = _stacked(self, contents, self.users).sort(0).values
        middle = (self.users - 1) // 2
        return _like(contents[0], (ordered[middle] + ordered[self.users - 1 - middle]) / 2)


@dataclass(frozen=True)
class OutputMidrange:
    """Take half the sum of the least and the greatest of the members' versions of every sample.

    The min-max attack among the nonlinear ones of the same authors.

    Attributes:
        users: how many collude, at least 2.
    """

    users: int = 3
    target: ClassVar[Target] = "coalition"

    def __post_init__(self) -> None:
        check_strength(self, 2)

    def mix(self, contents: Sequence[Content], rng: Generator) -> Content:
        """The content half-way between both extremes.

        Raises:
            UserError: when the contents are not ``users`` many, or not aligned images or clips.
        """
        stacked = _stacked(self, contents, self.users)
        return _like(contents[0], (stacked.amin(0) + stacked.amax(0)) / 2)


@dataclass(frozen=True)
class OutputMosaic:
    """Cut and paste: take every block of each item from one member, whichever chance picks.

    Attributes:
        users: how many collude, at least 2.
        blocks: along each axis of space or time.
    """

    users: int = 3
    blocks: int = 8
    target: ClassVar[Target] = "coalition"

    def __post_init__(self) -> None:
        check_strength(self, 2)

    def mix(self, contents: Sequence[Content], rng: Generator) -> Content:
        """The pasted content.

        Raises:
            UserError: when the contents are not ``users`` many, or not aligned images or clips.
        """
        stacked = _stacked(self, contents, self.users)  # (users, B, C, ...)
        batch, _, *space = stacked.shape[1:]
        grid = [min(self.blocks, size) for size in space]
        chosen = torch.randint(self.users, (batch, 1, *grid), generator=rng, device=rng.device).to(stacked.device)
        for axis, (size, cells) in enumerate(zip(space, grid, strict=True), start=2):
            chosen = chosen.index_select(axis, torch.arange(size, device=chosen.device) * cells // size)
        return _like(contents[0], stacked.gather(0, chosen.expand(stacked.shape[1:])[None])[0])


def _stacked(attack: Any, contents: Sequence[Content], users: int) -> Tensor:
    """Float32 samples (users, B, C, ...)."""
    if len(contents) != users:
        raise UserError(f"{attack!r}: expected the content of {users} users, found that of {len(contents)}")
    samples = [content.samples if isinstance(content, Clips) else content for content in contents]
    if not all(isinstance(each, Tensor) for each in samples):
        raise UserError(f"{attack!r}: expected images or clips, found {type(samples[0]).__name__}, which do not align")
    if odd := {tuple(each.shape) for each in samples} - {tuple(samples[0].shape)}:
        raise UserError(f"{attack!r}: expected content of one shape {tuple(samples[0].shape)}, found {min(odd)}, too")
    return torch.stack([each.float() for each in samples])


def _like(content: Content, samples: Tensor) -> Content:
    """``samples``, in the range of the format's integers, in the format of ``content``."""
    if isinstance(content, Clips):
        return Clips(samples.round().to(content.samples.dtype), content.rate_hz)
    return samples.round().to(content.dtype)


def _families(modality: str, standard: Mapping[str, tuple[float, ...]]) -> tuple[AttackFamily, ...]:
    """The four mixtures for one modality, and the users of each in suite ``standard``."""
    grid, needs = Grid((2, 3, 5, 10), 1, "users"), "other users' decoders"
    kinds = (
        ("average", OutputAverage, "Users average what their decoders make of the same latents."),
        ("median", OutputMedian, "Users take the median of what their decoders make of the same latents."),
        ("midrange", OutputMidrange, "Users take the middle of the extremes of what their decoders make."),
        ("mosaic", OutputMosaic, "Users paste each item together from blocks of all of their versions."),
    )
    return tuple(
        dataclasses.replace(
            weights_family(
                f"{modality}-output-{name}",
                lambda s, make=kind: make(int(s)),  # type: ignore[misc]
                grid,
                Card(does, "Wu et al. 2004", needs),
                standard=standard.get(name, ()),
            ),
            modality=modality,
        )
        for name, kind, does in kinds
    )


# Every user's content has to be decoded, which takes long in audio.
FAMILIES = (
    *_families("image", {"average": (2, 5), "mosaic": (3,)}),
    *_families("audio", {"average": (2,)}),
)
