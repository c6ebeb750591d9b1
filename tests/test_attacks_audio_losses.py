"""Attacks that lose, move or code: shares, rates and times are those that the label states."""

from __future__ import annotations

import math

import pytest
import torch

from attacks.audio_loss import (
    FrequencyMask,
    HeadSilence,
    PacketLoss,
    Reversal,
    SampleDeletion,
    SampleSuppression,
    Shuffle,
    TimeMask,
)
from attacks.audio_lpc import LinearPrediction, levinson
from attacks.audio_stft import spectra
from attacks.audio_telephone import AMR, G726, GSM, CodecChain, Landline, RepeatedMp3, encoded
from attacks.audio_warp import Chorus, Flanger, TimeJitter, Wow
from bench.protocol import Clips, ContentAttack, UserError
from bench.rng import stream
from tests.clips import RATE, impulse, lag, level_db, noise, notes, snr_db

NOTES = notes(3, 12_001, RATE)
LOUD = Clips(torch.full((16, 2, 8_000), 999, dtype=torch.int16), RATE)


def ramp(clips: int, slope: int, length: int = 8_000) -> Clips:
    line = slope * torch.arange(-length // 2, length // 2)
    return Clips(line.to(torch.int16).expand(clips, 1, length).contiguous(), RATE)


@pytest.mark.parametrize("std", [0.2, 0.5, 2.0])
def test_time_jitter_has_the_standard_deviation_it_says(std: float) -> None:
    moved = (TimeJitter(std)(ramp(16, 8, 4_000), stream(0)).samples - ramp(16, 8, 4_000).samples)[..., 20:-20] / 8
    rounding = 1 / 8 / 12**0.5
    assert math.sqrt(float(moved.square().mean()) - rounding**2) == pytest.approx(std, rel=0.02)


def test_wow_is_as_late_as_its_speed_makes_it() -> None:
    moved = (Wow(2.0, 4.0)(ramp(8, 4), stream(0)).samples - ramp(8, 4).samples)[..., 100:-100] / 4
    assert float(moved.abs().max()) == pytest.approx(0.02 * RATE / (2 * math.pi * 4), abs=0.2)
    assert len(moved[:, 0, 0].unique()) > 4, "each clip from another phase"
    pace = moved[..., 400:].double() - moved[..., :-400].double()
    assert float(pace.abs().max()) / 400 == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(("attack", "early_s", "late_s"), [(Flanger(0.5), 0.001, 0.005), (Chorus(0.5), 0.013, 0.032)])
def test_copies_have_their_level_and_their_delays(attack: ContentAttack, early_s: float, late_s: float) -> None:
    out = attack(impulse(0.9), stream(0)).unit()[0, 0]
    assert float(out[0]) == pytest.approx(0.9 / 1.5, abs=1e-3)
    copies = out[1:].nonzero().flatten() + 1
    assert early_s * RATE - 3 <= int(copies.min()) and int(copies.max()) <= late_s * RATE + 3
    assert float(out[1:].sum()) == pytest.approx(0.5 * 0.9 / 1.5, rel=0.05)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3])
def test_single_samples_are_lost_in_the_share_it_says(share: float) -> None:
    lost = SampleSuppression(share)(LOUD, stream(0)).samples == 0
    assert (lost.sum(-1) == round(share * 8_000)).all() and torch.equal(lost[:, 0], lost[:, 1])
    assert len({tuple(row.nonzero().flatten().tolist()[:3]) for row in lost[:, 0]}) > 8, "at other places in each clip"


def test_packets_are_lost_whole() -> None:
    lost = PacketLoss(0.2)(LOUD, stream(0)).samples[:, 0].unfold(-1, 320, 320) == 0  # (B, packets, 320)
    assert torch.equal(lost.any(-1), lost.all(-1)) and (lost.all(-1).sum(-1) == 5).all()


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_a_time_mask_is_one_gap_of_its_share_anywhere(share: float) -> None:
    gap = TimeMask(share)(LOUD, stream(0)).samples[:, 0] == 0
    assert (gap.sum(-1) == round(share * 8_000)).all()
    assert ((gap[:, 1:].int() - gap[:, :-1].int()).abs().sum(-1) <= 2).all()
    starts = gap.byte().argmax(-1).double()
    assert float(starts.max() - starts.min()) > 0.5 * 8_000 * (1 - share)
    head = HeadSilence(share)(LOUD, stream(0)).samples == 0
    assert torch.equal(head, (torch.arange(8_000) < round(share * 8_000)).expand(16, 2, -1))


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_a_frequency_mask_takes_its_share_of_the_band(share: float) -> None:
    content = Clips.from_unit(0.1 * torch.randn(4, 1, 4 * RATE, generator=stream(0, "flat")), RATE)
    before, after = (
        spectra(clips.unit()[:, 0], 1024).abs().square().mean(-1)
        for clips in (content, FrequencyMask(share)(content, stream(0)))
    )
    gone = after < 0.01 * before
    assert ((gone.sum(-1).double() / 513 - share).abs() < 4 / 513).all()
    assert float((after / before)[~gone].median()) == pytest.approx(1, abs=0.01)


def test_deleted_samples_close_up() -> None:
    out = SampleDeletion(100)(ramp(8, 1), stream(0)).samples[:, 0]
    kept = 8_000 - 50
    assert (out[:, :kept].diff(dim=-1) >= 1).all() and (out[:, kept:] == 0).all()
    assert (out[:, :kept].diff(dim=-1) - 1).sum(-1).ge(40).all(), "what is missing is missing inside"


