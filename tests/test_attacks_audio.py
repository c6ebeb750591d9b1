from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from attacks import ATTACKS, LISTED, Tools, families, families_for
from attacks.audio import (
    AAC,
    MP3,
    AudioRegeneration,
    BandPass,
    BitDepth,
    Clipping,
    Crop,
    Echo,
    Gain,
    GriffinLim,
    HighPass,
    LowPass,
    Opus,
    PinkHiss,
    PinkNoise,
    PitchShift,
    Polarity,
    Resample,
    Reverb,
    Smoothing,
    Speed,
    TimeShift,
    TimeStretch,
    Vorbis,
    WhiteHiss,
    WhiteNoise,
)
from attacks.audio_resynthesis import mel_filters
from attacks.audio_stft import spectra
from bench.naming import attack_name, attack_strength
from bench.protocol import AttackFamily, Clips, ContentAttack, UserError
from bench.rng import stream
from tests.clips import RATE, impulse, level_db, noise, notes, snr_db, tone


def softened(content: Clips) -> Clips:
    """Stands in for an autoencoder: loses detail at each pass."""
    return Smoothing(5)(content, stream(0))


def spectral_distance(a: Clips, b: Clips) -> float:
    """Root mean square difference of log spectra, in dB."""
    x, y = (20 * spectra(clips.unit().flatten(0, 1), 512).abs().clamp_min(1e-2).log10() for clips in (a, b))
    return float((x - y).square().mean().sqrt())


NOTES = notes(3, 12_001, RATE)
BATCHES = {
    "mono": NOTES,
    "stereo": notes(2, 4_411, 44_100, channels=2),
    "one sample": Clips(torch.full((2, 1, 1), 1000, dtype=torch.int16), RATE),
    "silent": Clips(torch.zeros(1, 2, 3_000, dtype=torch.int16), 8_000),
}
OTHERS = {"encodec", "dac", "vocoder", "wave-square", "wave-pgd"}
"""What needs weights or a reader; see test_attacks_audio_networks.py."""
FAMILIES = [
    family
    for family in families_for("audio", Tools(reconstruct=softened)).values()
    if family.target == "content" and family.name not in OTHERS
]
CELLS = [
    pytest.param(f.make(s), id=f"{f.name}-{s:g}")
    for f in FAMILIES
    for s in (f.strengths if "quick" in f.suites else {f.strengths[f.quick]: None, f.strengths[-1]: None})
]
HUMMING = {"GSM": 1300, "AMR": 4, "G726": 16, "WhiteHiss": 32767, "PinkHiss": 32767}
"""Loudest sample that an attack may make of silence: GSM coders hum, and the next one in a row makes more of it."""
EITHER = {
    *("phase-rotation", "repeated-mp3", "gsm", "landline", "bit-crush"),
    *("spectral-subtraction", "wiener-denoise"),
}
"""What hardly shows in spectra after the first time, or never, may show in waves instead."""


@pytest.mark.parametrize("attack", CELLS)
def test_attack_contract(attack: ContentAttack) -> None:
    assert isinstance(attack, ContentAttack) and attack.target == "content"
    assert dataclasses.is_dataclass(attack) and hash(attack) == hash(dataclasses.replace(attack))
    for name, content in BATCHES.items():
        before = content.samples.clone()
        once, again = attack(content, stream(0)), attack(content, stream(0))
        assert isinstance(once, Clips) and once.rate_hz == content.rate_hz
        assert once.samples.shape == before.shape and once.samples.dtype == torch.int16
        assert once.samples.is_contiguous()
        assert torch.equal(once.samples, again.samples), "same stream, same damage"
        assert torch.equal(content.samples, before), "the input was modified in place"
        assert name != "mono" or not torch.equal(once.samples, before), "the attack did nothing"
        loudest = int(once.samples.int().abs().max())
        assert name != "silent" or loudest <= HUMMING.get(attack_name(attack), 1), "silence has become loud"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_clip_does_not_depend_on_its_neighbours(family: AttackFamily) -> None:
    attack = family.make(family.strengths[family.quick])
    others = Clips(torch.cat([NOTES.samples[:1], noise(2, 12_001).samples]), RATE)
    assert torch.equal(attack(NOTES, stream(0)).samples[0], attack(others, stream(0)).samples[0])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_stronger_attack_does_more_damage(family: AttackFamily) -> None:
    attacked = [family.make(strength)(NOTES, stream(0)) for strength in family.strengths]
    measured = [[spectral_distance(NOTES, clips) for clips in attacked]]
    if family.name == "linear-prediction":  # nothing of the wave is left at any order
        assert min(measured[0]) > 12
        return
    if family.name in EITHER:
        measured.append([-snr_db(NOTES, clips) for clips in attacked])
    assert any(rises(values) for values in measured), measured


