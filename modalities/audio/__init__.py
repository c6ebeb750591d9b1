"""The audio modality: 16-bit PCM clips.

Content is :class:`bench.protocol.Clips`; fields are float32 (B, 1 or 2, T) in [-1, 1]; observed tensors are float32
(B, 1, 16384): the loudest 1.024 s at 16 kHz, mono, at one level.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.bounds import bounded
from bench.protocol import Clips, Generator, UserError
from modalities.audio import augmentation, data, fidelity, files
from modalities.audio.notes import every_note
from modalities.audio.perceptual import mono, speech_embedding, vggish
from modalities.audio.rates import resampled
from modalities.audio.spectra import mel_distance, stft_distance
from modalities.settings import split

LENGTH = 16_384
"""Samples that readers see, 1.024 s: with the attack and some of what follows, and half the cost of a whole note."""
LEVEL = 0.3
"""Root mean square of observed tensors. A mean squared error there of -31 dB is a signal-to-noise ratio of 20.5 dB."""
SILENCE = 1e-4
"""Root mean square, -80 dB, below which a clip is not turned up further."""
RATES_HZ = (8_000, 96_000)
SHORTEST_SECONDS = 0.1


@dataclass(frozen=True)
class Audio:
    """Clips, read at 16 kHz.

    Attributes:
        device: where generator and features run.
        rate_hz: sampling rate of released content: that of the generator.
        quality_metric: ``fd_speech_embedding``, or ``fad_vggish`` with VGGish.
        kernel_metric: the unbiased distance beside it.
        opinion_metric: the predicted opinion score of some items.
        paired_bound: SI-SDR in dB down to which an attack counts as leaving the clip usable.
    """

    device: str = "cpu"
    rate_hz: int = data.RATE_HZ
    quality_metric: str = "fd_speech_embedding"
    name: str = field(default="audio", init=False)
    paired_metric: str = field(default="si_sdr", init=False)
    paired_bound: float = field(default=10.0, init=False)
    kernel_metric: str = field(default="kad", init=False)
    opinion_metric: str = field(default="visqol", init=False)

    def generator(self, spec: str | None = None) -> Generator:
        """The embedded generator (None), or one that :mod:`modalities.audio.loading` knows."""
        from modalities.audio.loading import load  # diffusers takes seconds to import

        return load(spec, torch.device(self.device))

    def wrapped(self, name: str, thing: Any) -> Generator:
        """A network, or a model of audiocraft, as a generator; settings may follow the name."""
        from modalities.audio.loading import wrapped

        source, settings = split(name)
        return wrapped(str(source), thing, settings)

    def matched(self, generator: Generator) -> Audio:
        """The same modality at the sampling rate that ``generator`` puts out."""
        return replace(self, rate_hz=int(getattr(generator, "rate_hz", self.rate_hz)))

    def with_features(self, name: str) -> Audio:
        """The same modality judged by other features: ``default`` or ``vggish``.

        Raises:
            UserError: for another name, or when the VGGish weights are not available.
        """
        if name == "default":
            return replace(self, quality_metric="fd_speech_embedding")
        if name != "vggish":
            raise UserError(f"features {name!r}: expected default or vggish")
        vggish()
        return replace(self, quality_metric="fad_vggish")

    def prompts(self, n: int, rng: torch.Generator) -> list[str]:
        """``n`` captions of notes that no codec was fitted on; repeats only when n exceeds them."""
        if n < 0:
            raise UserError(f"prompts: expected 0 or more, found {n}")
        known = [note.caption for note in every_note() if note.split == "prompts"]
        order = torch.cat([torch.randperm(len(known), generator=rng) for _ in range(n // len(known) + 1)])
        return [known[i] for i in order[:n].tolist()]

    def release(self, field: Tensor) -> Clips:
        """16-bit PCM on the CPU."""
        return Clips.from_unit(field.cpu(), self.rate_hz)

    def soft_release(self, field: Tensor) -> Tensor:
        """Clipped, rounded to 16 bits with the gradient of the identity (straight-through), and observed."""
        inside = bounded(field, -1.0, 32767 / 32768)
        return _heard(inside + ((inside * 32768).round() / 32768 - inside).detach(), self.rate_hz)

    def observe(self, content: Clips) -> Tensor:
        """Float mono (B, 1, 16384) at 16 kHz and one level; silence stays silence."""
        return _heard(content.unit(), content.rate_hz)

    def augment(self, tensor: Tensor, rng: torch.Generator) -> Tensor:
        """One random distortion per call; see :mod:`modalities.audio.augmentation`."""
        return _levelled(augmentation.distort(tensor, rng))

    def check(self, content: Any) -> None:
        """Raise ``UserError`` unless ``content`` is int16 clips (B, 1 or 2, T) of 8 to 96 kHz and at least 0.1 s."""
        if not isinstance(content, Clips):
            raise UserError(f"content: expected clips, found {type(content).__name__}")
        samples, low, high = content.samples, *RATES_HZ
        if samples.dtype != torch.int16 or samples.ndim != 3 or samples.shape[1] not in (1, 2):
            raise UserError(
                f"content: expected int16 samples (B, 1 or 2, T), found {samples.dtype} {tuple(samples.shape)}"
            )
        if not low <= content.rate_hz <= high:
            raise UserError(f"content: expected {low} to {high} Hz, found {content.rate_hz} Hz")
        if samples.shape[2] < SHORTEST_SECONDS * content.rate_hz:
            seconds = samples.shape[2] / content.rate_hz
            raise UserError(f"content: expected at least {SHORTEST_SECONDS} s, found {seconds:.3f} s")

    def reference(self, n: int | None = None) -> Clips:
        """The shipped held-out clips, as they were rendered: 16 kHz, mono."""
        clips, _ = data.shipped("reference")
        return Clips(clips[:n], data.RATE_HZ)

    @torch.inference_mode()
    def features(self, content: Clips) -> Tensor:
        """Features (B, frames, d) of every frame: the Fréchet distance pools frames, as FAD does."""
        network = vggish() if self.quality_metric == "fad_vggish" else speech_embedding()
        network.to(content.samples.device)
        return torch.cat([network(part) for part in mono(content).split(8)])

    def paired(self, a: Clips, b: Clips) -> dict[str, Tensor]:
        """SI-SDR in dB, log-spectral distance in dB and mel distance of each pair."""
        return fidelity.paired(a, b)

    def opinion(self, a: Clips, b: Clips) -> Tensor:
        """Predicted opinion score (B,) of ``b`` beside its original; see :func:`modalities.audio.fidelity.visqol`."""
        return fidelity.visqol(a, b)

    def perceptual_loss(self, a: Tensor, b: Tensor) -> Tensor:
        """Multi-resolution STFT and mel distance (B,) of observed tensors, or of waveforms with any channels."""
        x, y = a.flatten(0, 1), b.flatten(0, 1)
        distance = 0.02 * (stft_distance(x, y) + mel_distance(x, y))
        return distance.view(len(a), -1).mean(1)

    def picture(self, content: Clips) -> Tensor:
        """Mel spectrograms; see :func:`modalities.audio.pictures.spectrograms`."""
        from modalities.audio.pictures import spectrograms  # matplotlib takes a second to import

        return spectrograms(content)

    def difference(self, a: Clips, b: Clips) -> tuple[str, Clips]:
        """What was added to ``a``, as it sounds alone."""
        added = b.samples.int() - a.samples.int()
        return "difference", Clips(added.clamp(-32768, 32767).to(torch.int16), a.rate_hz)

    def save(self, content: Clips, path: Path) -> None:
        """Write one clip as WAV or FLAC (16 bits, lossless), OGG or MP3, as the suffix says.

        Raises:
            UserError: for several clips, an unknown suffix, or a folder that cannot be written to.
        """
        self.check(content)
        if len(content) != 1:
            raise UserError(f"{path}: expected one clip to save, found {len(content)}")
        files.write(content.samples[0], content.rate_hz, path)

    def load(self, path: Path) -> Clips:
        """Read one WAV, FLAC, OGG or MP3 file; more than two channels are averaged, floats beyond ±1 clipped.

        Raises:
            UserError: when there is no such file, it was cut off, or it holds no audio of 8 to 96 kHz and at least
                0.1 s.
        """
        samples, rate_hz = files.read(path)
        x = samples if len(samples) <= 2 else samples.mean(0, keepdim=True)
        clips = Clips.from_unit(x[None], rate_hz)
        try:
            self.check(clips)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        return clips


def _heard(x: Tensor, rate_hz: int) -> Tensor:
    """What readers see of waveforms (B, C, T): mono, 16 kHz, the loudest 1.024 s (padded with silence), one level."""
    x = resampled(x.mean(1, keepdim=True), rate_hz, data.RATE_HZ)
    missing = LENGTH - x.shape[2]
    x = F.pad(x, (0, missing)) if missing >= 0 else _loudest(x)
    return _levelled(x)


def _loudest(x: Tensor) -> Tensor:
    """The 16384 samples with the most energy, to an eighth of their length, of each clip of (B, 1, T)."""
    energy = F.avg_pool1d(x.detach().square(), LENGTH, LENGTH // 8)[:, 0]
    starts = energy.argmax(1) * (LENGTH // 8)
    return torch.stack([clip[:, start : start + LENGTH] for clip, start in zip(x, starts.tolist(), strict=True)])


def _levelled(x: Tensor) -> Tensor:
    return x * (LEVEL / (x.square().mean((1, 2), keepdim=True) + SILENCE**2).sqrt())
