"""What a network that was trained on photographs sees of a mesh from six sides: features of rendered views."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench.protocol import Mesh
from modalities.shape3d.cloud import normals_of
from modalities.shape3d.pictures import rendered

VIEWS = tuple(
    (math.radians(turn), math.radians(tilt))
    for turn, tilt in ((35, 25), (125, 25), (215, 25), (305, 25), (35, 65), (35, -65))
)
"""Turn and tilt of the eye: around the mesh, and from above and below, where parts have studs and hollows."""
Extractor = Callable[[Tensor], Tensor]
"""Pictures, uint8 (B, 3, H, W), to features (B, d)."""
Renderer = Callable[[Sequence[Mesh], float, float], Tensor]
"""Meshes, turn and tilt of the eye to pictures, uint8 (B, 3, H, W)."""


@torch.inference_mode()
def features(meshes: Sequence[Mesh], extractor: Extractor, *, draw: Renderer = rendered) -> Tensor:
    """Features (B, d) of meshes: the mean over six views; NaN for a mesh without a surface.

    The mean leaves one row per mesh, and with it the same statistics as for pictures. With a row per picture, pooled
    into one Gaussian, a part of the covariance would say from where the eye looks, which is the same for all meshes.

    Args:
        meshes: any, seen centred and at one size.
        extractor: sees the pictures, as ``Image.features`` does.
        draw: makes the pictures.
    """
    pictures = torch.cat([draw(meshes, turn, tilt) for turn, tilt in VIEWS])  # (views * B, 3, H, W)
    found = extractor(pictures).unflatten(0, (len(VIEWS), -1)).mean(0)
    hollow = torch.tensor([not bool(normals_of(mesh)[1].sum() > 0) for mesh in meshes])
    return torch.where(hollow[:, None], torch.nan, found)
