"""How long the main operations take; the ordinary tests run each of them once, untimed.

Every benchmark tells in `extra_info` what it worked on, so that two machines can be compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attacks.image_codec import JPEG
from bench.calibration import threshold
from bench.metrics.attribution import identify
from bench.metrics.frechet import frechet_distance
from bench.muon import Muon
from bench.precision import multiplies_bfloat16
from bench.rng import fenced, stream
from bench.weights import detached_copy, set_effective_weight
from schemes.modulations import Amplitude
from schemes.readers import StatisticsNetwork, StatisticsReader
from schemes.weight_modulation import WeightModulationCodec

BITS = 32
REGISTERED = 1_000_000


@pytest.fixture(scope="module")
def decoder() -> nn.Module:
    """An untrained decoder of the embedded generator's architecture."""
    from diffusers import AutoencoderKL

    with fenced(0):
        model = AutoencoderKL(
            block_out_channels=(16, 32, 64, 128),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=24,
            norm_num_groups=1,
            sample_size=64,
        )
    made: nn.Module = model.decoder.eval().requires_grad_(False)
    return made


@pytest.fixture(scope="module")
def codec(decoder: nn.Module) -> WeightModulationCodec:
    """An untrained fingerprint for it: time does not depend on training."""
    modulator = Amplitude().bind(decoder, BITS, stream(0, "modulator"))
    with fenced(0):
        reader = StatisticsNetwork(2, 3, BITS, StatisticsReader()).eval()
    return WeightModulationCodec(modulator, reader, {"bits": str(BITS)})


@pytest.fixture(scope="module")
def content() -> Tensor:
    """64 pictures of 64×64 pixels."""
    return torch.randint(256, (64, 3, 64, 64), generator=stream(0, "content"), dtype=torch.uint8)


def best_seconds(work: Callable[[], object], rounds: int) -> float:
    """Shortest of several runs."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def clones(module: nn.Module) -> list[Tensor]:
    """A copy of all of a module's memory and nothing else: no fingerprint can be written faster."""
    return [value.clone() for value in module.state_dict().values()]


def test_modulate_against_copying_the_memory(benchmark: Any, decoder: nn.Module, codec: WeightModulationCodec) -> None:
    code = torch.randint(2, (BITS,), generator=stream(0, "code"))
    marked = benchmark(codec.modulate, decoder, code)
    assert list(marked.state_dict()) == list(decoder.state_dict())
    rounds = 1 if benchmark.disabled else 30
    floor = best_seconds(lambda: clones(decoder), rounds)
    benchmark.extra_info["megabytes"] = sum(v.numel() * v.element_size() for v in decoder.state_dict().values()) / 1e6
    benchmark.extra_info["copy_of_memory_seconds"] = floor
    benchmark.extra_info["copy_of_module_seconds"] = best_seconds(lambda: detached_copy(decoder), rounds)
    if not benchmark.disabled:
        benchmark.extra_info["times_the_copy_of_memory"] = benchmark.stats.stats.min / floor


def test_change_the_code_of_a_decoder_in_place(
    benchmark: Any, decoder: nn.Module, codec: WeightModulationCodec
) -> None:
    """What is left of `modulate` when the copy is there already: gains and weights alone."""
    code = torch.randint(2, (BITS,), generator=stream(0, "code")) * 2.0 - 1
    modulator: Any = codec.modulator
    copy = detached_copy(decoder)

    @torch.no_grad()
    def write() -> int:
        weights = modulator.weights(decoder, code)
        for name, weight in weights.items():
            set_effective_weight(copy.get_submodule(name), weight)
        return len(weights)

    benchmark.extra_info["layers"] = benchmark(write)


def test_read_64_pictures(benchmark: Any, codec: WeightModulationCodec, content: Tensor) -> None:
    soft = benchmark(codec.read, content.float() / 255)
    assert soft.shape == (64, BITS)
    benchmark.extra_info["items"] = 64


def test_jpeg_64_pictures(benchmark: Any, content: Tensor) -> None:
    attacked = benchmark(JPEG(quality=50), content, stream(0))
    assert attacked.shape == content.shape
    benchmark.extra_info["items"] = 64


def test_identify_64_items_among_a_million_codes(benchmark: Any) -> None:
    codes = torch.randint(2, (REGISTERED, BITS), generator=stream(0, "codes"), dtype=torch.uint8)
    truth = torch.arange(64)
    soft = codes[truth].float() * 2 - 1
    tau = threshold(BITS, 1000, 1e-6)  # of a million there is none at 32 bits; the look-up costs the same
    found = benchmark(identify, soft, truth, codes, tau)
    assert bool((found.matches == BITS).all())
    benchmark.extra_info.update(items=64, registered=REGISTERED, bits=BITS)


@pytest.mark.parametrize("width", [576, 1280])
def test_frechet_distance_of_512_items(benchmark: Any, width: int) -> None:
    a, b = (torch.randn(512, width, generator=stream(0, "features", which)) for which in "ab")
    assert benchmark(frechet_distance, a, b) > 0
    benchmark.extra_info.update(items=512, width=width)


@pytest.mark.parametrize("kind", [Muon, torch.optim.Muon], ids=["ours", "pytorch"])
def test_step_of_a_readers_matrices(benchmark: Any, kind: type[torch.optim.Muon]) -> None:
    rng = stream(0, "matrices")
    matrices = [nn.Parameter(torch.randn(shape, generator=rng)) for shape in ((384, 950), (384, 384), (128, 1152))]
    for matrix in matrices:
        matrix.grad = torch.randn(matrix.shape, generator=rng)
    before = matrices[0].detach().clone()
    benchmark(kind(matrices, lr=0.02, momentum=0.9, ns_steps=4).step)
    assert not torch.equal(matrices[0].detach(), before)
    benchmark.extra_info.update(bfloat16=multiplies_bfloat16(torch.device("cpu")))
