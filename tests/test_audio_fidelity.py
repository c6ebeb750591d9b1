"""Fidelity of clips: SI-SDR against torchmetrics, log-spectral distance against NumPy, ViSQOL's edges."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal.windows import hann
from torch import Tensor
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from bench.protocol import Clips, UserError
from bench.rng import stream
from modalities.audio import fidelity
from modalities.audio.fidelity import log_spectral_distance, paired, si_sdr, visqol
from modalities.audio.spectra import mel_distance

SAMPLES = 16_384


def waves(n: int, *what: object, channels: int = 1) -> Tensor:
    return 0.1 * torch.randn(n, channels, SAMPLES, generator=stream(0, "waves", *what))


def clips(x: Tensor, rate_hz: int = 16_000) -> Clips:
    return Clips.from_unit(x, rate_hz)


def test_paired_columns_in_order() -> None:
    a, b = clips(waves(3, "a")), clips(waves(3, "a") + 0.1 * waves(3, "b"))
    found = paired(a, b)
    assert list(found) == ["si_sdr", "lsd", "mel"]
    assert all(value.shape == (3,) and value.dtype == torch.float32 for value in found.values())
    assert found["si_sdr"].tolist() == pytest.approx([20.0] * 3, abs=0.3)
    assert torch.equal(found["mel"], mel_distance(a.unit()[:, 0], b.unit()[:, 0], 16_000))
    alone = paired(a[1:2], b[1:2])
    assert all(torch.allclose(alone[name], found[name][1:2], rtol=1e-4) for name in found)


def test_equal_clips_cost_nothing() -> None:
    a = clips(waves(2, "a", channels=2))
    found = paired(a, a)
    assert found["si_sdr"].tolist() == [100, 100]
    assert found["lsd"].tolist() == [0, 0] and found["mel"].tolist() == [0, 0]


@pytest.mark.parametrize("snr_db", (-20, 0, 30))
def test_si_sdr_is_that_of_torchmetrics(snr_db: float) -> None:
    a = waves(4, "a").double() + 0.02  # an offset, since means are not subtracted
    b = 0.7 * a + 10 ** (-snr_db / 20) * waves(4, "b")
    theirs = scale_invariant_signal_distortion_ratio(b[:, 0], a[:, 0], zero_mean=False)
    assert torch.allclose(si_sdr(a, b), theirs, atol=1e-6)


def test_si_sdr_of_orthogonal_noise_has_a_closed_form() -> None:
    """A sine and a cosine of a tenth of its amplitude: 20 dB, whatever either's level and sign."""
    phase = 2 * math.pi * 50 * torch.arange(SAMPLES, dtype=torch.float64) / SAMPLES
    a, b = phase.sin().view(1, 1, -1), (phase.sin() + 0.1 * phase.cos()).view(1, 1, -1)
    for gain, other in ((1, 1), (0.01, 1), (1, 0.003), (1, -1)):
        assert float(si_sdr(gain * a, other * b)) == pytest.approx(20.0, abs=1e-9)
    assert float(si_sdr(a, phase.cos().view(1, 1, -1))) < -100 + 1e-9


def test_si_sdr_scales_channels_together() -> None:
    a = waves(1, "a", channels=2)
    assert float(si_sdr(a, 0.5 * a)) == 100
    assert float(si_sdr(a, a * torch.tensor([1.0, 0.5]).view(2, 1))) < 20


def test_silence_has_defined_values() -> None:
    sound, silence = waves(1, "a"), torch.zeros(1, 1, SAMPLES)
    assert [float(si_sdr(*pair)) for pair in ((silence, silence), (sound, silence), (silence, sound))] == [
        100,
        -100,
        -100,
    ]
    for pair in ((silence, silence), (sound, silence), (silence, sound)):
        assert all(bool(value.isfinite().all()) for value in paired(clips(pair[0]), clips(pair[1])).values())
    assert float(log_spectral_distance(silence, silence, 16_000)) == 0


def test_the_last_of_16_bits_stays_below_the_limit() -> None:
    """One step in every other sample of noise at -20 dB: 20 log10(0.1 * 32768) + 10 log10(2) = 73.3 dB."""
    a = clips(waves(1, "a"))
    samples = a.samples.clone()
    samples[..., ::2] += 1
    assert float(paired(a, Clips(samples, 16_000))["si_sdr"]) == pytest.approx(73.3, abs=0.2)


