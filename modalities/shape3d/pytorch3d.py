"""PyTorch3D for Chamfer distances, sampling and rendering, in place of our own, where a user has built it.

Ravi et al., "Accelerating 3D Deep Learning with PyTorch3D", 2020, arXiv:2007.08501. Each function has the signature and
the units of the one that it stands in for, and is passed in its place: ``sets.compared(..., chamfer=chamfer_matrix)``,
``fidelity.paired(..., sample=sampled_surface)``, ``views.features(..., draw=rendered)``. Nothing falls back to it or
from it. Its compiled part fits one version of torch only; ``docs/dependencies.md`` says how to build it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.protocol import Mesh, UserError
from bench.rng import fenced
from modalities.shape3d.cloud import Cloud, normals_of
from modalities.shape3d.files import GREY
from modalities.shape3d.pictures import FINER, SIDE, TILT, TURN, painted, seen

SOURCE = "git+https://github.com/facebookresearch/pytorch3d.git@stable"
BUILD = f"build it with `pip install --no-build-isolation {SOURCE}`"


def to_meshes(meshes: Sequence[Mesh], device: str | torch.device = "cpu") -> Any:
    """A batch as ``pytorch3d.structures.Meshes``, with colours in [0, 1] as ``TexturesVertex``.

    Raises:
        UserError: when pytorch3d is not there, or does not fit torch.
    """
    colours = [mesh.colours.float().to(device) / 255 for mesh in meshes]
    return _part("structures").Meshes(
        verts=[mesh.vertices.float().to(device) for mesh in meshes],
        faces=[mesh.faces.to(device) for mesh in meshes],
        textures=_part("renderer").TexturesVertex(verts_features=colours),
    )


def from_meshes(batch: Any) -> list[Mesh]:
    """Meshes of a ``pytorch3d.structures.Meshes``, on the CPU; grey where it has no textures.

    Raises:
        UserError: when its colours are not RGB of vertices: pictures that are wrapped around it would be lost.
    """
    vertices, faces = batch.verts_list(), batch.faces_list()
    textures = batch.textures
    if textures is None:
        colours = [torch.full_like(x, GREY / 255) for x in vertices]
    elif hasattr(textures, "verts_features_list"):
        colours = textures.verts_features_list()
    else:
        raise UserError(f"Meshes: expected colours as TexturesVertex, found {type(textures).__name__}")
    if any(colour.shape != x.shape for colour, x in zip(colours, vertices, strict=True)):
        found = [tuple(colour.shape) for colour in colours]
        raise UserError(f"Meshes: expected RGB of each vertex, found features of shape {found}")
    return [
        Mesh(x.detach().float().cpu(), face.long().cpu(), _bytes(colour.detach()).cpu())
        for x, face, colour in zip(vertices, faces, colours, strict=True)
    ]


def _bytes(colour: Tensor) -> Tensor:
    return (colour.float().clamp(0, 1) * 255).round().to(torch.uint8)


def chamfer_matrix(a: Tensor, b: Tensor) -> Tensor:
    """Chamfer distances (N, M) of point sets (N, P, 3) and (M, Q, 3), in float32, by ``chamfer_distance``.

    See :func:`modalities.shape3d.sets.chamfer_matrix`.
    """
    distance = _part("loss").chamfer_distance
    a, b = a.float(), b.float()
    rows = [distance(one.expand(len(b), -1, -1), b, batch_reduction=None)[0] for one in a]
    return torch.stack(rows).double() if rows else a.new_zeros(0, len(b)).double()


def sampled_surface(mesh: Mesh, count: int, rng: torch.Generator) -> Cloud:
    """``count`` points, uniform by area, by ``sample_points_from_meshes``; its global draws are fenced in.

    See :func:`modalities.shape3d.cloud.sampled_surface`.
    """
    if not bool(normals_of(mesh)[1].sum() > 0):
        raise ValueError("a mesh without area, expected a surface to draw points from")
    with fenced(int(torch.randint(2**62, (1,), generator=rng))):
        points, normals, colours = _part("ops").sample_points_from_meshes(
            to_meshes([mesh]), count, return_normals=True, return_textures=True
        )
    return Cloud(points[0], normals[0], colours[0])


def rendered(meshes: Sequence[Mesh], turn: float = TURN, tilt: float = TILT) -> Tensor:
    """Pictures of meshes, uint8 (B, 3, 128, 128), by ``rasterize_meshes``, in the light of our own.

    See :func:`modalities.shape3d.pictures.rendered`.
    """
    return torch.stack([_picture(mesh, turn, tilt) for mesh in meshes])


def _picture(mesh: Mesh, turn: float, tilt: float) -> Tensor:
    triangles = seen(mesh, turn, tilt)
    if not len(triangles):
        none = np.zeros(0, np.int64)
        return painted(mesh, triangles, none, none, np.zeros((0, 3)))
    corners = torch.from_numpy(triangles.reshape(-1, 3) * (-1, 1, -1) + (0, 0, 2)).float()  # to the left, up, away
    alone = _part("structures").Meshes([corners], [torch.arange(len(corners)).view(-1, 3)])
    rasterize = _part("renderer.mesh.rasterize_meshes").rasterize_meshes
    owner, _, weights, _ = rasterize(alone, image_size=SIDE * FINER, faces_per_pixel=1, bin_size=0)
    owner, weights = owner.flatten().numpy(), weights.view(-1, 3).double().numpy()
    pixel = np.flatnonzero(owner >= 0)
    return painted(mesh, triangles, pixel, owner[pixel], weights[pixel])


def _part(name: str) -> Any:
    """A module of pytorch3d.

    Raises:
        UserError: when it is not there, or was built for another version of torch.
    """
    if find_spec("pytorch3d") is None:
        raise UserError(f"expected the module 'pytorch3d', found none; {BUILD}")
    try:
        return import_module(f"pytorch3d.{name}")
    except ImportError as error:
        raise UserError(f"pytorch3d does not work with torch {torch.__version__} ({error}); {BUILD}") from error
