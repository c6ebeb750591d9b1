"""Measure the embedded generator: ``python -m modalities.audio.evaluate`` after ``make data MODALITY=audio``.

Reconstruction of held-out clips beside a Griffin-Lim inversion, pitch and instrument family of samples, time to
sample; a sheet of spectrograms and eight clips. Writes ``docs/audio_generator.json``, ``docs/audio_sheet.png`` and
``docs/audio/*.wav``. Needs ``librosa`` (``uv pip install 'genprint[audio-data]'``).
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchaudio.functional import griffinlim, melscale_fbanks

from bench.metrics.intervals import Interval, clustered
from bench.protocol import Clips, UserError
from bench.rng import fenced, stream
from modalities.audio import Audio, data, families, fidelity
from modalities.audio.families import FamilyClassifier
from modalities.audio.notes import INSTRUMENTS, Note, every_note
from modalities.audio.pictures import spectrograms
from modalities.audio.spectra import mel_distance, stft_distance
from modalities.audio.stable_audio import StableAudioGenerator, load

DOCS = Path("docs")
SEED = 0
CENTS = 50.0
SHOWN, PLAYED = 32, 8


def reconstruction(generator: StableAudioGenerator, classifier: FamilyClassifier) -> dict[str, Interval]:
    """Fidelity of the autoencoder on every shipped reference clip, and of Griffin-Lim at its rate; see above.

    Also the share of reconstructions whose family is named: what the classifier makes of the autoencoder alone.
    """
    clips, notes = data.shipped("reference")
    real = Clips(clips, data.RATE_HZ)
    parts = [generator.reconstruct(real[start : start + 32]).unit() for start in range(0, len(real), 32)]
    x, y = real.unit()[:, 0], torch.cat(parts)[:, 0]
    bands = int(generator.pipeline.vae.config.decoder_input_channels)
    inverted = torch.cat([griffin_lim(part, bands, int(generator.pipeline.vae.hop_length)) for part in x.split(64)])
    measured = {
        "si_sdr_db": fidelity.si_sdr(x[:, None], y[:, None]).float(),
        "mel": _batched(mel_distance, x, y),
        "stft": _batched(stft_distance, x, y),
        "stft_griffin_lim": _batched(stft_distance, x, inverted),
        "mel_griffin_lim": _batched(mel_distance, x, inverted),
        "family": torch.cat([classifier(part).argmax(1) for part in parts]).eq(families.truth(notes)).float(),
    }
    return {name: _interval(values, notes, name) for name, values in measured.items()}


def _batched(distance: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([distance(a, b) for a, b in zip(x.split(64), y.split(64), strict=True)])


def griffin_lim(wave: Tensor, bands: int, hop: int) -> Tensor:
    """Waveforms (B, T) from their mel amplitudes, ``bands`` of them every ``hop`` samples.

    Non-negative least squares by multiplicative updates, then 64 iterations of the fast Griffin-Lim algorithm
    (Perraudin et al., WASPAA 2013).
    """
    size, window = 2048, torch.hann_window(2048)
    spectrum = torch.stft(wave, size, hop, window=window, return_complex=True).abs()
    bank = melscale_fbanks(size // 2 + 1, 0.0, data.RATE_HZ / 2, bands, data.RATE_HZ, "slaney", "slaney")
    mel = bank.T @ spectrum  # (B, bands, frames)
    found = (torch.linalg.pinv(bank.T) @ mel).clamp_min(1e-8)
    for _ in range(100):
        found = found * (bank @ mel) / (bank @ (bank.T @ found) + 1e-12)
    with fenced(SEED):
        restored: Tensor = griffinlim(found, window, size, hop, size, 1.0, 64, 0.99, wave.shape[1], True)
    return restored


def heard_pitch(wave: Tensor) -> float:
    """Fundamental in Hz that pYIN hears in (T,) at 16 kHz: the median of voiced frames; NaN when there are none.

    Mauch and Dixon, "pYIN", ICASSP 2014, through librosa.
    """
    try:
        import librosa
    except ImportError as error:
        raise UserError("evaluate: install librosa (`uv pip install 'genprint[audio-data]'`)") from error
    samples = wave.double().numpy()
    pitch, voiced, _ = librosa.pyin(samples, fmin=35, fmax=1400, sr=data.RATE_HZ, frame_length=2048, hop_length=512)
    loud = librosa.feature.rms(y=samples, frame_length=2048, hop_length=512)[0]
    kept = pitch[voiced & (loud[: len(pitch)] > 0.1 * loud.max())]  # a tail of noise has no pitch
    return float(torch.tensor(kept).median()) if len(kept) else math.nan


def in_tune(waves: Tensor, notes: list[Note]) -> Tensor:
    """Whether pYIN hears each of (B, 1, T) within 50 cents of its note, (B,) of 0 and 1."""
    heard = [heard_pitch(wave[0]) for wave in waves]
    cents = [1200 * math.log2(pitch / note.frequency_hz) for pitch, note in zip(heard, notes, strict=True)]
    return torch.tensor([float(abs(apart) <= CENTS) for apart in cents])  # NaN is not in tune


def pitched_instruments() -> list[int]:
    """Programs of the instruments in which pYIN hears the named note in at least 3 of 4 real clips."""
    clips, notes = data.full_set()
    chosen: dict[int, list[int]] = defaultdict(list)
    order = sorted(range(len(notes)), key=lambda row: notes[row].draw)
    for row in order:
        if len(chosen[notes[row].program]) < 4 and notes[row].split != "fit":
            chosen[notes[row].program].append(row)
    hits = {
        program: float(in_tune(clips[rows].float() / 32768, [notes[row] for row in rows]).sum())
        for program, rows in chosen.items()
    }
    return sorted(program for program, count in hits.items() if count >= 3)


def agreement(
    generator: StableAudioGenerator, split: str, pitched: list[int], classifier: FamilyClassifier
) -> dict[str, Interval]:
    """Pitch of 200 samples of pitched prompts, and family of 320 samples of any prompt, of one split."""
    rng = stream(SEED, "agreement", split)
    notes = [note for note in every_note() if note.split == split]
    order = [notes[i] for i in torch.randperm(len(notes), generator=rng).tolist()]
    tuned = [note for note in order if note.program in pitched][:200]
    named = order[:320]
    hits = in_tune(_sample(generator, tuned, stream(SEED, "pitch", split)).unit(), tuned)
    guesses = classifier(_sample(generator, named, stream(SEED, "family", split)).unit()).argmax(1)
    return {
        "pitch_within_50_cents": _interval(hits, tuned, f"pitch {split}"),
        "family": _interval((guesses == families.truth(named)).float(), named, f"family {split}"),
    }


def _interval(values: Tensor, notes: list[Note], name: str) -> Interval:
    """Mean with its interval, clustered by instrument."""
    return clustered(values.numpy(), [note.program for note in notes], rng=stream(SEED, "interval", name))


def _sample(generator: StableAudioGenerator, notes: list[Note], rng: torch.Generator) -> Clips:
    latents = generator.latents([note.caption for note in notes], rng)
    with torch.inference_mode():
        fields = torch.cat([generator.decode(generator.decoder, part) for part in latents.split(16)])
    return Audio().release(fields)


def show(generator: StableAudioGenerator) -> None:
    """Draw 32 samples, the first benchmark prompts of a seed, not a selection; and write the first eight as WAV."""
    by_caption = {note.caption: note for note in every_note()}
    notes = [by_caption[prompt] for prompt in Audio().prompts(SHOWN, stream(SEED, "sheet"))]
    clips = _sample(generator, notes, stream(SEED, "sheet latents"))
    figure = Figure(figsize=(14, 8), dpi=90, layout="constrained")
    for index, (note, picture) in enumerate(zip(notes, spectrograms(clips), strict=True)):
        axes = figure.add_subplot(4, 8, index + 1)
        axes.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest", aspect="auto")
        axes.set(xticks=[], yticks=[])
        first, _, rest = note.caption.partition(" playing ")
        axes.set_title(f"{first}\n{rest}", fontsize=7)
    figure.savefig(DOCS / "audio_sheet.png", metadata={"Software": None})
    (DOCS / "audio").mkdir(exist_ok=True)
    for index, note in enumerate(notes[:PLAYED]):
        name = f"{INSTRUMENTS[note.program]} {note.pitch} {note.loudness} {note.articulation}".replace(" ", "_")
        Audio().save(clips[index : index + 1], DOCS / "audio" / f"{index + 1}_{name.replace('#', 's')}.wav")


def main() -> None:
    """Measure everything, print it, and write it under ``docs``."""
    generator = load(None, torch.device("cpu"))
    report: dict[str, object] = {"torch_threads": torch.get_num_threads()}
    classifier, accuracy, count = families.train(SEED)
    for name, interval in reconstruction(generator, classifier).items():
        report[f"reconstruction_{name}"] = interval._asdict() | {"n": 512}
    pitched = pitched_instruments()
    report["pitched_instruments"] = len(pitched)
    report["family_classifier_on_real"] = {"mean": round(accuracy, 4), "n": count, "chance": 1 / len(families.NAMES)}
    for name, split in (("learned", "prompts"), ("held_out", "reference")):
        for what, interval in agreement(generator, split, pitched, classifier).items():
            report[f"{what}_{name}"] = interval._asdict() | {"n": 200 if what.startswith("pitch") else 320}
    began = time.perf_counter()
    _sample(generator, every_note()[:640:10], stream(SEED, "time"))
    report["seconds_for_64_samples"] = round(time.perf_counter() - began, 2)
    report["parameters"] = sum(p.numel() for p in generator.networks.parameters())
    DOCS.mkdir(exist_ok=True)
    show(generator)
    text = json.dumps(report, indent=2)
    (DOCS / "audio_generator.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
