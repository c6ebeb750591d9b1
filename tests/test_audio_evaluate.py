"""The measures of the embedded text-to-audio generator, on sounds whose answer is known."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from bench.protocol import Clips
from bench.rng import stream
from modalities.audio import data, families
from modalities.audio.evaluate import griffin_lim, heard_pitch, in_tune
from modalities.audio.families import FamilyClassifier
from modalities.audio.notes import Note, every_note
from modalities.audio.pictures import spectrograms
from modalities.audio.spectra import amplitudes, mel_distance, mel_spectrum, stft_distance

TIME = torch.arange(data.LENGTH) / data.RATE_HZ


def harmonic(hz: float) -> Tensor:
    """A decaying tone of six harmonics, (32768,)."""
    return sum((0.3 / k * (2 * math.pi * k * hz * TIME).sin() * (-2 * TIME).exp() for k in range(1, 7)), start=0 * TIME)


def test_amplitudes_are_those_of_sines() -> None:
    for size in (256, 2048):
        found = amplitudes((0.25 * (2 * math.pi * 1000 * TIME).sin())[None], size)[0, :, 10:-10]
        assert float(found.amax(0).min()) == pytest.approx(0.25, rel=0.01)
        assert int(found.mean(1).argmax()) == 1000 * size // data.RATE_HZ


def test_spectral_distances_grow_with_damage_and_do_not_depend_on_level() -> None:
    a = torch.stack([harmonic(220), harmonic(330)])
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(0))
    for distance in (stft_distance, mel_distance):
        found = [distance(a, a + level * noise) for level in (0, 1e-3, 1e-2, 1e-1)]
        assert float(found[0].max()) < 1e-5
        assert all(bool((x < y).all()) for x, y in itertools.pairwise(found))


def test_mel_bands_rise_with_frequency() -> None:
    tones = torch.stack([(2 * math.pi * hz * TIME).sin() for hz in (100, 300, 1000, 3000, 7000)])
    bands = mel_spectrum(tones).mean(2).argmax(1).tolist()
    assert bands == sorted(set(bands)) and bands[0] < 5 and bands[-1] > 70


def test_a_griffin_lim_inversion_keeps_the_spectrum_and_loses_detail() -> None:
    x = torch.stack([harmonic(220), harmonic(330)])
    fine, coarse = griffin_lim(x, 80, 256), griffin_lim(x, 16, 512)
    assert fine.shape == x.shape and torch.equal(coarse, griffin_lim(x, 16, 512))
    assert bool((mel_distance(x, fine) < mel_distance(x, coarse)).all())
    assert bool((stft_distance(x, fine) < stft_distance(x, torch.zeros_like(x))).all())


def test_a_classifier_is_trained_on_rough_clips() -> None:
    """Noise 6 to 40 dB below the envelope and a little everywhere, and the same again from the same stream."""
    x = torch.stack([harmonic(220), harmonic(330)] * 16)[:, None]
    x[:, :, 20_000:] = 0
    rough = families.roughened(x, stream(0))
    assert rough.shape == x.shape and torch.equal(rough, families.roughened(x, stream(0)))
    added_db = 10 * ((rough - x)[..., :16_000].square().mean(2) / x[..., :16_000].square().mean(2)).log10()
    assert -45 < float(added_db.min()) < float(added_db.max()) < 8, "the filter alone may double the level"
    tail = rough[..., 21_000:].square().mean(2).sqrt() / x.square().mean(2).sqrt()
    assert float(tail.min()) > 0 and float(tail.max()) < 0.2


def test_a_classifier_has_a_logit_for_every_family_and_ignores_level() -> None:
    model = FamilyClassifier().eval()
    with torch.no_grad():
        logits = model(harmonic(220)[None, None])
        assert logits.shape == (1, 16)
        assert torch.allclose(model(0.2 * harmonic(220)[None, None]), logits, atol=2e-2)
    notes = [note for note in every_note() if note.key == 60][:200]
    assert [families.NAMES[i] for i in families.truth(notes).tolist()] == [note.family for note in notes]


def test_spectrogram_pictures_show_low_notes_low() -> None:
    waves = torch.stack([harmonic(150), harmonic(2500)])[:, None]
    pictures = spectrograms(Clips.from_unit(waves, data.RATE_HZ)).float().mean(1)  # (2, height, width)
    height = pictures.mean(2).argmax(1)
    assert int(height[0]) > int(height[1]), "rows count from the top"


@pytest.mark.slow  # librosa compiles for ten seconds
@pytest.mark.parametrize("key", [40, 57, 69, 82])
def test_pitch_is_heard_to_a_tenth_of_a_semitone(key: int) -> None:
    note = Note(0, key, "loud", "long")
    assert abs(1200 * math.log2(heard_pitch(harmonic(note.frequency_hz)) / note.frequency_hz)) < 10
    off = torch.stack([harmonic(note.frequency_hz * 2 ** (cents / 1200)) for cents in (-60, -40, 0, 40, 60)])
    assert in_tune(off[:, None], [note] * 5).tolist() == [0, 1, 1, 1, 0]


@pytest.mark.slow
def test_silence_and_noise_have_no_pitch() -> None:
    noise = 0.1 * torch.randn(data.LENGTH, generator=torch.Generator().manual_seed(0))
    assert in_tune(torch.stack([0 * TIME, noise])[:, None], [Note(0, 60, "soft", "short")] * 2).tolist() == [0, 0]
