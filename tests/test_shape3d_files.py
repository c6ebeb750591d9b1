"""Mesh files that are none, or hold no mesh, end in one line."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench.__main__ import app
from bench.protocol import Mesh, UserError
from modalities.shape3d import Shape3D, files
from tests.meshes import brick, cube

SHAPE = Shape3D()
BOX = cube()


def stl(claimed: int, written: int) -> bytes:
    return bytes(80) + struct.pack("<I", claimed) + bytes(50) * written


def ply(faces: int, body: str, vertices: int = 4) -> bytes:
    coordinates = "".join(f"property float {axis}\n" for axis in "xyz")
    head = f"ply\nformat ascii 1.0\nelement vertex {vertices}\n{coordinates}"
    return f"{head}element face {faces}\nproperty list uchar int vertex_indices\nend_header\n{body}".encode()


def glb(document: dict[str, object]) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIIII", b"glTF", 2, 20 + len(text), len(text), 0x4E4F534A) + text


POINTS = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n"
SOLID = "3 0 2 1\n3 0 1 3\n3 1 2 3\n3 0 3 2\n"
ACCESSORS = [
    {"componentType": 5126, "count": 10_000_000, "type": "VEC3"},
    {"componentType": 5125, "count": 30_000_000, "type": "SCALAR"},
]
HUGE = {
    "asset": {"version": "2.0"},
    "accessors": ACCESSORS,
    "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
    "nodes": [{"mesh": 0}],
    "scenes": [{"nodes": [0]}],
    "scene": 0,
}
BAD = {
    "empty.glb": b"",
    "text.glb": b"I am not a mesh at all.\n" * 20,
    "huge.glb": glb(HUGE),
    "nothing.glb": glb({"asset": {"version": "2.0"}}),
    "claims.stl": stl(10_000_000, 3),
    "one.stl": stl(1, 1),
    "none.stl": stl(0, 0),
    "text.stl": b"solid ice\nendsolid ice\n",
    "claims.ply": ply(10_000_000, POINTS + SOLID),
    "short.ply": ply(4, POINTS),
    "one.ply": ply(1, POINTS + "3 0 1 2\n"),
    "nan.ply": ply(4, POINTS.replace("1 0 0", "nan 0 0") + SOLID),
    "infinite.ply": ply(4, POINTS.replace("1 0 0", "1e300 0 0") + SOLID),
    "flat.ply": ply(4, POINTS.replace("0 0 1", "1 1 0") + SOLID),
    "index.ply": ply(4, POINTS + SOLID.replace("3 0 3 2", "3 0 3 99")),
    "points.obj": b"v 0 0 0\nv 1 0 0\n",
    "binary.obj": bytes(range(256)) * 8,
    "index.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n",
    "mesh.xyz": b"0 0 0\n",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_mesh_ends_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BAD[name])
    with pytest.raises(UserError) as caught:
        SHAPE.load(path)
    assert str(caught.value).startswith(f"{path}: expected ") and ", found " in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_what_is_not_there_or_a_folder_ends_in_one_line(tmp_path: Path) -> None:
    for path, found in (
        (tmp_path, "a folder"),
        (tmp_path / "a.glb", "none"),
        (tmp_path / ("n" * 300 + ".glb"), "none"),
    ):
        with pytest.raises(UserError, match=f"expected a mesh file, found {found}$"):
            SHAPE.load(path)


def test_a_file_may_hold_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SHAPE.save([BOX], tmp_path / "a.ply")
    monkeypatch.setattr(files, "MOST_FACES", 11)
    with pytest.raises(UserError, match="expected at most 11 faces, found 12"):
        SHAPE.load(tmp_path / "a.ply")
    monkeypatch.setattr(files, "LARGEST_BYTES", 10)
    with pytest.raises(UserError, match="expected at most 0 MiB"):
        SHAPE.load(tmp_path / "a.ply")


@pytest.mark.parametrize("name", ["a", "a.xyz", "missing/a.glb"])
def test_what_cannot_be_saved_ends_in_one_line_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        SHAPE.save([BOX], tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: expected ") and not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="expected one mesh to save, found 2"):
        SHAPE.save([BOX, BOX], tmp_path / "a.glb")


@pytest.mark.parametrize("suffix", files.SUFFIXES)
def test_a_saved_mesh_is_the_same_body(tmp_path: Path, suffix: str) -> None:
    mesh = brick(16)
    files.write(mesh, tmp_path / f"a{suffix}")
    again = files.read(tmp_path / f"a{suffix}")
    corners = [m.vertices[m.faces].flatten(1).sort(0)[0] for m in (mesh, again)]
    assert torch.allclose(*corners, atol=1e-5)
    assert (again.vertices.dtype, again.faces.dtype, again.colours.dtype) == (torch.float32, torch.int64, torch.uint8)
    if suffix == ".stl":
        assert again.colours.unique().tolist() == [files.GREY], "a file without colours is mid-grey"
    else:
        shown = [m.colours[m.faces].float().flatten(1).sort(0)[0] for m in (mesh, again)]
        assert torch.allclose(*shown, atol=1)


def test_several_bodies_in_one_file_are_joined(tmp_path: Path) -> None:
    import trimesh

    scene = trimesh.Scene([trimesh.creation.box(), trimesh.creation.box().apply_translation([3, 0, 0])])
    (tmp_path / "two.glb").write_bytes(scene.export(file_type="glb"))
    (mesh,) = SHAPE.load(tmp_path / "two.glb")
    assert len(mesh.faces) == 24 and float(mesh.vertices[:, 0].amax()) == pytest.approx(3.5)


def test_an_inverted_mesh_is_taken_as_it_is(tmp_path: Path) -> None:
    SHAPE.save([Mesh(BOX.vertices, BOX.faces.flip(1), BOX.colours)], tmp_path / "a.ply")
    assert torch.allclose(SHAPE.observe(SHAPE.load(tmp_path / "a.ply")), SHAPE.observe([BOX]), atol=1e-4)


def test_a_run_without_weights_ends_in_one_line_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    from modalities.shape3d import grid_generator

    monkeypatch.setattr(grid_generator, "EMBEDDED", tmp_path / "ldraw32")
    result = CliRunner().invoke(app, ["run", "--modality", "3d", "--quiet", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "make embedded MODALITY=3d" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
