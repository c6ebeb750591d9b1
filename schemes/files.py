"""Codec files: half-precision safetensors with the facts that rebuild a codec, bound to one decoder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.folders import replacing
from bench.protocol import Codec, Generator, Modality, UserError

Binder = Callable[[Modality, Generator, dict[str, str], dict[str, dict[str, Tensor]]], Codec]
"""Rebuilds a codec from the facts of its file and the states of its parts."""


def half(value: Tensor) -> Tensor:
    """As files keep it: floats in half precision, on the CPU."""
    value = value.detach().cpu()
    return (value.half() if value.is_floating_point() else value).contiguous()


def write(path: Path, about: Mapping[str, str], parts: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write the states of all parts and the facts, atomically."""
    state = {f"{part}.{key}": half(value) for part, values in parts.items() for key, value in values.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        save_file(state, partial, dict(about))


def read(path: Path, modality: Modality, generator: Generator, binders: Mapping[str, Binder]) -> Codec:
    """Read a codec and bind it to the generator it was fitted for.

    Raises:
        UserError: when the file is missing, damaged, of another kind, or of another decoder.
    """
    about, state = _opened(path)
    binder = binders.get(about.get("format", ""))
    if binder is None:
        raise UserError(f"codec {path}: expected format {' or '.join(binders)}, found {about.get('format')}")
    found = decoder_digest(generator.decoder)
    try:
        if about["decoder"] != found:
            raise UserError(
                f"codec {path}: fitted for the decoder {about['decoder'][:12]} of {about['generator']}, "
                f"found the decoder {found[:12]} of {generator.name}; run `make fit`"
            )
        return binder(modality, generator, about, _parts(state))
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise UserError(f"codec {path}: expected what `fit` writes, found something else: {reason}") from error


def _opened(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError as error:
        raise UserError(f"codec {path}: expected a safetensors file, found none") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"codec {path}: expected safetensors, found a damaged file ({error})") from error


def _parts(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        part, dot, name = key.partition(".")
        if not dot:
            raise ValueError(f"a tensor {key!r} that belongs to no part")
        parts.setdefault(part, {})[name] = value.float() if value.is_floating_point() else value
    return parts


def fits(path: Path, generator: Generator) -> bool:
    """Whether the codec in ``path`` was fitted for this generator's decoder."""
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("decoder") == decoder_digest(generator.decoder)


def decoder_digest(decoder: nn.Module) -> str:
    """SHA-256 over names and values of a decoder's state: what a codec is bound to."""
    total = hashlib.sha256()
    for name, value in sorted(decoder.state_dict().items()):
        total.update(f"{name} {tuple(value.shape)}".encode())
        total.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return total.hexdigest()


def check_fingerprint(fingerprint: Tensor, bits: int) -> None:
    """Refuse what is no code.

    Raises:
        UserError: when it has another length or another value.
    """
    if fingerprint.shape != (bits,):
        raise UserError(f"fingerprint: expected {bits} values of 0 or 1, found the shape {tuple(fingerprint.shape)}")
    if other := sorted(set(fingerprint.tolist()) - {0, 1}):
        raise UserError(f"fingerprint: expected {bits} values of 0 or 1, found {other[0]:g}")


def check_bits(bits: int) -> None:
    """Refuse a fingerprint without bits.

    Raises:
        UserError: when ``bits`` is not positive.
    """
    if bits < 1:
        raise UserError(f"bits: expected at least 1, found {bits}")


def signs(fingerprint: Tensor, decoder: nn.Module) -> Tensor:
    """±1 code where the decoder is, of a checked fingerprint."""
    return fingerprint.to(next(decoder.parameters()).device, torch.float32) * 2 - 1
