"""How a family of attacks on meshes is written down, and the suites that grids are taken from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from attacks.grids import Card, Grid, image_family
from bench.protocol import AttackFamily, ContentAttack

BENCHMARK = "Wang et al., SMI 2010"
FUNC_EVADE = "FuncEvade, arXiv:2311.12059"
POINTS = "Xiang et al., CVPR 2019, arXiv:1809.07016"
OURS = "GenPrint"
WAVES = "WAVES, arXiv:2401.08573"


def mesh_family(
    name: str,
    make: Callable[[float], ContentAttack],
    grid: Grid,
    card: Card,
    *,
    standard: tuple[float, ...] | None = None,
) -> AttackFamily:
    """A family of content attacks on meshes; see :func:`attacks.grids.image_family`."""
    return replace(image_family(name, make, grid, card, standard=standard), modality="3d")
