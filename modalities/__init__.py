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


def _shape3d() -> Modality:
    from modalities.shape3d import Shape3D

    return Shape3D()


MODALITIES: dict[str, Callable[[], Modality]] = {"image": _image, "audio": _audio, "3d": _shape3d}
