"""Where GenPrint keeps what it can make again, and how files come to be whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """Folder for data, latents, trainings and codecs: ``$GENPRINT_CACHE``, or ``.cache/genprint`` here."""
    return Path(os.environ.get("GENPRINT_CACHE", ".cache/genprint"))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A scratch path that becomes ``path`` when the block ends well, and vanishes when it does not."""
    partial = path.with_name(f".{path.name}.part")  # the name of what a killed process left, so it does not pile up
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
