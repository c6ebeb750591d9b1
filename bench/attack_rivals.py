"""Well-known libraries that do what an attack does, in the plain loop over items that a script would write.

They are what the speed of attacks is compared with; nothing else uses them. Where a library's operation is a near
relative and not the same, ``note`` says so.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchaudio import functional as taf
from torchvision.transforms.v2 import functional as tvf

from bench.attack_effects import timed
from bench.protocol import AttackFamily, Clips, Content, ContentAttack
from bench.report import Row
from bench.rng import stream


@dataclass(frozen=True)
class Rival:
    """A library beside an attack.

    Attributes:
        library: and the function of it.
        item: one item and the strength to the changed item: picture (3, H, W) uint8, or samples (C, T) float32 with
            the sampling rate behind the strength.
        note: how its operation differs, if it does.
    """

    library: str
    item: Callable[..., Any]
    note: str = ""

    def __call__(self, content: Any, strength: float) -> Any:
        """Content after a loop over its items, in its format."""
        if isinstance(content, Clips):
            changed = [self.item(clip, strength, content.rate_hz) for clip in content.unit()]
            length = content.samples.shape[-1]
            padded = [torch.nn.functional.pad(c[..., :length], (0, max(0, length - c.shape[-1]))) for c in changed]
            return Clips.from_unit(torch.stack(padded), content.rate_hz)
        return torch.stack([self.item(picture, strength) for picture in content])


def _pillow(change: Callable[[Image.Image, float], Image.Image]) -> Callable[[Tensor, float], Tensor]:
    def item(picture: Tensor, strength: float) -> Tensor:
        changed = change(Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()), strength)
        return torch.from_numpy(np.array(changed.convert("RGB"))).permute(2, 0, 1)

    return item


def _saved(form: str) -> Callable[[Tensor, float], Tensor]:
    def change(picture: Image.Image, strength: float) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, form, quality=int(strength))
        return Image.open(file)

    return _pillow(change)


def _scaled(picture: Image.Image, scale: float) -> Image.Image:
    small = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    return small.resize(picture.size, Image.Resampling.BICUBIC)


def _skimage(name: str, settings: Callable[[float], dict[str, Any]]) -> Callable[[Tensor, float], Tensor]:
    def item(picture: Tensor, strength: float) -> Tensor:
        from skimage import restoration, util

        work = getattr(restoration, name, None) or getattr(util, name)
        x = picture.permute(1, 2, 0).numpy().astype(np.float32) / 255
        changed = np.clip(work(x, **settings(strength)), 0, 1)
        return torch.from_numpy((changed * 255).round().astype(np.uint8)).permute(2, 0, 1)

    return item


IMAGE = {
    "jpeg": Rival("Pillow", _saved("JPEG")),
    "webp": Rival("Pillow", _saved("WEBP")),
    "avif": Rival("Pillow", _saved("AVIF")),
    "median-filter": Rival("Pillow", _pillow(lambda x, s: x.filter(ImageFilter.MedianFilter(int(s))))),
    "resize": Rival("Pillow", _pillow(_scaled)),
    "gaussian-blur": Rival("torchvision", lambda x, s: tvf.gaussian_blur(x, [2 * int(4 * s + 0.99) + 1] * 2, [s, s])),
    "rotation": Rival("torchvision", lambda x, s: tvf.rotate(x, s, tvf.InterpolationMode.BILINEAR)),
    "brightness": Rival("torchvision", tvf.adjust_brightness),
    "contrast": Rival("torchvision", tvf.adjust_contrast),
    "saturation": Rival("torchvision", tvf.adjust_saturation),
    "hue": Rival("torchvision", tvf.adjust_hue),
    "gamma": Rival("torchvision", tvf.adjust_gamma),
    "horizontal-flip": Rival("torchvision", lambda x, s: tvf.horizontal_flip(x)),
    "equalise": Rival("torchvision", lambda x, s: tvf.equalize(x), "all the way, whatever the share"),
    "gaussian-noise": Rival("scikit-image", _skimage("random_noise", lambda s: {"mode": "gaussian", "var": s**2})),
    "speckle": Rival("scikit-image", _skimage("random_noise", lambda s: {"mode": "speckle", "var": s**2})),
    "salt-and-pepper": Rival("scikit-image", _skimage("random_noise", lambda s: {"mode": "s&p", "amount": s})),
    "bilateral-filter": Rival(
        "scikit-image",
        _skimage("denoise_bilateral", lambda s: {"sigma_color": s, "sigma_spatial": 2, "channel_axis": -1}),
    ),
    "total-variation": Rival(
        "scikit-image", _skimage("denoise_tv_chambolle", lambda s: {"weight": s, "channel_axis": -1})
    ),
}


def _file(form: str, subtype: str | None) -> Callable[[Tensor, float, int], Tensor]:
    def item(clip: Tensor, strength: float, rate_hz: int) -> Tensor:
        import soundfile

        file = io.BytesIO()
        soundfile.write(file, clip.T.numpy(), rate_hz, format=form, subtype=subtype)
        file.seek(0)
        return torch.from_numpy(soundfile.read(file, dtype="float32", always_2d=True)[0].T)

    return item


def _butterworth(kind: str) -> Callable[[Tensor, float, int], Tensor]:
    def item(clip: Tensor, cutoff_hz: float, rate_hz: int) -> Tensor:
        from scipy.signal import butter, sosfiltfilt

        sections = butter(8, cutoff_hz, kind, fs=rate_hz, output="sos")
        return torch.from_numpy(sosfiltfilt(sections, clip.numpy()).astype(np.float32))

    return item


def _stretched(clip: Tensor, factor: float, rate_hz: int) -> Tensor:
    window, hop = torch.hann_window(1024), 256
    spectrum = torch.stft(clip, 1024, hop, window=window, return_complex=True)
    advance = torch.linspace(0, torch.pi * hop, 513)[:, None]
    made = torch.istft(taf.phase_vocoder(spectrum, factor, advance), 1024, hop, window=window)
    return made


def _medianed(clip: Tensor, window: float, rate_hz: int) -> Tensor:
    from scipy.signal import medfilt

    return torch.from_numpy(np.stack([medfilt(channel, int(window)) for channel in clip.numpy()]))


AUDIO = {
    "mp3": Rival("soundfile", _file("MP3", "MPEG_LAYER_III"), "at its own bit rate, by its own build of LAME"),
    "vorbis": Rival("soundfile", _file("OGG", "VORBIS"), "at its own bit rate"),
    "opus": Rival("soundfile", _file("OGG", "OPUS"), "at its own bit rate"),
    "low-pass": Rival("SciPy", _butterworth("lowpass")),
    "high-pass": Rival("SciPy", _butterworth("highpass")),
    "median-smoothing": Rival("SciPy", _medianed),
    "resample": Rival("torchaudio", lambda x, s, r: taf.resample(taf.resample(x, r, int(s)), int(s), r)),
    "speed": Rival("torchaudio", lambda x, s, r: taf.speed(x, r, s)[0]),
    "time-stretch": Rival("torchaudio", _stretched),
    "white-noise": Rival(
        "torchaudio", lambda x, s, r: taf.add_noise(x, torch.randn_like(x), torch.full(x.shape[:1], s))
    ),
    "gain": Rival("torchaudio", lambda x, s, r: taf.gain(x, s)),
    "distortion": Rival("torchaudio", lambda x, s, r: taf.overdrive(x, s)),
    "mu-law": Rival(
        "torchaudio", lambda x, s, r: taf.mu_law_decoding(taf.mu_law_encoding(x, 2 ** int(s)), 2 ** int(s))
    ),
}

RIVALS: dict[str, Rival] = IMAGE | AUDIO
"""By the name of the attack."""


def compared(family: AttackFamily, content: Content) -> Row:
    """Items a second of processor time by an attack at its middle severity, and by its rival; see ``timed``."""
    rival, strength = RIVALS[family.name], family.severity(3)
    attack = cast(ContentAttack, family.make(strength))
    attack(content[:1], stream(0)), rival(content[:1], strength)  # what loads at the first call
    ours, theirs = timed(lambda: attack(content, stream(0)))[1], timed(lambda: rival(content, strength))[1]
    about = {"attack": family.name, "modality": family.modality, "strength": strength, "items": len(content)}
    speeds = {"per_second": len(content) / ours, "library_per_second": len(content) / theirs}
    return {**about, "library": rival.library, **speeds, "times": theirs / ours, "note": rival.note}
