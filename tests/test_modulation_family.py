"""The contract of every modulation, on every kind of layer: merged equals applied, identity, gradients, two codes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.protocol import UserError
from bench.rng import fenced, stream
from bench.weights import effective_state, effective_weight, replaced_copy, weighted_layers
from modalities import MODALITIES
from schemes.modulations import MODULATIONS, energy_per_bit, other_values
from schemes.modulations.frequency import cosine_basis
from schemes.modulations.layers import canonical, restored
from schemes.modulations.patterns import orthonormal_patterns
from schemes.modulations.routed import choices
from schemes.modulations.templates import Templates
from tests.test_modulations import BITS, CASES, LAYERS, build, codes, relative

INVARIANT = ["FunctionInvariant", "InvariantScaling"]
SPECIAL = ["Normalisation", *INVARIANT]
"""Those that touch no single weighted layer; they have decoders of their own below."""
WEIGHTED = [name for name in MODULATIONS if name not in SPECIAL]
IDENTITY = ["Residual", "LowRank", "Routed", "TaskVectors", "Normalisation"]
"""Those that start as the public decoder."""
MIXING = ["Rotation", "Orthogonal"]
TWO_INPUTS = [*MIXING, "Demodulated"]
"""Those that leave a filter of one input channel alone."""
BLACK_BOX = [name for name in MODULATIONS if name not in INVARIANT]


class Normed(nn.Module):
    """Every kind of norm that has a scale and a shift, between layers."""

    def __init__(self) -> None:
        super().__init__()
        with fenced(0):
            self.first, self.middle, self.last = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.group, self.batch = nn.GroupNorm(2, 4), nn.BatchNorm2d(4)
        self.instance, self.layer = nn.InstanceNorm2d(4, affine=True), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.batch(self.group(self.first(x))))
        x = self.layer(self.instance(self.middle(x)).movedim(1, -1)).movedim(-1, 1)
        out: Tensor = self.last(x)
        return out


def normed() -> tuple[nn.Module, Tensor]:
    model, rng = Normed(), stream(0, "normed")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 + torch.rand(parameter.shape, generator=rng))
    return model.requires_grad_(False).eval(), torch.randn(3, 4, 5, 5, generator=rng)


def swappable(kind: str = "conv2d") -> tuple[nn.Module, Tensor]:
    """Two pairs of layers with an activation, and for one pair a group norm, in between."""
    makes: dict[str, Any] = {
        "conv1d": lambda a, b: nn.Conv1d(a, b, 3, padding=1),
        "conv2d": lambda a, b: nn.Conv2d(a, b, 3, padding=1),
        "conv3d": lambda a, b: nn.Conv3d(a, b, 3, padding=1),
        "transposed2d": lambda a, b: nn.ConvTranspose2d(a, b, 3),
    }
    with fenced(0):
        make = makes[kind]
        layers = [make(4, 12), nn.SiLU(), make(12, 4), nn.Tanh(), make(4, 8), nn.GroupNorm(2, 8), nn.SiLU(), make(8, 3)]
        norm = layers[5]
        norm.weight = nn.Parameter(torch.rand(8))
        norm.bias = nn.Parameter(torch.rand(8))
    model = nn.Sequential(*layers).requires_grad_(False)
    return model, torch.randn(3, 4, *[5] * (layers[0].weight.ndim - 2), generator=stream(0, kind))


def scalable(kind: str = "conv2d") -> tuple[nn.Module, Tensor]:
    """The same with an activation that scales along."""
    model, x = swappable(kind)
    model[1] = nn.LeakyReLU(0.2)  # type: ignore[index]
    return model, x


def decoder_for(name: str) -> tuple[nn.Module, Tensor]:
    if name in SPECIAL:
        return {"Normalisation": normed, "InvariantScaling": scalable}.get(name, swappable)()
    return build("conv2d", "plain")


def carried(name: str, bits: int = BITS) -> int:
    """Bits for the small decoders here: Differential needs a pair of channels for each; wider codes fit, too."""
    return min(bits, 2) if name == "Differential" else bits


def generic(name: str, model: nn.Module, bits: int = BITS) -> Any:
    """A modulator away from its start, where nothing is zero."""
    modulator = MODULATIONS[name]().bind(model, carried(name, bits), stream(0, "modulator"))
    with torch.no_grad():
        for index, parameter in enumerate(modulator.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=stream(0, "generic", index)))
    return modulator


def merged(model: nn.Module, modulator: Any, code: Tensor) -> nn.Module:
    return replaced_copy(model, modulator.weights(model, code), other_values(modulator, model, code))


@pytest.mark.parametrize(("kind", "norm"), CASES)
@pytest.mark.parametrize("name", [name for name in WEIGHTED if name != "Amplitude"])
def test_merged_equals_applied_on_every_kind_of_layer(name: str, kind: str, norm: str) -> None:
    model, x = build(kind, norm)
    if name in TWO_INPUTS and "depthwise" in kind:
        with pytest.raises(UserError, match=r"^decoder Between: expected layers that mix two channels or more"):
            generic(name, model)
        return
    modulator, words, plain = generic(name, model), codes(3), model(x)
    with modulator.applied(model, words):
        batched = model(x)
    copies = [merged(model, modulator, word) for word in words]
    each = torch.cat([copy(x[i : i + 1]) for i, copy in enumerate(copies)])
    assert relative(batched, each) <= 1e-5
    assert relative(batched, plain) > 1e-4, "the code changed nothing"
    assert torch.equal(model(x), plain), "the context left something behind"
    assert list(copies[0].state_dict()) == list(model.state_dict())
    opposite = merged(model, modulator, -words[0])
    assert relative(copies[0](x), opposite(x)) > 1e-4, "two codes are two decoders"


@pytest.mark.parametrize("name", SPECIAL)
def test_merged_equals_applied_where_no_single_layer_is_touched(name: str) -> None:
    model, x = decoder_for(name)
    modulator, words, plain = generic(name, model), codes(3), model(x)
    with modulator.applied(model, words):
        batched = model(x)
    copies = [merged(model, modulator, word) for word in words]
    allowed = 1e-3 if name == "InvariantScaling" else 1e-5  # a norm's epsilon does not scale along
    assert relative(batched, torch.cat([copy(x[i : i + 1]) for i, copy in enumerate(copies)])) <= allowed
    assert torch.equal(model(x), plain)
    assert list(copies[0].state_dict()) == list(model.state_dict())
    states = [torch.cat([value.flatten() for value in copy.state_dict().values()]) for copy in copies]
    assert relative(states[0], states[1]) > 1e-4
    assert (relative(batched, plain) > 1e-3) == (name not in INVARIANT)


@pytest.mark.parametrize("kind", ["conv2d", "conv2d-grouped", "transposed1d", "linear"])
@pytest.mark.parametrize("name", [name for name in WEIGHTED if name != "Amplitude"])
def test_both_paths_send_the_same_gradient_to_every_trained_parameter(name: str, kind: str) -> None:
    model, x = build(kind, "plain")
    modulator, words = generic(name, model), codes(16)
    batch = x[:1].expand(16, *x.shape[1:])
    with modulator.applied(model, words):
        model(batch).square().mean().backward()
    batched = [parameter.grad.clone() for parameter in modulator.parameters()]
    modulator.zero_grad()
    for word in words:
        state = effective_state(model, modulator.weights(model, word))
        (torch.func.functional_call(model, state, (x[:1],)).square().mean() / 16).backward()
    for (key, parameter), grad in zip(modulator.named_parameters(), batched, strict=True):
        assert grad.abs().max() > 0, key
        assert relative(grad, parameter.grad) <= 1e-3, key


@pytest.mark.parametrize("name", BLACK_BOX)
def test_from_its_start_a_gradient_reaches_the_modulator(name: str) -> None:
    model, x = decoder_for(name)
    modulator = MODULATIONS[name]().bind(model, carried(name), stream(0))
    with modulator.applied(model, codes(3)):
        model(x).square().mean().backward()
    assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in modulator.parameters())


@pytest.mark.parametrize("name", IDENTITY)
def test_the_identity_is_where_it_is_promised(name: str) -> None:
    model, x = decoder_for(name)
    modulator = MODULATIONS[name]().bind(model, BITS, stream(0))
    with modulator.applied(model, codes(3)):
        batched = model(x)
    assert relative(batched, model(x)) <= 1e-6
    assert energy_per_bit(modulator, model, codes(4)) == 0


@pytest.mark.parametrize("name", [name for name in MODULATIONS if name not in IDENTITY])
def test_what_starts_elsewhere_says_how_far(name: str) -> None:
    """‖W' - W‖² / ‖W‖² per bit is reported; depth is its root for a whole code wherever a depth is given."""
    model = nn.Sequential(*[nn.Linear(128, 128) for _ in range(3)], nn.SiLU(), nn.Linear(128, 128)).requires_grad_(
        False
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=stream(0, "weights"))
    spec = MODULATIONS[name]()
    modulator = spec.bind(model, 16, stream(0))
    energy = energy_per_bit(modulator, model, codes(8, 16))
    if hasattr(spec, "depth"):
        assert (16 * energy) ** 0.5 == pytest.approx(spec.depth, rel=0.15)
    else:
        assert energy > 0


