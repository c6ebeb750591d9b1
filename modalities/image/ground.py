"""Where in a picture a code is read: ``python -m modalities.image.ground CODEC...``, codecs of the embedded generator.

Its pictures stand on white ground. Each user's are read as published, with the ground taken from the public decoder's
pictures, and with everything but the ground taken from there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor

from bench.metrics.intervals import clustered
from bench.protocol import Codec, Generator, UserError
from bench.rng import stream
from modalities.image import Image
from schemes import load_codec

WHITE = 0.96
"""Least value of all three colours of a pixel of the ground, in the public decoder's picture."""
ITEMS = 4


class Parts(NamedTuple):
    """Correct bits and changed ground of every item.

    Attributes:
        whole: share of correct bits (N,) in pictures as published.
        drawn: with the public ground.
        ground: with the public drawing.
        tinted: share of the ground's values that are not 255, (N,).
    """

    whole: Tensor
    drawn: Tensor
    ground: Tensor
    tinted: Tensor


def parts(codec: Codec, marked: Tensor, public: Tensor, codes: Tensor) -> Parts:
    """Read pictures (N, 3, H, W) of users with ``codes`` (N, bits), and mixtures with ``public`` ones (N, 3, H, W)."""
    white = (public >= WHITE).all(1, keepdim=True)
    mixtures = marked, torch.where(white, public, marked), torch.where(white, marked, public)
    whole, drawn, ground = (((codec.read(each) > 0) == (codes > 0)).float().mean(1) for each in mixtures)
    tinted = ((marked < 1) & white).sum((1, 2, 3)) / (3 * white.sum((1, 2, 3)).clamp_min(1))
    return Parts(whole, drawn, ground, tinted)


@torch.no_grad()
def read(codec: Codec, image: Image, generator: Generator, users: int) -> Parts:
    """Items of so many users, on held-out prompts."""
    prompts = image.prompts(users * ITEMS, stream(0, "ground", "prompts"))
    latents = generator.latents(prompts, stream(0, "ground", "latents"))
    found = []
    for user, z in enumerate(latents.split(ITEMS)):
        code = torch.randint(2, (codec.bits,), generator=stream(0, "ground", "code", user))
        decoders = codec.modulate(generator.decoder, code), generator.decoder
        marked, public = (image.observe(image.release(generator.decode(each, z))) for each in decoders)
        found.append(parts(codec, marked, public, code.expand(len(z), -1)))
    return Parts(*(torch.cat(each) for each in zip(*found, strict=True)))


def main(
    codecs: Annotated[list[Path], typer.Argument(help="Codec files of the embedded generator.")],
    users: Annotated[int, typer.Option(help="Users with four pictures each.", min=2)] = 32,
) -> None:
    """Print how much of each codec's bits is read where, with intervals by user."""
    torch.set_num_threads(1)
    image = Image()
    generator = image.generator()
    owners = np.repeat(np.arange(users), ITEMS).tolist()
    try:
        loaded = [load_codec(path, image, generator) for path in codecs]
    except UserError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from error
    for path, codec in zip(codecs, loaded, strict=True):
        found = read(codec, image, generator, users)
        scores = [clustered(each.numpy(), owners, rng=stream(0, "ground")) for each in found]
        names = "as published", "on public ground", "ground alone", "ground not white"
        shown = [f"{name} {s.mean:.3f} [{s.lo:.3f}, {s.hi:.3f}]" for name, s in zip(names, scores, strict=True)]
        print(f"{path.name}: {', '.join(shown)} (n = {users} users, {ITEMS} pictures each)", flush=True)


if __name__ == "__main__":
    typer.run(main)
