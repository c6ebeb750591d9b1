"""The embedded text-to-3D generator: a latent diffusion over grids of signed distance and colour."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import EDMDPMSolverMultistepScheduler, PriorTransformer
from torch import Tensor, nn
from transformers import T5EncoderModel, T5Tokenizer

from bench.protocol import Generator, Mesh, UserError
from bench.rng import child
from modalities.export import with_decoder
from modalities.exported import save_program
from modalities.libraries import read
from modalities.settings import split
from modalities.shape3d import data
from modalities.shape3d.grid import Conditioned, GridAutoencoder
from modalities.shape3d.parts import VARIANTS, captions
from modalities.shape3d.solid import as_field
from modalities.shape3d.surface import released
from modalities.shape3d.text import tokens
from modalities.shape3d.voxels import Frame, frame_of

logger = logging.getLogger("genprint")

EMBEDDED = Path(__file__).parent / "weights" / "ldraw32"
PIPELINE = "GridPipeline"
"""What its model_index.json calls it."""
PARTS = ("autoencoder", "prior", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True)
class GridGenerator:
    """Text to fields; the fingerprint sits in the autoencoder's decoder.

    Attributes:
        name: folder name.
        networks: ``autoencoder`` (:class:`GridAutoencoder`) and ``conditioned`` (:class:`Conditioned`).
        tokenizer: of the text encoder.
        scheduler: solver of sampling.
        steps: solver steps.
        guidance: classifier-free guidance scale (Ho and Salimans, arXiv:2207.12598).
        batch: items per call of a network.
        folder: that it was loaded from.
    """

    name: str
    networks: nn.ModuleDict = field(repr=False)
    tokenizer: Any = field(repr=False)
    scheduler: Any = field(repr=False)
    steps: int = 20
    guidance: float = 3.0
    batch: int = 32
    folder: Path | None = field(default=None, repr=False)

    @property
    def autoencoder(self) -> GridAutoencoder:
        """Both halves."""
        return self.networks["autoencoder"]  # type: ignore[return-value]

    @property
    def decoder(self) -> nn.Module:
        """The public decoder."""
        return self.autoencoder.decoder

    @property
    def device(self) -> torch.device:
        """Where the decoder's weights are."""
        return next(self.decoder.parameters()).device

    @torch.no_grad()
    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """Sample one latent per prompt, (B, 4, 8, 8, 8) float32 on the CPU."""
        parts = []
        for start in range(0, len(prompts), self.batch):
            part = list(prompts[start : start + self.batch])
            shape = self.autoencoder.latent_shape
            noise = [torch.randn(shape, generator=child(rng, "latent", start + i)) for i in range(len(part))]
            parts.append(self._sample(part, torch.stack(noise)))
        return torch.cat(parts) if parts else torch.zeros(0, *self.autoencoder.latent_shape)

    def _sample(self, prompts: list[str], noise: Tensor) -> Tensor:
        """Denoise (B, 4, 8, 8, 8) with guidance."""
        ids, mask = (torch.cat([each, each]).to(self.device) for each in tokens(self.tokenizer, prompts))
        heard = torch.tensor([1.0, 0.0], device=self.device).repeat_interleave(len(prompts))
        self.scheduler.set_timesteps(self.steps)
        z = noise.to(self.device) * self.scheduler.init_noise_sigma
        for sigma, step in zip(self.scheduler.sigmas.tolist(), self.scheduler.timesteps, strict=False):
            levels = torch.full((2 * len(prompts),), sigma, device=self.device)
            told, untold = self.networks["conditioned"](torch.cat([z, z]), levels, ids, mask, heard).chunk(2)
            z = self.scheduler.step(untold + self.guidance * (told - untold), step, z).prev_sample
        sampled: Tensor = z.float().cpu()
        return sampled

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        """Fields (B, 4, 32, 32, 32) of scaled latents; differentiable."""
        first = next(decoder.parameters())
        fields: Tensor = decoder(latents.to(first.device, first.dtype) * self.autoencoder.deviation.to(first)).float()
        return fields

    @torch.no_grad()
    def encode(self, fields: Tensor) -> Tensor:
        """Scaled latents (B, 4, 8, 8, 8) of fields, on the CPU."""
        parts = [self.autoencoder.encode(part.to(self.device)) for part in fields.split(self.batch)]
        return torch.cat(parts).float().cpu()

    def training_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Latents as the generator makes them (three of four), and of real parts that it learned (the rest).

        Sampled shapes are harder to read, by 1 to 3 points of bit accuracy where a codec saw three in eight. None of
        the parts, and none of the captions, is behind a benchmark prompt.
        """
        rows = data.rows_of(("fit",))  # first: a missing data set must not be found after minutes of sampling
        drawn = torch.randint(len(rows), (n - 3 * n // 4,), generator=rng).tolist()
        colours = torch.randint(VARIANTS, (len(drawn),), generator=rng).tolist()
        encoded = [
            self.encode(data.fields([rows[i] for i in drawn[at : at + 64]], colours[at : at + 64]))
            for at in range(0, len(drawn), 64)
        ]
        known = captions("fit")
        prompts = [known[i] for i in torch.randint(len(known), (3 * n // 4,), generator=rng).tolist()]
        made = []
        for start in range(0, len(prompts), self.batch):
            part = prompts[start : start + self.batch]
            made.append(self.latents(part, child(rng, "sampled", start)))
            done = {"stage": "training latents", "done": start + len(part), "total": len(prompts)}
            logger.info("training latents %d/%d", done["done"], done["total"], extra=done)
        return torch.cat([*made, *encoded])

    def public_pairs(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents and fields of ``n`` shipped public parts, as an attacker with the public encoder has them.

        All of them when ``n`` is more than there are.
        """
        fields, _ = data.shipped("fit")
        chosen = fields[torch.randperm(len(fields), generator=rng)[:n]]
        return self.encode(chosen), chosen

    def reconstruct(self, meshes: list[Mesh]) -> list[Mesh]:
        """Encode and decode with the public autoencoder, each mesh put back where it lay: the regeneration attack."""
        return [self._reconstructed(mesh) for mesh in meshes]

    def export(self, decoder: nn.Module, folder: Path) -> None:
        """Write a folder like the generator's own with ``decoder`` in the place of the public one, and a program.

        ``decoder.pt2`` maps scaled latents (B, 4, 8, 8, 8) to fields: ``torch.export.load`` needs nothing of ours.
        """
        if self.folder is None:
            raise UserError(f"export {folder}: expected a generator that was loaded from a folder, found {self.name!r}")
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("autoencoder"), dirs_exist_ok=True)
        with with_decoder(self.autoencoder, "decoder", decoder):
            self.autoencoder.save(folder / "autoencoder", torch.float32)  # half precision would change the code
        save_program(Scaled(decoder, self.autoencoder.deviation), self.autoencoder.latent_shape, folder / "decoder.pt2")

    @torch.inference_mode()
    def _reconstructed(self, mesh: Mesh) -> Mesh:
        made = self.decode(self.decoder, self.encode(as_field(mesh)[None]))
        return _placed(released(made[0]), frame_of(mesh))


