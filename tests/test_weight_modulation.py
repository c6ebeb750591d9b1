"""Weight-modulation fingerprints: readers, the quality controller, fit, file, refusals, and the null."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.metrics.attribution import bit_accuracy
from bench.protocol import Codec, Generator, Scheme, UserError
from bench.rng import fenced, stream
from bench.weights import effective_weight, weighted_layers
from schemes import SCHEMES, codec_path, find_codec, load_codec
from schemes.modulations import Amplitude, Rotation
from schemes.readers import APART, CONVOLUTIONS, Moments, StatisticsReader, _correlations
from schemes.training import Progress, Recipe, _bit_loss, _factor, _pairs, _steps
from schemes.weight_modulation import GENTLE, Continued, WeightModulation, WeightModulationCodec, decoder_digest
from tests.toy import Toy, ToyGenerator

BITS = 4
READER = StatisticsReader(width=8, hidden=32)
SHORT = dataclasses.replace(Recipe(), steps=8, batch=8, pool=32)


class PaintGenerator(ToyGenerator):
    """Latents (B, 4, 4, 4) of noise to smooth pictures (B, 3, 16, 16) by a small convolutional decoder."""

    name = "paint"

    def __init__(self, seed: int = 0, width: int = 8) -> None:
        with fenced(seed):
            self.decoder: nn.Module = nn.Sequential(
                nn.Conv2d(4, width, 3, padding=1),
                nn.SiLU(),
                nn.ConvTranspose2d(width, width, 4, 2, 1),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1, groups=2),
                nn.SiLU(),
                nn.ConvTranspose2d(width, width, 4, 2, 1),
                nn.SiLU(),
                nn.Conv2d(width, 3, 3, padding=1),
                nn.Sigmoid(),
            )
        with torch.no_grad():
            for layer in weighted_layers(self.decoder).values():
                effective_weight(layer).mul_(3)  # pictures with contrast
        self.decoder.requires_grad_(False).eval()

    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        return torch.randn(len(prompts), 4, 4, 4, generator=rng)


def scheme(recipe: Recipe = SHORT, **changes: Any) -> WeightModulation:
    return dataclasses.replace(WeightModulation(Amplitude(), BITS, recipe, READER), **changes)


@pytest.fixture(scope="module")
def paint() -> PaintGenerator:
    return PaintGenerator()


@pytest.fixture(scope="module")
def rough(paint: PaintGenerator) -> WeightModulationCodec:
    """A codec after a handful of steps: enough for everything but reading."""
    return scheme().fit(Toy(), paint, stream(0, "fit"))


@pytest.fixture(scope="module")
def fitted(paint: PaintGenerator) -> WeightModulationCodec:
    """A codec that reads."""
    recipe = dataclasses.replace(SHORT, steps=300, batch=16, pool=512)
    return scheme(recipe).fit(Toy(), paint, stream(0, "fit"))


@pytest.fixture
def saved(rough: WeightModulationCodec, tmp_path: Path) -> Path:
    path = tmp_path / "codec.safetensors"
    rough.save(path)
    return path


def read_by_users(codec: WeightModulationCodec, generator: PaintGenerator, users: int) -> tuple[Tensor, Tensor]:
    """Soft bits of published content of fresh users, four items each, and the code of each item."""
    modality, soft, true = Toy(), [], []
    for user in range(users):
        code = torch.randint(2, (codec.bits,), generator=stream(1, "code", user))
        latents = generator.latents([""] * 4, stream(1, "held out", user))
        content = modality.release(generator.decode(codec.modulate(generator.decoder, code), latents))
        soft.append(codec.read(modality.observe(content)))
        true.append(code.expand(4, -1))
    return torch.cat(soft), torch.cat(true)


# --- what release and observation hide


class Levelled(Toy):
    """Pictures that are seen at one level, as clips are heard."""

    def soft_release(self, field: Tensor) -> Tensor:
        return field - field.mean((1, 2, 3), keepdim=True)


def test_what_is_not_seen_stays_where_it_is(paint: PaintGenerator) -> None:
    """Nothing but the weight of unreleased fields holds the level of pictures that are seen without it."""
    latents, public = paint.public_pairs(64, stream(0, "levels"))

    def moved(unreleased: float) -> float:
        recipe = dataclasses.replace(SHORT, steps=150, batch=16, unreleased=unreleased)
        codec = scheme(recipe).fit(Levelled(), paint, stream(0, "fit"))
        codes = (torch.randint(2, (BITS,), generator=stream(2, user)) for user in range(4))
        fields = torch.stack([paint.decode(codec.modulate(paint.decoder, code), latents) for code in codes])
        return float((fields - public).mean((2, 3, 4)).square().mean().sqrt())

    assert moved(Recipe.unreleased) < 0.75 * moved(0.0)


# --- contract


def test_schemes_codecs_and_the_tiny_generator_satisfy_the_contracts(
    rough: WeightModulationCodec, paint: PaintGenerator
) -> None:
    assert isinstance(paint, Generator) and isinstance(rough, Codec)
    assert SCHEMES and all(isinstance(each, Scheme) for each in SCHEMES.values())
    assert len(set(SCHEMES.values())) == len(SCHEMES), "schemes are values, and no two are the same"
    assert (rough.bits, rough.removable) == (BITS, False)
    assert rough.fit_seconds > 0


def test_modulate_gives_a_copy_with_the_same_keys(rough: WeightModulationCodec, paint: PaintGenerator) -> None:
    before, words = decoder_digest(paint.decoder), torch.tensor([[0, 1, 0, 1], [1, 1, 0, 1]])
    one, other = (rough.modulate(paint.decoder, word) for word in words)
    assert list(one.state_dict()) == list(paint.decoder.state_dict())
    assert len({before, decoder_digest(one), decoder_digest(other)}) == 3
    assert decoder_digest(paint.decoder) == before, "the public decoder was changed"
    assert decoder_digest(rough.modulate(paint.decoder, words[0])) == decoder_digest(one)
    assert not any(parameter.requires_grad for parameter in one.parameters())
    first, *_, last = weighted_layers(one)
    for name in (first, last):
        assert torch.equal(one.get_parameter(f"{name}.weight"), paint.decoder.get_parameter(f"{name}.weight"))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.float32])
def test_codes_of_any_type_mean_the_same(
    rough: WeightModulationCodec, paint: PaintGenerator, dtype: torch.dtype
) -> None:
    code = torch.tensor([1, 0, 0, 1])
    marked = rough.modulate(paint.decoder, code.to(dtype))
    assert decoder_digest(marked) == decoder_digest(rough.modulate(paint.decoder, code))


@pytest.mark.parametrize(
    "code",
    [torch.zeros(3), torch.zeros(5), torch.zeros(1, BITS), torch.zeros(0), torch.tensor(1)],
    ids=["short", "long", "a batch", "empty", "a number"],
)
def test_codes_of_another_length_are_refused(rough: WeightModulationCodec, paint: PaintGenerator, code: Tensor) -> None:
    with pytest.raises(UserError, match=r"^fingerprint: expected 4 values of 0 or 1, found [^\n]+$"):
        rough.modulate(paint.decoder, code)


@pytest.mark.parametrize("value", [2, -1, 0.5, math.nan])
def test_codes_of_other_values_are_refused(rough: WeightModulationCodec, paint: PaintGenerator, value: float) -> None:
    with pytest.raises(UserError, match=r"^fingerprint: expected 4 values of 0 or 1, found [^\n]+$"):
        rough.modulate(paint.decoder, torch.tensor([0, 1, 1, value]))


# --- readers


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_reader_of_every_rank(rank: int) -> None:
    x = torch.rand(5, 2, *[16] * rank, generator=stream(0, rank))
    with fenced(0):
        reader = READER.build(x, 7)
    soft = reader(x)
    assert soft.shape == (5, 7) and soft.dtype == torch.float32 and bool(soft.isfinite().all())
    soft.sum().backward()
    assert all(parameter.grad is not None for parameter in reader.parameters())
    reader.eval()
    assert torch.allclose(reader(x[3:]), reader(x)[3:], atol=1e-4), "items of a batch are read one by one"


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_whitened_patches_of_unmarked_content_are_uncorrelated_and_equally_loud(rank: int) -> None:
    """Smooth content, whose patch components differ a hundredfold in power before."""
    noise = torch.randn(64, 2, *[24] * rank, generator=stream(0, rank))
    x = (noise + noise.roll(1, 2) + noise.roll(2, 2)) / 3
    reader = READER.build(x, 2)
    with torch.no_grad():
        h = CONVOLUTIONS[rank](x - reader.mean, reader.patches, stride=APART[rank])
    levels = torch.linalg.eigvalsh(torch.cov(h.transpose(0, 1).flatten(1)))
    assert float(levels.max()) < 1.01, "no component is louder than the others"
    assert float(levels.min()) > 0.9


def test_a_reader_hears_a_change_of_texture_that_natural_content_drowns() -> None:
    """The pixels move by a hundredth of their deviation, the whitened components by a good part of theirs."""
    x = torch.randn(64, 1, 32, 32, generator=stream(0)).cumsum(2).cumsum(3) / 32
    marked = x + 0.01 * x.std() * torch.randn(x.shape, generator=stream(1))
    reader = READER.build(x, 2)
    with torch.no_grad():
        quiet, loud = (CONVOLUTIONS[2](each - reader.mean, reader.patches) for each in (x, marked))
    assert float((loud - quiet).std() / quiet.std()) > 20 * float((marked - x).std() / x.std())


def test_correlations_of_solids_are_those_of_their_definition() -> None:
    h = torch.randn(2, 5, 6, 6, 6, generator=stream(0)).cumsum(1)
    found = _correlations(h)
    for item, row in zip(h, found, strict=True):
        expected = np.corrcoef(item.flatten(1).numpy())[np.triu_indices(5, 1)]
        assert row.tolist() == pytest.approx(expected.tolist(), abs=1e-3)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_moments_and_their_gradient_are_those_of_their_definition(rank: int) -> None:
    h = torch.randn(2, 3, *[4] * rank, generator=stream(0, rank), dtype=torch.float64, requires_grad=True)
    mean, square = Moments.apply(h.float())
    assert torch.allclose(mean.double(), h.flatten(2).mean(2)) and torch.allclose(
        square.double(), h.flatten(2).square().mean(2)
    )
    weights = torch.randn(2, 2, 3, generator=stream(1, rank))
    (ours,) = torch.autograd.grad((weights[0] * mean + weights[1] * square).sum(), h)
    plain = weights[0] * h.flatten(2).mean(2) + weights[1] * h.flatten(2).square().mean(2)
    assert torch.allclose(ours, torch.autograd.grad(plain.sum(), h)[0], atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_constant_item_is_read_without_infinity(value: float) -> None:
    """Its texture has no energy, whose logarithm would be minus infinity."""
    reader = READER.build(torch.rand(16, 3, 16, 16, generator=stream(0)), BITS)
    x = torch.full((2, 3, 16, 16), value, requires_grad=True)
    reader(x).sum().backward()
    assert bool(reader(x).isfinite().all()) and x.grad is not None and bool(x.grad.isfinite().all())


# --- losses and the controller of the quality weight


def test_unmarked_items_are_right_when_undecided_and_do_not_count_as_accuracy() -> None:
    codes = torch.tensor([[1.0, -1.0], [-1.0, -1.0]])
    sure = torch.tensor([[9.0, -9.0], [-9.0, 9.0], [0.0, 0.0]])  # one of four bits is wrong
    loss, accuracy = _bit_loss(nn.Identity(), sure, codes, null=0.1)
    assert accuracy == 0.75
    assert float(loss) == pytest.approx(9 / 4 + 0.1 * math.log(2), abs=1e-3)
    decided = torch.cat([sure[:2], torch.tensor([[5.0, 5.0]])])
    assert _bit_loss(nn.Identity(), decided, codes, null=0.1)[0] > loss
    assert _bit_loss(nn.Identity(), decided, codes, null=0.0)[0] == pytest.approx(9 / 4, abs=1e-3)


def test_each_latent_comes_under_a_code_and_under_its_opposite() -> None:
    rows, codes = _pairs(100, 16, 5, stream(0))
    assert rows.shape == (16,) and codes.shape == (16, 5) and set(codes.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(rows[:8], rows[8:]) and torch.equal(codes[:8], -codes[8:])
    assert len(rows[:8].unique()) > 4 and len(codes[:8].unique(dim=0)) > 4, "items have codes of their own"


def test_the_rate_warms_up_stays_and_falls_to_two_percent() -> None:
    rates = [_factor(step, 1000, 0.6) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 50) and rates[49:400] == [1.0] * 351
    assert rates[400:] == sorted(rates[400:], reverse=True) and rates[-1] == pytest.approx(0.02, abs=0.002)


def test_training_ends_early_once_the_bits_are_read() -> None:
    recipe = Recipe(steps=1000, decay=0.6, enough=0.98)
    assert _steps(200, 1000, 0.9799, recipe) == 1000
    assert _steps(200, 1000, 0.98, recipe) == 500, "two fifths are done"
    assert _steps(300, 500, 0.99, recipe) == 500, "once only"
    assert _steps(999, 1000, 0.99, recipe) == 1000
    assert _steps(10, 1000, 1.0, Recipe(steps=1000, decay=1.0)) == 1000


def follow(progress: Progress, psnr_db: float, steps: int = 400) -> Progress:
    for _ in range(steps):
        progress.update(0.9, psnr_db, 30.0)
    return progress


def test_the_weight_rises_while_fidelity_is_short_and_falls_while_there_is_too_much() -> None:
    start = Progress().weight
    assert follow(Progress(), 29).weight > start > follow(Progress(), 31).weight
    assert follow(Progress(), 30).weight == pytest.approx(start)


def test_the_weight_stays_within_its_limits_and_comes_back_from_them() -> None:
    loud, quiet = follow(Progress(), 0.1, steps=5000), follow(Progress(), 99.0, steps=5000)
    assert loud.weight == pytest.approx(300 * math.exp(1.5)) and quiet.weight == pytest.approx(0.02 * math.exp(-1.5))
    assert follow(quiet, 20.0, steps=1500).weight > Progress().weight


def test_a_start_far_below_does_not_wind_the_weight_up() -> None:
    started = follow(Progress(), 20.0, steps=300)
    assert Progress().weight < follow(started, 30.0, steps=100).weight < 3 * Progress().weight


def test_the_controller_settles() -> None:
    """A toy plant: fidelity is 25 dB plus 3 dB per e-fold of the weight, and follows it slowly."""
    progress, psnr_db, seen = Progress(), 25.0, []
    for _ in range(2000):
        psnr_db += 0.05 * (25 + 3 * math.log(progress.weight) - psnr_db)
        progress.update(0.5, psnr_db, 31.0)
        seen.append(psnr_db)
    assert max(seen) < 32 and all(abs(each - 31) < 0.2 for each in seen[1000:])


def test_the_running_means_follow_what_is_measured() -> None:
    progress = follow(Progress(), 28.0, steps=1000)
    assert progress.accuracy == pytest.approx(0.9, abs=1e-3)
    assert progress.psnr_db == pytest.approx(28.0, abs=1e-3)
    assert follow(Progress(), 17.0, steps=1).psnr_db == 17.0, "no zero to recover from"


# --- fit


def test_a_fit_depends_on_its_stream_alone(paint: PaintGenerator, rough: WeightModulationCodec) -> None:
    torch.rand(3)  # the global generator must not matter
    same, other = (scheme().fit(Toy(), paint, stream(seed, "fit")) for seed in (0, 1))
    x = torch.rand(2, 3, 16, 16, generator=stream(0))
    assert torch.equal(same.read(x), rough.read(x))
    assert not torch.equal(other.read(x), rough.read(x))


def test_a_fit_leaves_the_public_decoder_alone(paint: PaintGenerator) -> None:
    before = decoder_digest(paint.decoder)
    scheme().fit(Toy(), paint, stream(0, "fit"))
    assert decoder_digest(paint.decoder) == before
    assert not any(module._forward_pre_hooks for module in paint.decoder.modules())
    assert all(parameter.grad is None for parameter in paint.decoder.parameters())


def test_a_fit_says_what_it_did(rough: WeightModulationCodec, paint: PaintGenerator) -> None:
    assert all(isinstance(value, str) for value in rough.about.values()), "safetensors keeps strings only"
    assert rough.about["generator"] == "paint" and rough.about["decoder"] == decoder_digest(paint.decoder)
    assert "Amplitude" in rough.about["scheme"]
    assert isinstance(json.loads(rough.about["log"]), list)


@pytest.mark.parametrize("bits", [0, -1])
def test_a_fit_without_bits_is_refused(paint: PaintGenerator, bits: int) -> None:
    with pytest.raises(UserError, match=f"^bits: expected at least 1, found {bits}$"):
        scheme(bits=bits).fit(Toy(), paint, stream(0))


def test_a_decoder_that_cannot_be_modulated_is_refused() -> None:
    with pytest.raises(UserError, match=r"^decoder ToyDecoder: expected .* to modulate, found ConvTranspose2d$"):
        scheme().fit(Toy(), ToyGenerator(), stream(0))


@pytest.mark.parametrize("augment", [False, True])
def test_augmentation_is_a_switch(paint: PaintGenerator, monkeypatch: pytest.MonkeyPatch, augment: bool) -> None:
    seen: list[torch.Size] = []

    def noted(self: Toy, tensor: Tensor, rng: torch.Generator) -> Tensor:
        seen.append(tensor.shape)
        return tensor

    monkeypatch.setattr(Toy, "augment", noted)
    recipe = dataclasses.replace(SHORT, steps=2, augment=augment)
    scheme(recipe).fit(Toy(), paint, stream(0))
    assert seen == [torch.Size((8 + 2, 3, 16, 16))] * (2 * augment), "marked and unmarked"


@pytest.mark.slow
def test_a_short_fit_reads_held_out_latents_and_codes(fitted: WeightModulationCodec, paint: PaintGenerator) -> None:
    soft, true = read_by_users(fitted, paint, 64)
    assert float(bit_accuracy(soft, true).mean()) > 0.95


@pytest.mark.slow
def test_an_unfingerprinted_decoder_is_read_at_chance(fitted: WeightModulationCodec, paint: PaintGenerator) -> None:
    """Right after each user's copy was made, on the user's own latents: nothing stayed in the public decoder."""
    modality, users = Toy(), 256
    accuracy, doubt = torch.empty(users), torch.empty(users, 2)
    for user in range(users):
        code = torch.randint(2, (BITS,), generator=stream(2, "code", user))
        latents = paint.latents([""] * 4, stream(2, "held out", user))
        decoders = (fitted.modulate(paint.decoder, code), paint.decoder)
        soft = [fitted.read(modality.observe(modality.release(paint.decode(each, latents)))) for each in decoders]
        accuracy[user] = bit_accuracy(soft[1], code).mean()
        doubt[user] = torch.stack([each.abs().mean() for each in soft])
    assert float(accuracy.mean()) == pytest.approx(0.5, abs=4 * 0.5 / (users * BITS) ** 0.5), "users are independent"
    assert float(doubt[:, 1].mean()) < float(doubt[:, 0].mean()), "without a mark the reader is less sure"


# --- the file


def test_a_loaded_codec_is_the_saved_one(saved: Path, rough: WeightModulationCodec, paint: PaintGenerator) -> None:
    again = load_codec(saved, Toy(), paint)
    x, code = torch.rand(6, 3, 16, 16, generator=stream(0)), torch.tensor([1, 0, 1, 1])
    assert torch.equal(again.read(x), rough.read(x))
    assert decoder_digest(again.modulate(paint.decoder, code)) == decoder_digest(rough.modulate(paint.decoder, code))
    assert dict(again.about) == dict(rough.about) and again.bits == BITS
    again.save(saved.with_name("again.safetensors"))
    assert _tensors(saved.with_name("again.safetensors")) == _tensors(saved)


def _tensors(path: Path) -> dict[str, list[Any]]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key).tolist() for key in sorted(file.keys())}


def test_a_file_is_half_precision_and_written_whole(saved: Path) -> None:
    with safe_open(saved, "pt") as file:
        kinds = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118 - not a dict
    assert kinds <= {torch.float16, torch.int64} and torch.float16 in kinds
    assert [each.name for each in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("hidden", [0, 16])
@pytest.mark.parametrize("attention", [False, True])
def test_a_file_brings_its_own_settings(paint: PaintGenerator, tmp_path: Path, hidden: int, attention: bool) -> None:
    spec = Amplitude(depth=0.1, hidden=hidden, attention=attention)
    recipe = dataclasses.replace(SHORT, steps=1)
    codec = scheme(recipe, modulation=spec, bits=5, reader=StatisticsReader(4, 16)).fit(Toy(), paint, stream(0))
    codec.save(tmp_path / "c.safetensors")
    again = load_codec(tmp_path / "c.safetensors", Toy(), paint)
    x = torch.rand(2, 3, 16, 16, generator=stream(0))
    assert again.bits == 5 and torch.equal(again.read(x), codec.read(x))


def refusal(path: Path, generator: PaintGenerator) -> str:
    with pytest.raises(UserError) as caught:
        load_codec(path, Toy(), generator)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"codec {path}: ")
    return line.removeprefix(f"codec {path}: ")


def test_a_missing_file_is_refused(tmp_path: Path, paint: PaintGenerator) -> None:
    assert "found none" in refusal(tmp_path / "gone.safetensors", paint)
    assert refusal(tmp_path, paint), "a folder is no file"


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(saved: Path, paint: PaintGenerator, keep: float) -> None:
    raw = saved.read_bytes()
    saved.write_bytes(raw[: int(keep * len(raw)) if isinstance(keep, float) else keep])
    assert "damaged" in refusal(saved, paint)


def test_a_pickle_is_refused(tmp_path: Path, paint: PaintGenerator) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "c.safetensors")
    assert "damaged" in refusal(tmp_path / "c.safetensors", paint)


def test_a_file_of_another_kind_is_refused(tmp_path: Path, paint: PaintGenerator) -> None:
    path = tmp_path / "c.safetensors"
    save_file({"reader.x": torch.zeros(1)}, path)
    assert re.fullmatch(r"expected format genprint-weight-modulation-3 or .*, found None", refusal(path, paint))
    save_file({"reader.x": torch.zeros(1)}, path, {"format": "genprint-weight-modulation-99"})
    assert refusal(path, paint).endswith("found genprint-weight-modulation-99")


@pytest.mark.parametrize("other", [PaintGenerator(seed=1), PaintGenerator(width=12)], ids=["values", "shapes"])
def test_a_codec_of_another_decoder_is_refused(saved: Path, other: PaintGenerator) -> None:
    line = refusal(saved, other)
    assert line.startswith("fitted for the decoder ") and decoder_digest(other.decoder)[:12] in line


def rewritten(path: Path, change: Callable[[dict[str, Tensor], dict[str, str]], Any]) -> Path:
    """The file with its tensors and facts changed."""
    with safe_open(path, "pt") as file:
        about = dict(file.metadata())
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    change(state, about)
    save_file(state, path, about)
    return path


DAMAGES: dict[str, Callable[[dict[str, Tensor], dict[str, str]], Any]] = {
    "a tensor is missing": lambda state, about: state.pop(sorted(state)[0]),
    "a tensor is too many": lambda state, about: state.update({"reader.more": torch.zeros(2)}),
    "a part is unknown": lambda state, about: state.update({"writer.more": torch.zeros(2)}),
    "a tensor without a part": lambda state, about: state.update({"more": torch.zeros(2)}),
    "a tensor of another shape": lambda state, about: state.update({sorted(state)[0]: torch.zeros(7, 7)}),
    "other bits": lambda state, about: about.update(bits="9"),
    "no number of bits": lambda state, about: about.update(bits="many"),
    "no bits": lambda state, about: about.pop("bits"),
    "no decoder": lambda state, about: about.pop("decoder"),
    "no modulation": lambda state, about: about.pop("modulation"),
    "an unknown modulation": lambda state, about: about.update(modulation='{"name": "Magic"}'),
    "an unknown setting": lambda state, about: about.update(modulation='{"name": "Amplitude", "magic": 1}'),
    "a broken setting": lambda state, about: about.update(reader="{"),
    "an unknown reader setting": lambda state, about: about.update(reader='{"rank": 2, "channels": 3, "magic": 1}'),
    "a reader of another rank": lambda state, about: about.update(
        reader=about["reader"].replace('"rank": 2', '"rank": 3')
    ),
    "a reader of no rank": lambda state, about: about.update(reader='{"rank": 0, "channels": 3}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_does_not_fit_together_is_refused(saved: Path, paint: PaintGenerator, damage: str) -> None:
    assert refusal(rewritten(saved, DAMAGES[damage]), paint)


# --- where codecs live


def test_a_codec_is_found_where_fit_writes_it_and_for_its_decoder_only(
    rough: WeightModulationCodec, paint: PaintGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENPRINT_CACHE", raising=False)
    assert find_codec("wouaf", "toy", paint) is None
    path = codec_path("wouaf", "toy", paint)
    rough.save(path)
    assert find_codec("wouaf", "toy", paint) == path
    for scheme_name, modality, generator in (
        ("wouaf-augmented", "toy", paint),
        ("wouaf", "audio", paint),
        ("wouaf", "toy", PaintGenerator(seed=1)),
    ):
        assert find_codec(scheme_name, modality, generator) is None


def test_the_cache_can_be_moved(paint: PaintGenerator, cache: Path) -> None:
    assert codec_path("wouaf", "toy", paint).is_relative_to(cache)


def test_a_name_that_is_a_path_stays_within_its_folder(paint: PaintGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = codec_path("wouaf", "toy", paint)
    monkeypatch.setattr(PaintGenerator, "name", "../some/hub id")
    assert codec_path("wouaf", "toy", paint).parent.parent == plain.parent.parent


def test_a_digest_names_names_shapes_and_values(paint: PaintGenerator) -> None:
    one = nn.Linear(2, 3).requires_grad_(False)
    digest = decoder_digest(one)
    assert decoder_digest(one) == digest
    renamed, reshaped = nn.Sequential(one), nn.Linear(3, 2)
    assert len({digest, decoder_digest(renamed), decoder_digest(reshaped)}) == 3
    one.bias[0] += 1e-3
    assert decoder_digest(one) != digest


def test_a_training_goes_on_from_a_codec(paint: PaintGenerator, rough: WeightModulationCodec) -> None:
    """Without a step it ends where it began; with some, elsewhere; log and time count on."""
    base = rough.about | {
        "log": json.dumps([{"step": 300, "bit_accuracy": 0.9, "psnr_db": 30.0, "weight": 7.0, "seconds": 5.0}]),
        "fit_seconds": "100.0",
    }
    start = dataclasses.replace(rough, about=base)
    after = {
        steps: Continued(scheme(dataclasses.replace(SHORT, steps=steps)), start).fit(Toy(), paint, stream(1))
        for steps in (0, 100)
    }
    for steps, codec in after.items():
        for network, earlier in ((codec.modulator, rough.modulator), (codec.reader, rough.reader)):
            pairs = zip(network.state_dict().values(), earlier.state_dict().values(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs) == (steps == 0)
        assert codec.fit_seconds >= 100 and codec.about["continues"] == rough.about["scheme"]
    first, second = json.loads(after[100].about["log"])
    assert first["step"] == 300 and second["step"] == 400 and second["seconds"] > 5
    assert Continued(scheme(), rough).recipe == dataclasses.replace(SHORT, enough=math.inf, pace=GENTLE)
    assert Progress.after([first]).weight == 7 and Progress.after([]) == Progress()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"bits": BITS + 1}, "another size"),
        ({"reader": StatisticsReader(width=16, hidden=32)}, "another size"),
        ({"modulation": Rotation()}, "GainMap"),
    ],
)
def test_another_codec_is_not_taken_up(
    changes: Any, found: str, paint: PaintGenerator, rough: WeightModulationCodec
) -> None:
    with pytest.raises(UserError, match=rf"^start: expected a codec of the same modulation, .*, found {found}$"):
        Continued(scheme(**changes), rough).fit(Toy(), paint, stream(0))


@pytest.mark.parametrize("changes", [{"bits": BITS + 1}, {"modulation": Rotation()}])
def test_another_modulator_is_refused_before_latents_are_drawn(
    changes: Any, paint: PaintGenerator, rough: WeightModulationCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(*_: object) -> Tensor:
        raise AssertionError("latents were drawn")

    monkeypatch.setattr("schemes.weight_modulation.training_latents", draw)
    with pytest.raises(UserError, match=r"^start: expected"):
        Continued(scheme(**changes), rough).fit(Toy(), paint, stream(0))
