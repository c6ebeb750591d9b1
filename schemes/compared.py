"""Who meets whom in the comparison of fingerprints: ways to write a code × recipes, and baselines.

All are trained to the same fidelity: the knob is the weight of the quality terms, which a controller sets in every
step until the PSNR to the public decoder's output is the budget (:class:`schemes.training.Progress`). Reader and steps
are the same for all.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from bench.protocol import Codec, Generator, Modality, Scheme
from schemes import CODES, HARDENINGS, SCHEMES
from schemes.coding import ErrorCorrected
from schemes.decentralized import DecentralizedAttribution
from schemes.hardening import Hardening
from schemes.posthoc import PostHoc
from schemes.stable_signature import StableSignature
from schemes.training import Recipe
from schemes.weight_modulation import WeightModulation

RECIPES: dict[str, Recipe] = {
    "plain": Recipe(),
    "augmented": Recipe(augment=True),
    **{name: Recipe(hardening=each) for name, each in HARDENINGS.items()},
    "noise+adaptation": Recipe(hardening=Hardening(weight_noise=0.2, adaptation=1000)),
}


@dataclass(frozen=True)
class Entry:
    """One way to write a code with several recipes.

    Attributes:
        modulation: its name among the schemes; ``amplitude`` is ``wouaf``.
        recipes: names of :data:`RECIPES`.
        bits: fingerprint length.
    """

    modulation: str
    recipes: tuple[str, ...] = ("plain", "noise", "base-noise")
    bits: int = 32


BLACK_BOX = (
    *("residual", "demodulated", "output-channel", "normalisation", "rotation", "orthogonal", "low-rank", "routed"),
    *("spread-spectrum", "dither", "frequency", "differential", "templates", "task-vectors"),
)
ENTRIES = (
    Entry("amplitude", tuple(RECIPES)),
    *(Entry(name) for name in BLACK_BOX),
    Entry("amplitude", bits=48),
    Entry("low-rank", bits=48),
    Entry("amplitude-everywhere", ("plain",)),
    Entry("low-rank-everywhere"),
    Entry("low-rank-everywhere", ("plain",), bits=48),
    Entry("function-invariant", ("plain",)),
)
BASELINES = ("hidden", "stable-signature", "decentralized", "dwt-dct", "additive", "uchida")
REPEATED = ("amplitude", "amplitude+noise")
"""Trained with several seeds, beside those that are asked for."""


class Contestant(NamedTuple):
    """One trained scheme of the comparison.

    Attributes:
        modulation: row of the heat map.
        recipe: its column.
        scheme: the description.
    """

    modulation: str
    recipe: str
    scheme: Scheme


def contestants(steps: int, pool: int, psnr_db: float) -> dict[str, Contestant]:
    """All of them by name, such as ``low-rank+noise``, trained for as long and to the same fidelity.

    Args:
        steps: of each training, at most.
        pool: latents drawn for it.
        psnr_db: fidelity asked for.
    """
    found: dict[str, Contestant] = {}
    for entry in ENTRIES:
        modulation = SCHEMES[entry.modulation.replace("amplitude", "wouaf")]
        row = entry.modulation if entry.bits == 32 else f"{entry.modulation}-{entry.bits}"
        for recipe in entry.recipes:
            scheme = dataclasses.replace(_trained(modulation), bits=entry.bits, recipe=RECIPES[recipe])
            name = row if recipe == "plain" else f"{row}+{recipe}"
            found[name] = Contestant(row, recipe, sized(scheme, steps, pool, psnr_db))
    for code in CODES:
        scheme = sized(SCHEMES[f"wouaf-{code}"], steps, pool, psnr_db)
        found[f"amplitude+{code}"] = Contestant("amplitude", code, scheme)
    for name in BASELINES:
        found[name] = Contestant(name, "plain", sized(SCHEMES[name], steps, pool, psnr_db))
    return found


def _trained(scheme: Any) -> WeightModulation:
    if not isinstance(scheme, WeightModulation):
        raise TypeError(f"expected a weight modulation, found {type(scheme).__name__}")
    return scheme


def sized(scheme: Any, steps: int, pool: int, psnr_db: float) -> Any:
    """The same scheme with other steps and pool, and asked for another fidelity, as far as it has these.

    The extractor of Stable Signature is no mark, so only its length changes; its copies' fidelity is the paper's.
    """
    if isinstance(scheme, ErrorCorrected):
        return dataclasses.replace(scheme, scheme=sized(scheme.scheme, steps, pool, psnr_db))
    if isinstance(scheme, StableSignature):
        recipe = dataclasses.replace(scheme.extractor.recipe, steps=steps, pool=pool)
        tuning = dataclasses.replace(scheme.tuning, steps=min(scheme.tuning.steps, steps))
        return dataclasses.replace(
            scheme, extractor=dataclasses.replace(scheme.extractor, recipe=recipe), tuning=tuning
        )
    if isinstance(scheme, DecentralizedAttribution):
        copies = dataclasses.replace(scheme.tuning, psnr_db=psnr_db, steps=min(scheme.tuning.steps, steps))
        return dataclasses.replace(scheme, tuning=copies, key_steps=min(scheme.key_steps, steps))
    if isinstance(scheme, PostHoc):
        return dataclasses.replace(scheme, psnr_db=psnr_db, pool=min(scheme.pool, pool))
    if isinstance(scheme, WeightModulation):
        recipe, hardening = scheme.recipe, scheme.recipe.hardening
        if hardening is not None and hardening.adaptation:
            hardening = dataclasses.replace(hardening, adaptation=max(1, steps // 10))
        recipe = dataclasses.replace(recipe, steps=steps, pool=pool, psnr_db=psnr_db, hardening=hardening)
        return dataclasses.replace(scheme, recipe=recipe)
    return scheme


def scheme_name(contestant: Contestant, *, plain: bool = True) -> str:
    """Name of the scheme with the same modulation and the plain recipe, whose codec it may go on from; or its own."""
    name = contestant.modulation.replace("amplitude", "wouaf")
    return name if plain or contestant.recipe == "plain" else f"{name}-{contestant.recipe}"


@dataclass(frozen=True)
class Kept:
    """A trained codec in place of a scheme: it is compared as it is.

    Attributes:
        name: of the scheme that it was trained by.
        start: the codec.
    """

    name: str
    start: Codec = field(repr=False)

    @property
    def bits(self) -> int:
        """Fingerprint length."""
        return self.start.bits

    def fit(self, modality: Modality, generator: Generator, rng: torch.Generator) -> Codec:
        """The codec; nothing is trained."""
        return self.start
