"""The embedded generator's networks: an autoencoder of fields, and a prior over its latents conditioned on text.

A field of 4 × 32³ numbers becomes 4 × 8³ latents and back by three-dimensional convolutions. Resolution is gained by
sub-voxel shuffling (Shi et al., CVPR 2016, arXiv:1609.05158), since convolutions at 32³ would take most of the time of
every fingerprint experiment.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import T5EncoderModel

LATENT_SIDE = 8
PATCH = 2
"""Places per axis of the latents that are one token of the prior."""
GROUPS = 8


@dataclass(frozen=True)
class GridConfig:
    """Widths of the autoencoder.

    Attributes:
        latent: channels of the latents.
        coarse: channels at 8³.
        fine: channels at 16³.
    """

    latent: int = 4
    coarse: int = 96
    fine: int = 32


class ResnetBlock(nn.Module):
    """Two convolutions with a shortcut (He et al., ECCV 2016, arXiv:1603.05027)."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, fan_in), nn.Conv3d(fan_in, fan_out, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(GROUPS, fan_out), nn.Conv3d(fan_out, fan_out, 3, padding=1)
        self.shortcut = nn.Identity() if fan_in == fan_out else nn.Conv3d(fan_in, fan_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, g, g, g) to (B, out, g, g, g)."""
        h = self.conv1(F.silu(self.norm1(x)))
        y: Tensor = self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))
        return y


def shuffled(x: Tensor) -> Tensor:
    """(B, 8 C, g, g, g) to (B, C, 2 g, 2 g, 2 g)."""
    count, channels, side = x.shape[0], x.shape[1] // 8, x.shape[2]  # len(x) would fix the batch of an exported program
    split = x.view(count, channels, 2, 2, 2, side, side, side).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return split.reshape(count, channels, 2 * side, 2 * side, 2 * side)


def gathered(x: Tensor) -> Tensor:
    """(B, C, 2 g, 2 g, 2 g) to (B, 8 C, g, g, g): undoes :func:`shuffled`."""
    count, channels, side = len(x), x.shape[1], x.shape[2] // 2
    split = x.view(count, channels, side, 2, side, 2, side, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return split.reshape(count, 8 * channels, side, side, side)


class GridDecoder(nn.Module):
    """Latents (B, 4, 8, 8, 8) to fields (B, 4, 32, 32, 32): a signed distance, and RGB in [0, 1]."""

    def __init__(self, config: GridConfig) -> None:
        super().__init__()
        coarse, fine = config.coarse, config.fine
        self.conv_in = nn.Conv3d(config.latent, coarse, 3, padding=1)
        self.resnets = nn.ModuleList(
            [ResnetBlock(coarse, coarse), ResnetBlock(coarse, coarse), ResnetBlock(fine, fine)]
        )
        self.tint = nn.Conv3d(coarse, 3, 1)
        self.widen = nn.Conv3d(coarse, 8 * fine, 1)
        self.norm_out, self.conv_out = nn.GroupNorm(GROUPS, fine), nn.Conv3d(fine, 32, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Fields of latents. Colours start from a coarse guess: normalisation hides what is the same everywhere."""
        h = self.resnets[1](self.resnets[0](self.conv_in(z)))
        tint = F.interpolate(self.tint(h), scale_factor=4.0, mode="trilinear")
        h = self.resnets[2](shuffled(self.widen(h)))
        field = shuffled(self.conv_out(F.silu(self.norm_out(h))))
        return torch.cat([field[:, :1], (field[:, 1:] + tint).sigmoid()], 1)


