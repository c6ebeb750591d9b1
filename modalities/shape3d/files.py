"""Mesh files: GLB, PLY, OBJ and STL, through trimesh."""

from __future__ import annotations

import json
import os
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.protocol import Mesh, UserError

SUFFIXES = (".glb", ".ply", ".obj", ".stl")
GREY = 128
"""Level of all three colours where a file says nothing about colour."""
MOST_FACES = 2_000_000
LARGEST_BYTES = 1 << 29
UNREADABLE = (
    OSError,
    ValueError,  # of which UnicodeDecodeError and JSONDecodeError are kinds
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    struct.error,
)
"""What trimesh raises for a damaged file."""


def write(mesh: Mesh, path: Path) -> None:
    """Write one mesh in the format of the suffix, atomically; STL holds no colours.

    Raises:
        UserError: for another suffix, or a folder that cannot be written to.
    """
    import trimesh  # takes half a second to import

    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: expected the suffix {', '.join(SUFFIXES)}, found {path.suffix!r}")
    body = trimesh.Trimesh(
        mesh.vertices.cpu().numpy(),
        mesh.faces.cpu().numpy(),
        vertex_colors=np.pad(mesh.colours.cpu().numpy(), ((0, 0), (0, 1)), constant_values=255),
        process=False,
    )
    partial = path.with_name(f".{path.name}.part")
    try:
        made: Any = body.export(file_type=suffix[1:])
        partial.write_bytes(made.encode() if isinstance(made, str) else made)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path}: expected a file that can be written, found: {_line(error)}") from error


def read(path: Path) -> Mesh:
    """One mesh; several bodies in a file are joined, face colours averaged at vertices.

    Raises:
        UserError: when there is no such file, its suffix is another, it holds no mesh, or one with too many faces.
    """
    import trimesh

    if not os.path.isfile(path):  # pathlib's raises for a name that is too long
        raise UserError(f"{path}: expected a mesh file, found {'a folder' if os.path.isdir(path) else 'none'}")
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: expected the suffix {', '.join(SUFFIXES)}, found {path.suffix!r}")
    if (size := path.stat().st_size) > LARGEST_BYTES:
        raise UserError(f"{path}: expected at most {LARGEST_BYTES >> 20} MiB, found {size >> 20} MiB")
    _check_claim(path, size)
    options: dict[str, Any] = {"skip_materials": True} if path.suffix.lower() == ".obj" else {}
    try:
        with warnings.catch_warnings(action="ignore"):  # of coordinates that no float holds
            body = trimesh.load_scene(path, process=False, **options).to_mesh()
        vertices, faces, colours = np.asarray(body.vertices), np.asarray(body.faces), _colours(body)
    except UNREADABLE as error:
        raise UserError(f"{path}: expected a mesh file, found something unreadable: {_line(error)}") from error
    if not len(faces):
        raise UserError(f"{path}: expected a mesh, found no faces")
    if len(faces) > MOST_FACES:
        raise UserError(f"{path}: expected at most {MOST_FACES} faces, found {len(faces)}")
    with np.errstate(over="ignore", invalid="ignore"):
        points = torch.from_numpy(vertices.astype(np.float32))
    return Mesh(points, torch.from_numpy(faces.astype(np.int64)), torch.from_numpy(colours))


def _colours(body: Any) -> np.ndarray:
    """RGB (V, 3) uint8; mid-grey where the file has none."""
    visual = body.visual
    if visual.kind is None:
        return np.full((len(body.vertices), 3), GREY, np.uint8)
    if visual.kind == "texture":
        visual = visual.to_color()
    shown = np.asarray(visual.vertex_colors)
    if len(shown) != len(body.vertices):
        raise ValueError(f"{len(shown)} colours for {len(body.vertices)} vertices")
    return shown[:, :3].astype(np.uint8)


def _check_claim(path: Path, size: int) -> None:
    """Refuse a header that promises more than the file can hold, before memory is set aside for it."""
    with path.open("rb") as file:
        head = file.read(4096)
    suffix, claimed, least = path.suffix.lower(), 0, 1
    if suffix == ".stl" and len(head) >= 84 and not head.lstrip().startswith(b"solid"):
        claimed, least = int.from_bytes(head[80:84], "little"), 50
    elif suffix == ".ply":
        lines = [line.split() for line in head.partition(b"end_header")[0].splitlines()]
        counts = [line[2] for line in lines if line[:2] == [b"element", b"face"] and len(line) == 3]
        claimed, least = (int(counts[0]), 4) if counts and counts[0].isdigit() else (0, 1)
    elif suffix == ".glb" and len(head) >= 20 and head[:4] == b"glTF":
        _check_accessors(path, min(int.from_bytes(head[12:16], "little"), size))
    if claimed * least > size:
        raise UserError(f"{path}: expected the {claimed} faces that its header promises, found a file of {size} bytes")


def _check_accessors(path: Path, length: int) -> None:
    """Refuse a GLB that announces more numbers than faces may have; what is no JSON is left to the reader."""
    with path.open("rb") as file:
        text = file.read(20 + length)[20:]
    try:
        document = json.loads(text)
        counts = [int(each["count"]) for each in document["accessors"]]
    except (ValueError, KeyError, TypeError):
        return
    if counts and max(counts) > 3 * MOST_FACES:
        raise UserError(f"{path}: expected at most {MOST_FACES} faces, found a header that promises {max(counts) // 3}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
