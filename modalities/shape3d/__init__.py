"""The 3D modality: triangle meshes with vertex colours.

Content is a list of :class:`bench.protocol.Mesh`. Fields are float32 (B, 4, g, g, g): a signed distance, positive
inside, in units of the truncation, and RGB in [0, 1], on a grid over the cube [-1, 1]³ with axes x, y (up), z. Observed
tensors are float32 (B, 4, 32, 32, 32): see :func:`modalities.shape3d.voxels.observed`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.parallel import in_parallel
from bench.protocol import Generator, Mesh, UserError
from modalities.shape3d import augmentation, data, fidelity, files, perceptual
from modalities.shape3d.parts import captions
from modalities.shape3d.surface import released, soft_observed
from modalities.shape3d.voxels import observed

if TYPE_CHECKING:
    from modalities.image import Image

FEWEST_FACES = 4
LEVELS = (2.8, 0.65, 0.65, 0.65)
"""Observed distances and colours are multiplied by these: on one scale geometry, which readers and eyes see first,
would pay for everything. With 2.4 and 0.8 a fingerprint at 31 dB, measured on both together, left a volume IoU of 0.943
and colours 30.5 dB apart: too little of the one and more than is needed of the other."""


@dataclass(frozen=True)
class Shape3D:
    """Meshes, read on a grid of 32³ cells.

    Attributes:
        device: where the generator runs.
        quality_metric: Fréchet distance on a PointNet trained on part categories, ``fd_pointnet_ldraw``; on rendered
            views ``fd_views_mobilenetv2`` or ``fd_views_inception``.
        paired_bound: volume IoU down to which an attack counts as leaving the mesh usable.
    """

    device: str = "cpu"
    quality_metric: str = "fd_pointnet_ldraw"
    name: str = field(default="3d", init=False)
    paired_metric: str = field(default="iou", init=False)
    paired_bound: float = field(default=0.75, init=False)

    def generator(self, spec: str | None = None) -> Generator:
        """The embedded generator (None), or a folder of the same kind."""
        from modalities.shape3d.grid_generator import load  # diffusers takes seconds to import

        return load(spec, torch.device(self.device))

    def wrapped(self, name: str, thing: Any) -> Generator:
        """A network of latents and points as a generator; settings may follow the name."""
        from modalities.settings import split
        from modalities.shape3d.fields import wrapped

        source, settings = split(name)
        return wrapped(str(source), thing, settings)

    def with_features(self, name: str) -> Shape3D:
        """The same modality judged by other features: ``default``, ``views`` or ``inception``, of rendered views.

        Raises:
            UserError: for another name, or when the Inception weights are not available.
        """
        metrics = {"default": "fd_pointnet_ldraw", "views": "fd_views_mobilenetv2", "inception": "fd_views_inception"}
        if name not in metrics:
            raise UserError(f"features {name!r}: expected {', '.join(metrics)}")
        changed = replace(self, quality_metric=metrics[name])
        if name == "inception":
            changed._pictured().with_features(name)
        return changed

    def _pictured(self) -> Image:
        """The image modality, whose network sees the rendered views."""
        from modalities.image import Image

        canonical = self.quality_metric == "fd_views_inception"
        return Image(device=self.device, quality_metric="fid" if canonical else "fd_mobilenetv2")

    def prompts(self, n: int, rng: torch.Generator) -> list[str]:
        """``n`` captions of parts that no codec was fitted on; repeats only when n exceeds them."""
        if n < 0:
            raise UserError(f"prompts: expected 0 or more, found {n}")
        known = captions("prompts")
        order = torch.cat([torch.randperm(len(known), generator=rng) for _ in range(n // len(known) + 1)])
        return [known[i] for i in order[:n].tolist()]

    def release(self, field: Tensor) -> list[Mesh]:
        """Meshes by marching cubes at 64³; one without faces where a field has no surface."""
        return [released(one) for one in field]

    def soft_release(self, field: Tensor) -> Tensor:
        """The value of ``observe(release(field))`` with the gradient of a smooth twin (straight-through)."""
        return levelled(soft_observed(field))

    def observe(self, content: list[Mesh]) -> Tensor:
        """Filled share and surface colour on a grid, (B, 4, 32, 32, 32), whatever the size and place of a mesh."""
        return levelled(torch.stack(in_parallel(observed, content)))

    def augment(self, tensor: Tensor, rng: torch.Generator) -> Tensor:
        """One random distortion per call; see :mod:`modalities.shape3d.augmentation`."""
        return levelled(augmentation.distort(tensor / _levels(tensor), rng))

    def check(self, content: Any) -> None:
        """Raise ``UserError`` unless ``content`` is a list of meshes, finite, and with a body each."""
        if not isinstance(content, list) or not all(isinstance(mesh, Mesh) for mesh in content):
            found = (
                type(content).__name__ if not isinstance(content, list) else [type(mesh).__name__ for mesh in content]
            )
            raise UserError(f"content: expected a list of meshes, found {found}")
        for mesh in content:
            if fault := _fault(mesh):
                raise UserError(f"content: expected {fault}")

    def reference(self, n: int | None = None) -> list[Mesh]:
        """Real held-out parts (384 ship), as meshes at 64³."""
        fields, _ = data.shipped("reference")
        return self.release(fields[:n])

    def features(self, content: list[Mesh]) -> Tensor:
        """Features (B, d) of a PointNet, or of rendered views; see ``perceptual`` and ``views`` beside this."""
        if self.quality_metric == "fd_pointnet_ldraw":
            return perceptual.features(content)
        from modalities.shape3d import views

        return views.features(content, self._pictured().features)

    def paired(self, a: list[Mesh], b: list[Mesh]) -> dict[str, Tensor]:
        """Volume IoU, Chamfer distance, F-score, normals and colours of each pair."""
        return fidelity.paired(a, b)

    def perceptual_loss(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean squared difference of observed tensors (B,) at three sizes: of texture little is left at the others."""
        apart, total = a - b, torch.zeros(len(a), device=a.device)
        for _ in range(3):
            total = total + 10 * apart.square().flatten(1).mean(1)
            apart = F.avg_pool3d(apart, 2) * 2
        return total

    def picture(self, content: list[Mesh]) -> Tensor:
        """Rendered views; see :func:`modalities.shape3d.pictures.rendered`."""
        from modalities.shape3d.pictures import rendered

        return rendered(content)

    def difference(self, a: list[Mesh], b: list[Mesh]) -> tuple[str, list[Mesh]]:
        """``b`` painted by its distance from ``a``: white at none, red from 1 % of the diagonal on."""
        return "distance,\nred from 1 %", [
            fidelity.painted_by_distance(one, other) for one, other in zip(a, b, strict=True)
        ]

    def save(self, content: list[Mesh], path: Path) -> None:
        """Write one mesh as GLB, PLY, OBJ or STL, as the suffix says; STL has no colours.

        Raises:
            UserError: for several meshes, an unknown suffix, or a folder that cannot be written to.
        """
        self.check(content)
        if len(content) != 1:
            raise UserError(f"{path}: expected one mesh to save, found {len(content)}")
        files.write(content[0], path)

    def load(self, path: Path) -> list[Mesh]:
        """Read one GLB, PLY, OBJ or STL file.

        Raises:
            UserError: when there is no such file, or it holds no finite mesh with a body.
        """
        mesh = files.read(path)
        if fault := _fault(mesh):
            raise UserError(f"{path}: expected {fault}")
        return [mesh]


