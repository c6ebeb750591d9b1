"""Attacks that add sounds, colour, clean or shape: the effect is the one that the label states."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy.signal import medfilt
from torch import Tensor

from attacks.audio_air import OverTheAir, room_response
from attacks.audio_background import Babble, Crackle, Hum, Mixing
from attacks.audio_denoise import SpectralSubtraction, WienerDenoise
from attacks.audio_dynamics import Compressor, Expander, Limiter, RingModulator, Tremolo
from attacks.audio_equaliser import BarkEqualiser, ParametricEqualiser, PhaseNoise, Phaser, PhaseRotation
from attacks.audio_level import Polarity
from attacks.audio_noise import WhiteNoise
from attacks.audio_shape import BitCrush, Distortion, MedianSmoothing, MuLaw
from bench.protocol import Clips, ContentAttack, UserError
from bench.rng import stream
from tests.clips import RATE, impulse, lag, level_db, noise, notes, snr_db, tone

NOTES = notes(3, 12_001, RATE)
MIDDLE = slice(4_000, 12_000)


def sine(db: float, hz: float = 440.0) -> Clips:
    """A sine whose peak is ``db`` of full scale."""
    unit = tone(hz).unit()
    return Clips.from_unit(unit / unit.abs().max() * 10 ** (db / 20), RATE)


def peak_db(content: Clips) -> float:
    """Peak of a steady sine, from its power."""
    return level_db(content.unit()[..., MIDDLE]) + 10 * math.log10(2)


def spectrum(content: Clips) -> Tensor:
    """Magnitudes at whole hertz of a second."""
    return torch.fft.rfft(content.unit()[0, 0].double()).abs()


@pytest.mark.parametrize("make", [Babble, Crackle, Hum, Mixing])
@pytest.mark.parametrize("db", [30, 10, 5])
def test_what_is_added_has_the_power_it_says_in_every_clip(make: Callable[[float], ContentAttack], db: float) -> None:
    quieter = torch.tensor([2, 4, 8], dtype=torch.int16)[:, None, None]
    content = Clips(notes(3, RATE, RATE, channels=2).samples // quieter, RATE)
    attacked = make(db)(content, stream(0))
    for item in range(3):
        assert snr_db(content[item : item + 1], attacked[item : item + 1]) == pytest.approx(db, abs=0.2)
    added = attacked.samples.int() - content.samples.int()
    assert (added[:, 0] - added[:, 1]).abs().max() <= 1, "the same sound in both channels"


def test_babble_sounds_where_voices_do_and_differs_from_clip_to_clip() -> None:
    content = noise(2, 4 * RATE)
    added = Babble(0)(content, stream(0)).unit() - content.unit()
    power = torch.fft.rfft(added[:, 0].double()).abs().square()
    hz = torch.arange(power.shape[-1]) / 4
    assert power[:, (hz > 80) & (hz < 4000)].sum() > 0.98 * power.sum()
    low, high = (power[:, (hz > a) & (hz < b)].sum() for a, b in ((250, 1000), (2000, 4000)))
    assert 5 < 10 * (low / high).log10() < 30, "softer above, as speech"
    assert abs(float(torch.corrcoef(added[:, 0])[0, 1])) < 0.1
    blocks = added[0, 0].unfold(0, 1600, 1600).square().mean(-1)
    assert float(blocks.std() / blocks.mean()) > 0.15, "it goes up and down"


def test_hum_is_the_mains_and_its_harmonics_only() -> None:
    content = sine(-10, 3000)
    added = Hum(10)(content, stream(0)).unit()[0, 0] - content.unit()[0, 0]
    power = torch.fft.rfft(added.double()).abs().square()
    assert power[50:1001:50].sum() > 0.999 * power.sum()
    assert float(power[50] / power[100]) == pytest.approx(4, rel=0.05)


def test_crackle_is_single_samples_at_the_rate_it_says() -> None:
    content = noise(4, 4 * RATE)
    clicks = (Crackle(0, 50)(content, stream(0)).samples != content.samples).double().sum(-1) / 4
    assert float(clicks.mean()) == pytest.approx(50, rel=0.15)


def test_mixing_adds_the_other_item_and_nothing_else() -> None:
    other, content = noise(1, 5_000), notes(1, 12_001, RATE)
    added = (Mixing(0, other)(content, stream(0)).unit() - content.unit())[0, 0, :5_000]
    size = len(added)
    match = torch.fft.irfft(torch.fft.rfft(added) * torch.fft.rfft(other.unit()[0, 0]).conj(), size)
    assert float(match.max() / (added.norm() * other.unit().norm())) > 0.999, "a rotation of it"
    assert Mixing(0, other) == Mixing(0) and repr(Mixing(0, other)) == "Mixing(ratio_db=0)"


@pytest.mark.parametrize(("threshold", "ratio"), [(-18, 4), (-30, 2), (-12, 8)])
def test_a_compressor_has_its_ratio_above_its_threshold(threshold: float, ratio: float) -> None:
    out = peak_db(Compressor(threshold, ratio)(sine(-6), stream(0)))
    assert out == pytest.approx(threshold + (-6 - threshold) / ratio, abs=0.2)
    soft = sine(threshold - 3)
    assert torch.equal(Compressor(threshold, ratio)(soft, stream(0)).samples, soft.samples)


@pytest.mark.parametrize(("threshold", "ratio"), [(-16, 4), (-12, 2)])
def test_an_expander_has_its_ratio_below_its_threshold(threshold: float, ratio: float) -> None:
    out = peak_db(Expander(threshold, ratio)(sine(threshold - 6), stream(0)))
    assert out == pytest.approx(threshold - 6 * ratio, abs=0.2)
    loud = sine(threshold + 3)
    assert snr_db(loud, Expander(threshold, ratio)(loud, stream(0))) > 40


@pytest.mark.parametrize("threshold", [-18.0, -30.0])
def test_a_limiter_lets_nothing_pass_and_leaves_the_rest_alone(threshold: float) -> None:
    top = 10 ** (threshold / 20) * 32768
    loud = Limiter(threshold)(NOTES, stream(0)).samples
    assert int(loud.int().abs().max()) <= round(top) and int(loud.int().abs().max()) > 0.9 * top
    soft = sine(threshold - 1)
    assert torch.equal(Limiter(threshold)(soft, stream(0)).samples, soft.samples)


def test_dynamics_answer_within_their_times() -> None:
    """A step from -30 to -6 dB: the compressor is down after 20 ms, and takes longer to come back."""
    wave = torch.cat([sine(-30).unit(), sine(-6).unit(), sine(-30).unit()], -1)
    out = Compressor(-30, 4)(Clips.from_unit(wave, RATE), stream(0)).unit()[0, 0]

    def after(start: int) -> float:
        return level_db(out[start : start + 400]) + 10 * math.log10(2)

    assert after(RATE + 400) == pytest.approx(-24, abs=0.5)
    assert after(2 * RATE + 800) < -35 and after(2 * RATE + 12_000) == pytest.approx(-30, abs=0.5)


def test_tremolo_takes_its_depth_and_ring_modulation_makes_two_of_one() -> None:
    out = Tremolo(0.6, 5)(sine(-6, 1000), stream(0)).unit()[0, 0]
    top = [float(out[round(at * RATE) - 100 : round(at * RATE) + 100].abs().max()) for at in (0.2, 0.1)]
    assert top[1] / top[0] == pytest.approx(0.4, abs=0.01)
    both = spectrum(RingModulator(1.0, 440)(sine(-6, 1000), stream(0)))
    assert both.topk(2).indices.sort().values.tolist() == [560, 1440]
    half = spectrum(RingModulator(0.5, 440)(sine(-6, 1000), stream(0)))
    assert float(half[560] / half[1000]) == pytest.approx(0.5, abs=0.01)


def test_distortion_keeps_the_peak_and_adds_odd_harmonics() -> None:
    content = sine(-12, 440)
    hard = Distortion(30)(content, stream(0))
    assert int(hard.samples.max()) == pytest.approx(int(content.samples.max()), abs=1)
    assert level_db(hard.unit()) - level_db(content.unit()) > 2.5, "nearly a square"
    lines = spectrum(hard)
    assert float(lines[1320] / lines[440]) == pytest.approx(1 / 3, abs=0.03) and lines[880] < 0.01 * lines[440]


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_mu_law_has_its_levels_on_a_logarithmic_scale(bits: int) -> None:
    ramp = Clips(torch.arange(-32768, 32768).to(torch.int16)[None, None], RATE)
    levels = MuLaw(bits)(ramp, stream(0)).samples.unique()
    assert len(levels) == 2**bits - 1 and 0 in levels
    assert torch.equal(levels[1:-1], -levels[1:-1].flip(0)) and levels[[0, -1]].tolist() == [-32768, 32767]
    steps = levels.double().diff()
    growth = 256 ** (1 - 1 / (2 ** (bits - 1) - 1))  # of the last step over the first
    assert float(steps[-1] / steps[len(steps) // 2]) == pytest.approx(growth, rel=0.1)
    if bits == 8:
        assert 36 < snr_db(sine(-12), MuLaw(8)(sine(-12), stream(0))) < 40, "what G.711 reaches"


def test_bit_crush_holds_and_the_median_is_scipys() -> None:
    x = NOTES.samples[0, 0]
    held = BitCrush(4)(NOTES, stream(0)).samples[0, 0]
    assert torch.equal(held, x[::4].repeat_interleave(4)[: len(x)])
    for window in (3, 9):
        found = MedianSmoothing(window)(NOTES, stream(0)).samples[0, 0].numpy()
        expected = medfilt(x.double().numpy(), window)
        assert (found[window:-window] == expected[window:-window]).all()


@pytest.mark.parametrize("gain", [6.0, -9.0, 18.0])
def test_a_parametric_equaliser_has_its_gain_at_its_centre(gain: float) -> None:
    def measured(hz: float, attack: ContentAttack) -> float:
        return peak_db(attack(sine(-24, hz), stream(0))) - peak_db(sine(-24, hz))

    assert measured(1000, ParametricEqualiser(gain)) == pytest.approx(gain, abs=0.1)
    assert abs(measured(50, ParametricEqualiser(gain))) < 0.3 and abs(measured(7500, ParametricEqualiser(gain))) < 0.6
    assert measured(3000, ParametricEqualiser(gain, 3000, 4)) == pytest.approx(gain, abs=0.1)
    assert measured(150, BarkEqualiser(6)) in (pytest.approx(6, abs=0.1), pytest.approx(-6, abs=0.1))
    with pytest.raises(UserError, match="must lie above 0, found -1"):
        ParametricEqualiser(3.0, -1)


def test_every_clip_gets_other_bands_and_moves_by_nothing() -> None:
    content = Clips(noise(1, RATE).samples.repeat(2, 1, 1), RATE)
    first, second = BarkEqualiser(6)(content, stream(0)).unit()[:, 0]
    assert not torch.equal(first, second) and lag(content.unit()[0, 0], first) == 0


def test_a_phasers_copy_is_all_pass_and_wanders() -> None:
    content = noise(1, RATE)
    copy = 2 * Phaser(1.0)(content, stream(0)).unit() - content.unit()
    assert level_db(copy) == pytest.approx(level_db(content.unit()), abs=0.2)
    assert level_db(copy - content.unit()) > level_db(content.unit()) - 3


def test_phases_are_moved_and_magnitudes_are_not() -> None:
    turned = PhaseRotation(90)(sine(-6, 1000), stream(0))
    quarter = sine(-6, 1000).unit().roll(-4, -1)  # a quarter of 16 samples
    assert level_db((turned.unit() - quarter)[..., MIDDLE]) < -40
    assert snr_db(Polarity()(NOTES, stream(0)), PhaseRotation(180)(NOTES, stream(0))) > 80
    back = PhaseRotation(-60)(PhaseRotation(60)(NOTES, stream(0)), stream(0))
    assert level_db((back.unit() - NOTES.unit())[..., 2000:-2000]) < level_db(NOTES.unit()) - 30
    twins = Clips(noise(1, RATE).samples.expand(1, 2, -1).contiguous(), RATE)
    left, right = PhaseNoise(1.0)(twins, stream(0)).samples[0]
    assert torch.equal(left, right), "where it is between two loudspeakers stays"


@pytest.mark.parametrize("make", [SpectralSubtraction, WienerDenoise])
def test_cleaning_takes_noise_away_and_little_else(make: type[SpectralSubtraction] | type[WienerDenoise]) -> None:
    bursts = notes(1, 2 * RATE, RATE).unit() * (torch.arange(2 * RATE) % 8000 < 5000)
    clean = Clips.from_unit(bursts, RATE)
    noisy = WhiteNoise(10)(clean, stream(0))
    assert snr_db(clean, make(2.0)(noisy, stream(0))) > 14
    assert snr_db(clean, make(1.0)(clean, stream(0))) > 20


def test_over_the_air_reverberation_rises_by_6_db_as_the_distance_doubles() -> None:
    rest = []
    for distance in (0.25, 0.5, 1.0):
        room = room_response(distance, RATE).double()
        assert float(room[0]) == pytest.approx(1, abs=1e-6), "the direct sound, at its time"
        rest.append(float(10 * room[8:].square().sum().log10()))
        energy = room[8:].square().flip(0).cumsum(0).flip(0)
        decay = 10 * (energy / energy[0]).clamp_min(1e-9).log10()
        fall = int((decay < -5).nonzero()[0]), int((decay < -25).nonzero()[0])
        assert 0.2 < 3 * (fall[1] - fall[0]) / RATE < 0.6, "reverberation time of a furnished room, in seconds"
    assert rest[1] - rest[0] == pytest.approx(6, abs=1) and rest[2] - rest[1] == pytest.approx(6, abs=1)


def test_over_the_air_starts_with_the_direct_sound_and_has_the_noise_it_says() -> None:
    content = noise(1, RATE)
    recorded = [OverTheAir(1.0)(content, stream(seed)).unit()[0, 0] for seed in (0, 1)]
    assert lag(content.unit()[0, 0], recorded[0]) == 0
    hiss = level_db(recorded[0] - recorded[1]) - 10 * math.log10(2)
    assert level_db(recorded[0]) - hiss == pytest.approx(40 - 20 * math.log10(4), abs=0.3)
    assert peak_db(OverTheAir(0.25)(sine(-20, 50), stream(0))) < -50, "small loudspeakers have no bass"


SILENT_PARTS = [
    (Babble(80), 70),
    (Mixing(80), 70),
    (Compressor(0), math.inf),
    (Expander(-90), math.inf),
    (Limiter(0), math.inf),
    (Tremolo(0), math.inf),
    (RingModulator(0), math.inf),
    (Distortion(-40), 60),
    (MuLaw(16), 60),
    (BitCrush(1), math.inf),
    (MedianSmoothing(1), math.inf),
    (ParametricEqualiser(0), math.inf),
    (BarkEqualiser(0), math.inf),
    (Phaser(0), math.inf),
    (PhaseNoise(0), 60),
    (PhaseRotation(0), math.inf),
    (SpectralSubtraction(0), 60),
]


@pytest.mark.parametrize(("attack", "least_db"), SILENT_PARTS, ids=repr)
def test_an_attack_of_no_strength_does_next_to_nothing(attack: ContentAttack, least_db: float) -> None:
    assert snr_db(NOTES, attack(NOTES, stream(0))) >= least_db


def test_the_end_does_not_come_around_to_the_start() -> None:
    last = Clips(impulse(0.9, 4096).samples.flip(-1), RATE)
    for attack in (ParametricEqualiser(12), OverTheAir(0.05)):
        assert attack(last, stream(0)).samples[..., :1024].abs().max() <= 30
