"""Amplitude modulation: batched equals materialised, on every kind of layer; which layers; how it starts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from bench.protocol import UserError
from bench.rng import fenced, stream
from bench.weights import detached_copy, effective_weight, set_effective_weight, weighted_layers
from schemes.modulations import Amplitude

BITS = 8


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.nn.utils.weight_norm(layer)


def whole_weight_norm(layer: nn.Module) -> nn.Module:
    whole: Any = None  # torch takes it, its annotation does not
    normed: nn.Module = weight_norm(layer, dim=whole)
    return normed


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (9,)),
    "conv1d-dilated": (lambda: nn.Conv1d(4, 6, 3, padding=2, dilation=2, stride=2), (9,)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, padding=1), (5, 5)),
    "conv2d-reflect": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (5, 5)),
    "conv2d-grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (5, 5)),
    "conv2d-depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (5, 5)),
    "conv3d": (lambda: nn.Conv3d(4, 6, 2), (3, 3, 3)),
    "conv3d-depthwise": (lambda: nn.Conv3d(4, 4, 2, groups=4), (3, 3, 3)),
    "transposed1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), (9,)),
    "transposed1d-grouped": (lambda: nn.ConvTranspose1d(4, 6, 3, groups=2), (9,)),
    "transposed2d": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), (5, 5)),
    "transposed2d-depthwise": (lambda: nn.ConvTranspose2d(4, 4, 3, groups=4), (5, 5)),
    "transposed3d": (lambda: nn.ConvTranspose3d(4, 6, 2), (3, 3, 3)),
    "linear": (lambda: nn.Linear(4, 6), ()),
    "linear-sequence": (lambda: nn.Linear(4, 6), (7,)),
}
NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda layer: layer,
    "old-norm": old_weight_norm,
    "parametrized-norm": weight_norm,
    "whole-norm": whole_weight_norm,
}
CASES = [pytest.param(kind, norm, id=f"{kind}-{norm}") for kind in LAYERS for norm in NORMS]


class Between(nn.Module):
    """The layer under test between two that are not modulated, so that it is the one that `Amplitude` chooses."""

    def __init__(self, layer: nn.Module, channels: int) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(4, 4), layer, nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        axis = -1 if isinstance(self.layer, nn.Linear) else 1
        x = self.first(x.movedim(axis, -1)).movedim(-1, axis)
        out: Tensor = self.last(torch.tanh(self.layer(x)).movedim(axis, -1))
        return out


def build(kind: str, norm: str) -> tuple[Between, Tensor]:
    """A decoder with random parameters (gains unlike the norms of the directions), and a batch of three."""
    make, size = LAYERS[kind]
    layer = make()
    channels = int(getattr(layer, "out_channels", 6))
    model, rng = Between(NORMS[norm](layer), channels), stream(0, kind, norm)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 + torch.rand(parameter.shape, generator=rng))
    shape = (3, *size, 4) if kind.startswith("linear") else (3, 4, *size)
    return model.requires_grad_(False), torch.randn(shape, generator=rng)


def codes(count: int, bits: int = BITS) -> Tensor:
    """Random ±1 codes (count, bits)."""
    return torch.randint(2, (count, bits), generator=stream(0, "codes")) * 2.0 - 1


def bound(model: nn.Module, spec: Amplitude | None = None, bits: int = BITS) -> Any:
    return (spec or Amplitude()).bind(model, bits, stream(0, "modulator"))


def materialised(model: nn.Module, modulator: Any, code: Tensor) -> nn.Module:
    copy = detached_copy(model)
    for name, weight in modulator.weights(model, code).items():
        set_effective_weight(copy.get_submodule(name), weight.detach())
    return copy


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max() / b.detach().abs().max())


@pytest.mark.parametrize(("kind", "norm"), CASES)
def test_applied_is_the_batch_of_the_materialised_decoders(kind: str, norm: str) -> None:
    model, x = build(kind, norm)
    modulator, words, plain = bound(model), codes(3), model(x)
    assert list(modulator.weights(model, words[0])) == ["layer"]
    with modulator.applied(model, words):
        batched = model(x)
    each = torch.cat([materialised(model, modulator, word)(x[i : i + 1]) for i, word in enumerate(words)])
    assert relative(batched, each) <= 1e-5
    assert relative(batched, plain) > 1e-3, "the code changed nothing"
    assert torch.equal(model(x), plain), "the context left something behind"


@pytest.mark.parametrize(("kind", "norm"), CASES)
def test_both_paths_send_the_same_gradient_to_the_modulator(kind: str, norm: str) -> None:
    model, x = build(kind, norm)
    modulator, word = bound(model), codes(1)
    with modulator.applied(model, word):
        model(x[:1]).square().sum().backward()
    batched = [parameter.grad.clone() for parameter in modulator.parameters()]
    modulator.zero_grad()
    weights = modulator.weights(model, word[0])
    # d loss / d W' through a leaf, then on to the modulator
    leaf = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    plain = Between(LAYERS[kind][0](), model.last.in_features)
    plain.load_state_dict(
        {f"{name}.{key}": value for name in ("first", "last") for key, value in _state(model, name)}
        | {"layer.weight": weights["layer"].detach(), "layer.bias": model.get_parameter("layer.bias")}
    )
    out = torch.func.functional_call(plain, {"layer.weight": leaf["layer"]}, (x[:1],))
    out.square().sum().backward()
    weights["layer"].backward(leaf["layer"].grad)
    for one, other in zip(batched, (parameter.grad for parameter in modulator.parameters()), strict=True):
        assert one.abs().max() > 0
        assert relative(one, other) <= 1e-4


def _state(model: nn.Module, name: str) -> list[tuple[str, Tensor]]:
    return list(model.get_submodule(name).state_dict().items())


@pytest.mark.parametrize("norm", NORMS)
def test_keys_stay_and_the_original_stays(norm: str) -> None:
    model, x = build("conv2d", norm)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    marked = materialised(model, bound(model), codes(1)[0])
    assert list(marked.state_dict()) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    changed = [key for key, value in marked.state_dict().items() if not torch.equal(value, before[key])]
    assert changed and all(key.startswith("layer.") and not key.endswith("bias") for key in changed)
    assert relative(marked(x), model(x)) > 1e-3


def test_the_context_ends_with_an_exception_too() -> None:
    model, x = build("conv2d", "plain")
    plain = model(x)
    with pytest.raises(KeyError, match="in between"), bound(model).applied(model, codes(3)):
        raise KeyError("in between")
    assert torch.equal(model(x), plain)


@pytest.mark.parametrize("kind", ["conv2d", "conv2d-grouped", "transposed3d", "linear"])
@pytest.mark.parametrize("hidden", [0, 16])
def test_no_depth_is_the_identity(kind: str, hidden: int) -> None:
    model, x = build(kind, "plain")
    modulator, plain = bound(model, Amplitude(depth=0.0, hidden=hidden)), model(x)
    with modulator.applied(model, codes(3)):
        assert torch.equal(model(x), plain)
    assert torch.equal(materialised(model, modulator, codes(1)[0])(x), plain)
    (weight,) = modulator.weights(model, codes(1)[0]).values()
    assert torch.equal(weight, effective_weight(model.layer))


@pytest.mark.parametrize("hidden", [0, 16])
def test_two_codes_give_two_decoders(hidden: int) -> None:
    model, x = build("conv2d", "plain")
    modulator, words = bound(model, Amplitude(hidden=hidden)), codes(2)
    assert not torch.equal(words[0], words[1])
    one, other = (materialised(model, modulator, word) for word in words)
    assert relative(one(x), other(x)) > 1e-3
    again = materialised(model, modulator, words[0])
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in one.state_dict().items())


def test_without_a_mapping_network_the_change_is_odd_in_the_code() -> None:
    """s = 1 + A(code) with A linear: the opposite code has the opposite change of weight."""
    model, _ = build("conv2d", "plain")
    modulator, word, base = bound(model), codes(1)[0], effective_weight(model.layer)
    one, other = (modulator.weights(model, sign * word)["layer"] - base for sign in (1, -1))
    assert relative(one, -other) <= 1e-6
    curved = bound(model, Amplitude(hidden=16))
    one, other = (curved.weights(model, sign * word)["layer"] - base for sign in (1, -1))
    assert relative(one, -other) > 1e-2, "a mapping network is not linear"


def test_every_input_channel_is_scaled_by_one_gain() -> None:
    """W'[o, i] = s[i] W[o, i] (WOUAF, sec. 3): the quotient depends on the input channel alone."""
    model, _ = build("conv2d", "parametrized-norm")
    weight = bound(model).weights(model, codes(1)[0])["layer"]
    quotient = (weight / effective_weight(model.layer)).detach()  # (6, 4, 3, 3)
    assert relative(quotient, quotient[:1, :, :1, :1].expand_as(quotient)) <= 1e-5
    assert quotient[0, :, 0, 0].unique().numel() == 4


