"""Sheets that show what attacks do: a line for each, the item as it was and after three strengths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bench.folders import replacing

SIDE = 128
"""Pixels of a panel; smaller pictures are enlarged by a whole number, so that theirs stay visible."""
LABEL, CAPTION, GAP = 170, 18, 6
SIZE = 13
QUALITY = 80
INK, PAPER = (0, 0, 0), (255, 255, 255)

Line = Mapping[str, Tensor]
"""Caption to pictures (n, 3, H, W) uint8, shown side by side."""


def sheet(lines: Mapping[str, Line], path: Path) -> Path:
    """Write a sheet as WebP.

    Args:
        lines: name of each line to its panels; every line has the same number of pictures in each panel.
        path: file to write.
    """
    panels = {
        name: [(caption, _joined(pictures)) for caption, pictures in line.items()] for name, line in lines.items()
    }
    first = next(iter(panels.values()))[0][1]
    columns, wide, high = max(map(len, panels.values())), first.width + GAP, first.height + CAPTION + GAP
    paper = Image.new("RGB", (LABEL + columns * wide, len(panels) * high), PAPER)
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default(SIZE)
    for row, (name, line) in enumerate(panels.items()):
        top = row * high
        draw.multiline_text((2, top + CAPTION + 4), name, INK, font)
        for column, (caption, picture) in enumerate(line):
            left = LABEL + column * wide
            draw.text((left, top + 1), caption, INK, font)
            paper.paste(picture, (left, top + CAPTION))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        paper.save(partial, "WEBP", quality=QUALITY, method=6)
    return path


def _joined(pictures: Tensor) -> Image.Image:
    """Pictures side by side, each about ``SIDE`` pixels high."""
    whole = torch.cat(list(pictures), dim=2).permute(1, 2, 0).contiguous().cpu().numpy()
    times = max(1, SIDE // whole.shape[0])
    return Image.fromarray(np.repeat(np.repeat(whole, times, 0), times, 1))
