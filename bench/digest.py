"""Content hashes: what names a cached latent or a result cell."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.protocol import Codec, Generator


def digest_of(parts: dict[str, Any]) -> str:
    """SHA-256, hexadecimal, of a JSON-able description; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def module_digest(module: nn.Module) -> str:
    """SHA-256 of the names, types, shapes and bytes of a module's state."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(_bytes(tensor))
    return total.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(dtype=torch.uint8).numpy().tobytes() if flat.numel() else b""


def generator_digest(generator: Generator) -> str:
    """Hash of a generator's name and settings, its decoder, and every other module that it holds as an attribute."""
    held = {name: value for name, value in vars(generator).items() if isinstance(value, nn.Module)}
    modules = {name: module_digest(module) for name, module in (held | {"decoder": generator.decoder}).items()}
    return digest_of({"name": generator.name, "settings": plain_repr(generator), "modules": modules})


def codec_digest(codec: Codec) -> str:
    """Hash of what ``codec.save`` writes; safetensors leaves the order of its metadata open, so that is sorted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codec.safetensors"
        codec.save(path)
        raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode() + raw[8 + length :]).hexdigest()


def plain_repr(thing: object) -> str:
    """``repr`` without the memory addresses of functions, which differ from process to process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing))


def source_digest(*things: object) -> str:
    """Hash of the source files that define the classes of ``things``: edited code makes new cells.

    For an attack that is every file of ``attacks`` that its own imports, directly or not, so that a change to a helper
    that several attacks share does not leave their old cells valid.
    """
    total = hashlib.sha256()
    for thing in things:
        path = inspect.getsourcefile(type(thing))
        if not path or not Path(path).is_file():
            total.update(type(thing).__qualname__.encode())
            continue
        for file in [Path(path), *sorted(_reached(Path(path), type(thing).__module__))]:
            total.update(file.read_bytes())
    return total.hexdigest()


FOLLOWED = ("attacks",)
"""Packages whose imports of their own modules are followed."""


def _reached(path: Path, module: str) -> set[Path]:
    """Other files of the module's package that ``path`` imports, at any depth."""
    package, *below = module.split(".")
    if package not in FOLLOWED:
        return set()
    root = path.parents[len(below) - (path.name != "__init__.py")]
    found, waiting = {path}, [path]
    while waiting:
        names = _imported(waiting.pop().read_bytes(), package)
        fresh = {file for name in names for file in _files(root, name)} - found
        found |= fresh
        waiting += fresh
    return found - {path}


@lru_cache(maxsize=1024)
def _imported(source: bytes, package: str) -> frozenset[str]:
    """Dotted names under ``package`` that a source file imports; ``from a import b`` counts as ``a.b``."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return frozenset(name for name in names if name.partition(".")[0] == package)


def _files(root: Path, name: str) -> set[Path]:
    """Files that importing ``name``, a module of the package in ``root`` or something in one, is about."""
    parts = name.split(".")[1:]
    for length in range(len(parts), -1, -1):
        place = root.joinpath(*parts[:length])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return {file}
    return set()
