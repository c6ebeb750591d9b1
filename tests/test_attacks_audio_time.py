"""What stays in time, and what moves as far as it says: codecs, filters, stretching, shifting, cropping."""

from __future__ import annotations

import io
import math
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from attacks.audio import (
    AAC,
    MP3,
    BandPass,
    Crop,
    HighPass,
    LowPass,
    Opus,
    PitchShift,
    Resample,
    Reverb,
    Smoothing,
    Speed,
    TimeShift,
    TimeStretch,
    Vorbis,
)
from attacks.audio_codec import AAC_FILE, MP3_FILE, OPUS_FILE, Format, encoded
from attacks.audio_pcm import resampled
from attacks.audio_stft import spectra
from bench.protocol import Clips, ContentAttack
from bench.rng import stream
from tests.clips import RATE, impulse, lag, level_db, noise, notes, pitch_hz, snr_db, tone

NOTES = notes(3, 12_001, RATE)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100])
@pytest.mark.parametrize("attack", [MP3(64), AAC(64), Opus(64), Vorbis(5)], ids=repr)
def test_codecs_keep_length_and_time(attack: ContentAttack, rate_hz: int, channels: int) -> None:
    content = noise(1, rate_hz // 2 + 37, rate_hz, channels)
    attacked = attack(content, stream(0))
    for before, after in zip(content.unit()[0], attacked.unit()[0], strict=True):
        assert lag(before, after) == 0
        if rate_hz <= 16_000:
            assert level_db(after - before) < level_db(before) - 6, "the wave is that of before"


@pytest.mark.parametrize("attack", [MP3(8), AAC(16), Opus(16), Vorbis(0)], ids=repr)
def test_codecs_keep_time_at_low_rates_too(attack: ContentAttack) -> None:
    content = noise(1, RATE)
    assert lag(content.unit()[0, 0], attack(content, stream(0)).unit()[0, 0]) == 0


@pytest.mark.parametrize("attack", [MP3(8), MP3(64), AAC(8), AAC(32), Opus(6), Opus(64), Vorbis(2)], ids=repr)
def test_codecs_take_the_shortest_clips(attack: ContentAttack) -> None:
    for rate_hz in (7_350, 11_025, 48_000):
        for length in (1, 2, 577):
            content = Clips(torch.full((1, 2, length), 999, dtype=torch.int16), rate_hz)
            assert attack(content, stream(0)).samples.shape == (1, 2, length)


@pytest.mark.parametrize(
    ("form", "kbps"), [(MP3_FILE, 8), (MP3_FILE, 64), (AAC_FILE, 16), (AAC_FILE, 48), (OPUS_FILE, 6), (OPUS_FILE, 31)]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_codecs_use_the_bit_rate_they_say(form: Format, kbps: int, channels: int) -> None:
    clip = noise(1, 4 * RATE, channels=channels).unit()[0].numpy()
    with av.open(io.BytesIO(encoded(clip, RATE, form, kbps)), "r") as container:
        found = sum(packet.size for packet in container.demux(audio=0)) * 8 / 4000
    assert found == pytest.approx(kbps, rel=0.06)


def test_a_bit_rate_that_mp3_lacks_at_this_sampling_rate_takes_the_clip_to_another() -> None:
    """8 kbit/s ends with MPEG-2, at 24 kHz; 320 kbit/s starts with MPEG-1."""
    content = noise(1, 44_100, 44_100)
    low = MP3(8)(content, stream(0))
    assert level_db(spectra(low.unit()[0], 1024).abs()[:, 290:, 20:-20]) < -70, "nothing above 12 kHz"
    assert snr_db(noise(1, RATE, 8_000), MP3(320)(noise(1, RATE, 8_000), stream(0))) > 30
    assert lag(content.unit()[0, 0], Opus(64)(Clips(content.samples, 96_000), stream(0)).unit()[0, 0]) == 0


def gain_db(attack: ContentAttack, hz: float) -> float:
    middle = (..., slice(4_000, 12_000))
    return level_db(attack(tone(hz), stream(0)).unit()[middle]) - level_db(tone(hz).unit()[middle])


def test_filters_cut_where_they_say() -> None:
    for attack in (LowPass(2000), HighPass(2000), BandPass(500, 2000), BandPass(2000, 6000)):
        assert gain_db(attack, 2000) == pytest.approx(-3.01, abs=0.1)
    assert gain_db(LowPass(2000), 1000) == pytest.approx(0, abs=0.05)
    assert gain_db(LowPass(2000), 4000) == pytest.approx(-48, abs=1)
    assert gain_db(HighPass(2000), 4000) == pytest.approx(0, abs=0.05)
    assert gain_db(HighPass(2000), 1000) == pytest.approx(-48, abs=1)
    assert gain_db(BandPass(500, 2000), 1000) == pytest.approx(0, abs=0.05)
    assert gain_db(BandPass(500, 2000), 250) == pytest.approx(-48, abs=1)
    assert gain_db(HighPass(12_000), 4000) < -60, "all of it lies below"


@pytest.mark.parametrize(
    "attack", [LowPass(1000), HighPass(500), BandPass(300), Smoothing(9), Resample(4000)], ids=repr
)
def test_filters_do_not_move_anything(attack: ContentAttack) -> None:
    """What becomes of an impulse is symmetric about it."""
    x = torch.zeros(1, 1, 4001)
    x[..., 2000] = 0.9
    attacked = attack(Clips.from_unit(x, RATE), stream(0)).samples[0, 0].int()
    assert attacked[2000] > 0 and attacked[2000] == attacked.max()
    assert (attacked - attacked.flip(0)).abs().max() <= 1


@pytest.mark.parametrize("attack", [LowPass(1000), HighPass(500), Resample(4000), Reverb(0)], ids=repr)
def test_the_end_does_not_come_around_to_the_start(attack: ContentAttack) -> None:
    last = Clips(impulse(0.9, 4096).samples.flip(-1), RATE)
    assert attack(last, stream(0)).samples[..., :2048].abs().max() == 0


@pytest.mark.parametrize(
    "rates", [(16_000, 44_100), (44_100, 16_000), (16_000, 8_000), (22_050, 48_000), (8_000, 7_993)]
)
def test_resampling_shows_the_same_wave_at_other_times(rates: tuple[int, int]) -> None:
    old, new = (tone(440, rate_hz=rate).unit() for rate in rates)
    changed = resampled(old, Fraction(rates[1], rates[0]))
    assert changed.shape == new.shape
    edge = rates[1] // 20
    assert (changed - new)[..., edge:-edge].abs().max() < 1e-3


def test_resample_halves_the_bandwidth() -> None:
    assert gain_db(Resample(8000), 4100) < -70
    assert gain_db(Resample(8000), 3500) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("window", [3, 9, 21])
def test_smoothing_is_the_mean_of_the_neighbourhood(window: int) -> None:
    x = NOTES.samples[0, 0].double().numpy()
    ones = np.ones(window)
    expected = np.convolve(x, ones, "same") / np.convolve(np.ones_like(x), ones, "same")
    assert np.abs(Smoothing(window)(NOTES, stream(0)).samples[0, 0].numpy() - expected).max() <= 0.51


def test_reverb_keeps_time() -> None:
    content = noise(1, RATE, channels=2)
    assert [lag(a, b) for a, b in zip(content.unit()[0], Reverb(0)(content, stream(0)).unit()[0], strict=True)] == [
        0,
        0,
    ]


def two_tones(first_hz: float, second_hz: float, turn_s: float = 2.0, seconds: float = 4.0) -> Clips:
    length, turn = round(seconds * RATE), round(turn_s * RATE)
    return Clips(
        torch.cat(
            [tone(first_hz, seconds).samples[..., :turn], tone(second_hz, seconds).samples[..., turn:length]], -1
        ),
        RATE,
    )


def measured(content: Clips, turn_s: float) -> tuple[float, float, float]:
    """Pitches before and after about ``turn_s``, in Hz, and when one becomes the other, in seconds."""
    x = content.unit()[0, 0]
    turn = round(turn_s * RATE)
    first, second = pitch_hz(x[turn // 2 : turn - 1600]), pitch_hz(x[turn + 1600 : turn + 6400])
    power = spectra(x[None], 512).abs().square()[0]  # (bins, frames)
    one, two = (power[round(hz * 512 / RATE) - 1 : round(hz * 512 / RATE) + 2].sum(0) for hz in (first, second))
    frames = int(((one > two) & (one + two > 1)).nonzero().max())
    return first, second, (frames + 0.5) * 128 / RATE


def cents(found: float, expected: float) -> float:
    return 1200 * math.log2(found / expected)


@pytest.mark.parametrize("factor", [0.8, 1.05, 1.1, 1.3, 1.5])
def test_time_stretch_changes_tempo_and_not_pitch(factor: float) -> None:
    attacked = TimeStretch(factor)(two_tones(500, 1250), stream(0))
    first, second, turn = measured(attacked, 2 / factor)
    assert abs(cents(first, 500)) < 10 and abs(cents(second, 1250)) < 10
    assert turn == pytest.approx(2 / factor, rel=0.01)
    if factor > 1:
        assert attacked.samples[..., math.ceil(4 * RATE / factor) + 1 :].abs().max() == 0, "the rest is silence"


@pytest.mark.parametrize("semitones", [-4, 0.25, 0.5, 1, 2, 4])
def test_pitch_shift_changes_pitch_and_not_tempo(semitones: float) -> None:
    ratio = 2 ** (semitones / 12)
    first, second, turn = measured(PitchShift(semitones)(two_tones(500, 1250), stream(0)), 2.0)
    assert abs(cents(first, 500 * ratio)) < 10 and abs(cents(second, 1250 * ratio)) < 10
    assert turn == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("factor", [0.8, 1.01, 1.1, 1.5])
def test_speed_changes_both(factor: float) -> None:
    attacked = Speed(factor)(two_tones(500, 1250), stream(0))
    first, second, turn = measured(attacked, 2 / factor)
    assert abs(cents(first, 500 * factor)) < 2 and abs(cents(second, 1250 * factor)) < 2
    assert turn == pytest.approx(2 / factor, rel=0.01)
    if factor > 1:
        assert attacked.samples[..., math.ceil(4 * RATE / factor) + 1 :].abs().max() == 0, "the rest is silence"


def test_time_shift_delays_by_whole_samples() -> None:
    late = TimeShift(0.05)(NOTES, stream(0)).samples
    assert late[..., :800].abs().max() == 0 and torch.equal(late[..., 800:], NOTES.samples[..., :-800])
    assert TimeShift(60)(NOTES, stream(0)).samples.abs().max() == 0


def test_crop_keeps_one_piece_from_a_random_place() -> None:
    ramp = Clips(torch.arange(1, 1001, dtype=torch.int16).expand(64, 2, 1000), RATE)
    attacked = Crop(0.25)(ramp, stream(0)).samples
    assert attacked[..., 250:].abs().max() == 0
    assert (attacked[..., 1:250] - attacked[..., :249] == 1).all() and torch.equal(attacked[:, 0], attacked[:, 1])
    starts = attacked[:, 0, 0].double()
    assert starts.min() < 50 and starts.max() > 700 and float(starts.std()) == pytest.approx(751 / 12**0.5, rel=0.2)


def test_a_minute_of_stereo_goes_through_vorbis() -> None:
    """Handed over at once, it overflows the coder's stack and ends Python."""
    clips = Clips.from_unit(0.1 * torch.randn(1, 2, 50 * 44_100, generator=stream(0, "minute")), 44_100)
    assert Vorbis(2)(clips, stream(0)).samples.shape == clips.samples.shape
