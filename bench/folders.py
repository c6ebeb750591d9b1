"""Where GenPrint keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Folder for data, latents, trainings and codecs: ``$GENPRINT_CACHE``, or ``.cache/genprint`` here."""
    return Path(os.environ.get("GENPRINT_CACHE", ".cache/genprint"))
