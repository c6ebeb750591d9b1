"""Between published images, uint8 (B, 3, H, W), and what the attacks compute on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_unit(content: Tensor) -> Tensor:
    """Images as float32 in [0, 1]."""
    return content.float() / 255


def to_bytes(unit: Tensor) -> Tensor:
    """Images as uint8: clipped (a plain cast would wrap around) and rounded to the nearest level."""
    return (unit.clamp(0, 1) * 255).round().to(torch.uint8)


def with_pillow(content: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Pass each image of a batch through Pillow.

    Args:
        content: images (B, 3, H, W) uint8.
        change: what happens to each; the size must stay.
    """
    pictures = [Image.fromarray(item.permute(1, 2, 0).cpu().contiguous().numpy()) for item in content]
    changed = [np.asarray(change(picture).convert("RGB")) for picture in pictures]
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).contiguous().to(content.device)