@pytest.mark.parametrize("name", MODULATIONS)
def test_a_start_depends_on_the_stream_alone_and_is_restored_from_half_precision(name: str) -> None:
    model, _ = decoder_for(name)
    state = torch.get_rng_state()
    one, same, other = (MODULATIONS[name]().bind(model, carried(name), stream(seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    assert name in ("Residual", "TaskVectors", "Normalisation") or any(
        not torch.equal(value, other[key]) for key, value in one.items()
    )
    modulator, again = generic(name, model), MODULATIONS[name]().bind(model, carried(name), torch.Generator())
    again.load_state_dict({k: v.half() if v.is_floating_point() else v for k, v in modulator.state_dict().items()})
    word = codes(1)[0]
    loaded = again.weights(model, word)
    for key, weight in modulator.weights(model, word).items():
        assert relative(loaded[key], weight) <= 1e-2, "the key and the pairs came along"


@pytest.mark.parametrize("name", MODULATIONS)
def test_a_decoder_without_anything_to_modulate_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"^decoder Sequential: expected .*, found (none|0|Conv1d)$"):
        MODULATIONS[name]().bind(nn.Sequential(nn.Conv1d(2, 2, 1), nn.Dropout(), nn.Conv1d(2, 2, 1)), BITS, stream(0))


# --- what each formula promises


@pytest.mark.parametrize("kind", LAYERS)
def test_the_canonical_view_goes_back_and_forth(kind: str) -> None:
    model, _ = build(kind, "plain")
    weight = effective_weight(model.layer)
    view = canonical(model.layer, weight)
    assert view.ndim == 4 and torch.equal(restored(model.layer, view), weight)
    stacked = torch.stack([weight, 2 * weight])
    assert torch.equal(restored(model.layer, canonical(model.layer, stacked)), stacked)


@pytest.mark.parametrize("kind", ["conv2d", "conv2d-grouped", "transposed3d"])
def test_demodulated_filters_keep_their_norms(kind: str) -> None:
    model, _ = build(kind, "plain")
    weight = generic("Demodulated", model).weights(model, codes(1)[0])["layer"]
    norms = [canonical(model.layer, each).square().sum((2, 3)) for each in (weight, effective_weight(model.layer))]
    assert relative(*norms) <= 1e-5


@pytest.mark.parametrize("name", MIXING)
def test_mixing_is_orthogonal_and_keeps_every_filter_norm(name: str) -> None:
    model = nn.Sequential(*[nn.Linear(10, 10) for _ in range(3)]).requires_grad_(False)
    weight = generic(name, model).weights(model, codes(1)[0])["1"]
    base = effective_weight(model[1])
    assert relative(weight.norm(dim=1), base.norm(dim=1)) <= 1e-5
    mix = torch.linalg.solve(base.double(), weight.double())
    assert float((mix.T @ mix - torch.eye(10)).detach().abs().max()) < 1e-3


def test_a_rotation_changes_the_weight_by_the_law_of_cosines() -> None:
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(3)]).requires_grad_(False)
    modulator, word = generic("Rotation", model), codes(1)
    angle = modulator.coefficients(word)["1"].item()
    base = effective_weight(model[1])
    change = (modulator.weights(model, word[0])["1"] - base).square().sum()
    assert change.item() == pytest.approx(2 * (1 - math.cos(angle)) * float(base.square().sum()), rel=1e-4)


