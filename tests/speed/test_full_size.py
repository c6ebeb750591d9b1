"""Released decoders at full size, with random weights: how fast and in how much memory a copy is fingerprinted.

Architectures as published: the autoencoder of Stable Diffusion 2.1 (arXiv:2112.10752), the Oobleck decoder of Stable
Audio Open (arXiv:2407.14358), the renderer of Shap-E (arXiv:2305.02463).
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.rng import fenced, stream
from bench.weights import effective_weight, weighted_layers
from schemes.modulations import Amplitude
from schemes.readers import StatisticsNetwork, StatisticsReader
from schemes.weight_modulation import WeightModulationCodec

BITS = 32
MILLIONS = {"sd": 49.5, "stable-audio": 78.2, "shap-e": 226.3}

pytestmark = pytest.mark.slow


def stable_diffusion() -> nn.Module:
    from diffusers.models.autoencoders.vae import Decoder

    return Decoder(
        in_channels=4,
        out_channels=3,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
    )


def stable_audio() -> nn.Module:
    from diffusers.models.autoencoders.autoencoder_oobleck import OobleckDecoder

    return OobleckDecoder(
        channels=128,
        input_channels=64,
        audio_channels=2,
        upsampling_ratios=[8, 8, 4, 4, 2],
        channel_multiples=[1, 2, 4, 8, 16],
    )


def shap_e() -> nn.Module:
    from diffusers.pipelines.shap_e.renderer import ShapERenderer

    from modalities.shape3d.shap_e import decoder_of

    return decoder_of(ShapERenderer())  # its defaults are those of the released checkpoint


BUILDERS = {"sd": stable_diffusion, "stable-audio": stable_audio, "shap-e": shap_e}
DECODERS = pytest.mark.parametrize("named", BUILDERS, indirect=True, scope="module")


@pytest.fixture(scope="module")
def named(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    """A decoder with uniform weights: torch's own initial ones take ten times as long to draw."""
    with torch.device("meta"):
        decoder = BUILDERS[request.param]()
    decoder, rng = decoder.to_empty(device="cpu"), stream(0, "weights")
    for parameter in decoder.parameters():
        parameter.data.uniform_(-0.02, 0.02, generator=rng)
    for layer in weighted_layers(decoder).values():
        if hasattr(layer, "weight_g"):  # as after loading and a forward pass
            layer.weight = effective_weight(layer).detach()
    return request.param, decoder.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def codec(named: tuple[str, nn.Module]) -> WeightModulationCodec:
    modulator = Amplitude().bind(named[1], BITS, stream(0, "modulator"))
    with fenced(0):
        reader = StatisticsNetwork(2, 3, BITS, StatisticsReader()).eval()
    return WeightModulationCodec(modulator, reader, {"bits": str(BITS)})


class Live(TorchDispatchMode):
    """The most bytes of tensors made within it that are alive together; memory of ``module`` is not among them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        stale = [layer.__dict__["weight"] for layer in module.modules() if "weight" in layer.__dict__]
        self.outside = {value.untyped_storage()._cdata for value in [*module.state_dict().values(), *stale]}
        self.held: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor) and (storage := each.untyped_storage())._cdata not in self.outside:
                self.held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.held = {key: (ref, size) for key, (ref, size) in self.held.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self.held.values()))
        return made


def bytes_of(module: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in module.state_dict().values())


def best(rounds: int, *works: Callable[[], object]) -> list[float]:
    """Shortest processor time of each, in turns: what else the machine does counts for none.

    A copy is kept, so its memory is new: what was freed before goes back to the system first, for each alike.
    """
    trim = ctypes.CDLL(None).malloc_trim
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, taken in zip(works, seconds, strict=True):
            trim(0)
            began = time.process_time()
            work()
            taken.append(time.process_time() - began)
    return [min(taken) for taken in seconds]


@DECODERS
def test_modulate_takes_at_most_twice_a_copy_of_the_memory(
    benchmark: Any, named: tuple[str, nn.Module], codec: WeightModulationCodec
) -> None:
    name, decoder = named
    millions = sum(p.numel() for p in decoder.parameters()) / 1e6
    assert millions == pytest.approx(MILLIONS[name], abs=0.1)
    code = torch.randint(2, (BITS,), generator=stream(0, "code"))
    rounds = 7 if benchmark.enabled else 3
    marked = benchmark.pedantic(codec.modulate, (decoder, code), rounds=rounds, warmup_rounds=1)
    assert list(marked.state_dict()) == list(decoder.state_dict())
    del marked
    values = list(decoder.state_dict().values())
    floor, taken = best(rounds, lambda: [value.clone() for value in values], lambda: codec.modulate(decoder, code))
    ratio = taken / floor
    benchmark.extra_info.update(decoder=name, millions=round(millions, 1), copy_of_memory_seconds=floor, ratio=ratio)
    print(
        f"\n{name}: {millions:.1f} M parameters, modulate takes {ratio:.2f} times a copy of the memory ({floor:.3f} s)"
    )
    assert ratio <= 2


@DECODERS
def test_modulate_holds_little_more_than_the_two_decoders(
    benchmark: Any, named: tuple[str, nn.Module], codec: WeightModulationCodec
) -> None:
    name, decoder = named
    code = torch.randint(2, (BITS,), generator=stream(0, "code"))

    def peak() -> int:
        with Live(decoder) as live:
            codec.modulate(decoder, code)
        return live.peak

    ratio = 1 + benchmark.pedantic(peak, rounds=1) / bytes_of(decoder)
    benchmark.extra_info.update(decoder=name, megabytes=bytes_of(decoder) / 1e6, ratio=ratio)
    print(f"\n{name}: {bytes_of(decoder) / 1e6:.0f} MB, at most {ratio:.2f} times that with the copy")
    assert ratio <= 2.2
