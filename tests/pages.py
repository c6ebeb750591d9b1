"""Tables of pages in docs/, and whether a line is true of an adapter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import bench
from bench.inspection import inspected
from schemes.weight_modulation import WeightModulation

DOCS = Path(bench.__file__).parent.parent / "docs"


def read_table(page: str) -> dict[str, list[str]]:
    """Cells of each line that begins with a name in backquotes, by that name."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"\| `([a-z0-9-]+)`(.*) \|", line) for line in lines]
    return {match[1]: [cell.strip() for cell in match[2].split(" | ")] for match in found if match}


def check_row(row: list[str], holder: Any, decoder: nn.Module, latents: Tensor) -> bool:
    """Whether the pipeline, the decoder, what is modulated of it and the latents are as the line says."""
    _, kind, place, modulated, latent, tested = row
    layers = [entry.state for entry in inspected(decoder, WeightModulation()) if entry.shape]
    path, _, decoder_kind = place.replace("`", "").partition(", ")
    found: Any = holder
    for name in [] if path == "itself" else path.split("."):
        found = getattr(found, name)
    assert found is decoder, path
    assert kind == f"`{type(holder).__name__}`" and decoder_kind == type(decoder).__name__
    assert modulated == f"{layers.count('modulated')} of {len(layers)}", (
        f"now {layers.count('modulated')} of {len(layers)}"
    )
    axes = re.match(r"\(([^)]*)\)", latent)
    assert axes is not None and len(axes[1].split(", ")) == latents.ndim
    return tested != ""