@pytest.mark.parametrize("depth", [0.05, 0.3])
def test_the_norm_changes_by_the_depth(depth: float) -> None:
    """Gains 1 + N(0, depth²) over many channels and codes: ‖W′ - W‖ / ‖W‖ → depth."""
    middle = nn.Linear(256, 256).requires_grad_(False)
    base = middle.weight.normal_(generator=stream(0, "weight"))
    model = nn.Sequential(nn.Linear(256, 256), middle, nn.Linear(256, 256))
    modulator = bound(model, Amplitude(depth=depth), bits=32)
    marked = (modulator.weights(model, word)["1"].detach() for word in codes(16, 32))
    changes = torch.stack([(weight - base).norm() / base.norm() for weight in marked])
    assert float(changes.mean()) == pytest.approx(depth, rel=0.1)


def test_gains_spread_with_the_code_independent_of_its_length() -> None:
    for bits in (8, 32, 128):
        modulator = bound(nn.Sequential(*[nn.Linear(200, 200) for _ in range(3)]), Amplitude(depth=0.3), bits=bits)
        gains = modulator.gains(codes(64, bits))["1"].detach()
        assert float(gains.std()) == pytest.approx(0.3, rel=0.1)
        assert float(gains.mean()) == pytest.approx(1, abs=0.05)


