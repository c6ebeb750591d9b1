"""Any diffusers text-to-image pipeline with a variational autoencoder as a GenPrint generator.

The embedded generator is a folder in the same format and goes through the same code.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from bench.protocol import UserError
from bench.rng import child
from modalities.image import data

logger = logging.getLogger("genprint")

EMBEDDED = Path(__file__).parent / "weights" / "emoji64"
FAILURES = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, SafetensorError)
"""What diffusers, transformers, tokenizers and safetensors raise for a damaged folder."""


@dataclass(frozen=True)
class DiffusionGenerator:
    """Text to image through a diffusers pipeline; the fingerprint sits in ``vae.decoder``.

    Rombach et al., arXiv:2112.10752, for the split of latent diffusion and decoder.

    Attributes:
        name: hub id or folder name.
        pipeline: a loaded pipeline with ``vae``.
        networks: all its networks by name; they determine the latents, so cached latents are named by them.
        steps: solver steps.
        guidance: classifier-free guidance scale.
        batch: prompts sampled at a time.
    """

    name: str
    pipeline: Any = field(repr=False)
    networks: nn.ModuleDict = field(repr=False, default_factory=nn.ModuleDict)
    steps: int = 20
    guidance: float = 3.0
    batch: int = 32

    @property
    def decoder(self) -> nn.Module:
        """The public decoder."""
        decoder: nn.Module = self.pipeline.vae.decoder
        return decoder

    @property
    def device(self) -> torch.device:
        """Where the decoder's weights are."""
        return next(self.decoder.parameters()).device

    @torch.no_grad()
    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """Sample one latent per prompt with the pipeline's own solver, (B, C, h, w) float32 on the CPU.

        Raises:
            UserError: when the pipeline packs its latents into sequences, as Flux does.
        """
        parts = []
        with _noted() as notes:
            for start in range(0, len(prompts), self.batch):
                part = list(prompts[start : start + self.batch])
                seeds = [child(rng, "latent", start + i) for i in range(len(part))]  # an item's noise is its own
                parts.append(
                    self.pipeline(
                        part,
                        num_inference_steps=self.steps,
                        guidance_scale=self.guidance,
                        generator=seeds,
                        output_type="latent",
                    ).images
                )
        for note in dict.fromkeys(map(_plainly, notes)):
            logger.info("generator %s: %s", self.name, note)
        z = torch.cat(parts).float().cpu()
        if z.ndim != 4:
            raise UserError(f"generator {self.name}: expected latents (B, C, h, w), found {tuple(z.shape)}")
        return z

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W), nominally in [0, 1], from scaled latents; differentiable."""
        vae = self.pipeline.vae
        first = next(decoder.parameters())
        z = latents.to(first.device, first.dtype) / vae.config.scaling_factor + _shift(vae)
        if getattr(vae, "post_quant_conv", None) is not None:
            z = vae.post_quant_conv(z)
        images: Tensor = decoder(z.contiguous(memory_format=torch.channels_last)).float() / 2 + 0.5
        return images

    @torch.no_grad()
    def encode(self, x: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Scaled latents of images (B, 3, H, W) in [0, 1]: posterior mean, or a sample when ``rng`` is given."""
        vae, parts = self.pipeline.vae, []
        for part in x.split(self.batch):
            posterior = vae.encode((part * 2 - 1).to(self.device, vae.dtype)).latent_dist
            noise = (
                torch.zeros(posterior.mean.shape) if rng is None else torch.randn(posterior.mean.shape, generator=rng)
            )
            parts.append(posterior.mean + posterior.std * noise.to(posterior.mean))
        z = torch.cat(parts).float().cpu()
        scaled: Tensor = (z - _shift(vae)) * vae.config.scaling_factor
        return scaled

    def training_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Latents as the generator makes them (three of eight) and posterior samples of training images (the rest).

        WOUAF trains on posterior samples and is read on both. Sampling costs a hundred times as much. None of the
        images, and none of the prompts, is behind a benchmark prompt.
        """
        images = data.training_images(("fit",))  # first: a missing data set must not be found after minutes of sampling
        sampled = [concept for concept in data.concepts() if concept.split == "fit"]
        captions = [concept.caption(style) for concept in sampled for style in data.STYLES]
        chosen = torch.randint(len(captions), (3 * n // 8,), generator=rng).tolist()
        made = []
        for start in range(0, len(chosen), self.batch):
            part = [captions[i] for i in chosen[start : start + self.batch]]
            made.append(self.latents(part, child(rng, "sampled", start)))
            done = {"stage": "training latents", "done": start + len(part), "total": len(chosen)}
            logger.info("training latents %d/%d", done["done"], done["total"], extra=done)
        rows = torch.randint(len(images), (n - len(chosen),), generator=rng)
        return torch.cat([*made, self.encode(self._sized(images[rows].float() / 255), rng)])

    def public_pairs(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents and images of ``n`` shipped public images, as an attacker with the public encoder has them.

        All of them when ``n`` is more than there are.
        """
        images = data.public_images()
        x = self._sized(images[torch.randperm(len(images), generator=rng)[:n]].float() / 255)
        return self.encode(x), x

    def reconstruct(self, x: Tensor) -> Tensor:
        """Encode and decode with the public autoencoder, [0, 1] in and out: the regeneration attack."""
        with torch.inference_mode():
            fitted = self._sized(x)
            restored = torch.cat([self.decode(self.decoder, z) for z in self.encode(fitted).split(self.batch)])
            return F.interpolate(restored.clamp(0, 1).cpu(), x.shape[2:], mode="bilinear", antialias=True)

    def _sized(self, x: Tensor) -> Tensor:
        """``x`` at the side that the pipeline generates."""
        denoiser = getattr(self.pipeline, "unet", None) or getattr(self.pipeline, "transformer", None)
        cells = denoiser.config.get("sample_size") if denoiser is not None else None
        if not isinstance(cells, int):
            return x
        size = cells * 2 ** (len(self.pipeline.vae.config.block_out_channels) - 1)
        if x.shape[2:] == (size, size):
            return x
        return F.interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(0, 1)


