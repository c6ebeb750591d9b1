"""Audio attacks by learned codecs and vocoders of transformers, from a hub id or a local folder.

Nothing is downloaded: weights must lie in the folder, or in Hugging Face's cache on this machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from torch import Generator, Tensor

from attacks.audio_listing import AUDIOMARKBENCH, RAW_BENCH, SOK, audio_family
from attacks.audio_pcm import fitted, resampled
from attacks.grids import Card, Grid
from attacks.limits import check_strength
from bench.protocol import Clips, Target, UserError

ENCODEC = "facebook/encodec_24khz"
DESCRIPT = "descript/dac_16khz"
HIFI_GAN = "microsoft/speecht5_hifigan"
WEIGHTS = "model.safetensors"
FAILURES = (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError)
BATCH = 8


def lacks(model: str) -> str | None:
    """What is missing to load a hub id or folder, and how to get it; None when all is there."""
    from huggingface_hub import try_to_load_from_cache

    if Path(model).is_dir():
        found = (Path(model) / WEIGHTS).is_file()
    else:
        found = isinstance(try_to_load_from_cache(model, WEIGHTS), str)
    if found:
        return None
    return f"expected {WEIGHTS} of {model}, found none; run `hf download {model}`, or pass a local folder as `model`"


@lru_cache(maxsize=4)
def loaded(kind: str, model: str) -> Any:
    """A network of the class ``kind`` of transformers, frozen.

    Raises:
        UserError: when its weights are not there, or are damaged.
    """
    import transformers

    if lack := lacks(model):
        raise UserError(f"{kind}: {lack}")
    try:
        network = getattr(transformers, kind).from_pretrained(model, local_files_only=True, use_safetensors=True)
    except FAILURES as error:
        raise UserError(f"{kind}: {model} cannot be loaded: {' '.join(str(error).split())[:200]}") from error
    return network.eval().requires_grad_(False)


@dataclass(frozen=True)
class EnCodec:
    """Compress with EnCodec and open again: Défossez et al., TMLR 2023, arXiv:2210.13438.

    Clips are resampled to the codec's own rate and back; AudioMarkBench feeds it 16 kHz declared as 24 kHz.

    Attributes:
        bandwidth_kbps: one that the model has, each channel on its own for a mono model; lower is stronger.
        model: hub id, or folder of an ``EncodecModel``.
    """

    bandwidth_kbps: float = 6.0
    model: str = ENCODEC
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0.1, 100)

    @torch.no_grad()
    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), compressed and opened again.

        Raises:
            UserError: when the weights are not there, or have no such bandwidth.
        """
        network = loaded("EncodecModel", self.model)
        allowed = network.config.target_bandwidths
        if self.bandwidth_kbps not in allowed:
            rates = ", ".join(f"{rate:g}" for rate in allowed)
            raise UserError(f"{self!r}: the bandwidth must be one of {rates}, found {self.bandwidth_kbps:g}")
        channels = int(network.config.audio_channels)

        def coded(x: Tensor) -> Tensor:
            wave = x[:, None].expand(-1, channels, -1)
            opened: Tensor = network(wave, bandwidth=self.bandwidth_kbps).audio_values
            return opened.mean(1)

        return _channel_by_channel(content, int(network.config.sampling_rate), coded)


