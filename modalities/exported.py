"""Networks in ``torch.export`` files, with their convolutions and linear layers as layers again.

An exported graph calls functions on weights. Fingerprints and attacks work on layers (``bench.weights``), so every call
of a convolution or linear map on a weight of its own is replaced by the layer that it came from; names stay.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from bench.protocol import UserError

aten = torch.ops.aten
LAYERS: dict[Any, tuple[type[nn.Module], tuple[str, ...]]] = {
    aten.linear.default: (nn.Linear, ()),
    aten.conv1d.default: (nn.Conv1d, ("stride", "padding", "dilation", "groups")),
    aten.conv2d.default: (nn.Conv2d, ("stride", "padding", "dilation", "groups")),
    aten.conv3d.default: (nn.Conv3d, ("stride", "padding", "dilation", "groups")),
    aten.conv_transpose1d.default: (
        nn.ConvTranspose1d,
        ("stride", "padding", "output_padding", "groups", "dilation"),
    ),
    aten.conv_transpose2d.input: (nn.ConvTranspose2d, ("stride", "padding", "output_padding", "groups", "dilation")),
    aten.conv_transpose3d.input: (nn.ConvTranspose3d, ("stride", "padding", "output_padding", "groups", "dilation")),
}
"""Function to layer, and the names of the arguments behind its bias, in order."""
DAMAGED = (
    RuntimeError,
    ValueError,
    LookupError,
    AttributeError,
    OSError,
    TypeError,
    AssertionError,
    zipfile.BadZipFile,
)
"""What torch raises for a file that is none of its programs."""
UNIT = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "output_padding": 0}


def is_exported(path: Path) -> bool:
    """Whether a name is that of a ``torch.export`` file."""
    return path.suffix == ".pt2"


def load_exported(path: Path) -> nn.Module:
    """Read a ``torch.export`` file as a frozen network with layers.

    Raises:
        UserError: when there is no such file, or it is none.
    """
    with _quiet():
        made: Any = _program(path).module()
    _plain(path, made.graph)
    graph = fx.GraphModule(made, made.graph)  # the program's own refuses eval()
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target in LAYERS:
            _as_layer(graph, node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph.requires_grad_(False)


def _plain(path: Path, graph: fx.Graph) -> None:
    """Make a program's graph that of one tensor in and one out, without checks of shapes, in place.

    Raises:
        UserError: when it takes or makes something else.
    """
    for node in graph.find_nodes(op="call_module"):
        graph.erase_node(node)  # its guards
    inputs, (output,) = graph.find_nodes(op="placeholder"), graph.find_nodes(op="output")
    (made,) = output.args
    if len(inputs) != 1 or not isinstance(made, list | tuple) or len(made) != 1:
        found = f"{len(inputs)} in and {len(made) if isinstance(made, list | tuple) else 1} out"
        raise UserError(f"generator {path}: expected a program of one tensor in and one out, found {found}")
    output.args = (made[0],)
    graph.set_codegen(fx.graph.CodeGen())


def save_exported(source: Path, network: nn.Module, path: Path) -> None:
    """Write the program of ``source`` with the weights of ``network``.

    Raises:
        UserError: when the two do not belong together.
    """
    program = _program(source)
    state, own = network.state_dict(), program.state_dict
    if set(state) != set(own):
        raise UserError(f"export: expected the {len(own)} tensors of {source}, found {len(state)}")
    for name, value in own.items():
        value.data.copy_(state[name])
    with _quiet():
        torch.export.save(program, path)


def save_program(network: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Write a network of items of ``shape`` as a program of any number of them."""
    first = next(network.parameters())
    batch = torch.export.Dim("batch", min=1, max=4096)
    with _quiet():
        example = (torch.zeros(2, *shape, device=first.device, dtype=first.dtype),)
        torch.export.save(torch.export.export(network.eval(), example, dynamic_shapes=({0: batch},)), path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch.export logs a traceback of what it is about to raise, and warns of its own old code."""
    logger = logging.getLogger("torch.export")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.disabled = before


def _program(path: Path) -> torch.export.ExportedProgram:
    if not path.is_file():
        raise UserError(f"generator {path}: expected a torch.export file, found none")
    try:
        with _quiet():
            return torch.export.load(path)
    except DAMAGED as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"generator {path}: expected a torch.export file, found: {reason}") from error


def _as_layer(graph: fx.GraphModule, node: fx.Node) -> None:
    """Replace one call by a layer of the weight's own name; left as it is where the weight is computed."""
    kind, names = LAYERS[node.target]
    x, weight, bias, *rest = (*node.args, None)[: max(3, len(node.args))]
    place, key = _place(weight)
    if key != "weight" or (isinstance(bias, fx.Node) and _place(bias) != (place, "bias")):
        return
    owner = graph.get_submodule(place)
    expected = {"weight"} if bias is None else {"weight", "bias"}
    if set(dict(owner.named_parameters())) != expected or dict(owner.named_children()):
        return
    options = UNIT | dict(zip(names, rest, strict=False)) | {k: v for k, v in node.kwargs.items() if k in UNIT}
    layer = _layer(kind, dict(owner.named_parameters()), {name: options[name] for name in names})
    graph.set_submodule(place, layer)
    with graph.graph.inserting_before(node):
        node.replace_all_uses_with(graph.graph.call_module(place, (x,)))
    graph.graph.erase_node(node)


def _place(node: Any) -> tuple[str, str]:
    """Module and name of the parameter that a node fetches."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return "", ""
    place, _, key = str(node.target).rpartition(".")
    return place, key


def _layer(kind: type[nn.Module], parameters: dict[str, nn.Parameter], options: dict[str, Any]) -> nn.Module:
    weight: Tensor = parameters["weight"]
    options = {name: tuple(value) if isinstance(value, list | tuple) else value for name, value in options.items()}
    wide, narrow = int(weight.shape[0]), int(weight.shape[1])
    groups = int(options.get("groups", 1))
    inputs, outputs = (wide, narrow * groups) if "output_padding" in options else (narrow * groups, wide)
    size = [] if kind is nn.Linear else [tuple(weight.shape[2:])]
    made: Any = kind(inputs, outputs, *size, **options, bias="bias" in parameters, device="meta")
    for name, parameter in parameters.items():
        setattr(made, name, parameter)
    layer: nn.Module = made.eval()
    return layer
