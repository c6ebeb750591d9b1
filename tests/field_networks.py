"""Networks of latents and points that know nothing of GenPrint: a plain field, and one of Hunyuan3D-2's structure."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Field(nn.Module):
    """Park et al., "DeepSDF", CVPR 2019, arXiv:1901.05103: outward distance and colours by a few linear layers.

    A ball of radius 0.6, whose surface the last layer disturbs.
    """

    latent_shape = (6,)
    positive_inside = False

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(9, 24), nn.Linear(24, 24), nn.Linear(24, 24), nn.Linear(24, 4)])

    def forward(self, latents: Tensor, places: Tensor) -> Tensor:
        h = torch.cat([latents[:, None].expand(-1, places.shape[1], -1), 3 * places], 2)
        for layer in self.layers[:-1]:
            h = F.softplus(layer(h))
        made = self.layers[-1](h)
        ball = places.norm(dim=2, keepdim=True) - 0.6
        return torch.cat([ball + 0.1 * torch.tanh(made[..., :1]), torch.sigmoid(made[..., 1:])], 2)


class FourierEmbedder(nn.Module):
    """Points (..., 3) beside their sines and cosines, (..., 3 (2 n + 1))."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(count) * torch.pi, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        waves = (x[..., None] * self.frequencies).flatten(-2)
        return torch.cat([x, waves.sin(), waves.cos()], -1)


class MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.c_proj(F.gelu(self.c_fc(x)))
        return made


def split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.c_qkv, self.c_proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split(part, self.heads) for part in self.c_qkv(x).chunk(3, 2))
        made: Tensor = self.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return made


class CrossAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_q, self.c_kv, self.c_proj = (nn.Linear(width, k * width) for k in (1, 2, 1))

    def forward(self, x: Tensor, data: Tensor) -> Tensor:
        k, v = (split(part, self.heads) for part in self.c_kv(data).chunk(2, 2))
        asked = F.scaled_dot_product_attention(split(self.c_q(x), self.heads), k, v)
        made: Tensor = self.c_proj(asked.transpose(1, 2).flatten(2))
        return made


class SelfBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn, self.ln_1 = SelfAttention(width, heads), nn.LayerNorm(width)
        self.mlp, self.ln_2 = MLP(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        made: Tensor = x + self.mlp(self.ln_2(x))
        return made


class CrossBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn, self.mlp = CrossAttention(width, heads), MLP(width)
        self.ln_1, self.ln_2, self.ln_3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, data: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x), self.ln_2(data))
        made: Tensor = x + self.mlp(self.ln_3(x))
        return made


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([SelfBlock(width, heads) for _ in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x)
        return x


class CrossAttentionDecoder(nn.Module):
    """Points ask tokens: logits (B, N, 1), positive inside."""

    def __init__(self, embedder: FourierEmbedder, width: int, heads: int, freqs: int) -> None:
        super().__init__()
        self.fourier_embedder, self.query_proj = embedder, nn.Linear(3 * (2 * freqs + 1), width)
        self.cross_attn_decoder, self.ln_post = CrossBlock(width, heads), nn.LayerNorm(width)
        self.output_proj = nn.Linear(width, 1)

    def forward(self, queries: Tensor, latents: Tensor) -> Tensor:
        h = self.query_proj(self.fourier_embedder(queries).to(latents.dtype))
        made: Tensor = self.output_proj(self.ln_post(self.cross_attn_decoder(h, latents)))
        return made


class ShapeVAE(nn.Module):
    """The decoding half of Hunyuan3D-2's (arXiv:2501.12202), with its members' names and a few thousand weights."""

    def __init__(self, latents: int = 6, embed: int = 4, width: int = 16, heads: int = 2, freqs: int = 2) -> None:
        super().__init__()
        self.fourier_embedder, self.post_kl = FourierEmbedder(freqs), nn.Linear(embed, width)
        self.transformer = Transformer(width, 2, heads)
        self.geo_decoder = CrossAttentionDecoder(self.fourier_embedder, width, heads, freqs)
        self.scale_factor, self.latent_shape = 0.9, (latents, embed)

    def forward(self, latents: Tensor) -> Tensor:
        made: Tensor = self.transformer(self.post_kl(latents))
        return made

    def decode(self, latents: Tensor, places: Tensor) -> Tensor:
        """As its pipeline calls it: sampled latents, scaled back, and points (B, N, 3)."""
        made: Tensor = self.geo_decoder(queries=places, latents=self(latents / self.scale_factor))
        return made


class Prompted(Field):
    """A field whose latents come from prompts."""

    def sample_latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        return torch.stack([torch.full((6,), len(prompt) / 10) for prompt in prompts]) + torch.randn(
            len(prompts), 6, generator=rng
        )


class Flat(nn.Module):
    """Two values at a point: no field."""

    latent_shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, latents: Tensor, places: Tensor) -> Tensor:
        return self.layer(places + latents[:, None])


def drawn(make: type[nn.Module]) -> nn.Module:
    """A network whose weights are those of one seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make()


def field() -> nn.Module:
    return drawn(Field)


def hunyuan3d() -> nn.Module:
    """Stands in for ``ShapeVAE.from_pretrained`` of hy3dgen."""
    return drawn(ShapeVAE)


def prompted() -> nn.Module:
    return drawn(Prompted)


def flat() -> nn.Module:
    return drawn(Flat)


def number() -> int:
    return 7
