"""What a result was made with: code, libraries, machine."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

# fmt: off
LIBRARIES = (
    "torch", "torchvision", "torchaudio", "torchmetrics", "diffusers", "transformers", "safetensors", "numpy", "scipy",
    "pandas", "pyarrow", "pillow", "trimesh",
)
# fmt: on


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, git state and device, as ``run.json`` holds them."""
    return {
        "git": git_state(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES},
        "device": describe_device(device),
    }


def describe_device(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"{device.type}: {platform.machine()}, {torch.get_num_threads()} threads"


def git_state() -> dict[str, Any]:
    """Commit of the code and whether files differ from it; both None outside a repository."""
    commit, changes = _git("rev-parse", "--verify", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None or commit is None else bool(changes)}


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
