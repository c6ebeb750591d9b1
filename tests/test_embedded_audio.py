"""The embedded text-to-audio generator as it ships: captions, sound, reconstruction."""

from __future__ import annotations

import pytest
import torch
from diffusers import DiffusionPipeline, StableAudioPipeline
from torch import Tensor

from bench.protocol import Clips
from bench.rng import stream
from modalities.audio import Audio, data
from modalities.audio.notes import every_note
from modalities.audio.spectra import stft_distance
from modalities.audio.stable_audio import EMBEDDED, StableAudioGenerator, load

AUDIO = Audio()
PROMPTS = [
    "soft nylon guitar playing C4, short",
    "loud trumpet playing A4, long",
    "medium church organ playing G3, long",
    "loud violin playing E4, long",
]


@pytest.fixture(scope="module")
def generator() -> StableAudioGenerator:
    return load(None, torch.device("cpu"))


@pytest.fixture(scope="module")
def clips(generator: StableAudioGenerator) -> Clips:
    with torch.no_grad():
        fields = generator.decode(generator.decoder, generator.latents(PROMPTS, stream(0, "latents")))
    return AUDIO.release(fields)


def test_the_prompts_here_are_captions() -> None:
    assert set(PROMPTS) <= {note.caption for note in every_note()}


def test_diffusers_alone_makes_sound_with_it() -> None:
    pipeline = DiffusionPipeline.from_pretrained(EMBEDDED)
    assert type(pipeline) is StableAudioPipeline
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(torch.float32)
    made = pipeline(PROMPTS[0], num_inference_steps=4, audio_end_in_s=2.0, generator=stream(0, "plain"))
    assert made.audios.shape == (1, 1, 32_000)
    assert (
        bool(torch.as_tensor(made.audios).isfinite().all()) and float(torch.as_tensor(made.audios).abs().max()) > 0.02
    )


def test_the_tokenizer_tells_all_captions_apart(generator: StableAudioGenerator) -> None:
    tokenizer, captions = generator.pipeline.tokenizer, sorted({note.caption for note in every_note()})
    ids = tokenizer(captions).input_ids
    assert max(map(len, ids)) <= tokenizer.model_max_length
    assert not [caption for caption, row in zip(captions, ids, strict=True) if tokenizer.unk_token_id in row]
    assert len({tuple(row) for row in ids}) == len(captions)


def test_samples_are_notes(clips: Clips) -> None:
    """Of the length of a clip, not clipped, each its own; they begin at once and a short one dies away."""
    AUDIO.check(clips)
    assert clips.samples.shape == (4, 1, data.LENGTH) and clips.rate_hz == data.RATE_HZ
    x = clips.unit()[:, 0]
    assert bool((x.abs().amax(1) > 0.03).all()) and float((x.abs() > 0.999).float().mean()) < 1e-3
    level = x.view(4, 8, -1).square().mean(2).sqrt()  # (4, eighths)
    assert bool((level[:, :2].amax(1) > 3 * level[0, -1]).all()), "the guitar's string was stopped"
    alike = torch.corrcoef(x) - torch.eye(4)
    assert float(alike.abs().max()) < 0.5


def test_prompts_matter(generator: StableAudioGenerator) -> None:
    one, other = (generator.latents([prompt], stream(0, "same")) for prompt in PROMPTS[:2])
    assert (one - other).square().mean().sqrt() > 0.3


def test_louder_prompts_are_louder(generator: StableAudioGenerator) -> None:
    def level(word: str) -> Tensor:
        notes = [note for note in every_note() if note.caption.startswith(f"{word} ")][::400][:6]
        with torch.no_grad():
            made = generator.decode(generator.decoder, generator.latents([n.caption for n in notes], stream(0, "loud")))
        return made.abs().amax((1, 2)).log().mean()

    assert level("loud") > level("soft") + 0.7, "6 dB; the data differ by more"


def test_held_out_clips_are_reconstructed(generator: StableAudioGenerator) -> None:
    real = AUDIO.reference(24)
    restored = generator.reconstruct(real)
    x, y = (clips.unit()[:, 0] for clips in (real, restored))
    assert float(AUDIO.paired(real, restored)["si_sdr"].mean()) > 7
    assert float(stft_distance(x, y).mean()) < 0.85
