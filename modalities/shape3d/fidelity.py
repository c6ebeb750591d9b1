"""How close one mesh is to another: volume, surface, normals, colour.

Both are compared centred and at one size, as readers see them; not turned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from bench.parallel import in_parallel
from bench.protocol import Mesh, UserError
from bench.rng import stream
from modalities.shape3d.cloud import Cloud, feet, sampled_surface
from modalities.shape3d.voxels import frame_of, volumes

POINTS = 1024
"""Drawn from either surface, the same ones for the same mesh."""
NEAR = 0.01
"""Distance up to which a point counts as found by the F-score, in diagonals of the original's bounding box."""
EXACT_DB = 60.0
WORST = {"iou": 0.0, "chamfer": 1.0, "f_score": 0.0, "normals": 0.0, "colour_psnr": 0.0}
"""What a mesh without a surface scores."""


Sampler = Callable[[Mesh, int, torch.Generator], Cloud]
"""A mesh, how many points, and a stream, to points on its surface."""


def paired(a: Sequence[Mesh], b: Sequence[Mesh], *, sample: Sampler = sampled_surface) -> dict[str, Tensor]:
    """Fidelity of each pair.

    Args:
        a: original meshes.
        b: others, as many.
        sample: draws the points; :mod:`modalities.shape3d.pytorch3d` has another.

    Returns:
        Name to (B,) float32. ``iou``: shared volume over joint volume, each cell by the share that is filled, higher is
        closer. ``chamfer``: mean distance from points of either surface to the other surface, in percent of the
        original's bounding-box diagonal, 0 for equal meshes, since it is to surfaces and not to other points.
        ``f_score``: harmonic mean of the shares of points within 1 % of that diagonal (Knapitsch et al., "Tanks and
        Temples", ACM TOG 2017). ``normals``: mean absolute cosine of a point's normal and that of the nearest point
        (Mescheder et al., "Occupancy Networks", CVPR 2019, arXiv:1812.03828). ``colour_psnr``: of the colours at those
        points, in dB, at most 60.

    Raises:
        UserError: if there are not as many of both.
    """
    if len(a) != len(b):
        raise UserError(f"meshes to compare: expected as many of both, found {len(a)} and {len(b)}")
    rows = in_parallel(partial(_pair, sample=sample), a, b)
    return {name: torch.tensor([row[name] for row in rows], dtype=torch.float32) for name in WORST}


def iou(a: Mesh, b: Mesh) -> float:
    """Volume intersection over union of what fills each of 32³ cells; 0 when nothing does."""
    x, y = (torch.from_numpy(volumes(mesh).filled) for mesh in (a, b))
    union = torch.maximum(x, y).sum()
    return float(torch.minimum(x, y).sum() / union) if union > 0 else 0.0


def _pair(a: Mesh, b: Mesh, sample: Sampler) -> dict[str, float]:
    one, other = _normalised(a), _normalised(b)
    if one is None or other is None:
        return WORST
    diagonal = float((one.vertices.amax(0) - one.vertices.amin(0)).norm())
    clouds = [sample(mesh, POINTS, stream(0, "surface points")) for mesh in (one, other)]
    found = [feet(cloud.points, mesh) for cloud, mesh in zip(clouds, (other, one), strict=True)]
    apart = [foot.distance / diagonal for foot in found]
    precision, recall = (float((distance < NEAR).float().mean()) for distance in reversed(apart))
    cosine = [(cloud.normals * foot.normals).sum(1).abs().mean() for cloud, foot in zip(clouds, found, strict=True)]
    error = [(cloud.colours - foot.colours).square().mean() for cloud, foot in zip(clouds, found, strict=True)]
    return {
        "iou": iou(a, b),  # of the meshes themselves: what their readers measured is not measured again
        "chamfer": 50 * float(apart[0].mean() + apart[1].mean()),
        "f_score": 2 * precision * recall / max(precision + recall, 1e-9),
        "normals": float(cosine[0] + cosine[1]) / 2,
        "colour_psnr": float(-10 * (sum(error) / 2).clamp_min(10 ** (-EXACT_DB / 10)).log10()),  # type: ignore[union-attr]
    }


def painted_by_distance(a: Mesh, b: Mesh) -> Mesh:
    """``b`` with white vertices where it meets ``a``, and red ones from 1 % of the diagonal of ``a`` on."""
    one, other = _normalised(a), _normalised(b)
    if one is None or other is None:
        return b
    diagonal = (one.vertices.amax(0) - one.vertices.amin(0)).norm()
    share = (feet(other.vertices, one).distance / diagonal / NEAR).clamp(0, 1)
    fading = (255 * (1 - share)).round().to(torch.uint8)
    return Mesh(other.vertices, other.faces, torch.stack([torch.full_like(fading, 255), fading, fading], 1))


def _normalised(mesh: Mesh) -> Mesh | None:
    """The mesh centred and scaled, without vertices that no face uses; None when it has no area."""
    used = torch.zeros(len(mesh.vertices), dtype=torch.bool)
    used[mesh.faces.flatten()] = True
    frame, place = frame_of(mesh), used.cumsum(0) - 1
    vertices = (mesh.vertices[used].double() - torch.from_numpy(frame.centre)) * frame.scale
    own = Mesh(vertices.float(), place[mesh.faces], mesh.colours[used])
    a, b, c = (own.vertices[own.faces[:, corner]] for corner in range(3))
    return own if float(torch.linalg.cross(b - a, c - a).norm(dim=1).sum()) > 1e-12 else None
