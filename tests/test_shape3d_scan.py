"""What readers see of a field without its mesh is what they see of the mesh, but for bilinear surfaces' difference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.rng import stream
from modalities.shape3d import Shape3D, data, scan
from modalities.shape3d.grids import EXTENT, points
from modalities.shape3d.surface import released
from modalities.shape3d.voxels import frame_of, observed, seen, smoothed


def shapes() -> Tensor:
    """Real parts, a slanted half-space that reaches the cube's walls, and smooth random blobs."""
    parts, _ = data.shipped("reference")
    noise = torch.randn(2, 4, 32, 32, 32, generator=stream(3, "blobs"))
    for _ in range(6):
        noise = smoothed(noise)
    blobs = torch.cat([30 * noise[:, :1], noise[:, 1:].sigmoid()], 1)
    slanted = points() @ torch.tensor([1.0, 0.7, 0.3]) * 4
    half = torch.cat([slanted[None], (points().T + 1) / 2]).view(1, 4, 32, 32, 32)
    return torch.cat([parts[[0, 7, 99]], half, blobs])


FIELDS = shapes()


def test_frames_are_those_of_the_meshes() -> None:
    boxes = scan.volumes(FIELDS)[1]
    for field, centre, scale in zip(FIELDS, boxes.centre, boxes.scale, strict=True):
        frame = frame_of(released(field))
        assert torch.allclose(centre.double(), torch.from_numpy(frame.centre), atol=1e-5)
        assert float(scale) == pytest.approx(frame.scale, rel=1e-5)


def test_what_is_seen_is_what_is_seen_of_the_mesh() -> None:
    found = seen(scan.volumes(FIELDS)[0])
    for field, ours in zip(FIELDS, found, strict=True):
        meshed = observed(released(field))
        assert meshed.std() > 0.1
        # A fingerprint is 31 dB from the original: what differs here has to be far below it.
        assert F.mse_loss(ours, meshed) < 10**-4.8


def test_finer_fields_are_scanned_as_they_are() -> None:
    fine = F.interpolate(FIELDS[:1], (64,) * 3, mode="trilinear")
    assert F.mse_loss(seen(scan.volumes(fine)[0])[0], observed(released(fine[0]))) < 10**-4.8


def test_nothing_is_seen_of_nothing() -> None:
    empty = torch.cat([torch.full((1, 1, 32, 32, 32), -1.0), torch.full((1, 3, 32, 32, 32), 0.4)], 1)
    grids, boxes = scan.volumes(empty)
    assert not grids.any()
    assert (boxes.centre.abs().max(), boxes.scale.item()) == (0, pytest.approx(EXTENT))
    assert torch.equal(seen(grids)[0], observed(released(empty[0])))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_releases_softly_what_a_processor_does_with_the_same_gradient() -> None:
    gradients, values = [], []
    for device in ("cpu", "cuda"):
        fields = FIELDS.to(device).requires_grad_(True)
        soft = Shape3D(device=device).soft_release(fields)
        soft.square().sum().backward()
        assert fields.grad is not None
        gradients.append(fields.grad.cpu())
        values.append(soft.detach().cpu())
    assert F.mse_loss(*values) < 10**-4
    assert F.cosine_similarity(gradients[0].flatten(), gradients[1].flatten(), dim=0) > 0.99