class Scaled(nn.Module):
    """A decoder of scaled latents."""

    deviation: Tensor

    def __init__(self, decoder: nn.Module, deviation: Tensor) -> None:
        super().__init__()
        self.decoder = decoder
        self.register_buffer("deviation", deviation)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, 4, 8, 8, 8) to (B, 4, 32, 32, 32)."""
        fields: Tensor = self.decoder(latents * self.deviation)
        return fields


def _placed(mesh: Mesh, frame: Frame) -> Mesh:
    """A normalised mesh in the place and size of the one that ``frame`` was taken from."""
    vertices = mesh.vertices.double() / frame.scale + torch.from_numpy(frame.centre)
    return Mesh(vertices.float(), mesh.faces, mesh.colours)


def load(spec: str | None, device: torch.device) -> Generator:
    """Load the embedded generator (None), a folder like it, or a Shap-E pipeline from a folder or hub id.

    Settings may follow the name; see :mod:`modalities.settings`.

    Raises:
        UserError: when the folder is missing, lacks a part, is damaged, or makes something else.
    """
    spec, settings = split(spec)
    local = EMBEDDED if spec is None else Path(spec)
    if spec is None and not local.is_dir():
        raise UserError(
            f"embedded generator: expected {local.name}/ in the installation; run `make embedded MODALITY=3d`"
        )
    if not local.is_dir() and spec is not None and (spec.startswith((".", "/")) or spec.count("/") != 1):
        raise UserError(f"generator {local}: expected a pipeline folder, found no such folder")
    if (kind := _kind(local) if local.is_dir() else "ShapEPipeline") == "ShapEPipeline":
        from modalities.shape3d.shap_e import load_shap_e

        return load_shap_e(str(spec), device, settings)
    if kind != PIPELINE:
        raise UserError(f"generator {local}: expected a {PIPELINE} or a ShapEPipeline, found {kind}")
    if absent := [name for name in PARTS if not (local / name).is_dir()]:
        raise UserError(f"generator {local}: expected the folder {absent[0]}/, found none")
    settings.limited(str(local), "steps", "guidance", "batch")
    made: GridGenerator = read(lambda: _read(local), str(local))
    made.networks.to(device).eval().requires_grad_(False)
    return replace(made, **settings.chosen("steps", "guidance", "batch"))


def _read(folder: Path) -> GridGenerator:
    options = {"local_files_only": True, "use_safetensors": True}
    prior = PriorTransformer.from_pretrained(folder / "prior", low_cpu_mem_usage=False, **options).float()
    encoder = T5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32, **options)
    parts = {"autoencoder": GridAutoencoder.read(folder / "autoencoder"), "conditioned": Conditioned(prior, encoder)}
    tokenizer = T5Tokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    scheduler = EDMDPMSolverMultistepScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    return GridGenerator(folder.resolve().name, nn.ModuleDict(parts), tokenizer, scheduler, folder=folder)


def _kind(folder: Path) -> str:
    """The pipeline class that a folder names."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(f"generator {folder}: expected model_index.json in it, found none")
    try:
        named = json.loads(index.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"generator {folder}: model_index.json is not JSON ({error})") from error
    return str(named.get("_class_name")) if isinstance(named, dict) else type(named).__name__
