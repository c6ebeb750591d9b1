"""The image modality: 8-bit RGB pictures.

Content is a uint8 tensor (B, 3, H, W); fields and observed tensors are float32 in [0, 1].
"""

from __future__ import annotations

import os
import struct
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor
from torch.nn import functional as F

from bench.bounds import bounded
from bench.protocol import Generator, UserError
from modalities.image import augmentation, data
from modalities.image.perceptual import inception, lpips, mobilenet
from modalities.settings import split


@dataclass(frozen=True)
class Image:
    """Pictures, read at ``size`` × ``size``.

    Attributes:
        size: side in pixels of the tensors that readers see.
        device: where generator and features run.
        quality_metric: ``fd_mobilenetv2``, or ``fid`` with the canonical Inception network.
    """

    size: int = data.SIZE
    device: str = "cpu"
    quality_metric: str = "fd_mobilenetv2"
    name: str = field(default="image", init=False)
    paired_metric: str = field(default="psnr", init=False)

    def generator(self, spec: str | None = None) -> Generator:
        """The embedded generator (None), a diffusers pipeline from a folder or a hub id, or a ``torch.export`` file."""
        from modalities.image.loading import load  # diffusers takes seconds to import

        return load(spec, torch.device(self.device))

    def wrapped(self, name: str, thing: Any) -> Generator:
        """A network that makes pictures of noise as a generator; settings may follow the name."""
        from modalities.image.loading import wrapped

        source, settings = split(name)
        return wrapped(str(source), thing, settings)

    def with_features(self, name: str) -> Image:
        """The same modality judged by other features: ``default`` or ``inception``.

        Raises:
            UserError: for another name, or when the Inception weights are not available.
        """
        if name == "default":
            return replace(self, quality_metric="fd_mobilenetv2")
        if name != "inception":
            raise UserError(f"features {name!r}: expected default or inception")
        inception()
        return replace(self, quality_metric="fid")

    def prompts(self, n: int, rng: torch.Generator) -> list[str]:
        """``n`` captions of concepts whose pictures no codec was fitted on; repeats only when n exceeds them."""
        if n < 0:
            raise UserError(f"prompts: expected 0 or more, found {n}")
        known = [c.caption(style) for c in data.concepts() if c.split == "prompts" for style in data.STYLES]
        order = torch.cat([torch.randperm(len(known), generator=rng) for _ in range(n // len(known) + 1)])
        return [known[i] for i in order[:n].tolist()]

    def release(self, field: Tensor) -> Tensor:
        """8-bit RGB on the CPU."""
        return (field.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()

    def soft_release(self, field: Tensor) -> Tensor:
        """Clamped and rounded to 8 bits; rounding has the gradient of the identity (straight-through)."""
        inside = bounded(field, 0.0, 1.0)
        return self._sized(inside + ((inside * 255).round() / 255 - inside).detach())

    def observe(self, content: Tensor) -> Tensor:
        """Float RGB in [0, 1] at the reader's size."""
        return self._sized(content.float() / 255)

    def _sized(self, x: Tensor) -> Tensor:
        if x.shape[2:] == (self.size, self.size):
            return x
        return F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)

    def augment(self, tensor: Tensor, rng: torch.Generator) -> Tensor:
        """One random distortion per call; see :mod:`modalities.image.augmentation`."""
        return augmentation.distort(tensor, rng)

    def check(self, content: Any) -> None:
        """Raise ``UserError`` unless ``content`` is a uint8 tensor (B, 3, H, W) of at least 16 × 16 pixels."""
        if not isinstance(content, Tensor) or content.dtype != torch.uint8:
            found = content.dtype if isinstance(content, Tensor) else type(content).__name__
            raise UserError(f"image content: expected a uint8 tensor, found {found}")
        if content.ndim != 4 or content.shape[1] != 3 or min(content.shape[2:]) < 16:
            raise UserError(f"image content: expected (B, 3, H, W) of at least 16x16, found {tuple(content.shape)}")

    def reference(self, n: int | None = None) -> Tensor:
        """Real held-out pictures (606 ship), evenly thinned to ``n``.

        Raises:
            UserError: when more are asked for than there are.
        """
        images, _ = data.reference_images()
        if n is None:
            return images
        if not 0 < n <= len(images):
            raise UserError(f"reference images: asked for {n}, expected 1 to {len(images)}")
        return images[torch.linspace(0, len(images) - 1, n).round().long()]

    def features(self, content: Tensor) -> Tensor:
        """Features (B, d) of the network that ``quality_metric`` names."""
        network = (inception() if self.quality_metric == "fid" else mobilenet()).to(self.device)
        parts = [network(part.to(self.device).float() / 255).float().cpu() for part in content.split(64)]
        return torch.cat(parts)

    def paired(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        """PSNR in dB (60 for equal pictures), SSIM, and LPIPS with AlexNet, of each pair."""
        from torchmetrics.functional.image import structural_similarity_index_measure  # takes five seconds to import

        x, y = a.float() / 255, b.float() / 255
        error = (x - y).square().flatten(1).mean(1)
        ssim = structural_similarity_index_measure(y, x, data_range=1.0, reduction="none")
        network = lpips("alex").to(self.device)
        apart = [
            network(p.to(self.device), q.to(self.device)).cpu() for p, q in zip(x.split(64), y.split(64), strict=True)
        ]
        return {
            "psnr": -10 * error.clamp_min(1e-6).log10(),
            "ssim": torch.as_tensor(ssim),
            "lpips_alex": torch.cat(apart),
        }

    def perceptual_loss(self, a: Tensor, b: Tensor) -> Tensor:
        """LPIPS-Alex (B,) of observed tensors, differentiable."""
        distance: Tensor = lpips("alex").to(a.device)(a, b)
        return distance

    def embed(self, x: Tensor) -> Tensor:
        """AlexNet's last features (B, C, h, w) of images in [0, 1], differentiable: what an attacker has at hand."""
        return lpips("alex").to(x.device).embed(self._sized(x))

    def picture(self, content: Tensor) -> Tensor:
        """The pictures themselves."""
        return content

    def difference(self, a: Tensor, b: Tensor) -> tuple[str, Tensor]:
        """Ten times what was added to ``a``, on middle grey."""
        return "difference,\n10 times", (128 + 10 * (b.int() - a.int())).clamp(0, 255).byte()

    def save(self, content: Tensor, path: Path) -> None:
        """Write one picture, losslessly where the suffix allows it.

        Raises:
            UserError: for several pictures, an unknown suffix, or a folder that cannot be written to.
        """
        self.check(content)
        if len(content) != 1:
            raise UserError(f"{path}: expected one image to save, found {len(content)}")
        if path.suffix.lower() not in Pillow.registered_extensions():
            raise UserError(f"{path}: expected the suffix of an image file, such as .png, found {path.suffix!r}")
        picture = Pillow.fromarray(content[0].permute(1, 2, 0).contiguous().numpy())
        partial = path.with_name(f".{path.name}.part{path.suffix}")
        try:
            picture.save(partial, lossless=True)  # read by WebP only; JPEG has no lossless form
            os.replace(partial, path)
        except (OSError, ValueError, KeyError) as error:
            partial.unlink(missing_ok=True)
            raise UserError(f"{path}: expected a file that can be written, found: {_line(error)}") from error

    def load(self, path: Path) -> Tensor:
        """Read one picture; transparency is laid on white, 16-bit grey is scaled to 8 bits.

        Raises:
            UserError: when there is no such file, or it is no picture of at least 16 × 16 pixels.
        """
        try:
            with warnings.catch_warnings(action="ignore"), Pillow.open(path) as picture:  # of damaged metadata
                rgba = _eight_bits(picture).convert("RGBA")
        except FileNotFoundError as error:
            raise UserError(f"{path}: expected an image file, found none") from error
        except (OSError, ValueError, SyntaxError, struct.error, Pillow.DecompressionBombError) as error:
            raise UserError(f"{path}: expected an image file, found something unreadable: {_line(error)}") from error
        if min(rgba.size) < 16:
            raise UserError(f"{path}: expected an image of at least 16x16, found {rgba.width}x{rgba.height}")
        flat = Pillow.alpha_composite(Pillow.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        return torch.from_numpy(np.array(flat)).permute(2, 0, 1)[None].contiguous()


def _eight_bits(picture: Pillow.Image) -> Pillow.Image:
    if picture.mode in ("I", "F"):
        raise ValueError(f"mode {picture.mode}, expected 8 or 16 bits")
    if not picture.mode.startswith("I;16"):
        return picture
    return Pillow.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))  # Pillow itself clips at 255


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
