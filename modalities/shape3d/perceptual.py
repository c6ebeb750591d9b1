"""A small PointNet that tells part categories apart: the features of the Fréchet distance."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.protocol import Mesh, UserError
from bench.rng import stream
from modalities.shape3d.cloud import sampled_surface
from modalities.shape3d.parts import largest_categories
from modalities.shape3d.voxels import frame_of

WEIGHTS = Path(__file__).parent / "weights" / "pointnet_ldraw.safetensors"
POINTS = 512
WIDTH = 128
"""Numbers of a feature."""


class PointNet(nn.Module):
    """Category logits of point sets with normals, by a perceptron on each point and the maximum over points.

    Qi et al., "PointNet", CVPR 2017, arXiv:1612.00593, without its two transformation networks: parts stand upright.
    """

    def __init__(self, categories: int) -> None:
        super().__init__()
        widths = (6, 64, 64, 128, 256)
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(widths):
            layers += [nn.Conv1d(fan_in, fan_out, 1, bias=False), nn.BatchNorm1d(fan_out), nn.ReLU()]
        self.points = nn.Sequential(*layers)
        self.shape = nn.Sequential(nn.Linear(widths[-1], WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.ReLU())
        self.head = nn.Linear(WIDTH, categories)

    def features(self, x: Tensor) -> Tensor:
        """Features (B, 128) of points with normals (B, 6, N)."""
        found: Tensor = self.shape(self.points(x).amax(2))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, categories) of points with normals (B, 6, N)."""
        logits: Tensor = self.head(self.features(x))
        return logits


def oriented_points(meshes: Sequence[Mesh], rng: torch.Generator) -> Tensor:
    """Points in normalised coordinates with their normals, (B, 6, 512); NaN for a mesh without a surface."""
    return torch.stack([_points(mesh, rng) for mesh in meshes]) if len(meshes) else torch.zeros(0, 6, POINTS)


def _points(mesh: Mesh, rng: torch.Generator) -> Tensor:
    try:
        cloud = sampled_surface(mesh, POINTS, rng)
    except ValueError:
        return torch.full((6, POINTS), float("nan"))
    frame = frame_of(mesh)
    places = (cloud.points - torch.from_numpy(frame.centre).float()) * frame.scale
    return torch.cat([places, cloud.normals], 1).T


@torch.inference_mode()
def features(meshes: Sequence[Mesh]) -> Tensor:
    """Features (B, 128) of meshes, float32, each from the same draws; NaN for a mesh without a surface."""
    network = pointnet()
    x = torch.cat([oriented_points([mesh], stream(0, "features")) for mesh in meshes])
    hollow = x.isnan().flatten(1).any(1)
    found = network.features(x.nan_to_num(0.0))
    return torch.where(hollow[:, None], torch.nan, found)


@lru_cache(maxsize=1)
def pointnet() -> PointNet:
    """The shipped network.

    Raises:
        UserError: when its weights are not there.
    """
    if not WEIGHTS.is_file():
        raise UserError(f"PointNet weights: expected {WEIGHTS}, found none; run `make embedded MODALITY=3d`")
    network = PointNet(len(largest_categories()) + 1)
    network.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in load_file(WEIGHTS).items()}
    )
    return network.requires_grad_(False).eval()
