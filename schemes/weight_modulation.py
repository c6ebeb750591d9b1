"""Fingerprints by weight modulation: modulation × recipe × reader."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.pool import training_latents
from bench.protocol import Generator, Modality, UserError
from bench.rng import child, fenced
from bench.weights import replaced_copy
from schemes import files, training
from schemes.encoder import STAGES
from schemes.files import check_bits, check_fingerprint, decoder_digest, half, signs
from schemes.modulations import MODULATIONS, Amplitude, Modulation, other_values
from schemes.readers import StatisticsNetwork, StatisticsReader
from schemes.training import Recipe
from schemes.trials import Setting
from schemes.unmarked import originals

FORMAT = "genprint-weight-modulation-3"
GENTLE = 0.3
"""Share of the learning rates with which a trained fingerprint is trained on; all of them unlearn some of it first."""


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
        return self._trained(modality, generator, rng, None)

    def _trained(
        self, modality: Modality, generator: Generator, rng: torch.Generator, start: WeightModulationCodec | None
    ) -> WeightModulationCodec:
        check_bits(self.bits)
        if self.recipe.hardening and type(self.modulation) in STAGES.values():
            raise UserError(f"hardening: expected a modulation of weights, found {type(self.modulation).__name__}")
        began = time.monotonic()
        decoder = generator.decoder
        device = next(decoder.parameters()).device
        drawing = child(rng, "latents")  # the first child of rng, whatever the scheme: all ask for the same latents
        modulator = self.modulation.bind(decoder, self.bits, child(rng, "modulator")).to(device)
        if start is not None:  # before latents are drawn, which takes minutes
            _take_up(start.modulator, modulator)
        latents = training_latents(generator, self.recipe.pool, drawing)
        unmarked = originals(modality, generator, latents)
        with fenced(child(rng, "reader").initial_seed()):
            reader = self.reader.build(unmarked, self.bits).to(device)
        if start is not None:
            _take_up(start.reader, reader)
        setting = Setting(modality, generator, (modulator, reader), (latents, unmarked))
        earlier = None if start is None else training.Progress.after(json.loads(start.about["log"]))
        progress = training.train(setting, self.recipe, child(rng, "training"), earlier)
        about = {
            "format": FORMAT,
            "scheme": repr(self),
            "bits": str(self.bits),
            "modulation": json.dumps({"name": type(self.modulation).__name__, **_fields(self.modulation)}),
            "reader": json.dumps(_fields(self.reader) | {"rank": unmarked.ndim - 2, "channels": unmarked.shape[1]}),
            "decoder": decoder_digest(decoder),
            "generator": generator.name,
            "fit_seconds": f"{time.monotonic() - began + (start.fit_seconds if start else 0):.1f}",
            "energy_per_bit": f"{training.energy(modulator, decoder):.3g}",
            "log": json.dumps(progress.log),
        }
        if start is not None:
            about["continues"] = start.about["scheme"]
        return _codec(decoder, about, {"modulator": modulator.state_dict(), "reader": reader.state_dict()})


@dataclass(frozen=True)
class Continued:
    """A scheme that is trained from a codec on instead of from nothing: another recipe at a fraction of the cost.

    Attributes:
        scheme: what is trained; its modulation, bits and reader are those of the codec.
        start: whose networks and quality weight are taken up.
    """

    scheme: WeightModulation
    start: WeightModulationCodec = field(repr=False)

    @property
    def bits(self) -> int:
        """Fingerprint length."""
        return self.scheme.bits

    @property
    def recipe(self) -> Recipe:
        """How it is trained: gently, and for all steps, since bits may be read well enough from the first."""
        return dataclasses.replace(self.scheme.recipe, enough=math.inf, pace=GENTLE)

    def fit(self, modality: Modality, generator: Generator, rng: torch.Generator) -> WeightModulationCodec:
        """Train on for ``generator``. The log goes on from the codec's, and the time of both fits is told.

        Raises:
            UserError: when the codec has another modulation, reader or number of bits.
        """
        scheme = dataclasses.replace(self.scheme, recipe=self.recipe)
        return scheme._trained(modality, generator, rng, self.start)


def _take_up(earlier: nn.Module, network: nn.Module) -> None:
    """Give a network the weights of an earlier one of the same kind and size."""
    kinds = type(network).__name__, type(earlier).__name__
    shapes = [{name: value.shape for name, value in each.state_dict().items()} for each in (network, earlier)]
    if kinds[0] != kinds[1] or shapes[0] != shapes[1]:
        what = "another size" if kinds[0] == kinds[1] else kinds[1]
        raise UserError(f"start: expected a codec of the same modulation, bits and reader: {kinds[0]}, found {what}")
    network.load_state_dict(earlier.state_dict())


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

    @property
    def bits(self) -> int:
        """Fingerprint length."""
        return int(self.about["bits"])

    @property
    def removable(self) -> bool:
        """Whether a user who holds the model can drop what marks: a stage behind the decoder."""
        return hasattr(self.modulator, "staged")

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
        check_fingerprint(fingerprint, self.bits)
        modulator, code = cast(Any, self.modulator), signs(fingerprint, decoder)
        if hasattr(modulator, "staged"):
            staged: nn.Module = modulator.staged(decoder, code)
            return staged
        return replaced_copy(decoder, modulator.weights(decoder, code), other_values(modulator, decoder, code))

    @torch.inference_mode()
    def read(self, tensor: Tensor) -> Tensor:
        """Soft bits (B, bits) of observed tensors; positive means 1."""
        network = self.reader.to(tensor.device)
        bits: Tensor = network(tensor)
        return bits

    def save(self, path: Path) -> None:
        """Write everything as half-precision safetensors, atomically."""
        files.write(path, self.about, {"modulator": self.modulator.state_dict(), "reader": self.reader.state_dict()})

    @property
    def reads_weights(self) -> bool:
        """Whether the modulation's code can be read from weights."""
        return hasattr(self.modulator, "read_weights") and bool(getattr(self.modulator, "reads_weights", True))

    def read_weights(self, decoder: nn.Module, public: nn.Module) -> Tensor:
        """Soft bits (bits,) from the weights of ``decoder`` beside the public ones.

        Raises:
            UserError: when the modulation cannot be read from weights.
        """
        if not self.reads_weights:
            kind = type(self.modulator).__name__
            raise UserError(f"{kind}: expected a modulation that can be read from weights, found one that cannot")
        bits: Tensor = self.modulator.read_weights(decoder, public)  # type: ignore[operator]
        return bits


