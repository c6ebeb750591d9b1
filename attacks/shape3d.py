"""All content attacks on meshes, with their strength grids, mildest first.

The grids follow the suites named as source. Content is a list of :class:`bench.protocol.Mesh` of any size, in and out.
Attacks that came later stand in the list of their own file.
"""

from __future__ import annotations

from attacks import (
    shape3d_chain,
    shape3d_cutting,
    shape3d_flips,
    shape3d_gltf,
    shape3d_noise,
    shape3d_poisson,
    shape3d_subdivision,
    shape3d_texture,
    shape3d_views,
)
from attacks.grids import Card, Grid
from attacks.shape3d_colour import ColourDrop, ColourLevels, ColourNoise
from attacks.shape3d_cutting import MeshCrop
from attacks.shape3d_files import Draco, SaveAsOBJ, SaveAsSTL
from attacks.shape3d_listing import BENCHMARK, FUNC_EVADE, OURS, WAVES, mesh_family
from attacks.shape3d_pose import Affine, MeshRotation, NonUniformScaling, Reordering, Similarity
from attacks.shape3d_remesh import ConvexHull, Decimation, IsotropicRemesh
from attacks.shape3d_solid import MeshRegeneration, PointReconstruction, VoxelRemesh
from attacks.shape3d_vertices import LaplacianSmoothing, TaubinSmoothing, VertexNoise, VertexQuantisation
from attacks.tools import Tools
from bench.protocol import AttackFamily

__all__ = [
    "FAMILIES",
    "Affine",
    "ColourDrop",
    "ColourLevels",
    "ColourNoise",
    "ConvexHull",
    "Decimation",
    "Draco",
    "IsotropicRemesh",
    "LaplacianSmoothing",
    "MeshCrop",
    "MeshRegeneration",
    "MeshRotation",
    "NonUniformScaling",
    "PointReconstruction",
    "Reordering",
    "SaveAsOBJ",
    "SaveAsSTL",
    "Similarity",
    "TaubinSmoothing",
    "VertexNoise",
    "VertexQuantisation",
    "VoxelRemesh",
    "tool_families",
]

MOVED = (
    mesh_family(
        "vertex-noise",
        VertexNoise,
        Grid((0.001, 0.003, 0.005, 0.01, 0.02), 2, "diagonals"),
        Card("Moves the vertices at random to drown a weak signal.", BENCHMARK),
    ),
    mesh_family(
        "vertex-quantisation",
        lambda s: VertexQuantisation(int(s)),
        Grid((11, 9, 8, 7, 6, 5), 3, "bits"),
        Card("Rounds the coordinates to a coarse lattice.", BENCHMARK),
        standard=(),
    ),
    mesh_family(
        "laplacian-smoothing",
        lambda s: LaplacianSmoothing(int(s)),
        Grid((5, 10, 30, 50), 1, "iterations"),
        Card("Smooths the surface with a modeller; thin parts shrink.", BENCHMARK),
    ),
    mesh_family(
        "taubin-smoothing",
        lambda s: TaubinSmoothing(int(s)),
        Grid((5, 10, 30, 50), 1, "iterations"),
        Card("Smooths the surface so that its volume stays.", BENCHMARK),
        standard=(),
    ),
)

REMESHED = (
    mesh_family(
        "decimation",
        Decimation,
        Grid((0.7, 0.5, 0.3, 0.1, 0.05), 2, "share of the faces kept"),
        Card("Collapses edges, as every pipeline does for speed.", BENCHMARK),
    ),
    mesh_family(
        "isotropic-remesh",
        IsotropicRemesh,
        Grid((0.5, 0.25, 0.1, 0.05), 1, "clusters per vertex"),
        Card("Remeshes the surface with even triangles, as artists do before they sculpt.", OURS),
        standard=(0.5, 0.25, 0.1, 0.05),  # in suite quick a voxel remesh does as much
    ),
    mesh_family(
        "convex-hull",
        lambda _: ConvexHull(),
        Grid((1,), 0, "none"),
        Card("Replaces the mesh by its convex hull: a control that nobody would publish.", OURS),
        standard=(),
    ),
)

RECONSTRUCTED = (
    mesh_family(
        "voxel-remesh",
        lambda s: VoxelRemesh(int(s)),
        Grid((96, 64, 48, 32, 24, 16), 2, "voxels"),
        Card("Fills voxels and makes a new mesh around them.", FUNC_EVADE),
    ),
    mesh_family(
        "point-reconstruction",
        lambda s: PointReconstruction(int(s)),
        Grid((32768, 8192, 4096, 2048), 1, "points"),
        Card("Keeps a point cloud and makes a new mesh of it.", OURS),
        standard=(),
    ),
)