def test_a_low_rank_change_has_that_rank() -> None:
    model = nn.Sequential(*[nn.Conv2d(16, 16, 3) for _ in range(3)]).requires_grad_(False)
    change = generic("LowRank", model).weights(model, codes(1)[0])["1"] - effective_weight(model[1])
    assert int(torch.linalg.matrix_rank(change.detach().flatten(1), rtol=1e-4)) == 8


def test_groups_of_bits_choose() -> None:
    chosen = choices(torch.tensor([[1.0, 1, -1], [-1, 1, 1]]), 2)
    assert chosen.argmax(-1).tolist() == [[3, 0], [2, 1]] and chosen.shape == (2, 2, 4)


def test_patterns_are_secret_and_orthonormal() -> None:
    rows = orthonormal_patterns(1, "a", 16, 200)
    assert torch.allclose(rows @ rows.T, torch.eye(16), atol=1e-5)
    assert float((rows @ orthonormal_patterns(2, "a", 16, 200).T).abs().max()) < 0.5
    assert rows.abs().std() < 0.3 * rows.abs().mean(), "near ± one value"


def test_the_cosine_basis_is_the_one_of_scipy() -> None:
    from scipy.fft import dct

    expected = dct(torch.eye(7, dtype=torch.float64).numpy(), axis=0, norm="ortho")
    assert torch.allclose(cosine_basis(7).double(), torch.from_numpy(expected), atol=1e-6)


