"""Loading diffusers pipelines, for the adapters of all modalities: from a hub id or a folder, safetensors only."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError
from torch import Tensor, nn

from bench.protocol import UserError
from bench.rng import child

logger = logging.getLogger("genprint")

FAILURES = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, SafetensorError)
"""What diffusers, transformers, tokenizers and safetensors raise for a damaged folder."""
HARMLESS = (
    "`torch.nn.utils.weight_norm` is deprecated",  # diffusers' Oobleck autoencoder is built with it
    "Should have t[ab]",  # torchsde, of the rounded ends of the Cosine solver's time
)
"""How warnings begin that tell the user nothing."""


def load_pipeline(spec: str | None, embedded: Path, device: torch.device) -> tuple[str, Any, nn.ModuleDict]:
    """Load a pipeline from a local folder or a hub id; None is the embedded one.

    Args:
        spec: folder, hub id, or None.
        embedded: folder of the embedded pipeline.
        device: where its networks go.

    Returns:
        Its name, the pipeline, and all its networks by name, frozen and in evaluation mode.

    Raises:
        UserError: when the folder is missing, holds pickles, lacks a decoder, is damaged, or makes something else.
    """
    modality = embedded.parents[1].name
    local = embedded if spec is None else Path(spec)
    if spec is None and not local.is_dir():
        raise UserError(
            f"embedded generator: expected {local.name}/ in the installation; run `make embedded MODALITY={modality}`"
        )
    if spec is None or local.exists() or spec.startswith((".", "/")) or spec.count("/") != 1:
        _check_folder(local)
    source = str(local) if local.is_dir() else str(spec)
    try:
        with noted() as notes:
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
    if _makes_sound(pipeline) != (modality == "audio"):
        raise UserError(f"generator {source}: expected a text-to-{modality} pipeline, found {type(pipeline).__name__}")
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    networks = nn.ModuleDict({name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)})
    networks.eval().requires_grad_(False)
    return (local.resolve().name if local.is_dir() else source), pipeline, networks


def _makes_sound(pipeline: Any) -> bool:
    """Whether its autoencoder knows a sampling rate, or its pictures of sound go through a vocoder."""
    return "sampling_rate" in pipeline.vae.config or "vocoder" in pipeline.components


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


class Sampling(Protocol):
    """A generator around a pipeline, and how it samples."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    @property
    def pipeline(self) -> Any:
        """The loaded pipeline."""
        ...

    @property
    def steps(self) -> int:
        """Solver steps."""
        ...

    @property
    def guidance(self) -> float:
        """Classifier-free guidance scale."""
        ...

    @property
    def batch(self) -> int:
        """Prompts sampled at a time."""
        ...

    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """Latents of prompts."""
        ...


def sample(generator: Sampling, prompts: Sequence[str], rng: torch.Generator, output: str) -> Tensor:
    """Latents of prompts by the pipeline's own solver, float32 on the CPU; ``output`` names them in what it returns."""
    parts = []
    with noted() as notes:
        for start in range(0, len(prompts), generator.batch):
            part = list(prompts[start : start + generator.batch])
            made = generator.pipeline(
                part,
                num_inference_steps=generator.steps,
                guidance_scale=generator.guidance,
                generator=[child(rng, "latent", start + i) for i in range(len(part))],  # an item's noise is its own
                output_type="latent",
            )
            parts.append(getattr(made, output))
    tell(generator.name, notes)
    return torch.cat(parts).float().cpu()


def sample_for_training(generator: Sampling, captions: Sequence[str], rng: torch.Generator) -> Tensor:
    """Latents of many captions, with progress in the log."""
    made = []
    for start in range(0, len(captions), generator.batch):
        part = captions[start : start + generator.batch]
        made.append(generator.latents(part, child(rng, "sampled", start)))
        done = {"stage": "training latents", "done": start + len(part), "total": len(captions)}
        logger.info("training latents %d/%d", done["done"], done["total"], extra=done)
    return torch.cat(made)


def tell(generator: str, notes: list[str]) -> None:
    """Log each of a library's different notes once, in plain words."""
    for note in dict.fromkeys(map(_plainly, notes)):
        logger.info("generator %s: %s", generator, note)


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
def noted() -> Iterator[list[str]]:
    """Loading bars and harmless warnings off, and logged warnings kept instead of shown.

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
        with warnings.catch_warnings():
            for beginning in HARMLESS:
                warnings.filterwarnings("ignore", beginning)
            yield notes.lines
    finally:
        for logger, handlers, level, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        for library in (diffusers_logging, transformers_logging):
            library.enable_progress_bar()
