"""Loading diffusers pipelines, for the adapters of all modalities: from a hub id or a folder, safetensors only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import AutoModel, DiffusionPipeline
from torch import Tensor, nn

from bench.protocol import UserError
from bench.rng import child
from modalities.folders import check_folder, is_local, variant_of
from modalities.libraries import noted, read, tell
from modalities.rounding import as_loaded
from modalities.settings import Settings

logger = logging.getLogger("genprint")

DEFAULT = Settings()
HELD = ("vae", "vocoder")
"""What comes behind the latents: always on the device, and in single precision, since codecs are bound to it."""


def load_pipeline(
    spec: str | None, embedded: Path, device: torch.device, settings: Settings = DEFAULT
) -> tuple[str, Any, nn.ModuleDict]:
    """Load a pipeline from a local folder or a hub id; None is the embedded one.

    Args:
        spec: folder, hub id, or None.
        embedded: folder of the embedded pipeline.
        device: where its networks go.
        settings: number formats, variant, revision, offload and a decoder of its own.

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
    if is_local(spec):
        check_folder(local)
    source = str(local) if local.is_dir() else str(spec)
    pipeline = read(lambda: DiffusionPipeline.from_pretrained(source, **_arguments(local, settings)), source)
    if getattr(getattr(pipeline, "vae", None), "decoder", None) is None:
        raise UserError(f"generator {source}: expected a pipeline with vae.decoder, found {type(pipeline).__name__}")
    if _makes_sound(pipeline) != (modality == "audio"):
        raise UserError(f"generator {source}: expected a text-to-{modality} pipeline, found {type(pipeline).__name__}")
    if settings.decoder is not None:
        pipeline.register_modules(vae=load_autoencoder(settings.decoder))
    pipeline.set_progress_bar_config(disable=True)
    _place(source, pipeline, device, settings)
    networks = nn.ModuleDict({name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)})
    networks.eval().requires_grad_(False)
    return (local.resolve().name if local.is_dir() else source), pipeline, networks


def load_autoencoder(source: str) -> Any:
    """An autoencoder alone, from a folder or a hub id, to stand in for a pipeline's own: ``AutoencoderTiny``.

    Raises:
        UserError: when it cannot be loaded, or is something else.
    """
    local = Path(source)
    if is_local(source) and not (local / "config.json").is_file():
        raise UserError(f"decoder {source}: expected a folder with config.json, found none")
    options = {"use_safetensors": True, "local_files_only": local.is_dir(), "low_cpu_mem_usage": False}
    found = read(lambda: AutoModel.from_pretrained(source, **options, dtype=torch.float32), source)
    if not type(found).__name__.startswith("Autoencoder") or getattr(found, "decoder", None) is None:
        raise UserError(f"decoder {source}: expected an autoencoder of diffusers, found {type(found).__name__}")
    return found


def _arguments(local: Path, settings: Settings) -> dict[str, Any]:
    """Options of ``from_pretrained``."""
    arguments = {
        "use_safetensors": True,
        "local_files_only": local.is_dir(),
        "low_cpu_mem_usage": False,
        "dtype": {"default": settings.dtype, **dict.fromkeys(HELD, torch.float32)},
    }
    variant = settings.variant or (variant_of(local / "vae") if local.is_dir() else None)
    named = {"variant": variant, "revision": settings.revision}
    return arguments | {name: value for name, value in named.items() if value is not None}


def _place(source: str, pipeline: Any, device: torch.device, settings: Settings) -> None:
    """Move the pipeline to ``device``; with offload, only what holds the fingerprint stays there."""
    if not settings.offload:
        pipeline.to(device)
        return
    if device.type == "cpu":
        raise UserError(f"generator {source}: expected a GPU to offload from, found the device cpu")
    # These run outside the pipeline's own call, where its hooks would not fetch them.
    pipeline._exclude_from_cpu_offload = [*pipeline._exclude_from_cpu_offload, *HELD]
    pipeline.model_cpu_offload_seq = "->".join(n for n in pipeline.model_cpu_offload_seq.split("->") if n not in HELD)
    try:
        pipeline.enable_model_cpu_offload(device=device)
    except ImportError as error:
        raise UserError(
            f"generator {source}: expected accelerate for offload=true; `pip install accelerate`"
        ) from error


def _makes_sound(pipeline: Any) -> bool:
    """Whether its autoencoder knows a sampling rate, or its pictures of sound go through a vocoder."""
    return "sampling_rate" in pipeline.vae.config or "vocoder" in pipeline.components


class Prompted(Protocol):
    """Makes latents of prompts, so many at a time."""

    @property
    def batch(self) -> int:
        """Prompts sampled at a time."""
        ...

    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """Latents of prompts."""
        ...


class Sampling(Prompted, Protocol):
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
    def networks(self) -> nn.Module:
        """All its networks."""
        ...

    @property
    def steps(self) -> int:
        """Solver steps."""
        ...

    @property
    def guidance(self) -> float:
        """Classifier-free guidance scale."""
        ...


def sample(
    generator: Sampling,
    prompts: Sequence[str],
    rng: torch.Generator,
    output: str,
    arguments: Callable[[int], dict[str, Any]] = lambda count: {},
) -> Tensor:
    """Latents of prompts by the pipeline's own solver, float32 on the CPU.

    Args:
        generator: a pipeline and its settings.
        prompts: text.
        rng: an item's noise is drawn from a child of it.
        output: names the latents in what the pipeline returns.
        arguments: more of the pipeline's call on so many prompts, such as the size.
    """
    parts = []
    with noted() as notes, as_loaded(generator.networks):
        for start in range(0, len(prompts), generator.batch):
            part = list(prompts[start : start + generator.batch])
            made = generator.pipeline(
                part,
                num_inference_steps=generator.steps,
                guidance_scale=generator.guidance,
                generator=[child(rng, "latent", start + i) for i in range(len(part))],  # an item's noise is its own
                output_type="latent",
                **arguments(len(part)),
            )
            parts.append(getattr(made, output))
    tell(generator.name, notes)
    return torch.cat(parts).float().cpu()


def sample_for_training(generator: Prompted, captions: Sequence[str], rng: torch.Generator) -> Tensor:
    """Latents of many captions, with progress in the log."""
    made = []
    for start in range(0, len(captions), generator.batch):
        part = captions[start : start + generator.batch]
        made.append(generator.latents(part, child(rng, "sampled", start)))
        done = {"stage": "training latents", "done": start + len(part), "total": len(captions)}
        logger.info("training latents %d/%d", done["done"], done["total"], extra=done)
    return torch.cat(made)
