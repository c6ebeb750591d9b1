"""Shap-E of diffusers as a GenPrint generator, its fields evaluated in batches and with gradients.

Jun and Nichol, "Shap-E: Generating Conditional 3D Implicit Functions", 2023, arXiv:2305.02463. The pipeline's own
decoding is not used: it has no gradients, writes the projected weights into the shared network and seeds torch's global
generator. Without gradients, fields are bit for bit those that it makes; with gradients, shapes are batched.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.shap_e.renderer import encode_direction, encode_position
from torch import Tensor, nn
from torch.nn import functional as F

from bench.protocol import UserError
from bench.rng import child
from modalities.export import with_decoder
from modalities.libraries import read
from modalities.pipelines import DEFAULT, sample, sample_for_training
from modalities.rounding import as_loaded
from modalities.settings import Settings
from modalities.shape3d.grids import points
from modalities.shape3d.parts import captions

logger = logging.getLogger("genprint")

CHUNK = 32_768
"""Points of a field that go through the network at a time, where gradients are computed."""
STOCK_CHUNK = 4096
"""As many as diffusers takes: the last bit of a product depends on it."""


class VectorLinear(nn.Linear):
    """A linear layer with one matrix for each of several vectors, kept in one weight (vectors · out, in).

    Shap-E multiplies by views of such a weight without calling the layer; called, it can be modulated as any other.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, vectors, in) to (B, vectors, out), without the bias, which Shap-E adds behind a normalisation."""
        weight = self.weight.view(input.shape[1], -1, self.in_features)
        return torch.einsum("bvd,vcd->bvc", input, weight)


class ProjectedLinear(nn.Module):
    """A linear layer whose weight is another one for every shape, projected from its latent.

    The one that it holds is overwritten before use, so a code or noise written there would be none: it is no
    ``nn.Linear``.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out), as diffusers calls it after it wrote a projected weight."""
        return F.linear(input, self.weight, self.bias)


def decoder_of(renderer: Any) -> nn.Module:
    """The renderer with projections that can be called; names and values of its parameters are as before."""
    for index, projection in enumerate(renderer.params_proj.projections.values()):
        old = projection.proj
        with torch.device("meta"):
            layer = VectorLinear(old.in_features, old.out_features)
        layer.weight, layer.bias = old.weight, old.bias
        projection.proj = layer
        overwritten = renderer.mlp.mlp[index]
        renderer.mlp.mlp[index] = ProjectedLinear(overwritten.weight, overwritten.bias)
    decoder: nn.Module = renderer
    return decoder


@dataclass(frozen=True)
class ShapEGenerator:
    """Text to fields through a `ShapEPipeline`; the fingerprint sits in the renderer that latents are weights for.

    Attributes:
        name: hub id or folder name.
        pipeline: loaded, its renderer passed through :func:`decoder_of`.
        networks: all its networks by name; they determine the latents, so cached latents are named by them.
        steps: solver steps.
        guidance: classifier-free guidance scale.
        batch: prompts sampled at a time.
        side: points per axis of a field.
    """

    name: str
    pipeline: Any = field(repr=False)
    networks: nn.ModuleDict = field(repr=False)
    steps: int = 64
    guidance: float = 15.0
    batch: int = 8
    side: int = 64

    @property
    def decoder(self) -> nn.Module:
        """The public renderer."""
        decoder: nn.Module = self.pipeline.shap_e_renderer
        return decoder

    @torch.no_grad()
    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """Sample one latent per prompt with the pipeline's own solver, (B, rows, width) float32 on the CPU."""
        return sample(self, prompts, rng, "images")

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        """Fields (B, 4, g, g, g): Shap-E's signed distance, positive inside, and its texture; differentiable."""
        first = next(decoder.parameters())
        z, module = latents.to(first.device, first.dtype), Renderer(decoder)
        places, exact = points(self.side).to(z), not torch.is_grad_enabled()
        made = []
        with as_loaded(decoder):
            for some in z.split(1 if exact else max(1, len(z))):
                matrices = module.matrices(some)
                parts = [module.values(matrices, part) for part in places.split(STOCK_CHUNK if exact else CHUNK)]
                made.append(torch.cat(parts, 1).mT.float())  # (B, 4, g³)
        return torch.cat(made).reshape(len(z), 4, *[self.side] * 3)

    def training_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Latents as the generator makes them, of captions that are behind no benchmark prompt."""
        known = captions("fit")
        chosen = torch.randint(len(known), (n,), generator=rng).tolist()
        return sample_for_training(self, [known[i] for i in chosen], rng)

    @torch.no_grad()
    def public_pairs(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents and fields of what the public generator makes: diffusers has no encoder of meshes."""
        latents = self.training_latents(n, child(rng, "public"))
        return latents, torch.cat([self.decode(self.decoder, z).cpu() for z in latents.split(self.batch)])

    def export(self, decoder: nn.Module, folder: Path) -> None:
        """Write a plain pipeline folder with ``decoder`` in the place of the public renderer."""
        with with_decoder(self.pipeline, "shap_e_renderer", decoder):
            self.pipeline.save_pretrained(folder, safe_serialization=True)


