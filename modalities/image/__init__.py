"""The image modality: 8-bit RGB pictures.

Content is a uint8 tensor (B, 3, H, W); fields and observed tensors are float32 in [0, 1].
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image as Pillow
from PIL import UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from bench.protocol import Generator, UserError
from modalities.image import augmentation, data
from modalities.image.perceptual import inception, lpips, mobilenet


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
        """The embedded generator (None), or a diffusers pipeline from a folder or a hub id."""
        from modalities.image.diffusion import load  # diffusers takes seconds to import

        return load(spec, torch.device(self.device))

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
        known = [c.caption(style) for c in data.concepts() if c.split == "prompts" for style in data.STYLES]
        order = torch.cat([torch.randperm(len(known), generator=rng) for _ in range(-(-n // len(known)))])
        return [known[i] for i in order[:n].tolist()]

    def release(self, field: Tensor) -> Tensor:
        """8-bit RGB on the CPU."""
        return (field.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()

    def soft_release(self, field: Tensor) -> Tensor:
        """Clamped and rounded to 8 bits, with the gradient of the identity (straight-through)."""
        observed = (field.clamp(0, 1) * 255).round() / 255
        return self._sized(field + (observed - field).detach())

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

    def save(self, content: Tensor, path: Path) -> None:
        """Write one picture, losslessly where the suffix allows it."""
        self.check(content)
        if len(content) != 1:
            raise UserError(f"{path}: expected one image to save, found {len(content)}")
        partial = path.with_name(f".{path.name}.part{path.suffix}")
        Pillow.fromarray(content[0].permute(1, 2, 0).contiguous().numpy()).save(partial)
        os.replace(partial, path)

    def load(self, path: Path) -> Tensor:
        """Read one picture; transparency is laid on white."""
        try:
            rgba = Pillow.open(path).convert("RGBA")
        except FileNotFoundError as error:
            raise UserError(f"{path}: expected an image file, found none") from error
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f"{path}: expected an image file, found something unreadable ({error})") from error
        flat = Pillow.alpha_composite(Pillow.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        pixels = torch.frombuffer(bytearray(flat.tobytes()), dtype=torch.uint8)
        content = pixels.view(1, flat.height, flat.width, 3).permute(0, 3, 1, 2).contiguous()
        self.check(content)
        return content