def test_swapping_or_turning_twice_gives_the_clip_back() -> None:
    for attack in (Shuffle(0.01), Reversal()):
        once = attack(NOTES, stream(0))
        assert torch.equal(attack(once, stream(0)).samples, NOTES.samples)
    swapped = Shuffle(0.01)(NOTES, stream(0)).samples
    assert torch.equal(swapped[..., :160], NOTES.samples[..., 160:320])


def voiced() -> Clips:
    """White from 300 Hz to 3.4 kHz, whose phases tell where it is."""
    spectrum = torch.fft.rfft(torch.randn(1, 1, 2 * RATE, generator=stream(0, "voiced")))
    f = torch.arange(spectrum.shape[-1]) / 2
    x = torch.fft.irfft(spectrum * ((f > 300) & (f < 3400)), 2 * RATE)
    return Clips.from_unit(0.4 * x / x.abs().max(), RATE)


@pytest.mark.parametrize("attack", [GSM(1), AMR(12.2), AMR(4.75), G726(40), G726(16), Landline(1)], ids=repr)
def test_telephones_keep_time_and_have_no_treble(attack: ContentAttack) -> None:
    content = voiced()
    after = attack(content, stream(0))
    assert lag(content.unit()[0, 0], after.unit()[0, 0]) == 0
    # What a code of 95 bits for 20 ms cannot follow in noise comes out softer.
    assert -8 < level_db(after.unit()) - level_db(content.unit()) < 3
    wide = noise(1, RATE)
    power = spectra(attack(wide, stream(0)).unit()[:, 0], 1024).abs().square().mean(-1)[0]
    assert power[262:].sum() < 1e-3 * power.sum(), "nothing above 4.1 kHz"


@pytest.mark.parametrize(("kbps", "size"), [(4.75, 13), (5.9, 16), (7.95, 21), (12.2, 32)])
def test_amr_frames_have_the_size_of_their_mode(kbps: float, size: int) -> None:
    wave = voiced().unit()[0, 0, ::2].numpy()
    data = encoded(wave, "libopencore_amrnb", "amr", kbps)
    assert data.startswith(b"#!AMR\n") and (len(data) - 6) % size == 0
    assert (len(data) - 6) // size == pytest.approx(len(wave) / 160, abs=1)


@pytest.mark.parametrize("kbps", [16, 24, 32, 40])
def test_g726_spends_the_bits_it_says(kbps: int) -> None:
    wave = voiced().unit()[0, 0, ::2].numpy()
    assert len(encoded(wave, "g726", "wav", kbps)) * 8 / 2000 == pytest.approx(kbps, rel=0.03)


def test_telephones_get_worse_as_they_should() -> None:
    content = voiced()
    for milder, stronger in ((G726(40), G726(16)), (Landline(1), Landline(8)), (AMR(12.2), AMR(4.75))):
        assert snr_db(content, milder(content, stream(0))) > snr_db(content, stronger(content, stream(0))) + 1
    for make in (lambda: AMR(8.0), lambda: G726(20)):
        with pytest.raises(UserError, match=r"the bit rate must be one of .*, found"):
            make()


def test_chains_of_coders_keep_time_and_lose_more_than_their_parts() -> None:
    content = noise(1, RATE)
    for attack in (CodecChain(32), RepeatedMp3(3)):
        assert lag(content.unit()[0, 0], attack(content, stream(0)).unit()[0, 0]) == 0
    assert snr_db(content, RepeatedMp3(5)(content, stream(0))) < snr_db(content, RepeatedMp3(1)(content, stream(0)))
    with pytest.raises(UserError, match="must be one of"):
        CodecChain(33)


def test_levinson_solves_the_normal_equations() -> None:
    x = torch.randn(2, 500, generator=stream(0, "ar")).double()
    r = torch.stack([(x[:, lag_:] * x[:, : 500 - lag_]).sum(1) for lag_ in range(7)], 1)  # (2, 7)
    a, error = levinson(r[..., None])
    for item in range(2):
        matrix = torch.stack([r[item, (torch.arange(6) - row).abs()] for row in range(6)])
        expected = torch.linalg.solve(matrix + 1e-4 * r[item, 0] * torch.eye(6), -r[item, 1:])
        assert torch.allclose(a[item, 1:, 0], expected, atol=1e-6)
    assert (error[:, 0] > 0).all() and (error[:, 0] < r[:, 0] * 1.001).all()


def test_linear_prediction_keeps_pitch_level_and_colour_and_not_the_wave() -> None:
    t = torch.arange(RATE, dtype=torch.float64) / RATE
    pulses = sum(
        torch.cos(2 * math.pi * 125 * k * t + k * k) / (1 + ((125 * k - 700) / 200) ** 2) for k in range(1, 28)
    )
    content = Clips.from_unit((0.1 * pulses)[None, None].float(), RATE)  # type: ignore[union-attr]
    out = LinearPrediction(10)(content, stream(0))
    assert level_db(out.unit()) == pytest.approx(level_db(content.unit()), abs=3)
    x = out.unit()[0, 0, 4000:12_000]
    match = torch.fft.irfft(torch.fft.rfft(x, 32_768).abs().square())[64:400]
    assert int(match.argmax()) + 64 == pytest.approx(RATE / 125, abs=2)
    peak = torch.fft.rfft(x * torch.hann_window(len(x))).abs()
    smooth = peak.unfold(0, 125, 25).mean(-1)
    assert float(smooth.argmax() * 25 + 62) * 2 == pytest.approx(700, abs=150), "the resonance is where it was"
    assert snr_db(content, out) < 3
