"""The audio modality: what is published and heard, prompts, fidelity; and the augmentations."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.protocol import Clips, Modality, UserError
from bench.rng import stream
from modalities.audio import LEVEL, Audio, augmentation, fidelity
from modalities.audio.notes import every_note
from modalities.audio.rates import resampled
from tests.clips import level_db, noise, notes

AUDIO = Audio()
LENGTH, HEARD = 32_768, 16_384
FIELD = 0.6 * torch.randn(3, 1, LENGTH, generator=stream(0, "field"))  # beyond [-1, 1] on both sides
CLIPS = notes(3, LENGTH, 16_000)
SILENCE = Clips(torch.zeros(2, 1, LENGTH, dtype=torch.int16), 16_000)


def tones(rate_hz: int, seconds: float = 2.048) -> Clips:
    """The same sound at any rate: sines below 3 kHz with soft ends, which no resampling touches."""
    t = torch.arange(round(seconds * rate_hz), dtype=torch.float64) / rate_hz
    x = torch.stack([torch.sin(2 * math.pi * hz * t) for hz in (220.0, 997.0, 2903.0)]).sum(0) / 8
    return Clips.from_unit((x * torch.sin(math.pi * t / seconds) ** 2)[None, None], rate_hz)


def padded(clips: Clips, before: int, after: int = 0) -> Clips:
    return Clips(F.pad(clips.samples, (before, after)), clips.rate_hz)


def test_opinions_are_those_of_visqol(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Clips] = []

    def visqol(a: Clips, b: Clips) -> Tensor:
        seen.extend((a, b))
        return torch.full((len(a),), 4.5)

    monkeypatch.setattr(fidelity, "visqol", visqol)
    other = Clips(CLIPS.samples // 2, CLIPS.rate_hz)
    assert AUDIO.opinion(CLIPS, other).tolist() == [4.5] * 3 and AUDIO.opinion_metric == "visqol"
    assert seen[0] is CLIPS and seen[1] is other


def test_audio_is_a_modality() -> None:
    assert isinstance(AUDIO, Modality)
    assert (AUDIO.name, AUDIO.quality_metric, AUDIO.paired_metric) == ("audio", "fd_speech_embedding", "si_sdr")


def test_it_takes_the_rate_of_its_generator() -> None:
    wide = AUDIO.matched(SimpleNamespace(rate_hz=44_100))
    assert wide.release(FIELD).rate_hz == wide.rate_hz == 44_100
    assert AUDIO.matched(SimpleNamespace()) == AUDIO == AUDIO.matched(SimpleNamespace(rate_hz=16_000))
    with pytest.raises(UserError, match="features 'clap': expected default or vggish"):
        AUDIO.with_features("clap")
    assert AUDIO.with_features("default") == AUDIO


# Releasing


def test_release_rounds_to_the_nearest_of_65536_values() -> None:
    clips = AUDIO.release(FIELD)
    assert clips.samples.dtype == torch.int16 and clips.samples.shape == FIELD.shape and clips.rate_hz == 16_000
    assert (clips.unit().double() - FIELD.double().clamp(-1, 32_767 / 32_768)).abs().max() <= 0.5 / 32_768


def test_releasing_what_was_released_changes_nothing() -> None:
    every = torch.arange(-32_768, 32_768).short().view(1, 2, LENGTH)
    again = AUDIO.release(Clips(every, 16_000).unit())
    assert torch.equal(again.samples, every)


def hear(x: Tensor, audio: Audio) -> Tensor:
    """What ``observe`` does after the 16 bits, differentiable."""
    return audio.observe(SimpleNamespace(unit=lambda: x, rate_hz=audio.rate_hz))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rate_hz", "shape"), [(16_000, (3, 1, LENGTH)), (44_100, (2, 2, 60_001)), (16_000, (2, 2, 70_000))], ids=str
)
def test_soft_release_is_observing_what_was_released_with_the_gradient_of_no_rounding(
    rate_hz: int, shape: tuple[int, ...]
) -> None:
    audio = Audio(rate_hz=rate_hz)
    x = 0.6 * torch.randn(shape, generator=stream(0, "soft"))
    field, released = x.clone().requires_grad_(), audio.release(x).unit().requires_grad_()
    soft, hard = audio.soft_release(field), hear(released, audio)
    assert torch.equal(hard, audio.observe(audio.release(x)))
    assert torch.allclose(soft, hard, rtol=0, atol=1e-5)
    weights = torch.randn(soft.shape, generator=stream(0, "weights"))
    one, other = (torch.autograd.grad((weights * y).sum(), z)[0] for y, z in ((soft, field), (hard, released)))
    # Where descent would lead away from full scale.
    outward = ((x > 32767 / 32768) & (other < 0)) | ((x < -1) & (other > 0))
    other = other.masked_fill(outward, 0.0)
    assert torch.allclose(one, other, rtol=1e-4, atol=1e-5) and one.abs().max() > 0.1


def test_samples_are_not_pushed_beyond_full_scale() -> None:
    """A sample beyond full scale has a gradient towards it and none away from it."""
    x = (0.5 * torch.randn(1, 1, HEARD, generator=stream(0, "loud"))).clamp(-0.9, 0.9)
    x[..., 100:110] = 1.5
    weights = torch.randn(x.shape, generator=stream(0, "weights"))
    found = []
    for sign in (1.0, -1.0):
        field = x.clone().requires_grad_()
        found += torch.autograd.grad((sign * weights * AUDIO.soft_release(field)).sum(), field)
    loud = torch.stack(found)[:, 0, 0, 100:110]
    assert bool((loud >= 0).all()) and bool(((loud > 0).sum(0) == 1).all())


# Hearing


@pytest.mark.parametrize("clips", [CLIPS, notes(2, 90_000, 44_100, 2), notes(2, 200_000, 16_000), noise(1, 1600)])
def test_what_is_heard_is_mono_of_one_length_and_level(clips: Clips) -> None:
    heard = AUDIO.observe(clips)
    assert heard.shape == (len(clips), 1, HEARD) and heard.dtype == torch.float32
    level = heard.square().mean((1, 2)).sqrt()
    assert torch.allclose(level, torch.full_like(level, LEVEL), rtol=1e-3)
    alone = torch.cat([AUDIO.observe(clips[i : i + 1]) for i in range(len(clips))])
    assert torch.allclose(heard, alone, atol=1e-5), "a clip is heard alone"


def test_gain_and_a_second_equal_channel_are_not_heard() -> None:
    heard = AUDIO.observe(CLIPS)
    assert torch.allclose(AUDIO.observe(Clips(CLIPS.samples * 3, 16_000)), heard, atol=1e-5)
    assert torch.equal(AUDIO.observe(Clips(CLIPS.samples.expand(-1, 2, -1), 16_000)), heard)
    assert torch.equal(AUDIO.observe(Clips(-CLIPS.samples, 16_000)), -heard), "polarity is: readers learn to ignore it"


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 37_123, 44_100, 44_101, 48_000, 95_999, 96_000])
def test_the_sampling_rate_is_not_heard(rate_hz: int) -> None:
    """A rate like 44,101 Hz is taken as one that is at most 0.05 % off: by the end that is half a period of 1 kHz."""
    heard, expected = AUDIO.observe(tones(rate_hz))[0, 0], AUDIO.observe(tones(16_000))[0, 0]
    start = slice(0, 8_000) if rate_hz % 25 else slice(None)
    error = level_db(expected[start]) - level_db(heard[start] - expected[start])
    assert error > (20 if rate_hz % 25 else 45)


@pytest.mark.parametrize("rate_hz", [11_025, 44_100, 44_101, 48_000, 88_200])
def test_resampling_keeps_to_the_ratio(rate_hz: int) -> None:
    x = torch.zeros(1, rate_hz)
    there = resampled(x, rate_hz, 16_000)
    assert abs(there.shape[1] - 16_000) <= 8 * bool(rate_hz % 25)
    assert abs(resampled(there, 16_000, rate_hz).shape[1] - rate_hz) <= rate_hz // 2000 * bool(rate_hz % 25) + 1
    assert resampled(x, rate_hz, rate_hz) is x


def test_silence_stays_silence() -> None:
    opposite = Clips(torch.cat([CLIPS.samples, -CLIPS.samples], 1), 16_000)
    for clips in (SILENCE, padded(SILENCE, 100_000), opposite):
        assert torch.equal(AUDIO.observe(clips), torch.zeros(len(clips), 1, HEARD))
    field = torch.zeros(1, 1, LENGTH, requires_grad=True)
    (gradient,) = torch.autograd.grad(AUDIO.soft_release(field).square().sum() + AUDIO.soft_release(field).sum(), field)
    assert bool(gradient.isfinite().all())


def test_the_loudest_part_of_a_long_clip_is_heard() -> None:
    """To an eighth of its 1.024 s."""
    heard = AUDIO.observe(CLIPS)
    assert torch.equal(AUDIO.observe(padded(CLIPS, 20 * 4096)), heard), "5.12 s of silence first"
    assert torch.equal(AUDIO.observe(padded(CLIPS, 3 * 4096, 99_999)), heard)
    late = padded(CLIPS, 80_000, 40_000)
    pieces = late.unit()[:, 0].unfold(1, HEARD, HEARD // 8)  # (B, places, 16384)
    loudest = torch.stack([each[each.square().sum(1).argmax()] for each in pieces])
    assert torch.allclose(
        AUDIO.observe(late)[:, 0], loudest * (LEVEL / loudest.square().mean(1, True).sqrt()), rtol=1e-3
    )
    best = late.unit()[:, 0].unfold(1, HEARD, 16).square().sum(2).amax(1)
    assert (loudest.square().sum(1) > 0.8 * best).all(), "not much louder anywhere else"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (CLIPS.samples, "expected clips, found Tensor"),
        (np.zeros(3), "expected clips, found ndarray"),
        (Clips(CLIPS.unit(), 16_000), r"int16 samples (B, 1 or 2, T), found torch.float32 (3, 1, 32768)"),
        (Clips(CLIPS.samples[0], 16_000), r"int16 samples (B, 1 or 2, T), found torch.int16 (1, 32768)"),
        (Clips(CLIPS.samples.expand(-1, 3, -1), 16_000), "found torch.int16 (3, 3, 32768)"),
        (Clips(CLIPS.samples, 7_999), "expected 8000 to 96000 Hz, found 7999 Hz"),
        (Clips(CLIPS.samples, 96_001), "expected 8000 to 96000 Hz, found 96001 Hz"),
        (Clips(CLIPS.samples[..., :799], 8_000), "expected at least 0.1 s, found 0.100 s"),
        (Clips(CLIPS.samples[..., :0], 8_000), "expected at least 0.1 s, found 0.000 s"),
    ],
)
def test_check_names_both_sides(content: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        AUDIO.check(content)
    assert str(caught.value).startswith("content: expected ") and str(caught.value).endswith(line)


def test_check_lets_clips_pass() -> None:
    for clips in (CLIPS, AUDIO.release(FIELD), AUDIO.reference(2), notes(1, 800, 8_000, 2), notes(1, 9_600, 96_000)):
        AUDIO.check(clips)


# Prompts and real content

HELD_OUT = {note.caption for note in every_note() if note.split == "prompts"}


def test_prompts_are_held_out_captions_in_the_order_of_the_stream() -> None:
    prompts = AUDIO.prompts(100, stream(0, "prompts"))
    assert prompts == AUDIO.prompts(100, stream(0, "prompts")) != AUDIO.prompts(100, stream(1, "prompts"))
    assert prompts[:30] == AUDIO.prompts(30, stream(0, "prompts")), "more prompts leave the first ones alone"
    assert set(prompts) <= HELD_OUT and len(set(prompts)) == 100
    assert not set(prompts) & {note.caption for note in every_note() if note.split != "prompts"}


def test_prompts_repeat_only_when_they_are_exhausted() -> None:
    every = len(HELD_OUT)
    prompts = AUDIO.prompts(2 * every, stream(0, "prompts"))
    assert set(prompts[:every]) == set(prompts[every:]) == HELD_OUT
    assert prompts[:every] != prompts[every:]
    assert AUDIO.prompts(0, stream(0)) == []
    with pytest.raises(UserError, match="expected 0 or more, found -1"):
        AUDIO.prompts(-1, stream(0))


def test_reference_is_real_held_out_content() -> None:
    every = AUDIO.reference()
    assert (len(every), every.rate_hz) == (512, 16_000)
    assert torch.equal(AUDIO.reference(5).samples, every.samples[:5])
    assert torch.equal(AUDIO.reference(512).samples, every.samples)


# Fidelity


@pytest.mark.parametrize("clips", [CLIPS, SILENCE, notes(2, 90_317, 44_100, 2), noise(1, 1600)])
def test_features_are_rows_of_frames(clips: Clips) -> None:
    features = AUDIO.features(clips)
    frames = 16 if clips.samples.shape[2] > 30_000 else 1
    assert features.shape == (len(clips), frames, 96) and features.dtype == torch.float32
    assert bool(features.isfinite().all())


def test_paired_holds_the_metric_that_heads_the_leaderboard() -> None:
    found = AUDIO.paired(CLIPS, CLIPS)
    assert set(found) == {"si_sdr", "lsd", "mel"} and AUDIO.paired_metric in found
    assert (found["si_sdr"].tolist(), found["lsd"].tolist(), found["mel"].tolist()) == ([100] * 3, [0] * 3, [0] * 3)


def test_perceptual_loss_is_a_distance_with_a_gradient() -> None:
    a = AUDIO.observe(CLIPS)
    hiss = torch.randn(a.shape, generator=stream(0, "hiss"))
    assert AUDIO.perceptual_loss(a, a).abs().max() < 1e-6
    near, far = (AUDIO.perceptual_loss(a, a + level * hiss) for level in (0.001, 0.03))
    assert near.shape == (3,) and bool((near > 0).all() & (2 * near < far).all())
    b = (a + 0.01 * hiss).requires_grad_()
    (gradient,) = torch.autograd.grad(AUDIO.perceptual_loss(a, b).sum(), b)
    assert bool(gradient.isfinite().all()) and (gradient != 0).float().mean() > 0.9
    stereo = AUDIO.perceptual_loss(torch.cat([a, a], 1), torch.cat([b, a], 1))
    assert torch.allclose(2 * stereo, AUDIO.perceptual_loss(a, b), rtol=1e-4), "the mean over channels"


# Augmentation


@pytest.mark.parametrize("distortion", augmentation.DISTORTIONS, ids=lambda f: f.__name__.strip("_"))
def test_every_distortion(distortion: Any) -> None:
    x = AUDIO.observe(CLIPS).requires_grad_()
    before = x.detach().clone()
    changed = [distortion(x, stream(seed, "draw")) for seed in range(5)]
    assert torch.equal(changed[0], distortion(x, stream(0, "draw"))), "same stream, same damage"
    assert torch.equal(x, before), "the input was modified in place"
    for y in changed:
        assert y.shape == x.shape and y.dtype == x.dtype and bool(y.isfinite().all())
        assert not torch.equal(y, x)
        (gradient,) = torch.autograd.grad((y * y.detach()).sum(), x)
        assert bool(gradient.isfinite().all()) and (gradient != 0).float().mean() > 0.7
    if distortion is not augmentation._polarity:
        assert not torch.equal(changed[0], changed[1]), "the strength is drawn"
    assert torch.equal(distortion(0 * x, stream(0, "draw")), 0 * x), "silence stays silence"


def test_augment_keeps_the_level_and_a_third_of_the_batches() -> None:
    x = AUDIO.observe(CLIPS)
    state = torch.get_rng_state()
    results = [AUDIO.augment(x, stream(seed, "augment")) for seed in range(100)]
    levels = torch.stack([y.square().mean((1, 2)).sqrt() for y in results])
    assert all(y.shape == x.shape for y in results) and torch.allclose(levels, torch.tensor(LEVEL), rtol=1e-3)
    kept = sum(torch.allclose(y, x, atol=1e-6) for y in results) / 100
    assert kept == pytest.approx(1 / 3, abs=4 * (2 / 9 / 100) ** 0.5)
    assert all(torch.equal(AUDIO.augment(x, stream(seed, "augment")), results[seed]) for seed in range(9))
    assert torch.equal(torch.get_rng_state(), state), "the stream alone decides"


def test_augment_has_a_gradient() -> None:
    x = AUDIO.observe(CLIPS).requires_grad_()
    for seed in range(12):
        weights = torch.randn(x.shape, generator=stream(seed, "weights"))
        (gradient,) = torch.autograd.grad((weights * AUDIO.augment(x, stream(seed, "augment"))).sum(), x)
        assert bool(gradient.isfinite().all()) and float(gradient.abs().max()) > 0