def load(spec: str | None, device: torch.device) -> DiffusionGenerator:
    """Load a pipeline from a local folder or a hub id; None is the embedded one.

    Raises:
        UserError: when the folder is missing, holds pickles, lacks a decoder, or is damaged.
    """
    local = EMBEDDED if spec is None else Path(spec)
    if spec is None and not local.is_dir():
        raise UserError(
            f"embedded generator: expected {local.name}/ in the installation; run `make embedded MODALITY=image`"
        )
    if spec is None or local.exists() or spec.startswith((".", "/")) or spec.count("/") != 1:
        _check_folder(local)
    source = str(local) if local.is_dir() else str(spec)
    try:
        with _noted() as notes:
            pipeline = DiffusionPipeline.from_pretrained(
                source,
                use_safetensors=True,
                local_files_only=local.is_dir(),
                low_cpu_mem_usage=False,
                dtype=torch.float32,  # half precision is slow on CPUs, and codecs are bound to exact weights
            )
    except FAILURES as error:
        hint = "" if local.is_dir() else "; offline, pass a local folder"
        raise UserError(f"generator {source}: cannot be loaded: {_line(str(error))}{hint}") from error
    if invented := [note for note in notes if "newly initialized" in note]:
        raise UserError(f"generator {source}: expected all its tensors, found some missing: {_line(invented[0])}")
    if getattr(getattr(pipeline, "vae", None), "decoder", None) is None:
        raise UserError(f"generator {source}: expected a pipeline with vae.decoder, found {type(pipeline).__name__}")
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    networks = nn.ModuleDict({name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)})
    networks.eval().requires_grad_(False)
    pipeline.vae.to(memory_format=torch.channels_last)
    return DiffusionGenerator(local.resolve().name if local.is_dir() else source, pipeline, networks)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"generator {folder}: expected a diffusers pipeline folder, found no such folder")
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(f"generator {folder}: expected model_index.json in it, found none")
    try:
        parts = json.loads(index.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"generator {folder}: model_index.json is not JSON ({error})") from error
    if not isinstance(parts, dict) or "vae" not in parts:
        found = sorted(parts) if isinstance(parts, dict) else type(parts).__name__
        raise UserError(f"generator {folder}: expected a vae in model_index.json, found {found}")
    named = [name for name, part in parts.items() if isinstance(part, list) and None not in part]
    if absent := [name for name in named if not (folder / name).is_dir()]:
        raise UserError(f"generator {folder}: expected the folder {absent[0]}/ that model_index.json names, found none")
    if not any((folder / "vae").glob("*.safetensors")):
        pickles = [path.name for path in (folder / "vae").glob("*") if path.suffix in {".bin", ".pt", ".pth", ".ckpt"}]
        found = f"the pickle {pickles[0]}, which is refused" if pickles else "no weights"
        raise UserError(f"generator {folder}: expected safetensors in vae/, found {found}")


def _shift(vae: Any) -> float:
    return float(vae.config.get("shift_factor") or 0.0)


def _plainly(note: str) -> str:
    """A library's note in one line; of a cut prompt there are two, one of which lists every token of padding."""
    if "truncated" in note or "Token indices sequence length" in note:
        return "a prompt is longer than its text encoder reads; its end was cut"
    return _line(note)


def _line(text: str) -> str:
    """One line of plain text, shortened."""
    return textwrap.shorten(re.sub(r"\x1b\[[0-9;]*m", "", text), 300, placeholder=" ...")


class _Notes(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def _noted() -> Iterator[list[str]]:
    """Loading bars off, and warnings kept instead of shown.

    A tensor that is missing from a file is invented by diffusers and transformers; only their log says so.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    notes = _Notes()
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    before = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    for logger in loggers:
        logger.handlers, logger.propagate = [notes], False  # transformers lets its log through where CI is set
        logger.setLevel(logging.WARNING)
    try:
        yield notes.lines
    finally:
        for logger, handlers, level, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        for library in (diffusers_logging, transformers_logging):
            library.enable_progress_bar()
