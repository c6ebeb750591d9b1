"""Fingerprint schemes by command-line name, and where their trained codecs live."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from bench.folders import cache_folder
from bench.protocol import Codec, Generator, Modality, Scheme
from schemes import decentralized, files, posthoc, stable_signature, uchida, weight_modulation
from schemes.coding import BCH, ErrorCorrected, Repetition, corrected
from schemes.decentralized import DecentralizedAttribution, KeyTuning
from schemes.encoder import HiDDeN
from schemes.files import Binder, decoder_digest, fits
from schemes.hardening import Hardening
from schemes.modulations import MODULATIONS, Amplitude
from schemes.modulations.low_rank import LowRank
from schemes.posthoc import Additive, HaarCosine, PostHoc
from schemes.stable_signature import StableSignature
from schemes.training import Recipe
from schemes.uchida import Uchida
from schemes.weight_modulation import WeightModulation

__all__ = ["HARDENINGS", "SCHEMES", "codec_path", "find_codec", "load_codec"]

WOUAF = WeightModulation(Amplitude())

HARDENINGS = {
    "noise": Hardening(weight_noise=0.2),
    "base-noise": Hardening(base_noise=0.4),
    "sharpness": Hardening(sharpness=0.05),
    "purification": Hardening(purification=2),
    "unrolled": Hardening(purification=1, unrolled=True),
    "path": Hardening(path=0.3),
    "quantisation": Hardening(quantisation=4, pruning=0.5),
    "adaptation": Hardening(adaptation=1000),
    "attacks": Hardening(attacks=True),
}
"""Recipes by name, each one switch of :class:`Hardening`; quantisation and pruning share one."""

CODES: dict[str, BCH | Repetition] = {"bch": BCH(), "repetition": Repetition()}
"""Error-correcting codes by name."""


def kebab(name: str) -> str:
    """Command-line name of a class."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


SCHEMES: dict[str, Scheme] = {
    "wouaf": WOUAF,
    "wouaf-augmented": WeightModulation(Amplitude(), recipe=Recipe(augment=True)),
    **{kebab(name): WeightModulation(kind()) for name, kind in MODULATIONS.items() if kind is not Amplitude},
    "wouaf-48": replace(WOUAF, bits=48),
    "low-rank-48": WeightModulation(LowRank(), bits=48),
    "wouaf-everywhere": WeightModulation(Amplitude(everywhere=True)),
    "low-rank-everywhere": WeightModulation(LowRank(everywhere=True)),
    "low-rank-everywhere-48": WeightModulation(LowRank(everywhere=True), bits=48),
    "low-rank-everywhere-base-noise": WeightModulation(
        LowRank(everywhere=True), recipe=Recipe(hardening=HARDENINGS["base-noise"])
    ),
    **{f"wouaf-{name}": replace(WOUAF, recipe=Recipe(hardening=each)) for name, each in HARDENINGS.items()},
    **{f"wouaf-{name}": ErrorCorrected(replace(WOUAF, bits=each.length), each) for name, each in CODES.items()},
    "hidden": WeightModulation(HiDDeN()),
    "stable-signature": StableSignature(),
    "decentralized": DecentralizedAttribution(),
    "decentralized-augmented": DecentralizedAttribution(tuning=KeyTuning(augment=True)),
    "dwt-dct": PostHoc(HaarCosine()),
    "additive": PostHoc(Additive()),
    "uchida": Uchida(),
}

ZOO = Path(__file__).parent / "zoo"
BINDERS: dict[str, Binder] = {
    weight_modulation.FORMAT: weight_modulation.bind,
    posthoc.FORMAT: posthoc.bind,
    uchida.FORMAT: uchida.bind,
    stable_signature.FORMAT: stable_signature.bind,
    decentralized.FORMAT: decentralized.bind,
}
"""What rebuilds a codec, by the format of its file."""


def load_codec(path: Path, modality: Modality, generator: Generator) -> Codec:
    """Read a codec and bind it to the generator it was fitted for; see :func:`schemes.files.read`."""

    def behind_its_code(binder: Binder) -> Binder:
        return lambda own, decoded, about, parts: corrected(binder(own, decoded, about, parts), about)

    return files.read(path, modality, generator, {name: behind_its_code(binder) for name, binder in BINDERS.items()})


def find_codec(scheme: str, modality: str, generator: Generator) -> Path | None:
    """The trained codec of a scheme for this very decoder: fitted here, or shipped in the zoo; None when neither."""
    fitted, shipped = codec_path(scheme, modality, generator), ZOO / modality / f"{generator.name}-{scheme}.safetensors"
    if fitted.is_file():
        return fitted
    return shipped if shipped.is_file() and fits(shipped, generator) else None


def codec_path(scheme: str, modality: str, generator: Generator) -> Path:
    """Where ``fit`` writes: named by the decoder, so that codecs of two generators cannot be mixed up."""
    name = re.sub(r"[^\w.-]+", "-", generator.name)
    return (
        cache_folder()
        / "codecs"
        / modality
        / f"{name}-{decoder_digest(generator.decoder)[:12]}"
        / f"{scheme}.safetensors"
    )
