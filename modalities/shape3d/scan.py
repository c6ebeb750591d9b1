"""What readers see of released meshes, from the fields themselves, a whole batch at once: for a GPU.

The same lines as in :mod:`bench.metrics.solids` through the surface that marching cubes would draw, and no mesh is
made. Between the edges of the grid that a mesh is made from, its triangles are replaced by a bilinear surface: that is
all that differs. On a processor it takes seven times as long as making the mesh.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.metrics.solids import ASIDE, SUSPICION
from modalities.shape3d.grids import CELL, EXTENT, SIDE

FINE = 64
"""Points per axis of the grid that a mesh is made from."""
RAYS = 2
"""Lines through a cell along either of the two other axes."""
LINES = SIDE * RAYS


class Boxes(NamedTuple):
    """Where the meshes of a batch lie, as :class:`modalities.shape3d.voxels.Frame` says of one.

    Attributes:
        centre: (B, 3).
        scale: (B,).
    """

    centre: Tensor
    scale: Tensor


class Surfaces(NamedTuple):
    """What lines along one axis meet, in the cells of a batch.

    Attributes:
        passed: length inside of all lines through a cell, (B, 1, g, g, g), in cells.
        found: number of cuts in a cell and their colours added up, (B, 4, g, g, g).
    """

    passed: Tensor
    found: Tensor


def refined(fields: Tensor) -> Tensor:
    """Distances (B, 66, 66, 66) on the points that a mesh is made from, with one of outside all around."""
    fine = fields[:, :1]
    fine = fine if fine.shape[2] >= FINE else F.interpolate(fine, (FINE,) * 3, mode="trilinear")
    return F.pad(fine, (1,) * 6, value=-1.0)[:, 0]


def boxes(fine: Tensor) -> Boxes:
    """Bounding boxes of the surfaces in padded distances (B, n, n, n), whose vertices lie on the grid's edges."""
    side, device = fine.shape[1], fine.device
    lows, highs = [], []
    for axis in range(3):
        first, second = _neighbours(fine, axis)
        cut = (first > 0) != (second > 0)
        along = torch.arange(side - 1, device=device).view(-1, *[1] * (2 - axis)) + _share(first, second)
        ends = [_ends(cut.flatten(1), along.flatten(1), side)]
        for other in {0, 1, 2} - {axis}:  # edges across lie in whole planes
            one, two = _neighbours(fine, other)
            planes = ((one > 0) != (two > 0)).movedim(axis + 1, 1).flatten(2).any(2)
            ends.append(_ends(planes, torch.arange(float(side), device=device).expand_as(planes), side))
        lows.append(torch.stack([low for low, _ in ends]).amin(0))
        highs.append(torch.stack([high for _, high in ends]).amax(0))
    low, high = (2 * (torch.stack(each, 1) - 0.5) / (side - 2) - 1 for each in (lows, highs))
    empty = (high < low).any(1)
    return Boxes(
        ((low + high) / 2).masked_fill(empty[:, None], 0.0),
        (2 * EXTENT / (high - low).amax(1).clamp_min(1e-12)).masked_fill(empty, EXTENT),
    )