@pytest.mark.parametrize("rate_hz", (8_000, 16_000, 44_100, 48_000))
def test_log_spectral_distance_of_a_gain_is_the_gain(rate_hz: int) -> None:
    a = waves(2, "a", channels=2)
    assert log_spectral_distance(a, 0.5 * a, rate_hz).tolist() == pytest.approx([20 * math.log10(2)] * 2, abs=0.02)


@pytest.mark.parametrize(("rate_hz", "size"), ((16_000, 512), (44_100, 2048)))
def test_log_spectral_distance_from_its_definition(rate_hz: int, size: int) -> None:
    a, b = waves(1, "a"), waves(1, "b")
    window = hann(size, sym=False)

    def levels(wave: Tensor) -> np.ndarray:
        padded = np.pad(wave[0, 0].double().numpy(), size // 2, mode="reflect")
        frames = np.stack([padded[at : at + size] for at in range(0, SAMPLES + 1, size // 4)])
        return 20 * np.log10(np.abs(np.fft.rfft(frames * window)) * 2 / window.sum())

    difference = np.maximum(levels(a), -80) - np.maximum(levels(b), -80)
    expected = np.sqrt((difference**2).mean(1)).mean()
    assert float(log_spectral_distance(a, b, rate_hz)) == pytest.approx(expected, rel=1e-3)


def test_what_is_far_below_hearing_does_not_count() -> None:
    silence, hum = torch.zeros(1, 1, SAMPLES), torch.zeros(1, 1, SAMPLES) + 1e-5
    assert float(log_spectral_distance(silence, hum, 16_000)) == 0


@pytest.mark.parametrize(
    "other", (clips(waves(1), 48_000), clips(waves(1)[..., :-1]), clips(waves(2)), clips(waves(1, channels=2)))
)
@pytest.mark.parametrize("compare", (paired, visqol))
def test_clips_that_cannot_be_compared_are_refused(compare: Any, other: Clips) -> None:
    with pytest.raises(UserError, match=r"expected one rate and shape, found 16000 Hz \(1, 1, 16384\) and"):
        compare(clips(waves(1)), other)


def test_visqol_hears_one_channel_at_48_khz(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[np.ndarray, np.ndarray, int]] = []

    class Api:
        def measure_from_arrays(self, *arguments: Any) -> SimpleNamespace:
            heard.append(arguments)  # type: ignore[arg-type]
            return SimpleNamespace(moslqo=3.5)

    monkeypatch.setattr(fidelity, "_visqol", Api)
    sound, silence = waves(1, "a", channels=2), torch.zeros(1, 2, SAMPLES)
    a, b = torch.cat([sound, silence, sound, silence]), torch.cat([0.5 * sound, silence, silence, sound])
    assert visqol(clips(a), clips(b)).tolist() == pytest.approx([3.5, 4.732101, 1.0, 1.0])
    ((x, y, rate_hz),) = heard
    assert x.shape == y.shape == (3 * SAMPLES,) and x.dtype == np.float64 and rate_hz == 48_000
    assert np.abs(y - 0.5 * x).max() < 1e-4


def test_visqol_needs_a_second() -> None:
    short = clips(waves(1)[..., :8000])
    with pytest.raises(UserError, match=r"clips of 1 s or more, found 0\.50 s"):
        visqol(short, short)


@pytest.mark.slow
def test_visqol_falls_with_noise() -> None:
    """A minute on a machine's first call, which compiles."""
    seconds = torch.arange(16_000) / 16_000
    tone = sum(0.2 / k * torch.sin(2 * math.pi * 220 * k * seconds) for k in range(1, 12)).view(1, 1, -1)
    noisy = [tone + level * torch.randn(tone.shape, generator=stream(0, "noise")) for level in (0, 0.003, 0.03)]
    scores = [float(visqol(clips(tone), clips(other))) for other in noisy]
    assert scores[0] == pytest.approx(fidelity.VISQOL_BEST, abs=1e-4)
    assert scores[0] > scores[1] > scores[2] >= 1
    assert float(visqol(clips(tone), clips(0.5 * tone))) == pytest.approx(scores[0], abs=0.05), "blind to level"