def test_what_bands_are_in_a_weight_follows_the_weight() -> None:
    model = nn.Sequential(*[nn.Conv2d(8, 8, 3) for _ in range(3)]).requires_grad_(False)
    modulator: Any = MODULATIONS["Frequency"]().bind(model, 4, stream(0))
    first = effective_weight(model[1]).clone()
    for weight in (first, 2 * first, first.flip(0), first):
        torch.testing.assert_close(modulator.shares("1", weight).sum(0), weight.flatten())
    assert modulator.shares("1", first) is modulator.shares("1", first), "made once"


@pytest.mark.parametrize(
    "name", ["Amplitude", "SpreadSpectrum", "Dither", "Frequency", "FunctionInvariant", "InvariantScaling"]
)
def test_whoever_holds_the_secret_reads_the_weights(name: str) -> None:
    with fenced(0):
        model = nn.Sequential(*[nn.Conv2d(16, 16, 3) for _ in range(3)], nn.SiLU(), nn.Conv2d(16, 4, 1))
    model.requires_grad_(False)
    modulator, other = (MODULATIONS[name]().bind(model, 8, stream(seed)) for seed in (0, 1))
    right = 0.0
    for word in codes(4, 8):
        marked = merged(model, modulator, word)
        assert torch.equal(modulator.read_weights(marked, model) > 0, word > 0)
        right += float(((other.read_weights(marked, model) > 0) == (word > 0)).float().mean()) / 4
    assert 0.1 < right < 0.9, "another key reads nothing"


def test_dithered_projections_lie_on_the_lattice_of_the_code_and_bear_noise_below_a_quarter_step() -> None:
    model = nn.Sequential(*[nn.Conv2d(8, 8, 3) for _ in range(3)]).requires_grad_(False)
    modulator, word = MODULATIONS["Dither"]().bind(model, 8, stream(0)), codes(1, 8)[0]
    base = effective_weight(model[1])
    weight, step = modulator.weights(model, word)["1"].detach(), modulator.steps("1", base).detach()
    patterns = modulator.patterns("1", weight.numel())
    place = patterns @ weight.flatten() / step
    assert torch.allclose(place - word / 4, (place - word / 4).round(), atol=1e-3)
    for share in (0.24, 0.26):
        noise = (share * step * word) @ patterns  # on every bit at once, towards the other lattice
        read = modulator.evidence("1", weight - noise.view_as(weight), base) > 0
        assert torch.equal(read, word > 0) == (share < 0.25)


def test_differential_pairs_cancel_common_gain() -> None:
    model = nn.Sequential(*[nn.Linear(9, 9) for _ in range(3)]).requires_grad_(False)
    gains = generic("Differential", model).gains(codes(3))["1"]
    assert torch.allclose(gains.sum(1), torch.full((3,), 9.0), atol=1e-5)
    energy = effective_weight(model[1]).square().sum(0)
    order = energy.argsort(descending=True)
    assert torch.allclose(gains[:, order[0:8:2]] + gains[:, order[1:8:2]], torch.tensor(2.0)), "neighbours in norm"
    assert torch.equal(gains[:, order[8]], torch.ones(3)), "the odd one stays"


def test_templates_of_one_bit_are_antipodal_and_larger_groups_a_simplex() -> None:
    model = nn.Sequential(*[nn.Linear(400, 400) for _ in range(3)])
    single = Templates(group=1).bind(model, 4, stream(0))
    word = codes(1, 4)
    assert torch.allclose(single.gains(word)["1"] - 1, 1 - single.gains(-word)["1"], atol=1e-6)
    pair = Templates(group=2).bind(model, 2, stream(0))
    every = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
    distances = torch.pdist(pair.gains(every)["1"].detach())
    assert float(distances.std() / distances.mean()) < 0.1, "each as far from every other"


