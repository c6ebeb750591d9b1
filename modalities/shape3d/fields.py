"""Networks that are asked for values at points as GenPrint generators: a field of any kind, or a vector set's.

A field is called as ``network(latents, points)``. A vector-set autoencoder, such as Hunyuan3D-2's ``ShapeVAE`` (Zhao et
al., 2025, arXiv:2501.12202; of the kind of Zhang et al., "3DShape2VecSet", SIGGRAPH 2023, arXiv:2301.11445), has
``post_kl`` and ``transformer``, by which latents become tokens, and ``geo_decoder``, which points ask by attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.protocol import UserError
from bench.rng import child
from modalities.modules import FAILED, noise_shape
from modalities.rounding import as_loaded
from modalities.settings import Settings
from modalities.shape3d.grids import SIDE, points

CHUNK = 8192
"""Points of a field that are asked for at a time."""
VECTOR_SET = ("post_kl", "transformer", "geo_decoder")
"""Members by which a vector-set autoencoder is known."""
GREY = 0.5
"""Colour of fields that have none."""
TRIED = 8
Ask = Callable[[Tensor], Tensor]
"""Points (B, N, 3) to values (B, N, 1 or 4)."""


@dataclass(frozen=True)
class FieldGenerator:
    """Latents to fields; the whole network is fingerprinted.

    Attributes:
        name: what tables call it.
        decoder: the network.
        shape: of one item's latents.
        level: value on the surface, such as 0.5 of probabilities; above it is inside.
        positive_inside: whether it is; false of signed distances that grow outward.
        side: points per axis of a field.
        batch: items per call when pairs are made.
        sampler: prompts and a stream to latents (B, ...); without it they are standard normal.
    """

    name: str
    decoder: nn.Module = field(repr=False)
    shape: tuple[int, ...] = ()
    level: float = 0.0
    positive_inside: bool = True
    side: int = SIDE
    batch: int = 4
    sampler: Callable[[Sequence[str], torch.Generator], Tensor] | None = field(default=None, repr=False)

    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """Latents of prompts, each item's its own, (B, ...) float32 on the CPU."""
        streams = [child(rng, "latent", index) for index in range(len(prompts))]
        if self.sampler is None:
            return torch.stack([torch.randn(self.shape, generator=each) for each in streams])
        made = [self.sampler([prompt], each) for prompt, each in zip(prompts, streams, strict=True)]
        return torch.cat(made).float().cpu()

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        """Fields (B, 4, g, g, g), positive inside; differentiable."""
        first = next(decoder.parameters())
        z, places = latents.to(first.device, first.dtype), points(self.side).to(first)
        with as_loaded(decoder):
            ask = asked(decoder, z)
            values = torch.cat([ask(part.expand(len(z), -1, -1)) for part in places.split(CHUNK)], 1).float()
        sign = 1.0 if self.positive_inside else -1.0
        inside = sign * (values[..., :1] - self.level)
        colours = values[..., 1:] if values.shape[2] > 1 else torch.full_like(inside, GREY).expand(-1, -1, 3)
        return torch.cat([inside, colours], 2).mT.reshape(len(z), 4, *[self.side] * 3)

    def training_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Latents as the generator makes them, of captions that are behind no benchmark prompt."""
        if self.sampler is None:
            return torch.randn(n, *self.shape, generator=rng)
        from modalities.shape3d.parts import captions

        known = captions("fit")
        return self.latents([known[i] for i in torch.randint(len(known), (n,), generator=rng).tolist()], rng)

    @torch.no_grad()
    def public_pairs(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents and what the public network makes of them; there is no encoder."""
        latents = self.training_latents(n, rng)
        return latents, torch.cat([self.decode(self.decoder, part).cpu() for part in latents.split(self.batch)])

    def export(self, decoder: nn.Module, folder: Path) -> None:
        """Write ``model.safetensors``, for ``load_state_dict``."""
        state = {name: value.detach().cpu().clone().contiguous() for name, value in decoder.state_dict().items()}
        save_file(state, folder / "model.safetensors", {"format": "pt"})


def asked(network: Any, latents: Tensor) -> Ask:
    """The field of latents (B, ...)."""
    if not is_vector_set(network):
        return lambda places: network(latents, places)
    tokens = network(latents / float(getattr(network, "scale_factor", 1.0)))
    return lambda places: network.geo_decoder(queries=places, latents=tokens)


def is_vector_set(network: nn.Module) -> bool:
    """Whether latents become tokens first."""
    return all(isinstance(getattr(network, name, None), nn.Module) for name in VECTOR_SET)


def wrapped(name: str, thing: Any, settings: Settings) -> FieldGenerator:
    """Any network of latents and points as a generator.

    Of its own attributes, ``latent_shape`` tells the shape of one item's latents, ``level`` and ``positive_inside``
    where the inside is, and ``sample_latents(prompts, rng)`` how latents come from prompts.

    Raises:
        UserError: when it is no network, or makes no field.
    """
    if not isinstance(thing, nn.Module):
        raise UserError(f"generator {name}: expected a network, found {type(thing).__name__}")
    settings.limited(name, "latent", "batch", "size")
    network = thing.eval().requires_grad_(False)
    if next(network.parameters(), None) is None:
        raise UserError(f"generator {name}: expected a network with parameters, found {type(network).__name__}")
    generator = FieldGenerator(
        name,
        network.float(),
        noise_shape(name, network, settings),
        float(getattr(network, "level", 0.0)),
        bool(getattr(network, "positive_inside", True)),
        sampler=getattr(network, "sample_latents", None),
    )
    _try(generator)
    generator = replace(generator, **settings.chosen("batch"))
    return generator if settings.size is None else replace(generator, side=settings.size)


@torch.no_grad()
def _try(generator: FieldGenerator) -> None:
    """Ask for a few values of two fields.

    Raises:
        UserError: when there are none, or of another form.
    """
    first, start = next(generator.decoder.parameters()), f"generator {generator.name}: expected "
    latents, places = torch.zeros(2, *generator.shape).to(first), torch.zeros(2, TRIED, 3).to(first)
    try:
        made = asked(generator.decoder, latents)(places)
    except FAILED as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        wanted = f"a field of latents {tuple(latents.shape)} and points {tuple(places.shape)}"
        raise UserError(f"{start}{wanted}, found: {reason}") from error
    if not isinstance(made, Tensor) or made.shape not in ((2, TRIED, 1), (2, TRIED, 4)):
        found = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise UserError(f"{start}values (B, N, 1) or (B, N, 4) at points (B, N, 3), found {found}")