def _ends(cut: Tensor, place: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Least and largest place (B,) of those (B, n) that are cut."""
    return (
        place.masked_fill(~cut, float(side)).amin(1),
        place.masked_fill(~cut, -1.0).amax(1),
    )


def _neighbours(fine: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Both ends of every edge along an axis of (B, n, n, n)."""
    return fine.narrow(axis + 1, 0, fine.shape[1] - 1), fine.narrow(axis + 1, 1, fine.shape[1] - 1)


def _share(first: Tensor, second: Tensor) -> Tensor:
    """Where between two values the line through them is 0."""
    apart = first - second
    return first / torch.where(apart == 0, torch.ones_like(apart), apart)


@torch.no_grad()
def volumes(fields: Tensor) -> tuple[Tensor, Boxes]:
    """Filled share, surface and paint, (B, 5, 32, 32, 32), of the meshes of fields (B, 4, g, g, g), and their frames.

    See :class:`bench.metrics.solids.Volumes`.
    """
    fine = refined(fields)
    frames = boxes(fine)
    filled = total = sums = torch.zeros((), device=fields.device)
    for axis in range(3):
        passed, found = _along(fields, fine, frames, axis)
        trust = found[:, 0] + SUSPICION
        filled, total, sums = filled + trust * passed[:, 0] / RAYS**2, total + trust, sums + found
    return torch.cat([(filled / total).clamp(0, 1)[:, None], sums], 1), frames


def _along(fields: Tensor, fine: Tensor, frames: Boxes, axis: int) -> Surfaces:
    """What the lines along one axis meet."""
    order = [axis, (axis + 1) % 3, (axis + 2) % 3]
    device = fields.device
    beside = torch.from_numpy(ASIDE).float().to(device)[:, None]
    lines = (torch.arange(LINES, device=device) + 0.5 + beside) / RAYS
    world = _world(lines.expand(len(fields), 2, -1), frames, order[1:])
    values = _moved(fine.permute(0, *[a + 1 for a in order]), _plane(world, fine))  # (B, planes, lines, lines)
    first, second = values[:, :-1], values[:, 1:]
    cut, share = (first > 0) != (second > 0), _share(first, second)
    colours = _colours(fields, world, order, fine.shape[1])
    painted = colours[:, :, :-1] + share[:, None] * colours.diff(dim=2)
    passed = _passed(first, second, share, frames, axis)
    found = torch.zeros(len(fields), 4, *passed.shape[1:], device=device)
    place = torch.arange(fine.shape[1] - 1, device=device).view(-1, 1, 1) + share - 0.5
    centre, scale = frames.centre[:, axis].view(-1, 1, 1, 1), frames.scale.view(-1, 1, 1, 1)
    cell = (((place * 2 / (fine.shape[1] - 2) - 1 - centre) * scale + 1) / CELL).long().clamp(0, SIDE - 1)
    weights = torch.cat([torch.ones_like(share)[:, None], painted], 1) * cut[:, None]
    found.scatter_add_(2, cell[:, None].expand_as(weights), weights)
    back = [0, 1, *[2 + order.index(a) for a in range(3)]]
    return Surfaces(*(_pooled(each).permute(back) for each in (passed[:, None], found)))


def _passed(first: Tensor, second: Tensor, share: Tensor, frames: Boxes, axis: int) -> Tensor:
    """Length inside, in cells, of every line through each cell, (B, g, lines, lines).

    Args:
        first: distances at the planes but the last, (B, planes - 1, lines, lines).
        second: at the planes but the first.
        share: where between them the surface is.
        frames: of the batch.
        axis: of the lines.
    """
    count = first.shape[1]

    def inside(upto: Tensor, u: Tensor, v: Tensor, t: Tensor) -> Tensor:
        """Of intervals, up to a share of each."""
        entered, left = (upto - t).clamp_min(0), torch.minimum(upto, t)
        return torch.where(u > 0, torch.where(v > 0, upto.expand_as(t), left), torch.where(v > 0, entered, 0.0))

    before = F.pad(inside(torch.ones_like(share), first, second, share).cumsum(1), (0, 0, 0, 0, 1, 0))
    edges = torch.arange(SIDE + 1.0, device=first.device).expand(len(first), 1, -1)
    edges = (_world(edges, frames, [axis])[:, 0] + 1) * (count - 1) / 2 + 0.5
    whole = edges.floor().clamp(0, count - 1)
    rest = (edges - whole).clamp(0, 1)[..., None, None]
    at = whole.long()[..., None, None].expand(-1, -1, *first.shape[2:])
    upto = before.gather(1, at) + inside(rest, *(each.gather(1, at) for each in (first, second, share)))
    return upto.diff(dim=1) * (2 / (count - 1) / CELL) * frames.scale.view(-1, 1, 1, 1)


def _plane(world: Tensor, fine: Tensor) -> Tensor:
    """Coordinates of the fields as places on the grid that a mesh is made from."""
    return (world + 1) * (fine.shape[1] - 2) / 2 + 0.5


def _world(cells: Tensor, frames: Boxes, axes: list[int]) -> Tensor:
    """Places (B, len(axes), n) in the fields' own coordinates of those in cells of the frame."""
    return (cells * CELL - 1) / frames.scale.view(-1, 1, 1) + frames.centre[:, axes, None]


def _moved(values: Tensor, places: Tensor) -> Tensor:
    """Values (B, ..., n, n) at places (B, 2, m) along the last two axes, (B, ..., m, m); the edge goes on outside."""
    for axis, place in ((-2, places[:, 0]), (-1, places[:, 1])):
        matrix = _interpolation(place, values.shape[axis])  # (B, m, n)
        shape = (len(values), *[1] * (values.ndim - 3), *matrix.shape[1:])
        matrix = matrix.view(shape)
        values = matrix @ values if axis == -2 else values @ matrix.mT
    return values


def _interpolation(places: Tensor, count: int) -> Tensor:
    """Matrix (B, m, n) of linear interpolation at places (B, m) between n whole numbers."""
    near = places.clamp(0, count - 1)
    return (1 - (near[..., None] - torch.arange(count, device=places.device)).abs()).clamp_min(0)


def _pooled(lines: Tensor) -> Tensor:
    """Summed over the lines of a cell: (B, C, g, 2 g, 2 g) to (B, C, g, g, g)."""
    return F.avg_pool3d(lines, (1, RAYS, RAYS)) * RAYS**2


def _colours(fields: Tensor, world: Tensor, order: list[int], planes: int) -> Tensor:
    """Colours (B, 3, planes, lines, lines) where lines pass the planes of the surface's grid."""
    colour = fields[:, 1:].permute(0, 1, *[a + 2 for a in order])
    side = colour.shape[2]
    moved = _moved(colour, (world + 1) * side / 2 - 0.5)
    depth = (torch.arange(planes, device=fields.device) - 0.5) * side / (planes - 2) - 0.5
    matrix = _interpolation(depth[None], side)[0]
    return torch.einsum("ps,bcsij->bcpij", matrix, moved).clamp(0, 1)
