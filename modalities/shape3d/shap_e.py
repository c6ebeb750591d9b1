"""Shap-E of diffusers as a GenPrint generator, its fields evaluated in batches and with gradients.

Jun and Nichol, "Shap-E: Generating Conditional 3D Implicit Functions", 2023, arXiv:2305.02463. The pipeline's own
decoding is not used: it takes one shape at a time, without gradients, writes the projected weights into the shared
network and seeds torch's global generator.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.shap_e.renderer import encode_direction, encode_position
from torch import Tensor, nn
from torch.nn import functional as F

from bench.protocol import UserError
from bench.rng import child
from modalities.libraries import read
from modalities.pipelines import sample, sample_for_training
from modalities.shape3d.grids import points
from modalities.shape3d.parts import captions

logger = logging.getLogger("genprint")

CHUNK = 32_768
"""Points of a field that go through the network at a time."""


class VectorLinear(nn.Linear):
    """A linear layer with one matrix for each of several vectors, kept in one weight (vectors · out, in).

    Shap-E multiplies by views of such a weight without calling the layer; called, it can be modulated as any other.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, vectors, in) to (B, vectors, out), without the bias, which Shap-E adds behind a normalisation."""
        weight = self.weight.view(input.shape[1], -1, self.in_features)
        return torch.einsum("bvd,vcd->bvc", input, weight)


def decoder_of(renderer: Any) -> nn.Module:
    """The renderer with projections that can be called; names and values of its parameters are as before."""
    for projection in renderer.params_proj.projections.values():
        old = projection.proj
        with torch.device("meta"):
            layer = VectorLinear(old.in_features, old.out_features)
        layer.weight, layer.bias = old.weight, old.bias
        projection.proj = layer
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
        matrices = module.matrices(z)
        places = points(self.side).to(z)
        parts = [module.values(matrices, part) for part in places.split(CHUNK)]
        values = torch.cat(parts, 1).mT.float()  # (B, 4, g³)
        return values.reshape(len(z), 4, *[self.side] * 3)

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
            if index < len(matrices):
                h = torch.baddbmm(layer.bias.view(1, 1, -1).expand(count, 1, -1), h, matrices[index].mT)
            else:
                h = layer(h)
            h = F.silu(h) if index < len(mlp.mlp) - 1 else h
        found = mlp.map_indices_to_keys(h)
        return torch.cat([torch.tanh(found["sdf"]), torch.sigmoid(found["stf"])], -1)


def load_shap_e(source: str, device: torch.device) -> ShapEGenerator:
    """Load a pipeline from a local folder or a hub id, safetensors only.

    Raises:
        UserError: when it cannot be loaded, lacks tensors, or is no text-to-3D Shap-E.
    """
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
    return ShapEGenerator(Path(source).resolve().name if local else source, pipeline, networks)
