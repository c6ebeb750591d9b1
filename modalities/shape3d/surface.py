"""From fields to meshes: marching cubes, with a differentiable twin of what readers see of the result."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.bounds import bounded
from bench.protocol import Mesh
from modalities.shape3d import scan
from modalities.shape3d.grids import SIDE, points, sampled
from modalities.shape3d.scan import FINE
from modalities.shape3d.voxels import DENSE, Frame, frame_of, observed, seen, smoothed

STEEPEST = 0.05
"""Least slope, per cell, that a field is taken to have: it bounds the gradient where a field is flat."""
CUTS = 4
"""Lines along each axis that pass a cell; see :mod:`bench.metrics.solids`."""


def released(field: Tensor) -> Mesh:
    """Mesh of the zero surface of a field (4, g, g, g), on the CPU, closed, in the cube [-1, 1]³.

    Lorensen and Cline, "Marching Cubes", SIGGRAPH 1987, in the topologically correct form of Lewiner et al., 2003,
    through scikit-image, on 64³ points between which the field is interpolated linearly. Outside the cube nothing is.
    A field that is nowhere positive has a mesh without faces.
    """
    from skimage.measure import marching_cubes  # takes half a second to import

    field = field.detach().float().cpu()[None]
    fine = field[:, :1]
    fine = fine if fine.shape[2] >= FINE else F.interpolate(fine, (FINE,) * 3, mode="trilinear")
    distance = F.pad(fine, (1,) * 6, value=-1.0)[0, 0].numpy()
    if not (np.isfinite(distance).all() and distance.max() > 0):
        return Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 3, dtype=torch.uint8))
    corners, faces, _, _ = marching_cubes(distance, 0.0)
    vertices = torch.from_numpy((corners - 0.5) * (2 / fine.shape[2]) - 1).float()  # a cell of padding was added
    colours = sampled(field[:, 1:], vertices[None])[0].T.nan_to_num(0.5).clamp(0, 1)
    inward = torch.from_numpy(faces.astype(np.int64))
    return Mesh(vertices, inward.flip(1).contiguous(), (colours * 255).round().to(torch.uint8))


def soft_observed(fields: Tensor, framed: Callable[[Mesh], Frame] = frame_of) -> Tensor:
    """What readers see of the released meshes of fields (B, 4, g, g, g), (B, 4, 32, 32, 32), with a gradient.

    The value is that of release and observation, on a GPU that of :mod:`modalities.shape3d.scan`; the gradient is that
    of :func:`_approximate`, in the mesh's frame, which ``framed`` tells.
    """
    with torch.autocast(fields.device.type, enabled=False):  # half precision is coarser than what readers look for
        return _observed(fields.float(), framed)


def _observed(fields: Tensor, framed: Callable[[Mesh], Frame]) -> Tensor:
    base = points().to(fields)
    if fields.is_cuda and framed is frame_of:
        grids, boxes = scan.volumes(fields.detach())
        hard, where = seen(grids), base / boxes.scale.view(-1, 1, 1) + boxes.centre[:, None]
    else:
        meshes = [released(field) for field in fields]
        frames = [framed(mesh) for mesh in meshes]
        hard = torch.stack([observed(*each) for each in zip(meshes, frames, strict=True)]).to(fields.device)
        placed = [
            (base / f.scale + torch.as_tensor(f.centre).to(base)) @ torch.as_tensor(f.turn).to(base) for f in frames
        ]
        where = torch.stack(placed)
    soft = _approximate(fields, where)
    return soft + (hard - soft).detach()


def _approximate(fields: Tensor, where: Tensor) -> Tensor:
    """Smooth function of fields that is close to what readers see; ``where`` the cells' centres are, (B, 32³, 3).

    A surface fills a cell by one half plus its distance in cells, and the distance is value over slope. How much
    surface there is in a cell, by which its colour counts, has no gradient.
    """
    view = sampled(fields, where).view(len(fields), 4, SIDE, SIDE, SIDE)
    slope = torch.stack(torch.gradient(view[:, :1].detach(), dim=(2, 3, 4))).square().sum(0).sqrt()
    filled = (0.5 + view[:, :1] / slope.clamp_min(STEEPEST)).clamp(0, 1)
    density = CUTS * _surface(filled.detach()) + 1e-4
    smooth = smoothed(torch.cat([filled, density, bounded(view[:, 1:], 0.0, 1.0) * density], 1))
    weight = (smooth[:, 1:2] / DENSE).clamp(max=1)
    return torch.cat([2 * smooth[:, :1] - 1, (smooth[:, 2:] / smooth[:, 1:2] - 0.5) * weight], 1)


def _surface(filled: Tensor) -> Tensor:
    """Faces between a cell and its six neighbours that a surface passes, half of each, of (B, 1, g, g, g)."""
    total = torch.zeros_like(filled)
    for axis in (2, 3, 4):
        half = filled.diff(dim=axis).abs() / 2
        total.narrow(axis, 0, SIDE - 1).add_(half)
        total.narrow(axis, 1, SIDE - 1).add_(half)
    return total
