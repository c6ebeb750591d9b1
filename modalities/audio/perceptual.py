"""Pretrained perception of sound: Google's speech embedding (ships) and VGGish (from the user's own file).

Both give one row of features per window of a clip; the Fréchet distance pools the windows of all clips. Differentiable
distances need no network; they are in :mod:`modalities.audio.spectra`.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks

from bench.folders import cache_folder
from bench.protocol import Clips, UserError
from modalities.audio.rates import resampled

WEIGHTS = Path(__file__).parent / "weights"
RATE_HZ = 16_000
"""What both networks expect."""
WINDOW, HOP = 400, 160
"""Samples of a spectrum and from one to the next, in both networks: 25 ms and 10 ms."""


def mono(clips: Clips, rate_hz: int = RATE_HZ) -> Tensor:
    """Waveforms (B, T) in [-1, 1] of clips mixed down to one channel, at ``rate_hz``."""
    return resampled(clips.unit().mean(1), clips.rate_hz, rate_hz)


class SpeechEmbedding(nn.Module):
    """96 numbers for every 0.76 s of sound, a new set each 80 ms.

    Lin et al., "Training Keyword Spotters with Limited and Synthesized Speech Data", ICASSP 2020, arXiv:2002.01322,
    trained to spot spoken words; Google's weights as openWakeWord 0.4.0 packages them. Its mel bands end at 3.8 kHz:
    it hears nothing above.
    """

    FRAMES, STRIDE = 76, 8
    """Mel frames of a window, and from one window to the next."""
    SHORTEST = 512 + 75 * HOP
    """Samples of one window, 0.78 s."""
    CHANNELS = (24, 24, 24, 48, 48, 48, 48, 72, 72, 72, 72, *(96,) * 9)

    bank: Tensor
    window: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):  # initial weights would be draws from the global generator
            self.convolutions = nn.ModuleList(
                nn.Conv2d(fan_in, fan_out, _kernel(index), bias=0 < index < 19, padding=(0, int(_kernel(index)[1] > 1)))
                for index, (fan_in, fan_out) in enumerate(zip((1, *self.CHANNELS), self.CHANNELS, strict=False))
            )
        state = load_file(WEIGHTS / "speech_embedding.safetensors")
        self.register_buffer("scale", state["scale"].view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", state["shift"].view(1, -1, 1, 1), persistent=False)
        self.load_state_dict({key: value for key, value in state.items() if "." in key}, assign=True)
        bank = melscale_fbanks(257, 60.0, 3800.0, 32, RATE_HZ, "slaney", "slaney")
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of every window of 76 mel frames, every 8 frames.

        No layer pads in time and the pools halve it three times, so that one pass over the whole clip gives exactly
        what a pass over each window would.

        Args:
            x: waveforms (B, T) in [-1, 1] at 16 kHz; shorter ones than a window are filled up with silence.

        Returns:
            Embeddings (B, frames, 96); 16 frames for 2.048 s.
        """
        x = self.mel(F.pad(x, (0, max(self.SHORTEST - x.shape[1], 0))))[:, None]  # (B, 1, frames, 32)
        for index, convolution in enumerate(self.convolutions[:-1]):
            x = convolution(x)
            if index == 0:
                x = x.relu() * self.scale + self.shift
            x = F.leaky_relu(x, 0.2).clamp_min(-0.4)
            if index % 4 == 2:
                x = F.max_pool2d(x, (2 if index % 8 == 2 else 1, 2))
        x = self.convolutions[-1](x)  # (B, 96, frames, 1)
        return x[..., 0].mT

    def mel(self, x: Tensor) -> Tensor:
        """Mel spectrogram (B, frames, 32) in dB / 10 + 2 of 16-bit units, within 80 dB of each clip's loudest band."""
        spectrum = torch.stft(
            x * 32768, 512, HOP, WINDOW, self.window, center=False, return_complex=True
        )  # (B, 257, frames)
        power = torch.view_as_real(spectrum).square().sum(-1).mT @ self.bank
        level_db = 10 * power.clamp_min(1e-10).log10()
        floor_db = level_db.amax((1, 2), keepdim=True) - 80
        return torch.maximum(level_db, floor_db) / 10 + 2


def _kernel(index: int) -> tuple[int, int]:
    """Size in time and in frequency: after the first, convolutions take turns."""
    if index == 0:
        return 3, 3
    return (1, 3) if index % 2 and index < 19 else (3, 1)