def bind(
    modality: Modality, generator: Generator, about: dict[str, str], parts: dict[str, dict[str, Tensor]]
) -> WeightModulationCodec:
    """The codec in a file; see :func:`schemes.files.read`."""
    if unknown := sorted(set(parts) - {"modulator", "reader"}):
        raise ValueError(f"an unknown part {unknown[0]!r}")
    return _codec(generator.decoder, about, parts)


def _codec(decoder: nn.Module, about: dict[str, str], parts: dict[str, dict[str, Tensor]]) -> WeightModulationCodec:
    """Rebuild both networks from the facts in ``about`` and their states.

    Fresh from a fit, too: what is evaluated is then what :meth:`WeightModulationCodec.save` writes.
    """
    modulation = json.loads(about["modulation"])
    spec = (MODULATIONS | STAGES)[modulation.pop("name")](**modulation)
    device = next(decoder.parameters()).device
    modulator = spec.bind(decoder, int(about["bits"]), torch.Generator())
    settings = json.loads(about["reader"])
    rank, channels = int(settings.pop("rank")), int(settings.pop("channels"))
    with fenced(0):
        reader = StatisticsNetwork(rank, channels, int(about["bits"]), StatisticsReader(**settings))
    for module, state in ((modulator, parts["modulator"]), (reader, parts["reader"])):
        module.load_state_dict({key: half(value).to(value.dtype) for key, value in state.items()})
        module.to(device).eval().requires_grad_(False)
    return WeightModulationCodec(modulator, reader, about)


def _fields(spec: Any) -> dict[str, Any]:
    return {item.name: getattr(spec, item.name) for item in dataclasses.fields(spec)}