def rises(values: list[float]) -> bool:
    """Never by less than half a decibel below the one before, and by more than one in all."""
    steady = all(after > before - 0.5 for before, after in itertools.pairwise(values))
    return steady and (len(values) == 1 or values[-1] > values[0] + 1)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_lists_what_it_makes(family: AttackFamily) -> None:
    assert family.modality == "audio" and 0 <= family.quick < len(family.strengths)
    assert len(set(family.strengths)) == len(family.strengths)
    for strength in family.strengths:
        attack = family.make(strength)
        assert repr(attack) == repr(family.make(float(strength))), "one attack, two names"
        assert attack_strength(attack) == strength or family.name in ("polarity", "reversal")
    kebab = "".join(f"-{c.lower()}" if c.isupper() else c for c in attack_name(attack)).lstrip("-")
    assert family.name in (kebab, attack_name(attack).lower())
    assert family.card.endswith(".") and family.source and family.needs
    assert set(family.standard) <= set(family.strengths)


def test_the_phone_book() -> None:
    assert "audio-regeneration" not in ATTACKS
    assert {"regeneration", "audio-regeneration"} < families(LISTED).keys()
    assert "regeneration" not in families_for("audio", Tools(reconstruct=softened))
    assert {family.modality for family in families_for("audio").values()} == {"audio", "any"}


NEAR_IDENTITY = [
    (WhiteNoise(80), 70),
    (PinkNoise(80), 70),
    (MP3(160), 25),
    (AAC(96), 25),
    (Opus(256), 20),
    (Vorbis(10), 30),
    (Resample(16_000), math.inf),
    (LowPass(8_000), math.inf),
    (HighPass(1), 65),
    (BandPass(1, 8_000), 65),
    (Smoothing(1), math.inf),
    (BitDepth(16), math.inf),
    (Gain(0), math.inf),
    (Clipping(1), math.inf),
    (Echo(0), math.inf),
    (Reverb(200), math.inf),
    (TimeStretch(1), 60),
    (PitchShift(0), 60),
    (Speed(1), math.inf),
    (TimeShift(0), math.inf),
    (Crop(1), math.inf),
]


@pytest.mark.parametrize(("attack", "least_db"), NEAR_IDENTITY, ids=repr)
def test_an_attack_of_no_strength_does_next_to_nothing(attack: ContentAttack, least_db: float) -> None:
    assert snr_db(NOTES, attack(NOTES, stream(0))) >= least_db


BAD = [
    lambda: WhiteNoise(math.nan),
    lambda: PinkNoise(-200),
    lambda: MP3(4),
    lambda: MP3(33),
    lambda: AAC(2),
    lambda: Opus(5),
    lambda: Vorbis(-1),
    lambda: Resample(0),
    lambda: LowPass(0),
    lambda: HighPass(-1),
    lambda: BandPass(500, 400),
    lambda: Smoothing(4),
    lambda: BitDepth(17),
    lambda: Gain(101),
    lambda: Clipping(0),
    lambda: Clipping(1.1),
    lambda: Echo(1.1),
    lambda: Echo(0.5, 0),
    lambda: Reverb(math.nan),
    lambda: TimeStretch(0),
    lambda: PitchShift(37),
    lambda: Speed(11),
    lambda: TimeShift(-0.1),
    lambda: Crop(0),
    lambda: GriffinLim(1),
    lambda: AudioRegeneration(0, softened),
]


