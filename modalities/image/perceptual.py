"""Pretrained perception of images: LPIPS distance and MobileNetV2 features."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from bench.folders import cache_folder
from bench.protocol import UserError

WEIGHTS = Path(__file__).parent / "weights"
Net = Literal["alex", "vgg"]


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity.

    Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018,
    arXiv:1801.03924, eq. 1, version 0.1 heads.

    Args:
        net: ``alex`` (weights ship) or ``vgg`` (weights from ``make data MODALITY=image``).
        depth: how many of the five feature levels count; fewer is a cheaper training loss, not LPIPS.

    Raises:
        UserError: when the weights are not there.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: Net = "alex", depth: int = 5) -> None:
        super().__init__()
        state = _weights(net)
        with torch.device("meta"):  # initial weights would cost seconds, and draws from the global generator
            model = {"alex": torchvision.models.alexnet, "vgg": torchvision.models.vgg16}[net](weights=None)
        layers: nn.Sequential = model.features
        kept = {key[9:]: value.float() for key, value in state.items() if key.startswith("features.")}
        layers.load_state_dict(kept, assign=True)
        ends = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}[net][:depth]  # each after its ReLU
        starts = (0, *(end + 1 for end in ends[:-1]))
        self.slices = nn.ModuleList(layers[a : b + 1] for a, b in zip(starts, ends, strict=True))
        for module in self.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        for index in range(depth):
            self.register_buffer(f"head{index}", state[f"heads.{index}"].float().view(1, -1, 1, 1))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def embed(self, x: Tensor) -> Tensor:
        """Last features (B, C, h, w) of images (B, 3, H, W) in [0, 1]."""
        x = (x - self.mean) / self.std
        for layers in self.slices:
            x = layers(x)
        return x

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each pair.

        Args:
            a: images (B, 3, H, W) in [0, 1].
            b: images of the same shape.

        Returns:
            Distances (B,), 0 for equal images.
        """
        a, b = (a - self.mean) / self.std, (b - self.mean) / self.std
        total = torch.zeros(a.shape[0], device=a.device)
        for index, layers in enumerate(self.slices):
            a, b = layers(a), layers(b)
            head = getattr(self, f"head{index}")
            apart = (_unit(a.float()) - _unit(b.float())).square() * head  # (B, C, h, w)
            total = total + apart.sum(1).mean((1, 2))
        return total


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True) + 1e-10).sqrt()


def _weights(net: Net) -> dict[str, Tensor]:
    path = WEIGHTS / "lpips_alex.safetensors" if net == "alex" else cache_folder() / "image" / "lpips_vgg.safetensors"
    if not path.is_file():
        raise UserError(f"LPIPS-{net} weights: expected {path}, found none; run `make data MODALITY=image` first")
    return load_file(path)


class MobileNetV2Features(nn.Module):
    """Globally pooled last features of torchvision's ImageNet MobileNetV2, 1280 numbers an image.

    Images are resized to 128×128 first: at their own 64×64 the last feature map would be 2×2.
    Sandler et al., "MobileNetV2", CVPR 2018, arXiv:1801.04381.
    """

    size = 128
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        state = {key: value.float() for key, value in load_file(WEIGHTS / "mobilenet_v2.safetensors").items()}
        with torch.device("meta"):
            self.features = torchvision.models.mobilenet_v2(weights=None).features
        counters = {key: torch.tensor(0) for key in self.state_dict() if key.endswith("num_batches_tracked")}
        self.load_state_dict(state | counters, assign=True)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 1280) of images (B, 3, H, W) in [0, 1]."""
        x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True)
        x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        pooled: Tensor = self.features(x).mean((2, 3))  # (B, 1280)
        return pooled


class InceptionFeatures(nn.Module):
    """Canonical FID features (2048-d pool3) through torch-fidelity.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", NeurIPS 2017, arXiv:1706.08500.

    Raises:
        UserError: when torch-fidelity or its weights are not available.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

            self.network = FeatureExtractorInceptionV3("inception", ["2048"])
        except ImportError as error:
            raise UserError("features inception: install torch-fidelity (`uv pip install torch-fidelity`)") from error
        except OSError as error:
            raise UserError(f"features inception: its weights cannot be downloaded ({error})") from error
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 2048) of images (B, 3, H, W) in [0, 1]."""
        features: Tensor = self.network((x * 255).round().to(torch.uint8))[0]
        return features


@lru_cache(maxsize=1)
def inception() -> InceptionFeatures:
    """The shared Inception network; see :class:`InceptionFeatures`."""
    return InceptionFeatures()


@lru_cache(maxsize=4)
def lpips(net: Net = "alex", depth: int = 5) -> LPIPS:
    """The shared LPIPS network; see :class:`LPIPS`."""
    return LPIPS(net, depth)


@lru_cache(maxsize=1)
def mobilenet() -> MobileNetV2Features:
    """The shared feature network; see :class:`MobileNetV2Features`."""
    return MobileNetV2Features()
