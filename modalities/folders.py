"""What a folder of weights has to hold, found out before anything is loaded."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from bench.protocol import UserError

WEIGHTS = re.compile(r"[^.]+(?:\.(\w+?))?(?:-\d{5}-of-\d{5})?\.safetensors")
"""A file of weights: ``model.fp16-00001-of-00002.safetensors`` is of the variant ``fp16``."""


def is_local(spec: str | None) -> bool:
    """Whether a name can only be meant as a folder: it is one, or has not the form of a hub id."""
    return spec is None or Path(spec).exists() or spec.startswith((".", "/")) or spec.count("/") != 1


def check_folder(folder: Path) -> None:
    """Refuse a folder that is no pipeline with an autoencoder in safetensors.

    Raises:
        UserError: one line that names the folder, what was expected and what was found.
    """
    if folder.is_file():
        raise UserError(f"generator {folder}: expected a folder or a torch.export file (.pt2), found {_kind(folder)}")
    if not folder.is_dir():
        raise UserError(f"generator {folder}: expected a diffusers pipeline folder, found no such folder")
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(f"generator {folder}: expected model_index.json in it, found {_model(folder)}")
    try:
        parts = json.loads(index.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"generator {folder}: model_index.json is not JSON ({error})") from error
    if not isinstance(parts, dict) or "vae" not in parts:
        found = sorted(parts) if isinstance(parts, dict) else type(parts).__name__
        raise UserError(f"generator {folder}: expected a vae in model_index.json, found {found}")
    named = [name for name, part in parts.items() if isinstance(part, list) and None not in part]
    if absent := [name for name in named if not (folder / name).is_dir()]:
        raise UserError(f"generator {folder}: expected the folder {absent[0]}/ that model_index.json names, found none")
    check_weights(folder, "vae/")


def _model(folder: Path) -> str:
    """What is in a folder that is no pipeline: the model whose ``config.json`` is there."""
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "none"
    kinds = about.get("architectures") or [about.get("_class_name")] if isinstance(about, dict) else [None]
    return f"a single {kinds[0]}" if kinds[0] else "none"


def _kind(path: Path) -> str:
    """What a file is that no adapter reads."""
    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    if any("/code/" in name for name in names):
        return "TorchScript, whose weights cannot be replaced; write it with torch.export.save"
    return "a file that is neither"


def check_weights(folder: Path, place: str = "") -> None:
    """Refuse a folder whose weights, in its part ``place``, are no safetensors.

    Raises:
        UserError: also when the only weights there are pickles.
    """
    files = sorted((folder / place).glob("*"))
    if not any(path.suffix == ".safetensors" for path in files):
        pickles = [path.name for path in files if path.suffix in {".bin", ".pt", ".pth", ".ckpt"}]
        found = f"the pickle {pickles[0]}, which is refused" if pickles else "no weights"
        raise UserError(f"generator {folder}: expected safetensors in {place or 'it'}, found {found}")


def variant_of(folder: Path) -> str | None:
    """The variant in which a component's weights are there, when they are there in no other form."""
    names = [WEIGHTS.fullmatch(path.name) for path in folder.glob("*.safetensors")]
    found = {match[1] for match in names if match}
    return found.pop() if len(found) == 1 else None
