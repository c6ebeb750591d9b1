"""A mesh attack that writes a small glTF file, as web sites serve it, and reads it again."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Generator

from attacks.grids import Card, Grid
from attacks.limits import check_strength
from attacks.shape3d_listing import OURS, mesh_family
from attacks.shape3d_meshes import box_of, made, mesh_by_mesh, vertices_of
from bench.protocol import Mesh, Target

SHORT, BYTE, INTEGER = 5123, 5121, 5125
"""Numbers of glTF for unsigned integers of 16, 8 and 32 bits."""


@dataclass(frozen=True)
class QuantisedGLTF:
    """Write binary glTF with whole-number coordinates, as gltfpack does, and open it with trimesh.

    Extension KHR_mesh_quantization: coordinates on a lattice over the box, equal vertices become one, triangles
    of which two corners fall together go.

    Attributes:
        bits: of a coordinate, at most 16; lower is stronger.
    """

    bits: int = 10
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 2, 16)

    def __call__(self, content: Sequence[Mesh], rng: Generator) -> list[Mesh]:
        """Meshes, written and opened again."""
        import trimesh

        def reopened(mesh: Mesh) -> Mesh:
            low, high = box_of(mesh)
            step = max(float((high - low).max()), 1e-12) / (2**self.bits - 1)
            lattice = np.round((vertices_of(mesh) - low) / step).clip(0, 2**self.bits - 1).astype(np.uint16)
            vertices, faces = _welded(np.concatenate([lattice, mesh.colours.numpy().astype(np.uint16)], 1), mesh)
            if not len(faces):
                return mesh
            file = io.BytesIO(_file(vertices, faces, (low.tolist(), step)))
            found: Any = trimesh.load_mesh(file, file_type="glb", process=False)
            return made(found.vertices, found.faces, np.asarray(found.visual.vertex_colors)[:, :3])

        return mesh_by_mesh(content, reopened)


def _welded(values: NDArray[np.uint16], mesh: Mesh) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """Different rows of ``values`` (V, 6) that faces use, and the faces between them whose corners lie apart."""
    a, b, c = (values[mesh.faces.numpy()[:, corner], :3] for corner in range(3))
    apart = (a != b).any(1) & (b != c).any(1) & (c != a).any(1)
    found, place = np.unique(values, axis=0, return_inverse=True)
    used, faces = np.unique(place.reshape(-1)[mesh.faces.numpy()[apart]], return_inverse=True)
    return found[used], faces.reshape(-1, 3).astype(np.uint32)


def _file(vertices: NDArray[np.uint16], faces: NDArray[np.uint32], frame: tuple[list[float], float]) -> bytes:
    """Binary glTF of lattice places and colours (V, 6), and of the lattice's corner and step."""
    places = np.pad(vertices[:, :3], [(0, 0), (0, 1)]).tobytes()  # attributes stand at multiples of four bytes
    colours = np.pad(vertices[:, 3:], [(0, 0), (0, 1)], constant_values=255).astype(np.uint8).tobytes()
    parts = (places, colours, faces.tobytes())
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    views: list[dict[str, Any]] = [
        {"buffer": 0, "byteOffset": start, "byteLength": len(part)} for start, part in zip(starts, parts, strict=False)
    ]
    views[0] |= {"byteStride": 8}
    views[1] |= {"byteStride": 4}
    count, (corner, step) = len(vertices), frame
    spread = {"min": vertices[:, :3].min(0).tolist(), "max": vertices[:, :3].max(0).tolist()}
    described = {
        "asset": {"version": "2.0"},
        "extensionsUsed": ["KHR_mesh_quantization"],
        "extensionsRequired": ["KHR_mesh_quantization"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "translation": corner, "scale": [step] * 3}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2}]}],
        "accessors": [
            {"bufferView": 0, "componentType": SHORT, "count": count, "type": "VEC3", **spread},
            {"bufferView": 1, "componentType": BYTE, "normalized": True, "count": count, "type": "VEC4"},
            {"bufferView": 2, "componentType": INTEGER, "count": faces.size, "type": "SCALAR"},
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": starts[-1]}],
    }
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % 4)
    chunks = (
        struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", starts[-1], b"BIN\0") + b"".join(parts)
    )
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


FAMILIES = (
    mesh_family(
        "quantised-gltf",
        lambda s: QuantisedGLTF(int(s)),
        Grid((14, 11, 9, 8, 7), 2, "bits"),
        Card("Shrinks the file to quantised glTF, as web shops serve it.", OURS),
        standard=(),
    ),
)
