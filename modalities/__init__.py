"""Modalities by command-line name; outside code plugs in as ``package.module:Class``."""

from __future__ import annotations

from collections.abc import Callable

from bench.protocol import Modality


def _image() -> Modality:
    from modalities.image import Image  # diffusers takes seconds to import

    return Image()


def _audio() -> Modality:
    from modalities.audio import Audio

    return Audio()


MODALITIES: dict[str, Callable[[], Modality]] = {"image": _image, "audio": _audio}
