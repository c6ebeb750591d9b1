"""The image attack by a learned codec: CompressAI's, where the package and its weights are there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor
from torch.nn import functional as F

from attacks.grids import Card, Grid, image_family
from attacks.image_pixels import to_bytes, to_unit
from attacks.limits import check_strength
from bench.folders import cache_folder
from bench.protocol import Target, UserError

MODEL = "bmshj2018-factorized"
FETCH = (
    "download bmshj2018-factorized-prior-*.pth.tar as named in `compressai.zoo.image.model_urls` and run "
    "`python -m attacks.image_neural_codec FILE...`"
)
MULTIPLE = 64
"""The sides that all of CompressAI's networks take are multiples of this."""


@dataclass(frozen=True)
class NeuralCodec:
    """Compress with a learned transform and a factorised prior, and open again.

    Ballé et al., "Variational image compression with a scale hyperprior", ICLR 2018, arXiv:1802.01436, by CompressAI
    (Bégaint et al., arXiv:2011.03029), trained for mean square error. Latents are rounded as in the stream.

    Attributes:
        quality: CompressAI's quality, 1 to 8; lower is stronger.
    """

    quality: int = 3
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 1, 8)

    @torch.no_grad()
    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, compressed and opened again.

        Raises:
            UserError: when CompressAI or its weights are not there; says how to get them.
        """
        codec = loaded(self.quality)
        height, width = content.shape[-2:]
        margin = [0, -width % MULTIPLE, 0, -height % MULTIPLE]
        opened = codec(F.pad(to_unit(content), margin, mode="replicate"))
        return to_bytes(opened[..., :height, :width]).contiguous()


def weights(quality: int) -> Path:
    """Where the weights of one quality lie."""
    return cache_folder() / "compressai" / f"{MODEL}-{quality}.safetensors"


@lru_cache(maxsize=8)
def loaded(quality: int) -> Callable[[Tensor], Tensor]:
    """The codec's pass over images (B, 3, H, W) in [0, 1] whose sides are multiples of 64."""
    if lack := lacks(quality):
        raise UserError(f"NeuralCodec(quality={quality}): {lack}")
    network: Any = import_module("compressai.zoo").bmshj2018_factorized(quality=quality, pretrained=False)
    network.load_state_dict(load_file(weights(quality)))
    network.requires_grad_(False).eval()
    return lambda x: network(x)["x_hat"]


def lacks(*qualities: int) -> str | None:
    """What to install or to fetch for these qualities; None when all is there."""
    if find_spec("compressai") is None:
        return (
            "expected the module 'compressai', found none; install it without its outdated bound on numpy (--no-deps)"
        )
    absent = [path for path in map(weights, qualities) if not path.is_file()]
    return f"expected {absent[0]}, found none; {FETCH}" if absent else None


def convert(path: Path) -> Path:
    """Write one of CompressAI's own weight files as safetensors where :func:`weights` looks for it."""
    quality = int(path.name.removeprefix(f"{MODEL}-prior-").split("-")[0])
    state = torch.load(path, weights_only=True, map_location="cpu")
    kept = import_module("compressai.zoo").load_pretrained(state)
    target = weights(quality)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in kept.items()}, target)
    return target


QUALITIES = (8, 6, 4, 3, 2, 1)
FAMILIES = (
    image_family(
        "neural-codec",
        lambda s: NeuralCodec(int(s)),
        Grid(QUALITIES, 3, "quality"),
        Card(
            "Compresses the picture with a learned codec.",
            "WAVES, arXiv:2401.08573; WatermarkLab",
            "CompressAI and its weights",
        ),
        standard=(),
        missing=lambda: lacks(*QUALITIES),
    ),
)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"wrote {convert(Path(name))}")
