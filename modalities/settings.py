"""Settings that follow the name of a generator: ``FOLDER?dtype=bfloat16&size=512``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from bench.protocol import UserError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SWITCH = {"true": True, "false": False}
PARTS: dict[str, Literal["vae", "vocoder"]] = {"vae": "vae", "vocoder": "vocoder"}

PIPELINE = ("dtype", "offload", "variant", "revision", "decoder", "steps", "guidance", "batch")
"""What every diffusers pipeline understands."""


@dataclass(frozen=True)
class Settings:
    """How a generator is loaded and used, in the words that diffusers' users know; None leaves it to the generator.

    Attributes:
        dtype: of all networks before the decoder; the decoder stays float32, since codecs are bound to exact weights.
        offload: keep what is before the decoder on the CPU while it does not run (diffusers' model offload).
        variant: of the weight files, such as ``fp16``; in a folder that has one variant only, it is found.
        revision: of a hub id.
        decoder: folder or hub id of an autoencoder that replaces the pipeline's own, such as ``madebyollin/taesd``.
        part: which network of a pipeline with two is fingerprinted: ``vae`` or ``vocoder``.
        size: side of pictures in pixels.
        seconds: length of clips.
        steps: solver steps.
        guidance: classifier-free guidance scale.
        batch: prompts sampled at a time.
        latent: shape of one latent of a plain module, ``512`` or ``100x1x1``.
        rate_hz: sampling rate of a plain module.
    """

    dtype: torch.dtype = torch.float32
    offload: bool = False
    variant: str | None = None
    revision: str | None = None
    decoder: str | None = None
    part: Literal["vae", "vocoder"] = "vae"
    size: int | None = None
    seconds: float | None = None
    steps: int | None = None
    guidance: float | None = None
    batch: int | None = None
    latent: tuple[int, ...] | None = None
    rate_hz: int | None = None

    def limited(self, name: str, *understood: str) -> Settings:
        """Itself, when all that is set is among ``understood``.

        Raises:
            UserError: when the generator called ``name`` would pass over a setting.
        """
        chosen = [item.name for item in dataclasses.fields(self) if getattr(self, item.name) != item.default]
        if wrong := [each for each in chosen if each not in understood]:
            known = ", ".join(understood) or "no setting"
            raise UserError(f"generator {name}: expected of its settings {known}, found {wrong[0]}")
        return self

    def chosen(self, *names: str) -> dict[str, Any]:
        """Those of ``names`` that are set, for ``dataclasses.replace``."""
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def split(spec: str | None) -> tuple[str | None, Settings]:
    """A name and the settings behind its question mark; a path that exists as it is has none.

    Raises:
        UserError: for an unknown setting or a value that is none.

    Example:
        >>> split("folder?size=512&dtype=bfloat16")[1].size
        512
    """
    if spec is None or "?" not in spec or Path(spec).exists():
        return spec, Settings()
    name, _, written = spec.partition("?")
    values: dict[str, Any] = {}
    for item in written.split("&"):
        key, _, text = item.partition("=")
        if key not in READERS:
            raise UserError(f"generator {name}: expected of its settings {', '.join(READERS)}, found {key!r}")
        try:
            values[key] = READERS[key](text)
        except (ValueError, KeyError) as error:
            raise UserError(f"generator {name}: expected {key}={EXPECTED[key]}, found {key}={text}") from error
    return name or None, Settings(**values)


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError(text)
    return value


def _not_negative(text: str) -> float:
    if not 0 <= (value := float(text)) < 1e6:
        raise ValueError(text)
    return value


def _word(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


def _shape(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split("x"))


READERS: Mapping[str, Callable[[str], Any]] = {
    "dtype": DTYPES.__getitem__,
    "offload": SWITCH.__getitem__,
    "part": PARTS.__getitem__,
    **dict.fromkeys(("variant", "revision", "decoder"), _word),
    **dict.fromkeys(("size", "steps", "batch", "rate_hz"), _positive),
    **dict.fromkeys(("seconds", "guidance"), _not_negative),
    "latent": _shape,
}
EXPECTED = {
    "dtype": "|".join(DTYPES),
    "offload": "|".join(SWITCH),
    "part": "|".join(PARTS),
    **dict.fromkeys(("variant", "revision"), "WORD"),
    "decoder": "FOLDER-OR-HUB-ID",
    **dict.fromkeys(("size", "steps", "batch", "rate_hz"), "WHOLE-NUMBER"),
    **dict.fromkeys(("seconds", "guidance"), "NUMBER"),
    "latent": "NUMBERxNUMBER",
}