@dataclass(frozen=True)
class DAC:
    """Compress with the Descript Audio Codec and open again: Kumar et al., NeurIPS 2023, arXiv:2306.06546.

    Attributes:
        codebooks: that are kept, of those the model has, each channel on its own; fewer is stronger.
        model: hub id, or folder of a ``DacModel``.
    """

    codebooks: int = 9
    model: str = DESCRIPT
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 64)

    @torch.no_grad()
    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), compressed and opened again.

        Raises:
            UserError: when the weights are not there, or have fewer codebooks.
        """
        network = loaded("DacModel", self.model)
        if self.codebooks > (most := int(network.config.n_codebooks)):
            raise UserError(f"{self!r}: the number of codebooks must be at most {most}, found {self.codebooks}")

        def coded(x: Tensor) -> Tensor:
            padded = fitted(x, -(-x.shape[-1] // network.config.hop_length) * network.config.hop_length)
            opened: Tensor = network(padded[:, None], n_quantizers=self.codebooks).audio_values
            return opened.reshape(len(x), -1)

        return _channel_by_channel(content, int(network.config.sampling_rate), coded)


@dataclass(frozen=True)
class Vocoder:
    """Describe the clip by its mel spectrogram, and let a learned vocoder find a wave for it.

    HiFi-GAN (Kong et al., NeurIPS 2020, arXiv:2010.05646) as SpeechT5 ships it, for speech at 16 kHz.

    Attributes:
        passes: how often; more is stronger.
        model: hub id, or folder of a ``SpeechT5HifiGan``.
    """

    passes: int = 1
    model: str = HIFI_GAN
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 100)

    @torch.no_grad()
    def __call__(self, content: Clips, rng: Generator) -> Clips:
        """Clips (B, C, T), synthesised.

        Raises:
            UserError: when the weights are not there.
        """
        network = loaded("SpeechT5HifiGan", self.model)
        rate = int(network.config.sampling_rate)

        def spoken(x: Tensor) -> Tensor:
            wave: Tensor = network(log_mel(x, rate, int(network.config.model_in_dim)))
            return fitted(wave.reshape(len(x), -1), x.shape[-1])

        for _ in range(self.passes):
            content = _channel_by_channel(content, rate, spoken)
        return content


def log_mel(x: Tensor, rate_hz: int, bands: int) -> Tensor:
    """Log magnitudes (N, frames, bands) of samples (N, T) as ``SpeechT5FeatureExtractor`` takes them."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(513, bands, 80, 7600, rate_hz, norm="slaney", mel_scale="slaney")
    window = torch.hann_window(1024, device=x.device)
    spectrum = torch.stft(x, 1024, 256, window=window, pad_mode="constant", return_complex=True).abs()
    weights = torch.from_numpy(filters).float().to(x.device)  # (513, bands)
    return (spectrum.transpose(1, 2) @ weights).clamp_min(1e-10).log10()


def _channel_by_channel(content: Clips, rate_hz: int, change: Callable[[Tensor], Tensor]) -> Clips:
    """Each channel (N, T) at ``rate_hz`` through ``change``, and back at the clips' own rate and length."""
    x = content.unit()
    entering = resampled(x, Fraction(rate_hz, content.rate_hz)).flatten(0, 1)
    length = entering.shape[-1]
    leaving = torch.cat([fitted(change(part), length) for part in entering.cpu().split(BATCH)])
    restored = fitted(resampled(leaving, Fraction(content.rate_hz, rate_hz)), x.shape[-1])
    return Clips.from_unit(restored.view(x.shape).to(x.device), content.rate_hz)


FAMILIES = (
    audio_family(
        "encodec",
        EnCodec,
        Grid((24.0, 12.0, 6.0, 3.0, 1.5), 2, "kbit/s"),
        Card(
            "Compresses the clip with a learned codec (EnCodec).",
            AUDIOMARKBENCH,
            f"the weights of {ENCODEC}, or an EncodecModel's folder",
        ),
        standard=(),
        missing=lambda: lacks(ENCODEC),
    ),
    audio_family(
        "dac",
        lambda s: DAC(int(s)),
        Grid((12, 9, 7, 4, 2), 1, "codebooks"),
        Card(
            "Compresses the clip with a learned codec (Descript).",
            RAW_BENCH,
            f"the weights of {DESCRIPT}, or a DacModel's folder",
        ),
        standard=(),
        missing=lambda: lacks(DESCRIPT),
    ),
    audio_family(
        "vocoder",
        lambda s: Vocoder(int(s)),
        Grid((1, 2, 3, 4), 0, "passes"),
        Card(
            "Synthesises the clip anew from its mel spectrogram with a learned vocoder.",
            SOK,
            f"the weights of {HIFI_GAN}, or a SpeechT5HifiGan's folder",
        ),
        standard=(),
        missing=lambda: lacks(HIFI_GAN),
    ),
)
