"""The zip archives that carry a modality's shipped data."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

from bench.folders import replacing


def write_archive(members: Iterable[tuple[str, bytes]], path: Path, compression: int = zipfile.ZIP_STORED) -> None:
    """Write a zip file that takes its place only when whole: an interrupted rebuild leaves the old one.

    Args:
        members: name and content of each member, in the order of writing.
        path: where the archive belongs.
        compression: one of the constants of :mod:`zipfile`.
    """
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", compression) as archive:
        for name, content in members:
            # A fixed date keeps the archive's bytes the same on every rebuild.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, compression)
