"""A fingerprinted copy of a generator, exported, and what a stock process makes of it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.rng import fenced, stream
from bench.weights import replaced_copy
from schemes.files import decoder_digest
from schemes.modulations import Amplitude
from schemes.readers import StatisticsNetwork, StatisticsReader
from schemes.weight_modulation import FORMAT, WeightModulationCodec

BITS = 8


@torch.no_grad()
def fingerprinted(decoder: nn.Module, spec: Amplitude | None = None) -> nn.Module:
    """A copy that carries a code by a fresh, untrained modulation."""
    modulator: Any = (spec or Amplitude()).bind(decoder, BITS, stream(0, "modulator"))
    code = torch.randint(2, (BITS,), generator=stream(0, "code")) * 2.0 - 1
    return replaced_copy(decoder, modulator.weights(decoder, code))


def write_untrained(generator: Any, rank: int, path: Path) -> None:
    """A codec file with a fresh modulation and a fresh reader of solids (rank 3), pictures (2) or waveforms (1)."""
    decoder, spec, reader = generator.decoder, Amplitude(), StatisticsReader()
    modulator = spec.bind(decoder, BITS, stream(0, "modulator"))
    channels = {1: 1, 2: 3, 3: 4}[rank]
    with fenced(0):
        network = StatisticsNetwork(rank, channels, BITS, reader)
    about = {
        "format": FORMAT,
        "bits": str(BITS),
        "modulation": json.dumps({"name": "Amplitude", **dataclasses.asdict(spec)}),
        "reader": json.dumps(dataclasses.asdict(reader) | {"rank": rank, "channels": channels}),
        "decoder": decoder_digest(decoder),
        "generator": generator.name,
    }
    WeightModulationCodec(modulator, network, about).save(path)


class Shelf(dict[str, Any]):
    """Values that are made when they are first asked for."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        super().__init__()
        self.make = make

    def __missing__(self, name: str) -> Any:
        self[name] = self.make(name)
        return self[name]


def stock(jobs: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, Tensor]:
    """What ``tests/stock_process.py`` makes, in a fresh process that knows nothing of GenPrint, with the hub off."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    script = Path(__file__).with_name("stock_process.py")
    words = [sys.executable, "-I", str(script), str(folder / "jobs.json"), str(folder / "made.safetensors")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(folder / "made.safetensors")
