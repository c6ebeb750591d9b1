"""All content attacks on meshes, with their strength grids, mildest first.

The grids follow the suites named as source. Content is a list of :class:`bench.protocol.Mesh` of any size, in and out.
"""

from __future__ import annotations

from collections.abc import Callable

from attacks.shape3d_colour import ColourDrop, ColourNoise, ColourQuantisation
from attacks.shape3d_files import Draco, SaveAsOBJ, SaveAsSTL
from attacks.shape3d_pose import Affine, MeshCrop, Reordering, Rotation, Similarity
from attacks.shape3d_remesh import ConvexHull, Decimation, IsotropicRemesh, Subdivision
from attacks.shape3d_solid import MeshRegeneration, PointReconstruction, VoxelRemesh
from attacks.shape3d_vertices import LaplacianSmoothing, TaubinSmoothing, VertexNoise, VertexQuantisation
from attacks.tools import Tools
from bench.protocol import AttackFamily, ContentAttack

__all__ = [
    "FAMILIES",
    "Affine",
    "ColourDrop",
    "ColourNoise",
    "ColourQuantisation",
    "ConvexHull",
    "Decimation",
    "Draco",
    "IsotropicRemesh",
    "LaplacianSmoothing",
    "MeshCrop",
    "MeshRegeneration",
    "PointReconstruction",
    "Reordering",
    "Rotation",
    "SaveAsOBJ",
    "SaveAsSTL",
    "Similarity",
    "Subdivision",
    "TaubinSmoothing",
    "VertexNoise",
    "VertexQuantisation",
    "VoxelRemesh",
    "tool_families",
]

BENCHMARK = "Wang et al., SMI 2010"
FUNC_EVADE = "arXiv:2311.12059"
OURS = "GenPrint"
WAVES = "WAVES, arXiv:2401.08573"


def _family(
    name: str, make: Callable[[float], ContentAttack], strengths: tuple[float, ...], quick: int, unit: str, source: str
) -> AttackFamily:
    return AttackFamily(name, "3d", "content", make, strengths, quick, unit, source)


FAMILIES = (
    _family("vertex-noise", VertexNoise, (0.001, 0.003, 0.005, 0.01, 0.02), 2, "diagonals", BENCHMARK),
    _family("vertex-quantisation", lambda s: VertexQuantisation(int(s)), (11, 9, 8, 7, 6, 5), 3, "bits", BENCHMARK),
    _family("laplacian-smoothing", lambda s: LaplacianSmoothing(int(s)), (5, 10, 30, 50), 1, "iterations", BENCHMARK),
    _family("taubin-smoothing", lambda s: TaubinSmoothing(int(s)), (5, 10, 30, 50), 1, "iterations", BENCHMARK),
    _family("decimation", Decimation, (0.7, 0.5, 0.3, 0.1, 0.05), 2, "share of the faces kept", BENCHMARK),
    _family("subdivision", lambda s: Subdivision(int(s)), (1, 2), 0, "times", BENCHMARK),
    _family("isotropic-remesh", IsotropicRemesh, (0.5, 0.25, 0.1, 0.05), 1, "clusters per vertex", OURS),
    _family("voxel-remesh", lambda s: VoxelRemesh(int(s)), (96, 64, 48, 32, 24, 16), 2, "voxels", FUNC_EVADE),
    _family(
        "point-reconstruction", lambda s: PointReconstruction(int(s)), (32768, 8192, 4096, 2048), 1, "points", OURS
    ),
    _family("rotation", Rotation, (1.0, 5.0, 15.0, 30.0, 90.0, 180.0), 3, "degrees", BENCHMARK),
    _family("similarity", Similarity, (2.0, 10.0, 1000.0), 1, "largest factor", BENCHMARK),
    _family("affine", Affine, (0.02, 0.05, 0.1, 0.2), 1, "strain", OURS),
    _family("mesh-crop", MeshCrop, (0.95, 0.9, 0.7, 0.5), 1, "share of the faces kept", BENCHMARK),
    _family("reordering", lambda _: Reordering(), (1,), 0, "none", BENCHMARK),
    _family("colour-noise", ColourNoise, (0.02, 0.05, 0.1, 0.2), 1, "of full brightness", OURS),
    _family("colour-quantisation", lambda s: ColourQuantisation(int(s)), (32, 16, 8, 4, 2), 2, "levels", OURS),
    _family("colour-drop", lambda _: ColourDrop(), (1,), 0, "none", OURS),
    _family("draco", lambda s: Draco(int(s)), (14, 11, 9, 8, 7), 2, "bits", BENCHMARK),
    _family("save-as-obj", lambda s: SaveAsOBJ(int(s)), (6, 4, 3, 2), 2, "digits", OURS),
    _family("save-as-stl", lambda _: SaveAsSTL(), (1,), 0, "none", OURS),
    _family("convex-hull", lambda _: ConvexHull(), (1,), 0, "none", OURS),
)


def tool_families(tools: Tools) -> tuple[AttackFamily, ...]:
    """Attacks that need what the adversary brings: regeneration through an autoencoder."""
    reconstruct = tools.reconstruct
    if reconstruct is None:
        return ()
    return (
        _family("mesh-regeneration", lambda s: MeshRegeneration(int(s), reconstruct), (1, 2, 4), 0, "passes", WAVES),
    )