def levelled(seen: Tensor) -> Tensor:
    """What :func:`modalities.shape3d.voxels.observed` gives, (B, 4, 32, 32, 32), on the scales of :data:`LEVELS`."""
    return _levels(seen) * seen


def _levels(like: Tensor) -> Tensor:
    """:data:`LEVELS`, (4, 1, 1, 1), in the form of another tensor."""
    return torch.tensor(LEVELS, dtype=like.dtype, device=like.device).view(4, 1, 1, 1)


def _fault(mesh: Mesh) -> str:
    """What a mesh lacks, as "what is expected, found what"; empty when it is sound."""
    kinds = (mesh.vertices.dtype, mesh.faces.dtype, mesh.colours.dtype)
    if kinds != (torch.float32, torch.int64, torch.uint8):
        return f"float32 vertices, int64 faces and uint8 colours, found {', '.join(map(str, kinds))}"
    count = len(mesh.vertices)
    shapes = tuple(tuple(each.shape) for each in (mesh.vertices, mesh.faces, mesh.colours))
    if shapes != ((count, 3), (len(mesh.faces), 3), (count, 3)):
        return f"vertices (V, 3), faces (F, 3) and colours (V, 3), found {shapes}"
    if len(mesh.faces) < FEWEST_FACES:
        return f"at least {FEWEST_FACES} triangles, found {len(mesh.faces)}"
    if not (int(mesh.faces.min()) >= 0 and int(mesh.faces.max()) < count):
        return f"faces of the {count} vertices, found one of vertex {int(mesh.faces.max())}"
    used = mesh.vertices[mesh.faces.unique()]
    if not used.isfinite().all():
        return "finite vertices, found NaN or infinity"
    thickness = (used.amax(0) - used.amin(0)).amin() / (used.amax(0) - used.amin(0)).amax().clamp_min(1e-30)
    return "" if thickness > 1e-6 else "a body, found a flat mesh"
