"""Pictures for testing attacks on images, and stand-ins for what attackers hold."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from attacks import Tools
from bench.rng import stream


def blobs(n: int, height: int, width: int, rng: Generator) -> Tensor:
    """Smooth coloured structure with a little grain, as pictures have it."""
    coarse = F.interpolate(torch.rand(n, 3, 7, 7, generator=rng), (height, width), mode="bicubic")
    fine = 0.05 * torch.randn(n, 3, height, width, generator=rng)
    return ((coarse + fine).clamp(0, 1) * 255).round().to(torch.uint8)


def noise(n: int, height: int, width: int, rng: Generator) -> Tensor:
    return torch.randint(256, (n, 3, height, width), generator=rng, dtype=torch.uint8)


def smooth(x: Tensor) -> Tensor:
    """Stands in for an autoencoder: loses detail at each pass."""
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)


def repainted(x: Tensor, share: float, rng: Generator) -> Tensor:
    """Stands in for a diffusion model: loses detail, and draws, by the share."""
    return x.lerp(smooth(smooth(x)), min(1, 3 * share)) + share * 0.1 * torch.randn(x.shape, generator=rng)


def embedded(x: Tensor) -> Tensor:
    """Stands in for a network: smooth in its input, and of another shape."""
    weight = torch.randn(8, 3, 3, 3, generator=stream(0, "embedding"))
    return torch.tanh(F.conv2d(x, weight, stride=2, padding=1))


def psnr(a: Tensor, b: Tensor) -> float:
    error = (a.double() - b.double()).square().flatten(1).mean(1).clamp_min(1e-3)
    return float((10 * (255**2 / error).log10()).mean())


class ToyAccess:
    """A scheme that adds 6 levels along one pattern, of random blocks; its reader tells the correlation with it."""

    def __init__(self, height: int = 64, width: int = 64) -> None:
        self.size = (height, width)
        self.queries = 0

    def pattern(self, size: tuple[int, ...] = (64, 64)) -> Tensor:
        signs = torch.randint(2, (3, 8, 8), generator=stream(0, "pattern")) * 2 - 1
        return F.interpolate(signs[None].float(), size)[0]

    def query(self, content: Tensor) -> Tensor:
        self.queries += 1
        flat = content.float() - content.float().mean((2, 3), keepdim=True)
        return (flat * self.pattern(content.shape[-2:])).mean((1, 2, 3)) / 6

    def owned(self, n: int) -> Tensor:
        return self._marked(self.clean(n))

    def clean(self, n: int) -> Tensor:
        return (blobs(n, *self.size, stream(0, "clean")).float() * 0.8 + 20).to(torch.uint8)

    def published(self, n: int) -> Tensor:
        return self._marked((blobs(n, *self.size, stream(0, "published")).float() * 0.8 + 20).to(torch.uint8))

    def _marked(self, content: Tensor) -> Tensor:
        return (content.float() + 6 * self.pattern(self.size)).clamp(0, 255).to(torch.uint8)


TOOLS = Tools(reconstruct=smooth, regenerate=repainted, encode=embedded, embed=embedded)
PICTURES = blobs(4, 64, 64, stream(0, "blobs"))
BATCHES = {
    "square": torch.cat([PICTURES[:2], noise(2, 64, 64, stream(0, "noise"))]),
    "wide": blobs(3, 48, 80, stream(0, "wide")),
    "tiny": noise(1, 5, 7, stream(0, "tiny")),
}
GREY = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)


def places(height: int, width: int) -> Tensor:
    """A picture (1, 3, H, W) uint8 whose red tells the column and whose green the row, 255 at the last."""
    across = torch.linspace(0, 255, width).expand(height, width)
    down = torch.linspace(0, 255, height)[:, None].expand(height, width)
    return torch.stack([across, down, torch.zeros(height, width)]).round().to(torch.uint8)[None]
