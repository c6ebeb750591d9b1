"""Fingerprint schemes by command-line name, and where their trained codecs live."""

from __future__ import annotations

import re
from pathlib import Path

from bench.folders import cache_folder
from bench.protocol import Generator, Scheme
from schemes.modulations import Amplitude
from schemes.training import Recipe
from schemes.weight_modulation import WeightModulation, decoder_digest, fits, load_codec

__all__ = ["SCHEMES", "codec_path", "find_codec", "load_codec"]

SCHEMES: dict[str, Scheme] = {
    "wouaf": WeightModulation(Amplitude()),
    "wouaf-augmented": WeightModulation(Amplitude(), recipe=Recipe(augment=True)),
}

ZOO = Path(__file__).parent / "zoo"


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