class VGGish(nn.Module):
    """128 numbers for each 0.96 s of sound, without overlap: what the Fréchet audio distance is defined on.

    Hershey et al., "CNN Architectures for Large-Scale Audio Classification", ICASSP 2017, arXiv:1609.09430. As in
    Kilgour et al., "Fréchet Audio Distance", Interspeech 2019, arXiv:1812.08466, without PCA and quantisation; and as
    in the common FAD packages, without a rectifier behind the last layer.

    The weights, 288 MB, do not ship. They are read from the file that the environment variable ``GENPRINT_VGGISH``
    names, or from ``audio/vggish.safetensors`` in the cache: torchvggish's ``vggish-10086976.pth`` as safetensors.

    Raises:
        UserError: when the file is not there, is no safetensors file, or holds another network.
    """

    FRAMES = 96
    SHORTEST = WINDOW + 95 * HOP
    """Samples of one example, 0.975 s."""

    bank: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        with torch.device("meta"):
            for fan_in, fan_out in ((1, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512)):
                layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.ReLU()]
                if (fan_in, fan_out) not in ((128, 256), (256, 512)):
                    layers.append(nn.MaxPool2d(2))
            self.features = nn.Sequential(*layers)
            wide = [nn.Linear(512 * 6 * 4, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 128)]
            self.embeddings = nn.Sequential(*wide)
        self.load_state_dict(_vggish_weights(self.state_dict()), assign=True)
        self.register_buffer("bank", vggish_bank(), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of every whole 0.96 s.

        Args:
            x: waveforms (B, T) in [-1, 1] at 16 kHz; shorter ones than an example are filled up with silence.

        Returns:
            Embeddings (B, examples, 128); 2 examples for 2.048 s.
        """
        mel = self.mel(F.pad(x, (0, max(self.SHORTEST - x.shape[1], 0))))
        examples = mel.unfold(1, self.FRAMES, self.FRAMES).mT  # (B, examples, 96, 64)
        maps = self.features(examples.flatten(0, 1)[:, None])  # (B * examples, 512, 6, 4)
        # The original network is channels-last, and its first matrix expects that order.
        embeddings: Tensor = self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))
        return embeddings.view(len(x), -1, 128)

    def mel(self, x: Tensor) -> Tensor:
        """Natural log mel amplitudes (B, frames, 64) of (B, T); frames start every 10 ms, nothing is padded."""
        frames = x.unfold(1, WINDOW, HOP) * self.window  # (B, frames, 400)
        amplitudes: Tensor = torch.fft.rfft(frames, 512).abs() @ self.bank
        return (amplitudes + 0.01).log()


def vggish_bank() -> Tensor:
    """VGGish's mel filters (257, 64): triangles on the mel axis (torchaudio's are triangles in Hz), 125 to 7500 Hz."""
    bins = _mel(torch.linspace(0, RATE_HZ / 2, 257, dtype=torch.float64))[:, None]
    lowest, highest = _mel(torch.tensor([125.0, 7500.0], dtype=torch.float64))
    edges = torch.linspace(float(lowest), float(highest), 66, dtype=torch.float64)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bank = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp_min(0)
    bank[0] = 0  # the original drops the constant part
    return bank.float()


def _mel(hertz: Tensor) -> Tensor:
    return 1127 * (1 + hertz / 700).log()


def _vggish_weights(expected: dict[str, Tensor]) -> dict[str, Tensor]:
    path = Path(os.environ.get("GENPRINT_VGGISH") or cache_folder() / "audio" / "vggish.safetensors")
    if not path.is_file():
        raise UserError(
            f"VGGish weights: expected {path}, found none; convert torchvggish's vggish-10086976.pth to safetensors "
            f"and put it there, or name it in GENPRINT_VGGISH"
        )
    try:
        state = load_file(path)
    except SafetensorError as error:
        convert = "save_file(torch.load('vggish-10086976.pth', weights_only=True), 'vggish.safetensors')"
        raise UserError(
            f"{path}: expected safetensors, found a pickle or something else; convert it once, with {convert}"
        ) from error
    for key in sorted(set(state) ^ set(expected)):
        raise UserError(f"{path}: expected torchvggish's layers, found none or one more of {key}")
    for key, value in state.items():
        if value.shape != expected[key].shape:
            raise UserError(f"{path}: {key} has shape {tuple(value.shape)}, expected {tuple(expected[key].shape)}")
    return {key: value.float() for key, value in state.items()}


@lru_cache(maxsize=1)
def speech_embedding() -> SpeechEmbedding:
    """The shared network; see :class:`SpeechEmbedding`."""
    return SpeechEmbedding()


@lru_cache(maxsize=1)
def vggish() -> VGGish:
    """The shared network; see :class:`VGGish`."""
    return VGGish()
