"""Named lists of attacks: three of our own over all families, and those of other suites with their strengths.

Where a peer's code does something else than its label says, the suite does what the label says, and ``about`` tells.
What a peer lists without any effect (a factor of 1) is left out: a run has the unattacked content anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attacks.suites_audio import AUDIO
from bench.protocol import AttackFamily

OURS = {
    "quick": "the everyday attacks at one strength each",
    "standard": "the everyday attacks at all their strengths, and the cheap ones of the others at a few",
    "all": "every attack at all its strengths",
}
"""Suites that every modality has; a family says itself which of them it is part of."""


@dataclass(frozen=True)
class Suite:
    """The list of a peer.

    Attributes:
        modality: the one it is for.
        about: whose it is, and where it differs from what their code does.
        strengths: of each family by its name, mildest first.
    """

    modality: str
    about: str
    strengths: Mapping[str, tuple[float, ...]]


FACTORS = (0.75, 0.5, 0.25, 0.1, 1.25, 1.5, 1.75, 2.0)
GRADES = (1.0, 2.0, 3.0, 4.0, 5.0)

PEERS = {
    "waves": Suite(
        "image",
        "WAVES, arXiv:2401.08573, at relative strengths 0.2 to 1; blur in its pixels of pictures of 512 x 512; one "
        "autoencoder for its two, one public network for its ResNet-18 and CLIP, no learned codec",
        {
            "rotation": (9.0, 18.0, 27.0, 36.0, 45.0),
            "crop-resize": (0.9, 0.8, 0.7, 0.6, 0.5),
            "erasing": (0.05, 0.1, 0.15, 0.2, 0.25),
            "brightness": (1.2, 1.4, 1.6, 1.8, 2.0),
            "contrast": (1.2, 1.4, 1.6, 1.8, 2.0),
            "gaussian-blur": (4.0, 8.0, 12.0, 16.0, 20.0),
            "gaussian-noise": (0.02, 0.04, 0.06, 0.08, 0.1),
            "jpeg": (74, 58, 42, 26, 10),
            "geometric-chain": GRADES,
            "photometric-chain": GRADES,
            "degradation-chain": GRADES,
            "combined-chain": GRADES,
            "regeneration": (1, 4),
            "diffusion-regeneration": (0.06,),
            "rinsing": (2, 4),
            "pgd-embedding": (2, 4, 6, 8),
            "pgd-autoencoder": (2, 4, 6, 8),
            "pgd-surrogate": (2, 4, 6, 8),
        },
    ),
    "omniseal_image": Suite(
        "image",
        "Omni Seal Bench; its proportion takes the rest from the unmarked original, which no attacker has: cropout "
        "takes it from an autoencoder; its scale of resize is one of the area, as its code has it",
        {
            "cropout": (0.5, 0.2, 0.1, 0.05),
            "collage": (0.5, 0.2, 0.1, 0.05),
            "centre-crop": (0.5, 0.2, 0.1, 0.05),
            "rotation": (5.0, 10.0, 30.0, 45.0, 90.0),
            "jpeg": (90, 80, 70, 60, 50, 40),
            "brightness": FACTORS,
            "contrast": FACTORS,
            "saturation": FACTORS,
            "sharpness": FACTORS,
            "resize": tuple(round(area**0.5, 4) for area in (0.95, 0.89, 0.84, 0.77, 0.71, 0.63, 0.55, 0.45, 0.32)),
            "text-overlay": (0.15,),
            "horizontal-flip": (1,),
            "perspective": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
            "median-filter": (3, 5, 9, 13, 17),
            "hue": (-0.1, -0.2, -0.3, -0.4, 0.1, 0.2, 0.3, 0.4, 0.5),
            "gaussian-blur": (0.8, 1.1, 1.7, 2.3, 2.9),
            "crop-brightness-jpeg": (0.5,),
        },
    ),
    "wouaf": Suite(
        "image",
        "WOUAF, arXiv:2306.04744; its crop pads and cuts, which is a shift; its brightness is the factor that it says, "
        "added or multiplied by its library's version; its blur of a cut-off kernel is the Gaussian that it amounts to",
        {
            "translation": (0.02, 0.05, 0.08, 0.1),
            "rotation": (10.0, 20.0, 30.0, -10.0, -20.0, -30.0),
            "gaussian-blur": (0.8, 1.2, 1.6),
            "brightness": (0.9, 0.8, 0.7, 1.1, 1.2, 1.3),
            "gaussian-noise": (0.05, 0.1, 0.15, 0.2),
            "erasing": (0.05, 0.1, 0.15, 0.2),
            "jpeg": (90, 80, 70, 60, 50),
            "wouaf-chain": GRADES,
            "neural-codec": (6, 5, 4, 3, 2, 1),
        },
    ),
    "stable_signature": Suite(
        "image",
        "Stable Signature, arXiv:2303.15435; its resize_07 resizes to 0.5 in the code and to 0.7 of the area here",
        {
            "centre-crop": (0.5, 0.1),
            "rotation": (25.0, 90.0),
            "jpeg": (80, 50),
            "brightness": (1.5, 2.0),
            "contrast": (1.5, 2.0),
            "saturation": (1.5, 2.0),
            "sharpness": (1.5, 2.0),
            "resize": (round(0.7**0.5, 4), round(0.1**0.5, 4)),
            "text-overlay": (0.15,),
            "crop-brightness-jpeg": (0.5,),
        },
    ),
    **{name: Suite("audio", *entry) for name, entry in AUDIO.items()},
}


def strengths_in(name: str, modality: str, families: Mapping[str, AttackFamily]) -> dict[str, tuple[float, ...]]:
    """Strengths of each family that a suite has for a modality.

    Args:
        name: of ``OURS`` or ``PEERS``.
        modality: of the run; a peer's suite is empty for any other than its own.
        families: those of the modality by name.
    """
    if name in PEERS:
        return dict(PEERS[name].strengths) if PEERS[name].modality == modality else {}
    if name == "all":
        return {key: family.strengths for key, family in families.items()}
    part = {key: family for key, family in families.items() if name in family.suites}
    if name == "standard":
        return {key: family.standard or family.strengths for key, family in part.items()}
    return {key: (family.strengths[family.quick],) for key, family in part.items()}
