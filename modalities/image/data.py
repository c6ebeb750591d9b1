"""Captioned 64×64 emoji in two styles: what the embedded generator learns, and the held-out reference.

Microsoft Fluent 3D emoji (MIT) and Google Noto emoji (Apache-2.0) with the names and tags of emojibase (MIT).
A concept ("hot dog") exists in both styles and always falls into one split as a whole:

- ``fit`` (70 %): the generator and the fingerprint codec learn from it;
- ``prompts`` (15 %): the generator learns it, the codec never sees it; benchmark prompts come from here;
- ``reference`` (15 %): nobody trains on it; the real held-out images of the Fréchet distance.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from bench.folders import cache_folder
from bench.protocol import UserError
from modalities.archives import write_archive
from modalities.packages import Package

SIZE = 64
STYLES = {"fluent": "fluent 3d emoji", "noto": "noto emoji"}
SHIPPED = Path(__file__).parent / "reference"

FLUENT = Package(
    "npm",
    "@lobehub/fluent-emoji-3d",
    "1.1.0",
    "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    "MIT",
)
NOTO = Package(
    "npm",
    "emoji-datasource-google",
    "16.0.0",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "Apache-2.0",
)
NAMES = Package(
    "npm",
    "emojibase-data",
    "17.0.0",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    "MIT",
)


@dataclass(frozen=True)
class Concept:
    """One thing an emoji shows.

    Attributes:
        code: Unicode code points in hexadecimal, joined by hyphens.
        label: its name, such as ``hot dog``.
        tags: further words for it.
        split: ``fit``, ``prompts`` or ``reference``.
    """

    code: str
    label: str
    tags: tuple[str, ...]
    split: str

    def caption(self, style: str) -> str:
        """Prompt text in plain words, such as ``fluent 3d emoji of a hot dog``."""
        return f"{STYLES[style]} of {_phrase(self.label)}"


def _phrase(label: str) -> str:
    if label.startswith("flag: "):
        return f"the flag of {label[6:]}".lower()
    text = label.replace(":", ",").replace("’", "'").lower()
    if re.match(r"(the |[0-9]|keycap)", text) or (text.endswith("s") and not text.endswith("ss")):
        return text
    return f"an {text}" if text[0] in "aeio" else f"a {text}"


def _split(label: str) -> str:
    """Split by a hash of the label; gender variants of one thing share a split."""
    root = re.sub(r"^(man|woman|person|men|women|people)\b[ :]*", "", label)
    share = int(hashlib.sha256(root.encode()).hexdigest()[:8], 16) / 2**32
    return "reference" if share < 0.15 else "prompts" if share < 0.30 else "fit"


def _plain(code: str) -> str:
    return re.sub(r"-fe0f|^0+", "", code.lower())


def build() -> Path:
    """Fetch the packages, render every captioned image, and write the set into the cache.

    Returns:
        The ``.npz`` file with ``images`` (N, 3, 64, 64) uint8, ``codes`` and ``styles`` (N,).
    """
    files = {
        "fluent": _members(FLUENT.fetch(), "package/assets/", ".webp"),
        "noto": _members(NOTO.fetch(), "package/img/google/64/", ".png"),
    }
    rows = [
        (_render(files[style][_plain(concept.code)]), concept.code, style)
        for concept in _read_names()
        if all(_plain(concept.code) in files[style] for style in STYLES)
        for style in STYLES
    ]
    target = cache_folder() / "image" / "emoji64.npz"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name("emoji64.part.npz")
    images, codes, styles = zip(*rows, strict=True)
    np.savez_compressed(partial, images=np.stack(images), codes=np.array(codes), styles=np.array(styles))
    os.replace(partial, target)
    return target


def _members(package: Path, folder: str, suffix: str) -> dict[str, bytes]:
    """Files of one folder by plain code; read front to back, since seeking in a gzip stream is slow."""
    files: dict[str, bytes] = {}
    with tarfile.open(package, "r|gz") as archive:
        for member in archive:
            if member.name.startswith(folder) and member.name.endswith(suffix):
                file = archive.extractfile(member)
                if file is not None:
                    files[_plain(member.name[len(folder) : -len(suffix)])] = file.read()
    return files


def _render(picture: bytes) -> np.ndarray:
    rgba = Pillow.open(io.BytesIO(picture)).convert("RGBA").resize((SIZE, SIZE), Pillow.Resampling.LANCZOS)
    white = Pillow.new("RGBA", rgba.size, "white")
    return np.asarray(Pillow.alpha_composite(white, rgba).convert("RGB")).transpose(2, 0, 1)  # (3, 64, 64)


def _read_names() -> list[Concept]:
    with tarfile.open(NAMES.fetch()) as archive:
        file = archive.extractfile("package/en/data.json")
        if file is None:
            raise RuntimeError("emojibase-data has no package/en/data.json")
        entries = json.load(file)
    return [
        Concept(e["hexcode"], e["label"], tuple(e.get("tags", ())), _split(e["label"]))
        for e in entries
        if e.get("group") not in (None, 2)  # bare regional letters and skin tones are not pictures
    ]


@lru_cache(maxsize=1)
def full_set() -> tuple[Tensor, list[str], list[str]]:
    """Every captioned image, built by ``make data MODALITY=image``.

    Returns:
        Images (N, 3, 64, 64) uint8, the code of each, the style of each.

    Raises:
        UserError: before the set was built.
    """
    path = cache_folder() / "image" / "emoji64.npz"
    if not path.is_file():
        raise UserError(f"training images: expected {path}, found none; run `make data MODALITY=image` first")
    with np.load(path, allow_pickle=False) as file:
        return torch.from_numpy(file["images"]), file["codes"].tolist(), file["styles"].tolist()


def training_images(splits: tuple[str, ...] = ("fit",)) -> Tensor:
    """Images of the concepts in ``splits``, (N, 3, 64, 64) uint8."""
    images, codes, _ = full_set()
    split = {concept.code: concept.split for concept in concepts()}
    return images[torch.tensor([split[code] in splits for code in codes])]


@lru_cache(maxsize=1)
def concepts() -> tuple[Concept, ...]:
    """All concepts with their splits, from the shipped table."""
    with (SHIPPED / "concepts.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Concept(row["code"], row["label"], tuple(filter(None, row["tags"].split("|"))), row["split"])
            for row in csv.DictReader(file)
        )


@lru_cache(maxsize=1)
def reference_images() -> tuple[Tensor, list[str]]:
    """The shipped held-out images.

    Returns:
        Images (N, 3, 64, 64) uint8 in both styles, and the caption of each.
    """
    names = {(c.code, style): c.caption(style) for c in concepts() if c.split == "reference" for style in STYLES}
    with zipfile.ZipFile(SHIPPED / "images.zip") as archive:
        return _stack(archive, [f"{style}/{code}.webp" for code, style in names]), list(names.values())


@lru_cache(maxsize=1)
def public_images() -> Tensor:
    """Shipped images (N, 3, 64, 64) uint8 of learned concepts: what an attacker calls clean public content."""
    with zipfile.ZipFile(SHIPPED / "public.zip") as archive:
        return _stack(archive, archive.namelist())


def _stack(archive: zipfile.ZipFile, names: list[str]) -> Tensor:
    pictures = [np.asarray(Pillow.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def ship() -> None:
    """Write what the repository carries: the concept table, reference and public images (lossless WebP)."""
    known = set(full_set()[1])
    chosen = [concept for concept in _read_names() if concept.code in known]
    SHIPPED.mkdir(parents=True, exist_ok=True)
    with (SHIPPED / "concepts.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["code", "label", "tags", "split"])
        writer.writerows([c.code, c.label, "|".join(c.tags), c.split] for c in chosen)
    held_out = {concept.code for concept in chosen if concept.split == "reference"}
    learned = [concept.code for concept in chosen if concept.split == "fit"]
    write_archive(_pictures(held_out), SHIPPED / "images.zip")
    write_archive(_pictures(set(learned[:: len(learned) // 64])), SHIPPED / "public.zip")


def _pictures(wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    for image, code, style in zip(*full_set(), strict=True):
        if code in wanted:
            buffer = io.BytesIO()
            picture = Pillow.fromarray(image.permute(1, 2, 0).numpy())
            picture.save(buffer, "WEBP", lossless=True, quality=100, method=6)
            yield f"{style}/{code}.webp", buffer.getvalue()


def main() -> None:
    """Rebuild the training set and the shipped reference from their packages."""
    print(f"wrote {build()}")
    ship()
    counts = {split: sum(c.split == split for c in concepts()) for split in ("fit", "prompts", "reference")}
    print(f"{len(concepts())} concepts in {len(STYLES)} styles: {counts}")


if __name__ == "__main__":
    main()