@dataclass(frozen=True)
class Renderer:
    """Shap-E's renderer as functions of its parameters.

    Attributes:
        module: with ``params_proj`` and ``mlp``.
    """

    module: Any

    def matrices(self, latents: Tensor) -> list[Tensor]:
        """Weights (B, out, in) of the network's first layers, from latents (B, rows, width)."""
        made, start = [], 0
        shapes = self.module.params_proj.config.param_shapes
        for projection, shape in zip(self.module.params_proj.projections.values(), shapes, strict=True):
            rows = latents[:, start : start + projection.vectors]
            bias = projection.proj.bias.view(1, projection.vectors, -1)
            made.append((projection.norm(projection.proj(rows)) + bias).reshape(len(latents), *shape))
            start += projection.vectors
        return made

    def values(self, matrices: list[Tensor], places: Tensor) -> Tensor:
        """Signed distance and RGB (B, N, 4) at points (N, 3)."""
        mlp, count = self.module.mlp, len(matrices[0])
        h = encode_position(places[None]).to(places).expand(count, -1, -1)
        for index, layer in enumerate(mlp.mlp):
            if index == mlp.config.insert_direction_at:
                h = torch.cat([h, encode_direction(places[None]).to(places).expand(count, -1, -1)], -1)
            if index < len(matrices) and count == 1:
                h = F.linear(h, matrices[index][0], layer.bias)
            elif index < len(matrices):
                h = torch.baddbmm(layer.bias.view(1, 1, -1).expand(count, 1, -1), h, matrices[index].mT)
            else:
                h = layer(h)
            h = F.silu(h) if index < len(mlp.mlp) - 1 else h
        found = mlp.map_indices_to_keys(h)
        return torch.cat([torch.tanh(found["sdf"]), torch.sigmoid(found["stf"])], -1)


def load_shap_e(source: str, device: torch.device, settings: Settings = DEFAULT) -> ShapEGenerator:
    """Load a pipeline from a local folder or a hub id, safetensors only.

    Args:
        source: folder or hub id.
        device: where its networks go.
        settings: ``steps``, ``guidance``, ``batch``, and ``size``, the points per axis of a field.

    Raises:
        UserError: when it cannot be loaded, lacks tensors, or is no text-to-3D Shap-E.
    """
    settings.limited(source, "steps", "guidance", "batch", "size")
    local = Path(source).is_dir()
    options = {"use_safetensors": True, "local_files_only": local, "low_cpu_mem_usage": False, "dtype": torch.float32}
    pipeline = read(lambda: DiffusionPipeline.from_pretrained(source, **options), source)
    if type(pipeline).__name__ != "ShapEPipeline":
        raise UserError(f"generator {source}: expected a ShapEPipeline, found {type(pipeline).__name__}")
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    decoder_of(pipeline.shap_e_renderer)
    networks = nn.ModuleDict({name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)})
    networks.eval().requires_grad_(False)
    made = ShapEGenerator(Path(source).resolve().name if local else source, pipeline, networks)
    made = replace(made, **settings.chosen("steps", "guidance", "batch"))
    return made if settings.size is None else replace(made, side=settings.size)