@pytest.mark.parametrize("make", BAD)
def test_an_absurd_strength_is_refused_in_one_line(make: Callable[[], object]) -> None:
    with pytest.raises(UserError, match=r"^\w+\(.*\): the [a-z ]+ must .*, found .*$"):
        make()


@pytest.mark.parametrize("make", [WhiteNoise, PinkNoise])
@pytest.mark.parametrize("db", [30, 10, 0])
def test_noise_has_the_power_it_says_in_every_clip(make: Callable[[float], ContentAttack], db: float) -> None:
    content = Clips(
        notes(3, RATE, RATE, channels=2).samples // torch.tensor([2, 4, 8], dtype=torch.int16)[:, None, None], RATE
    )
    attacked = make(db)(content, stream(0))
    for item in range(3):
        assert snr_db(content[item : item + 1], attacked[item : item + 1]) == pytest.approx(db, abs=0.1)


@pytest.mark.parametrize("make", [WhiteHiss, PinkHiss])
def test_hiss_has_the_level_it_says_whatever_the_clips_is(make: Callable[[float], ContentAttack]) -> None:
    content = Clips(torch.cat([NOTES.samples, NOTES.samples // 50]), RATE)
    added = make(0.02)(content, stream(0)).unit() - content.unit()
    assert torch.allclose(added.std(-1), torch.tensor(0.02), rtol=0.02)


def slope(attack: ContentAttack) -> tuple[float, Tensor]:
    """Decibels per decade, 50 Hz to 5 kHz, and the power spectrum at 0, 7.8, ... Hz of what is added."""
    content = tone(1000, seconds=16)
    added = attack(content, stream(0)).unit() - content.unit()
    power = spectra(added[0], 2048).abs().square().mean((0, 2)).double()
    f = torch.arange(1025) * RATE / 2048
    band = (f > 50) & (f < 5000)
    weights = np.sqrt(1 / f[band].numpy())  # as many decades, as much weight
    return float(np.polyfit(f[band].log10(), 10 * power[band].log10(), 1, w=weights)[0]), power


def test_pink_noise_falls_by_10_db_per_decade_and_white_noise_does_not_fall() -> None:
    pink, power = slope(PinkNoise(10))
    assert pink == pytest.approx(-10, abs=1)
    assert power[0] < 0.01 * power[4:8].mean(), "nothing below what ears hear"
    white, _ = slope(WhiteNoise(10))
    assert white == pytest.approx(0, abs=1)


@pytest.mark.parametrize("bits", [4, 8, 12])
def test_bit_depth_leaves_the_levels_of_that_depth(bits: int) -> None:
    step = 2 ** (16 - bits)
    content = Clips(torch.randint(-32768, 32767 - step, (1, 1, 50_000), generator=stream(0)).to(torch.int16), RATE)
    attacked = BitDepth(bits)(content, stream(0)).samples
    assert (attacked % step == 0).all()
    error = (attacked.int() - content.samples.int()).double()
    assert float(error.abs().max()) == step / 2
    assert float(error.square().mean()) == pytest.approx(step**2 / 12, rel=0.1)
    loud = BitDepth(bits)(Clips(torch.full((1, 1, 1), 32767, dtype=torch.int16), RATE), stream(0))
    assert int(loud.samples) == 32768 - step, "clipped, not wrapped around"


def test_gain_changes_the_level_and_clips() -> None:
    for db in (-12, -3, 6):
        assert level_db(Gain(db)(NOTES, stream(0)).unit()) - level_db(NOTES.unit()) == pytest.approx(db, abs=0.01)
    loud = Gain(60)(NOTES, stream(0)).samples.int()
    assert loud.min() == -32768 and loud.max() == 32767
    assert (loud.sign() == NOTES.samples.sign()).all(), "clipped, not wrapped around"


@pytest.mark.parametrize("threshold", [0.75, 0.3, 0.1])
def test_clipping_stops_at_its_share_of_each_peak(threshold: float) -> None:
    content = Clips(NOTES.samples // torch.tensor([1, 2, 4], dtype=torch.int16)[:, None, None], RATE)
    attacked = Clipping(threshold)(content, stream(0)).samples.int()
    before = content.samples.int()
    for item, clipped in zip(before, attacked, strict=True):
        limit = threshold * float(item.abs().max())
        assert float(clipped.abs().max()) == pytest.approx(limit, abs=0.51)
        below = item.abs() < limit
        assert torch.equal(clipped[below], item[below]) and not below.all()


def test_polarity_turned_twice_is_the_original() -> None:
    turned = Polarity()(NOTES, stream(0))
    assert torch.equal(turned.samples, -NOTES.samples)
    assert torch.equal(Polarity()(turned, stream(0)).samples, NOTES.samples)
    lowest = Clips(torch.full((1, 1, 2), -32768, dtype=torch.int16), RATE)
    assert Polarity()(lowest, stream(0)).samples.unique().tolist() == [32767]
    assert math.isnan(attack_strength(Polarity()))


def test_echo_is_one_copy_of_that_volume_at_that_time() -> None:
    attacked = Echo(0.3, 0.25)(impulse(), stream(0)).unit()[0, 0]
    assert attacked.nonzero().flatten().tolist() == [0, RATE // 4]
    assert float(attacked[RATE // 4] / attacked[0]) == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("db", [12, 0])
def test_reverb_has_the_direct_to_reverberant_ratio_it_says(rate_hz: int, db: float) -> None:
    attacked = Reverb(db)(impulse(0.9, rate_hz, rate_hz), stream(0)).unit()[0, 0].double()
    direct, reverberant = attacked[: rate_hz // 1000], attacked[rate_hz // 1000 :]
    assert float(10 * (direct.square().sum() / reverberant.square().sum()).log10()) == pytest.approx(db, abs=0.1)
    assert float(attacked[0]) == pytest.approx(0.9, abs=0.02), "the direct sound stays what and where it was"
    energy = reverberant.square().flip(0).cumsum(0).flip(0)
    assert 10 * (energy[rate_hz // 10] / energy[0]).log10() < -12, "it dies away"
    assert energy[rate_hz // 2] < 1e-6


@pytest.mark.parametrize("bands", [128, 40])
def test_griffin_lim_keeps_the_mel_bands_and_not_the_wave(bands: int) -> None:
    attacked = GriffinLim(bands)(NOTES, stream(0))
    filters = mel_filters(bands, 1024, RATE)
    before, after = (filters @ spectra(clips.unit()[:, 0], 1024).abs() for clips in (NOTES, attacked))
    assert level_db(after - before) < level_db(before) - 15
    assert snr_db(NOTES, attacked) < 0
    assert not torch.equal(GriffinLim(bands)(NOTES, stream(1)).samples, attacked.samples), "phases are random"
    assert torch.allclose(mel_filters(40, 1024, RATE)[:, 4:460].sum(0), torch.ones(456)), "bands share the spectrum out"


def test_regeneration_repeats_the_pass_on_published_clips() -> None:
    expected = NOTES
    for _ in range(3):
        expected = softened(expected)
    assert torch.equal(AudioRegeneration(3, softened)(NOTES, stream(0)).samples, expected.samples)
    assert repr(AudioRegeneration(2, softened)) == "AudioRegeneration(passes=2)"
    assert AudioRegeneration(2, softened) == AudioRegeneration(2, lambda x: x) != AudioRegeneration(1, softened)
    with pytest.raises(ValueError, match=r"reconstructed clips .*8000\), expected .*16000\)"):
        AudioRegeneration(1, lambda clips: Clips(clips.samples, 8000))(NOTES, stream(0))