@pytest.fixture(scope="module")
def vae_decoder() -> nn.Module:
    """The decoder of an untrained `AutoencoderKL`, with shortcuts, upsamplers and attention in it."""
    from diffusers import AutoencoderKL

    with fenced(0):
        model = AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=1,
        )
    decoder: nn.Module = model.decoder.eval().requires_grad_(False)
    return decoder


def test_of_an_autoencoder_kl_exactly_the_layers_of_wouaf(vae_decoder: nn.Module) -> None:
    every = set(weighted_layers(vae_decoder))
    expected = {name for name in every if ".resnets." in name and name.rsplit(".", 1)[1] in ("conv1", "conv2")}
    attention = {f"mid_block.attentions.0.to_{part}" for part in "qkv"}
    assert attention < every
    assert set(Amplitude().layers(vae_decoder)) == expected | attention
    assert set(Amplitude(attention=False).layers(vae_decoder)) == expected
    left = every - expected - attention
    assert {"conv_in", "conv_out", "mid_block.attentions.0.to_out.0"} < left
    assert any("upsamplers" in name for name in left) and any("conv_shortcut" in name for name in left)


def test_channels_are_those_of_the_inputs(vae_decoder: nn.Module) -> None:
    for name, channels in Amplitude().layers(vae_decoder).items():
        assert effective_weight(vae_decoder.get_submodule(name)).shape[1] == channels


def test_an_autoencoder_is_applied_as_it_is_materialised(vae_decoder: nn.Module) -> None:
    modulator, words = bound(vae_decoder), codes(2)
    latents = torch.randn(2, 4, 4, 4, generator=stream(0, "latents")).contiguous(memory_format=torch.channels_last)
    with modulator.applied(vae_decoder, words):
        batched = vae_decoder(latents)
    each = [materialised(vae_decoder, modulator, word)(latents[i : i + 1]) for i, word in enumerate(words)]
    assert relative(batched, torch.cat(each)) <= 1e-5
    assert list(materialised(vae_decoder, modulator, words[0]).state_dict()) == list(vae_decoder.state_dict())


def test_binding_leaves_the_global_generator_alone() -> None:
    model, _ = build("conv2d", "plain")
    state = torch.get_rng_state()
    bound(model, Amplitude(hidden=16))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_start_is_reproducible_and_depends_on_the_stream_alone(vae_decoder: nn.Module) -> None:
    states = [Amplitude().bind(vae_decoder, BITS, stream(seed, "modulator")).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert any(not torch.equal(value, states[2][key]) for key, value in states[0].items())


@pytest.mark.parametrize(
    ("decoder", "found"),
    [
        (nn.Sequential(), "nothing"),
        (nn.GroupNorm(1, 4), "GroupNorm"),
        (nn.Linear(3, 3), "Linear"),
        (nn.Sequential(nn.Conv1d(2, 2, 1), nn.Conv1d(2, 2, 1)), "Conv1d"),
    ],
    ids=["empty", "norm only", "one layer", "first and last only"],
)
def test_a_decoder_without_layers_is_refused(decoder: nn.Module, found: str) -> None:
    with pytest.raises(UserError, match=f"^decoder {type(decoder).__name__}: expected .* to modulate, found {found}$"):
        bound(decoder)
