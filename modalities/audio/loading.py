"""From a generator's name to the adapter that knows it: which of the audio families a folder or hub id is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.protocol import Generator, UserError
from modalities.audio import stable_audio
from modalities.audio.audiocraft import AudiocraftGenerator
from modalities.audio.audioldm import AudioLDM2Generator
from modalities.audio.language import LanguageGenerator, load_language, narrow
from modalities.audio.stable_audio import AceStepGenerator
from modalities.exported import is_exported, load_exported
from modalities.folders import check_weights, is_local
from modalities.libraries import FAILURES, noted, read
from modalities.modules import ModuleGenerator, noise_shape, tried
from modalities.pipelines import load_pipeline
from modalities.settings import PIPELINE, Settings, split

PIPELINES = ("AceStepPipeline", "AudioLDM2Pipeline", "StableAudioPipeline")
RATES = ("rate_hz", "sample_rate", "sampling_rate")
"""Attributes by which networks tell their sampling rate."""


def load(spec: str | None, device: torch.device) -> Generator:
    """The embedded generator (None), or what is in a folder, behind a hub id, or in a ``torch.export`` file.

    Raises:
        UserError: when it cannot be loaded, or is of no family that is known.
    """
    source, settings = split(spec)
    if source is not None and is_exported(path := Path(source)):
        return wrapped(source, load_exported(path).to(device), settings, path)
    if source is not None and _is_transformers(source):
        return _language(source, device, settings)
    return _pipeline(source, device, settings)


def _pipeline(source: str | None, device: torch.device, settings: Settings) -> Generator:
    name, pipeline, networks = load_pipeline(source, stable_audio.EMBEDDED, device, settings)
    kind, loop = type(pipeline).__name__, ("steps", "guidance", "batch")
    if kind not in PIPELINES:
        raise UserError(f"generator {name}: expected one of {', '.join(PIPELINES)}, found {kind}")
    if kind == "AudioLDM2Pipeline":
        settings.limited(name, *PIPELINE, "seconds", "part")
        latent = AudioLDM2Generator(name, pipeline, networks, part=settings.part)
        return replace(latent, **settings.chosen(*loop, "seconds"))
    if kind == "AceStepPipeline":
        settings.limited(name, *PIPELINE, "seconds")
        return replace(AceStepGenerator(name, pipeline, networks), **settings.chosen(*loop, "seconds"))
    return stable_audio.built(name, pipeline, networks, settings)


def _is_transformers(source: str) -> bool:
    """Whether a folder or hub id holds one model of transformers, and no pipeline of diffusers."""
    if is_local(source):
        return (Path(source) / "config.json").is_file() and not (Path(source) / "model_index.json").is_file()
    import transformers

    try:
        with noted():
            transformers.AutoConfig.from_pretrained(source)
    except FAILURES:
        return False
    return True


def _language(source: str, device: torch.device, settings: Settings) -> LanguageGenerator:
    settings.limited(source, "dtype", "variant", "revision", "guidance", "batch", "seconds")
    local = Path(source)
    if local.is_dir():
        check_weights(local)
    options = {"local_files_only": local.is_dir(), **settings.chosen("variant", "revision")}
    model, tokenizer = read(lambda: load_language(source, device, options), source)
    narrow(model, settings.dtype)
    networks = nn.ModuleDict({"model": model})
    name = local.resolve().name if local.is_dir() else source
    return replace(
        LanguageGenerator(name, model, tokenizer, networks), **settings.chosen("guidance", "batch", "seconds")
    )


def wrapped(name: str, thing: Any, settings: Settings, path: Path | None = None) -> Generator:
    """What came from outside as a generator: an audiocraft model, or any network that makes waveforms of noise.

    Raises:
        UserError: when it is neither.
    """
    if hasattr(thing, "compression_model") and hasattr(thing, "generate"):
        settings.limited(name, "batch", "seconds")
        parts = {part: getattr(thing, part, None) for part in ("lm", "compression_model")}
        networks = nn.ModuleDict({part: module for part, module in parts.items() if isinstance(module, nn.Module)})
        model = AudiocraftGenerator(name, thing, networks.eval().requires_grad_(False))
        return replace(model, **settings.chosen("batch", "seconds"))
    if not isinstance(thing, nn.Module):
        raise UserError(f"generator {name}: expected a network or an audiocraft model, found {type(thing).__name__}")
    settings.limited(name, "latent", "rate_hz", "batch")
    network = thing.eval().requires_grad_(False)
    shape = noise_shape(name, network, settings)
    made = tried(name, network, shape)
    if made.ndim != 3 or made.shape[1] not in (1, 2):
        raise UserError(f"generator {name}: expected waveforms (B, 1 or 2, T), found {tuple(made.shape)}")
    told = [int(value) for key in RATES if isinstance(value := getattr(network, key, None), int | float)]
    rate_hz = settings.rate_hz or (told[0] if told else 0)
    if not rate_hz:
        raise UserError(f"generator {name}: expected ?rate_hz=NUMBER, the network says not at which rate it samples")
    generator = ModuleGenerator(name, network, shape, rate_hz=rate_hz, source=path)
    return replace(generator, **settings.chosen("batch"))
