"""Fingerprints by weight modulation: modulation × recipe × reader."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.protocol import Generator, Modality, UserError
from bench.rng import child, fenced
from bench.weights import replaced_copy
from schemes import training
from schemes.modulations import Amplitude, Modulation
from schemes.readers import StatisticsNetwork, StatisticsReader
from schemes.training import Recipe

FORMAT = "genprint-weight-modulation-3"
MODULATIONS: dict[str, type[Any]] = {"Amplitude": Amplitude}


@dataclass(frozen=True)
class WeightModulation:
    """Write the code into the decoder's weights by one modulation; read it with one private network.

    Attributes:
        modulation: how a code changes a weight.
        bits: fingerprint length.
        recipe: how modulator and reader are trained.
        reader: the private network.
    """

    modulation: Modulation = field(default_factory=Amplitude)
    bits: int = 32
    recipe: Recipe = field(default_factory=Recipe)
    reader: StatisticsReader = field(default_factory=StatisticsReader)

    def fit(self, modality: Modality, generator: Generator, rng: torch.Generator) -> WeightModulationCodec:
        """Train modulator and reader for ``generator``.

        Raises:
            UserError: when ``bits`` is not positive, or the decoder has nothing to modulate.
        """
        if self.bits < 1:
            raise UserError(f"bits: expected at least 1, found {self.bits}")
        began = time.monotonic()
        decoder = generator.decoder
        device = next(decoder.parameters()).device
        latents = generator.training_latents(self.recipe.pool, child(rng, "latents"))
        unmarked = training.originals(modality, generator, latents)
        modulator = self.modulation.bind(decoder, self.bits, child(rng, "modulator")).to(device)
        with fenced(child(rng, "reader").initial_seed()):
            reader = self.reader.build(unmarked, self.bits).to(device)
        networks, pool = (modulator, reader), (latents, unmarked)
        progress = training.train(modality, generator, networks, pool, self.recipe, child(rng, "training"))
        about = {
            "format": FORMAT,
            "scheme": repr(self),
            "bits": str(self.bits),
            "modulation": json.dumps({"name": type(self.modulation).__name__, **_fields(self.modulation)}),
            "reader": json.dumps(_fields(self.reader) | {"rank": unmarked.ndim - 2, "channels": unmarked.shape[1]}),
            "decoder": decoder_digest(decoder),
            "generator": generator.name,
            "fit_seconds": f"{time.monotonic() - began:.1f}",
            "log": json.dumps(progress.log),
        }
        return _codec(decoder, about, {"modulator": modulator.state_dict(), "reader": reader.state_dict()})


@dataclass(frozen=True, eq=False)
class WeightModulationCodec:
    """A trained weight-modulation fingerprint, bound to one public decoder.

    Attributes:
        modulator: trained map from codes to weights.
        reader: trained network from observed tensors to soft bits.
        about: facts kept in the file: scheme, bits, digest of the decoder, fit time and log.
        rival: a codec of the same scheme that an attacker fitted to overwrite this one's fingerprints with, or None.
    """

    modulator: nn.Module
    reader: nn.Module
    about: Mapping[str, str]
    rival: WeightModulationCodec | None = None
    removable: ClassVar[bool] = False

    @property
    def bits(self) -> int:
        """Fingerprint length."""
        return int(self.about["bits"])

    @property
    def fit_seconds(self) -> float:
        """Wall time of the fit."""
        return float(self.about["fit_seconds"])

    @torch.no_grad()
    def modulate(self, decoder: nn.Module, fingerprint: Tensor) -> nn.Module:
        """A copy of ``decoder`` that carries ``fingerprint``.

        Args:
            decoder: the public decoder that the codec was fitted for.
            fingerprint: code (bits,), values in {0, 1}.

        Raises:
            UserError: when the code has another length or another value.
        """
        if fingerprint.shape != (self.bits,):
            raise UserError(
                f"fingerprint: expected {self.bits} values of 0 or 1, found the shape {tuple(fingerprint.shape)}"
            )
        if other := sorted(set(fingerprint.tolist()) - {0, 1}):
            raise UserError(f"fingerprint: expected {self.bits} values of 0 or 1, found {other[0]:g}")
        first = next(self.modulator.parameters())
        code = fingerprint.to(first.device, first.dtype) * 2 - 1
        return replaced_copy(decoder, cast(Any, self.modulator).weights(decoder, code))

    @torch.inference_mode()
    def read(self, tensor: Tensor) -> Tensor:
        """Soft bits (B, bits) of observed tensors; positive means 1."""
        network = self.reader.to(tensor.device)
        bits: Tensor = network(tensor)
        return bits

    def save(self, path: Path) -> None:
        """Write everything as half-precision safetensors, atomically."""
        parts = {"modulator": self.modulator, "reader": self.reader}
        state = {f"{part}.{key}": _half(value) for part, m in parts.items() for key, value in m.state_dict().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.part")
        save_file(state, partial, dict(self.about))
        os.replace(partial, path)


def load_codec(path: Path, modality: Modality, generator: Generator) -> WeightModulationCodec:
    """Read a codec and bind it to the generator it was fitted for.

    Raises:
        UserError: when the file is missing, damaged, of another kind, or of another decoder.
    """
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError as error:
        raise UserError(f"codec {path}: expected a safetensors file, found none") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"codec {path}: expected safetensors, found a damaged file ({error})") from error
    if about.get("format") != FORMAT:
        raise UserError(f"codec {path}: expected format {FORMAT}, found {about.get('format')}")
    found = decoder_digest(generator.decoder)
    try:
        if about["decoder"] != found:
            raise UserError(
                f"codec {path}: fitted for the decoder {about['decoder'][:12]} of {about['generator']}, "
                f"found the decoder {found[:12]} of {generator.name}; run `make fit`"
            )
        return _codec(generator.decoder, about, _parts(state))
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise UserError(f"codec {path}: expected what `fit` writes, found something else: {reason}") from error


def fits(path: Path, generator: Generator) -> bool:
    """Whether the codec in ``path`` was fitted for this generator's decoder."""
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("decoder") == decoder_digest(generator.decoder)


