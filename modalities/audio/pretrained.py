"""Convert Google's speech embedding from ONNX, as openWakeWord packages it, to safetensors.

The graph is a chain of twenty convolutions, so its weights are all that is taken out: nothing here or later needs an
ONNX runtime. The mel filters of the package's other graph are a closed form and are not stored.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from modalities.packages import Package

SHIPPED = Path(__file__).parent / "weights"

OPENWAKEWORD = Package(
    "pypi",
    "openwakeword",
    "0.4.0",
    "2c353f49a35d384507403efde3db439353d8281a52d08a0e42a5b493e5145075",
    "Apache-2.0",
)
GRAPH = "openwakeword/resources/models/embedding_model.onnx"
NORM = (
    "ReadVariableOp:0",
    "ReadVariableOp_1:0",
    "FusedBatchNormV3/ReadVariableOp:0",
    "FusedBatchNormV3/ReadVariableOp_1:0",
)
"""Scale, shift, mean and variance of the graph's only batch normalisation; the others are folded in already."""
NORM_EPSILON = 1e-3


def convert_embedding() -> Path:
    """Write the speech embedding's weights, single precision, 1.3 MB."""
    with zipfile.ZipFile(OPENWAKEWORD.fetch()) as archive:
        arrays = weights(archive.read(GRAPH))
    state: dict[str, Tensor] = {}
    for name, array in arrays.items():
        if found := re.fullmatch(r"model/conv2d(?:_(\d+))?/.*?(_bias_fused_bn|)", name):
            kind = "bias" if found[2] else "weight"
            state[f"convolutions.{found[1] or 0}.{kind}"] = torch.from_numpy(array)
    scale, shift, mean, variance = (torch.from_numpy(arrays[f"model/batch_normalization/{name}"]) for name in NORM)
    state["scale"] = scale / (variance + NORM_EPSILON).sqrt()
    state["shift"] = shift - mean * state["scale"]
    target = SHIPPED / "speech_embedding.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: state[key].contiguous() for key in sorted(state)}, target)
    return target


def weights(model: bytes) -> dict[str, np.ndarray]:
    """The float32 weights of an ONNX model, by name.

    Field numbers are those of onnx.proto: ``ModelProto.graph`` 7, ``GraphProto.initializer`` 5; in ``TensorProto``
    ``dims`` 1, ``data_type`` 2, ``name`` 8, ``raw_data`` 9.

    Args:
        model: the file's bytes, a serialised ``ModelProto``.
    """
    graphs = [bytes(value) for number, value in _fields(model) if number == 7]
    tensors = [list(_fields(bytes(value))) for graph in graphs for number, value in _fields(graph) if number == 5]
    arrays: dict[str, np.ndarray] = {}
    for tensor in tensors:
        known = dict(tensor)
        if known.get(2) == 1 and 9 in known:  # float32, as raw bytes
            sizes = [int(value) for number, value in tensor if number == 1]
            arrays[bytes(known[8]).decode()] = np.frombuffer(bytes(known[9]), "<f4").reshape(sizes).copy()
    return arrays


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protocol buffer message; nested messages stay bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire, size = key & 7, {1: 8, 5: 4}.get(key & 7, 0)
        if wire in (0, 2):
            size, at = _varint(message, at)
        elif not size:
            raise ValueError(f"protocol buffer of wire type {wire}, expected 0, 1, 2 or 5")
        if wire == 0:
            yield key >> 3, size
            continue
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
        if byte < 128:
            return value, at


def main() -> None:
    """Rebuild the shipped weights."""
    print(f"wrote {convert_embedding()}")


if __name__ == "__main__":
    main()
