"""The commands about one file: make an item with a user's copy, and say whose copy made one."""

from __future__ import annotations

import contextlib
import io
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from bench import printed
from bench.commands import Device, Json, ModalityName, Spec, plan_of, print_json
from bench.rng import stream
from bench.selection import find_codecs, find_modality, load_generator, matched
from bench.tracing import Trace, code_of, item_of
from bench.tracing import trace as look_up

SchemeName = Annotated[str, typer.Option(help="Name or codec file of a fitted fingerprint.")]
Preset = Annotated[str, typer.Option(help="Of the run whose users are registered.")]
Seed = Annotated[int, typer.Option(help="Seed of that run.")]
Users = Annotated[int | None, typer.Option(help="Its number of users, instead of the preset's.")]


def generate(
    modality: ModalityName,
    prompt: Annotated[str, typer.Option(help="What to make.")],
    out: Annotated[Path, typer.Option(help="File to write; its suffix is its format.")],
    user: Annotated[int | None, typer.Option(help="Whose copy makes it; default the public decoder.")] = None,
    scheme: SchemeName = "wouaf",
    generator: Spec = None,
    preset: Preset = "quick",
    seed: Seed = 0,
    users: Users = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Make one item with a user's copy of the decoder, as that user would publish it."""
    plan = plan_of(preset, seed=seed, users=users, items=None, device=device)
    medium = find_modality(modality)
    with contextlib.redirect_stdout(io.StringIO()):
        source = load_generator(medium, generator, device)
        medium = matched(medium, source)
        ((name, codec),) = find_codecs(medium, source, [scheme], plan).items()
        decoder = source.decoder
        if user is not None:
            code = code_of(plan, name, codec.bits, user)
            decoder = codec.modulate(decoder, code.to(next(decoder.parameters()).device))
        content = item_of(medium, source, decoder, prompt, stream(seed, "generate", prompt))
    out.parent.mkdir(parents=True, exist_ok=True)
    medium.save(content, out)
    if as_json:
        print_json({"file": str(out), "user": user, "prompt": prompt})
    else:
        who = "the public decoder" if user is None else f"the copy of user {user}"
        printed.console().print(f"wrote {out}, made by {who}", markup=False, highlight=False, soft_wrap=True)


def trace(
    files: Annotated[list[Path], typer.Argument(help="Published files; several are also read together.")],
    modality: ModalityName,
    scheme: SchemeName = "wouaf",
    generator: Spec = None,
    preset: Preset = "quick",
    seed: Seed = 0,
    users: Users = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Say whose copy of the decoder made a file: the registered user whose code it carries, or nobody."""
    plan = plan_of(preset, seed=seed, users=users, items=None, device=device)
    medium = find_modality(modality)
    contents = {str(path): medium.load(path) for path in files}  # before the generator: what is wrong shows at once
    with contextlib.redirect_stdout(io.StringIO()), torch.inference_mode():
        source = load_generator(medium, generator, device)
        medium = matched(medium, source)
        ((name, codec),) = find_codecs(medium, source, [scheme], plan).items()
        where = next(source.decoder.parameters()).device
        read = {path: codec.read(medium.observe(content).to(where))[0] for path, content in contents.items()}
    found = look_up(codec, plan, name, read)
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        printed.traces(printed.console(), [_words(each) for each in found])


def _words(found: Trace) -> list[str]:
    who = "nobody" if found.user is None else f"user {found.user}"
    needed = "never enough" if found.threshold is None else f"{found.threshold} needed"
    return [found.source, who, f"{found.matches} of {found.bits}, {needed}", str(found.nearest), f"{found.p_value:.2g}"]
