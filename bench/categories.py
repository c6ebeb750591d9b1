"""What kind of attack an attack is: the headings of the pages of attacks, and the columns of the heat map."""

from __future__ import annotations

from collections.abc import Iterable

from bench.naming import attack_name

OTHER = "other"

GROUPS = {
    "codec formats neural_codec telephone": "compression",
    "noise background loss": "noise and loss",
    "filter sharpness equaliser": "filters",
    "colour tone level dynamics shape pcm": "colour and level",
    "geometry warp time": "geometry and time",
    "overlay replaced": "overlays and cut-outs",
    "room air camera": "rooms and cameras",
    "shape3d_vertices shape3d_noise": "noise and smoothing",
    "shape3d_remesh shape3d_subdivision shape3d_flips": "remeshing",
    "shape3d_solid shape3d_poisson shape3d_views": "reconstruction",
    "shape3d_pose": "pose and proportions",
    "shape3d_cutting": "cutting",
    "shape3d_colour shape3d_texture": "colours",
    "shape3d_files shape3d_gltf": "files",
    "denoise": "denoising",
    "chain": "chains",
    "regeneration resynthesis lpc neural": "regeneration",
    "adversarial square forgery": "adversaries",
    "model_noise": "noise on weights",
    "precision pruning": "compression of weights",
    "training lora overwrite": "training",
    "structure invariance": "structure",
    "coalition coalition_content": "coalitions",
    "framing": "framing",
}
"""Categories by the files that attacks stand in, where an attack does not name its own."""
GROUP_OF = {stem: title for stems, title in GROUPS.items() for stem in stems.split()}


def category_of(attack: object) -> str:
    """Category of an attack: its own ``category``, or that of the file it stands in; ``other`` for outside code."""
    own = str(getattr(attack, "category", ""))
    package, _, module = type(attack).__module__.rpartition(".")
    if own or package != "attacks":
        return own or OTHER
    stem = module if module in GROUP_OF else module.partition("_")[2]
    return GROUP_OF.get(stem, stem.replace("_", " "))


def categories(attacks: Iterable[object]) -> dict[str, str]:
    """Category of each attack by the name that tables use."""
    return {attack_name(attack): category_of(attack) for attack in attacks}


def listed(modality: str) -> dict[str, str]:
    """Categories of all attacks in the phone book that apply to a modality, for runs that did not write them down."""
    from attacks import LISTED, families_for  # only where asked: networks take seconds to import

    return categories(family.make(family.strengths[0]) for family in families_for(modality, LISTED).values())
