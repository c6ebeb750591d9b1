"""Compare three answers to rotation: ``python -m modalities.shape3d.poses`` after ``make data MODALITY=3d``.

A reader can be told nothing of it, be trained on turned meshes, or be shown every mesh in its principal axes. Each is
fitted for the same number of steps and reads the same meshes as they are, turned upright, and turned anyhow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

from attacks.shape3d_pose import MeshRotation
from bench.metrics.intervals import clustered
from bench.protocol import Codec, Generator, Mesh
from bench.rng import child, stream
from modalities.shape3d import Shape3D, data, levelled
from modalities.shape3d.augmentation import moved
from modalities.shape3d.surface import released, soft_observed
from modalities.shape3d.voxels import Frame, frame_of, observed
from schemes.training import Recipe
from schemes.weight_modulation import WeightModulation

DEGREES = (15.0, 90.0)
USERS = 128


@dataclass(frozen=True)
class Turning(Shape3D):
    """Readers are trained on grids turned at random, in three steps of four."""

    def augment(self, tensor: Tensor, rng: torch.Generator) -> Tensor:
        """A rotation of the whole batch, uniform over all."""
        if float(torch.rand((), generator=rng)) < 0.25:
            return tensor
        axes, upper = torch.linalg.qr(torch.randn(3, 3, generator=rng))
        axes = axes * upper.diagonal().sign()
        turn = torch.cat([axes[:, :1] * axes.det(), axes[:, 1:]], 1)
        return moved(tensor, torch.cat([turn, torch.zeros(3, 1)], 1))


@dataclass(frozen=True)
class Principal(Shape3D):
    """Readers see meshes in their principal axes, whichever way they lie."""

    def soft_release(self, field: Tensor) -> Tensor:
        """As in the plain modality, in principal axes."""
        return levelled(soft_observed(field, principal))

    def observe(self, content: list[Mesh]) -> Tensor:
        """As in the plain modality, in principal axes."""
        return levelled(torch.stack([observed(mesh, principal(mesh)) for mesh in content]))


def principal(mesh: Mesh) -> Frame:
    """The frame along the axes of the surface's inertia, longest first, each pointing to its longer tail."""
    if not len(mesh.faces):
        return frame_of(mesh)
    corners = mesh.vertices.numpy().astype(np.float64)[mesh.faces.numpy()]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    share, middle = area / max(area.sum(), 1e-30), corners.mean(1)
    away = middle - (share[:, None] * middle).sum(0)
    turn: NDArray[np.float64] = np.linalg.eigh((share[:, None] * away).T @ away)[1][:, ::-1].T
    tails = (share[:, None] * (away @ turn.T) ** 3).sum(0)
    turn = turn * np.where(tails < 0, -1, 1)[:, None]
    turn[2] *= np.linalg.det(turn)
    return frame_of(mesh, turn)


KINDS: dict[str, type[Shape3D]] = {"nothing": Shape3D, "trained on rotations": Turning, "principal axes": Principal}


def read(codec: Codec, modality: Shape3D, meshes: list[Mesh], codes: Tensor) -> str:
    """Bit accuracy with its interval by user."""
    soft = torch.cat([codec.read(modality.observe(meshes[at : at + 32])) for at in range(0, len(meshes), 32)])
    right = ((soft > 0) == (codes > 0)).float().mean(1)
    found = clustered(right.numpy(), list(range(len(right))), rng=stream(0, "poses"))
    return f"{found.mean:.3f} [{found.lo:.3f}, {found.hi:.3f}]"


@torch.no_grad()
def published(codec: Codec, generator: Generator, codes: Tensor) -> list[Mesh]:
    """One held-out part by each user's decoder."""
    latents = generator.encode(data.shipped("reference")[0][: len(codes)])  # type: ignore[attr-defined]
    users = zip(codes, latents, strict=True)
    return [released(generator.decode(codec.modulate(generator.decoder, code), z[None])[0]) for code, z in users]


def main(
    steps: Annotated[int, typer.Option(help="Of each fit.")] = 1000,
    seed: Annotated[int, typer.Option(help="Determines everything that is random.")] = 0,
) -> None:
    """Fit each and print its bit accuracy under rotations of the published meshes."""
    torch.set_num_threads(1)
    codes = torch.randint(2, (USERS, 32), generator=stream(seed, "codes"))
    for name, kind in KINDS.items():
        modality = kind()
        generator = modality.generator()
        scheme = WeightModulation(recipe=Recipe(steps=steps, pool=1024, augment=kind is Turning))
        codec = scheme.fit(modality, generator, stream(seed, "poses"))
        meshes = published(codec, generator, codes)
        scores = [f"as published {read(codec, modality, meshes, codes)}"]
        for degrees in DEGREES:
            turned = MeshRotation(degrees)(meshes, child(stream(seed, "turned"), degrees))
            scores.append(f"turned by {degrees:g} degrees {read(codec, modality, turned, codes)}")
        print(f"{name}: bit accuracy {', '.join(scores)} (n = {USERS} users, 1 mesh each)", flush=True)


if __name__ == "__main__":
    typer.run(main)