def _parts(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {"modulator": {}, "reader": {}}
    for key, value in state.items():
        part, _, name = key.partition(".")
        parts[part][name] = value.float() if value.is_floating_point() else value
    return parts


def _codec(decoder: nn.Module, about: dict[str, str], parts: dict[str, dict[str, Tensor]]) -> WeightModulationCodec:
    """Rebuild both networks from the facts in ``about`` and their states.

    Fresh from a fit, too: what is evaluated is then what :meth:`WeightModulationCodec.save` writes.
    """
    modulation = json.loads(about["modulation"])
    spec = MODULATIONS[modulation.pop("name")](**modulation)
    device = next(decoder.parameters()).device
    modulator = spec.bind(decoder, int(about["bits"]), torch.Generator())
    settings = json.loads(about["reader"])
    rank, channels = int(settings.pop("rank")), int(settings.pop("channels"))
    with fenced(0):
        reader = StatisticsNetwork(rank, channels, int(about["bits"]), StatisticsReader(**settings))
    for module, state in ((modulator, parts["modulator"]), (reader, parts["reader"])):
        module.load_state_dict({key: _half(value).to(value.dtype) for key, value in state.items()})
        module.to(device).eval().requires_grad_(False)
    return WeightModulationCodec(modulator, reader, about)


def _half(value: Tensor) -> Tensor:
    return value.detach().cpu().half().contiguous() if value.is_floating_point() else value.detach().cpu().contiguous()


def _fields(spec: Any) -> dict[str, Any]:
    return {item.name: getattr(spec, item.name) for item in dataclasses.fields(spec)}


def decoder_digest(decoder: nn.Module) -> str:
    """SHA-256 over names and values of a decoder's state: what a codec is bound to."""
    total = hashlib.sha256()
    for name, value in sorted(decoder.state_dict().items()):
        total.update(f"{name} {tuple(value.shape)}".encode())
        total.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return total.hexdigest()
