"""Shipped archives: rewritten as a whole or not at all."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modalities.archives import write_archive

MEMBERS = [("fluent/1F600.webp", bytes(range(256)) * 20), ("empty", b"")]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_LZMA])
def test_an_archive_holds_its_members_and_a_rebuild_has_the_same_bytes(tmp_path: Path, compression: int) -> None:
    for name in ("first", "second"):
        write_archive(MEMBERS, tmp_path / name, compression)
    with zipfile.ZipFile(tmp_path / "first") as archive:
        assert [(name, archive.read(name)) for name in archive.namelist()] == MEMBERS
        assert {member.compress_type for member in archive.infolist()} == {compression}
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_an_interrupted_rebuild_leaves_the_old_archive(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, bytes]]:
        yield MEMBERS[0]
        raise KeyboardInterrupt

    write_archive(MEMBERS, tmp_path / "images.zip")
    before = (tmp_path / "images.zip").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_archive(broken(), tmp_path / "images.zip")
    assert (tmp_path / "images.zip").read_bytes() == before