@pytest.mark.parametrize("kind", ["conv1d", "conv2d", "conv3d", "transposed2d"])
def test_swapped_channels_leave_the_function_alone(kind: str) -> None:
    model, x = swappable(kind)
    modulator = MODULATIONS["FunctionInvariant"]().bind(model, 8, stream(0))
    marked = merged(model, modulator, torch.ones(8))
    assert relative(marked(x), model(x)) <= 1e-5
    assert relative(marked.get_parameter("0.weight"), model.get_parameter("0.weight")) > 0.1
    assert relative(marked.get_parameter("5.weight"), model.get_parameter("5.weight")) > 0.1


@pytest.mark.parametrize("kind", ["conv1d", "conv2d", "conv3d", "transposed2d"])
def test_scaled_channels_leave_the_function_alone(kind: str) -> None:
    """Twelve channels around an activation, and two groups of a norm, which undoes it up to its epsilon."""
    model, x = scalable(kind)
    modulator = MODULATIONS["InvariantScaling"]().bind(model, 14, stream(0))
    word = codes(1, 14)[0]
    marked = merged(model, modulator, word)
    assert relative(marked(x), model(x)) <= 1e-3
    for name in ("0.weight", "2.weight", "4.weight"):
        assert relative(marked.get_parameter(name), model.get_parameter(name)) > 0.1
    assert torch.equal(modulator.read_weights(marked, model) > 0, word > 0)
    with pytest.raises(UserError, match=r"^decoder Sequential: expected 15 gains that can be undone, found 14$"):
        MODULATIONS["InvariantScaling"]().bind(model, 15, stream(0))


def test_scaled_snakes_leave_the_function_alone() -> None:
    from diffusers.models.autoencoders.autoencoder_oobleck import OobleckResidualUnit

    with fenced(0):
        unit = OobleckResidualUnit(16).eval()
    x = torch.randn(2, 16, 40, generator=stream(0))
    model = unit.requires_grad_(False)
    modulator = MODULATIONS["InvariantScaling"]().bind(model, 8, stream(0))
    marked = merged(model, modulator, codes(1, 8)[0])
    assert relative(marked(x), model(x)) <= 1e-5
    assert not torch.equal(marked.get_parameter("snake2.alpha"), model.get_parameter("snake2.alpha"))


def test_more_bits_than_pairs_are_refused() -> None:
    with pytest.raises(UserError, match=r"^decoder Sequential: expected 11 pairs .* swap, found 10$"):
        MODULATIONS["FunctionInvariant"]().bind(swappable()[0], 11, stream(0))


@pytest.mark.parametrize("name", [*INVARIANT, "Normalisation", "Demodulated", "Routed", "Orthogonal"])
def test_an_autoencoder_is_marked_as_it_is_trained(name: str) -> None:
    from diffusers import AutoencoderKL

    with fenced(0):
        model = AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            norm_num_groups=2,
        )
    decoder = model.decoder.eval().requires_grad_(False)
    with torch.no_grad():
        for each in decoder.parameters():
            each.add_(0.05 * torch.randn(each.shape, generator=stream(0)))
    modulator, words = generic(name, decoder), codes(2)
    latents = torch.randn(2, 4, 4, 4, generator=stream(0, "latents")).contiguous(memory_format=torch.channels_last)
    with modulator.applied(decoder, words):
        batched = decoder(latents)
    each_own = [merged(decoder, modulator, word)(latents[i : i + 1]) for i, word in enumerate(words)]
    assert relative(batched, torch.cat(each_own)) <= 2e-5


def test_a_pair_of_channels_for_each_bit() -> None:
    with pytest.raises(UserError, match=r"^decoder \w+: expected a pair of channels for each of 8 bits, found 2$"):
        MODULATIONS["Differential"]().bind(build("conv2d", "plain")[0], 8, stream(0))


@pytest.mark.parametrize("name", ["Amplitude", "LowRank"])
@pytest.mark.parametrize("modality", MODALITIES)
def test_everywhere_is_every_layer_with_weights(modality: str, name: str) -> None:
    generator: Any = MODALITIES[modality]().generator(None)
    latents = generator.latents(["red brick"], stream(0, "everywhere"))
    model, word = generator.decoder, codes(1)
    modulator = MODULATIONS[name](everywhere=True).bind(model, BITS, stream(0))
    with torch.no_grad():
        for index, parameter in enumerate(modulator.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=stream(0, "generic", index)))
        changed = modulator.weights(model, word[0])
        assert list(changed) == list(weighted_layers(model))
        assert len(changed) > len(MODULATIONS[name]().bind(model, BITS, stream(0)).weights(model, word[0]))
        with modulator.applied(model, word):
            hooked = generator.decode(model, latents)
        assert relative(hooked, generator.decode(merged(model, modulator, word[0]), latents)) <= 1e-5
