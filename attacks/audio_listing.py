"""How a family of attacks on audio is written down, and the suites that grids are taken from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from attacks.grids import Card, Grid, image_family
from bench.protocol import AttackFamily, ContentAttack

AUDIOMARKBENCH = "AudioMarkBench, arXiv:2406.06979"
RAW_BENCH = "RAW-Bench, arXiv:2505.19663"
AUDIOSEAL = "AudioSeal, arXiv:2401.17264"
OMNISEAL = "Omni Seal Bench"
SOK = "SoK: audio watermarks, arXiv:2503.19176"
STIRMARK = "StirMark for audio, ITCC 2001"
WAVES = "WAVES, arXiv:2401.08573"
OURS = "GenPrint"


def audio_family(
    name: str,
    make: Callable[[float], ContentAttack],
    grid: Grid,
    card: Card,
    *,
    standard: tuple[float, ...] | None = None,
    missing: Callable[[], str | None] | None = None,
) -> AttackFamily:
    """A family of content attacks on audio; see :func:`attacks.grids.image_family`."""
    return replace(image_family(name, make, grid, card, standard=standard, missing=missing), modality="audio")
