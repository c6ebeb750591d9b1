"""The commands about a generator itself: what a fingerprint reaches in it, and a user's copy of it as plain files."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import save_file
from torch import Tensor, nn

from bench import printed
from bench.commands import Device, Json, ModalityName, Spec, plan_of, print_json
from bench.inspection import Entry, inspected
from bench.protocol import Generator, UserError
from bench.selection import find_codecs, find_modality, find_scheme, load_generator, matched, modality_names
from bench.tracing import code_of
from bench.tracing_commands import Preset, SchemeName, Seed, Users


def export(
    modality: ModalityName,
    out: Annotated[Path, typer.Option(help="Folder to write; made when missing, empty when not.")],
    fingerprint: Annotated[
        str | None, typer.Option(help="The code: its bits as 0 and 1, or 0x and hexadecimal.")
    ] = None,
    user: Annotated[int | None, typer.Option(help="Instead of a code: a user of a run.")] = None,
    scheme: SchemeName = "wouaf",
    generator: Spec = None,
    preset: Preset = "quick",
    seed: Seed = 0,
    users: Users = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Write a user's copy as a plain folder that diffusers or transformers load without GenPrint."""
    if (fingerprint is None) == (user is None):
        raise UserError("export: expected either --fingerprint or --user")
    _check_empty(out)
    plan = plan_of(preset, seed=seed, users=users, items=None, device=device)
    medium = find_modality(modality)
    with contextlib.redirect_stdout(io.StringIO()):
        source = load_generator(medium, generator, device)
        ((name, codec),) = find_codecs(matched(medium, source), source, [scheme], plan).items()
        if codec.removable:
            raise UserError(f"scheme {name!r}: expected one in the decoder's weights, found one behind the decoder")
        code = code_of(plan, name, codec.bits, user) if user is not None else bits_of(str(fingerprint), codec.bits)
        where = next(source.decoder.parameters()).device
        with _replacing(out) as partial:
            _write(source, codec.modulate(source.decoder, code.to(where)), partial)
    files = sorted(str(path) for path in out.rglob("*") if path.is_file())
    facts = {"folder": str(out), "fingerprint": "".join(map(str, code.tolist())), "files": files}
    if as_json:
        print_json(facts)
    else:
        line = f"wrote {out} ({len(files)} files), carrying {facts['fingerprint']}"
        printed.console().print(line, markup=False, highlight=False, soft_wrap=True)


def bits_of(text: str, bits: int) -> Tensor:
    """Code (bits,) from its bits as 0 and 1, or from 0x and hexadecimal digits.

    Raises:
        UserError: when it is neither, or of another length.

    Example:
        >>> bits_of("0xa", 4)
        tensor([1, 0, 1, 0])
    """
    if text.lower().startswith("0x"):
        digits = text[2:]
        if not digits or set(digits.lower()) - set("0123456789abcdef") or len(digits) != -(-bits // 4):
            raise UserError(f"fingerprint: expected 0x and {-(-bits // 4)} hexadecimal digits, found {text!r}")
        text = f"{int(digits, 16):0{bits}b}"
    if len(text) != bits or set(text) - {"0", "1"}:
        raise UserError(f"fingerprint: expected {bits} digits of 0 and 1, found {len(text)} in {text!r}")
    return torch.tensor([int(digit) for digit in text])


def _check_empty(out: Path) -> None:
    """Find out before the generator is loaded, not after it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"export {out}: expected an empty folder or none, found something there")


def _write(source: Generator, decoder: nn.Module, folder: Path) -> None:
    """By the generator's own ``export(decoder, folder)``, where it has one; else the decoder's tensors alone."""
    if (write := getattr(source, "export", None)) is not None:
        write(decoder, folder)
        return
    state = {name: value.detach().cpu().clone().contiguous() for name, value in decoder.state_dict().items()}
    save_file(state, folder / "decoder.safetensors", {"format": "pt"})


@contextlib.contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A folder that takes the place of ``out`` when all is written, and is gone when something failed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if out.is_dir():
            out.rmdir()
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def inspect(
    generator: Annotated[str | None, typer.Argument(help="As --generator of `run`; default the embedded one.")] = None,
    modality: Annotated[str | None, typer.Option(help="Default the first that can load it.")] = None,
    scheme: Annotated[str, typer.Option(help="A name that `list schemes` prints, or package.module:Class.")] = "wouaf",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Print the tree of a generator's decoder: which layers a fingerprint is written in, and which not, and why."""
    description = find_scheme(scheme)
    with contextlib.redirect_stdout(io.StringIO()):
        source = _loaded(generator, modality, device)
        entries = inspected(source.decoder, description)
    facts = _facts(source, entries)
    if as_json:
        print_json(facts | {"modules": [asdict(entry) for entry in entries]})
        return
    printed.tree(printed.console(), f"{source.name}, {facts['decoder']}", entries)
    line = f"{facts['modulated_layers']} of {facts['layers']} layers modulated, with {facts['modulated_parameters']:,} "
    printed.console().print(f"{line}of {facts['parameters']:,} parameters", highlight=False, soft_wrap=True)


def _facts(source: Generator, entries: list[Entry]) -> dict[str, Any]:
    modulated = [entry for entry in entries if entry.state == "modulated"]
    return {
        "generator": source.name,
        "decoder": type(source.decoder).__name__,
        "parameters": sum(p.numel() for p in source.decoder.parameters()),
        "modulated_parameters": sum(entry.parameters for entry in modulated),
        "layers": sum(bool(entry.shape) for entry in entries),
        "modulated_layers": len(modulated),
    }


def _loaded(generator: str | None, modality: str | None, device: str) -> Generator:
    """The generator, by the named modality or by the first that can load it."""
    if modality is not None or generator is None:
        return load_generator(find_modality(modality or modality_names()[0]), generator, device)
    first: UserError | None = None
    for name in modality_names():
        try:
            return load_generator(find_modality(name), generator, device)
        except UserError as error:
            first = first or error
    raise first or UserError(f"generator {generator}: expected a modality that can load it, found none")