POSED = (
    mesh_family(
        "mesh-rotation",
        MeshRotation,
        Grid((1.0, 5.0, 15.0, 30.0, 90.0, 180.0), 3, "degrees"),
        Card("Turns the mesh around a random axis.", BENCHMARK),
    ),
    mesh_family(
        "similarity",
        Similarity,
        Grid((2.0, 10.0, 100.0, 1000.0), 1, "largest factor"),
        Card("Scales and moves the mesh, as another unit or another scene does.", BENCHMARK),
        standard=(),
    ),
    mesh_family(
        "affine",
        Affine,
        Grid((0.02, 0.05, 0.1, 0.2), 1, "strain"),
        Card("Stretches and shears the mesh.", OURS),
        standard=(0.05, 0.2),
    ),
    mesh_family(
        "non-uniform-scaling",
        NonUniformScaling,
        Grid((1.05, 1.1, 1.2, 1.5, 2.0), 2, "longest to shortest scale"),
        Card("Gives the mesh other proportions.", OURS),
        standard=(),
    ),
    mesh_family(
        "mesh-crop",
        MeshCrop,
        Grid((0.95, 0.9, 0.7, 0.5), 1, "share of the faces kept"),
        Card("Cuts a part off along a plane.", BENCHMARK),
    ),
    mesh_family(
        "reordering",
        lambda _: Reordering(),
        Grid((1,), 0, "none"),
        Card("Writes the same surface in another order.", BENCHMARK),
        standard=(),
    ),
)

PAINTED = (
    mesh_family(
        "colour-noise",
        ColourNoise,
        Grid((0.02, 0.05, 0.1, 0.2), 1, "of full brightness"),
        Card("Disturbs the colours and leaves the shape alone.", OURS),
    ),
    mesh_family(
        "colour-levels",
        lambda s: ColourLevels(int(s)),
        Grid((32, 16, 8, 4, 2), 2, "levels"),
        Card("Leaves few levels of each colour channel.", OURS),
        standard=(),
    ),
    mesh_family(
        "colour-drop",
        lambda _: ColourDrop(),
        Grid((1,), 0, "none"),
        Card("Publishes the bare shape, painted grey.", OURS),
        standard=(),
    ),
)

SAVED = (
    mesh_family(
        "draco",
        lambda s: Draco(int(s)),
        Grid((14, 11, 9, 8, 7), 2, "bits"),
        Card("Compresses the file with Draco, as web viewers do.", BENCHMARK),
    ),
    mesh_family(
        "save-as-obj",
        lambda s: SaveAsOBJ(int(s)),
        Grid((6, 4, 3, 2), 2, "digits"),
        Card("Saves as Wavefront OBJ, which is text with few digits.", OURS),
        standard=(),
    ),
    mesh_family(
        "save-as-stl",
        lambda _: SaveAsSTL(),
        Grid((1,), 0, "none"),
        Card("Saves as STL for a printer, which keeps no colours and no vertices.", OURS),
        standard=(),
    ),
)

FAMILIES = (
    *MOVED,
    *shape3d_noise.FAMILIES,
    *REMESHED,
    *shape3d_subdivision.FAMILIES,
    *shape3d_flips.FAMILIES,
    *RECONSTRUCTED,
    *shape3d_poisson.FAMILIES,
    *shape3d_views.FAMILIES,
    *POSED,
    *shape3d_cutting.FAMILIES,
    *PAINTED,
    *shape3d_texture.FAMILIES,
    *SAVED,
    *shape3d_gltf.FAMILIES,
    *shape3d_chain.FAMILIES,
)


def tool_families(tools: Tools) -> tuple[AttackFamily, ...]:
    """Attacks that need what the adversary brings: regeneration through an autoencoder."""
    reconstruct = tools.reconstruct
    if reconstruct is None:
        return ()
    return (
        mesh_family(
            "mesh-regeneration",
            lambda s: MeshRegeneration(int(s), reconstruct),
            Grid((1, 2, 4), 0, "passes"),
            Card(
                "Encodes and decodes with a public autoencoder that knows no fingerprint.",
                WAVES,
                "an autoencoder, such as the public one of the generator (reconstruct)",
            ),
            standard=(1, 2, 4),  # too slow for suite quick
        ),
    )