class GridEncoder(nn.Module):
    """Fields (B, 4, 32, 32, 32) to latents (B, 4, 8, 8, 8)."""

    def __init__(self, config: GridConfig) -> None:
        super().__init__()
        coarse, fine = config.coarse, config.fine
        self.conv_in = nn.Conv3d(32, fine, 1)
        self.narrow = nn.Conv3d(8 * fine, coarse, 1)
        self.resnets = nn.ModuleList(
            [ResnetBlock(fine, fine), ResnetBlock(coarse, coarse), ResnetBlock(coarse, coarse)]
        )
        self.norm_out, self.conv_out = nn.GroupNorm(GROUPS, coarse), nn.Conv3d(coarse, config.latent, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Latents of fields; colours count from mid-grey."""
        h = self.conv_in(gathered(torch.cat([x[:, :1].clamp(-1, 1), x[:, 1:] - 0.5], 1)))
        h = self.resnets[0](h)
        h = self.resnets[2](self.resnets[1](self.narrow(gathered(h))))
        z: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return z


class GridAutoencoder(nn.Module):
    """Encoder and decoder; latents are divided by ``deviation``, so that those of real parts have deviation 1."""

    deviation: Tensor

    def __init__(self, config: GridConfig | None = None) -> None:
        super().__init__()
        self.config = config or GridConfig()
        self.encoder, self.decoder = GridEncoder(self.config), GridDecoder(self.config)
        self.register_buffer("deviation", torch.ones(()))

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape of one item's latents."""
        return (self.config.latent, *[LATENT_SIDE] * 3)  # type: ignore[return-value]

    def encode(self, fields: Tensor) -> Tensor:
        """Scaled latents (B, 4, 8, 8, 8) of fields (B, 4, 32, 32, 32)."""
        z: Tensor = self.encoder(fields) / self.deviation
        return z

    def save(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Write ``config.json`` and safetensors, in half precision unless another ``dtype`` is asked for."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8")
        state = {key: value.detach().cpu().to(dtype).contiguous() for key, value in self.state_dict().items()}
        save_file(state, folder / "model.safetensors")

    @classmethod
    def read(cls, folder: Path) -> GridAutoencoder:
        """Read what :meth:`save` wrote, in single precision."""
        numbers = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        with torch.device("meta"):  # initial weights would be draws from the global generator
            model = cls(GridConfig(**numbers))
        state = {key: value.float() for key, value in load_file(folder / "model.safetensors").items()}
        model.load_state_dict(state, assign=True)
        return model


class Conditioned(nn.Module):
    """The prior with the text encoder that it listens to.

    Shap-E's `PriorTransformer` (Jun and Nichol, "Shap-E", 2023, arXiv:2305.02463): one token per 2³ places of the
    latents, beside those of the text.

    Attributes:
        prior: predicts the velocity of noisy latents.
        encoder: token ids to text states.
    """

    def __init__(self, prior: nn.Module, encoder: T5EncoderModel) -> None:
        super().__init__()
        self.prior, self.encoder = prior, encoder

    def forward(self, noisy: Tensor, sigma: Tensor, ids: Tensor, mask: Tensor, heard: Tensor) -> Tensor:
        """Velocity like ``noisy`` (B, 4, 8, 8, 8), latents with noise of deviation ``sigma`` (B,).

        v-prediction of Salimans and Ho, ICLR 2022, arXiv:2202.00512, preconditioned as in Karras et al., NeurIPS 2022,
        arXiv:2206.00364.

        Args:
            noisy: latents plus noise, not scaled.
            sigma: (B,), above 0.
            ids: tokens (B, 16).
            mask: which of them are not padding.
            heard: (B,), 0 where the prompt is dropped, else 1.
        """
        states = self.encoder(ids, mask).last_hidden_state * (mask * heard[:, None].to(mask)).unsqueeze(-1)
        wide = sigma.view(-1, *[1] * (noisy.ndim - 1))
        scaled = noisy / (1 + wide.square()).sqrt()
        places = gathered(scaled).flatten(2).mT  # (B, 64, 8 C)
        pooled = states.sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        # Shap-E counts time from 0 to 1000; a logarithm of noise from 0.002 to 80 spreads over the same.
        velocity: Tensor = self.prior(places, 500 + 100 * sigma.log(), pooled, states, return_dict=False)[0]
        return shuffled(velocity.mT.reshape(gathered(scaled).shape))


PLACES = (LATENT_SIDE // PATCH) ** 3
"""Tokens of the prior."""
NOISE_LEVELS = (0.002, 80.0)
