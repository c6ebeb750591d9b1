"""Image attacks by small, well-aimed changes: projected gradients on networks that the attacker holds.

No value moves further than epsilon levels of 255, exactly: the change is made of whole levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from attacks.grids import Card, Grid, image_family
from attacks.image_pixels import to_bytes, to_unit
from attacks.limits import check_strength
from attacks.tools import Access, Tools
from bench.protocol import AttackFamily, Target, UserError
from bench.rng import child, fenced

WAVES = "WAVES, arXiv:2401.08573"
EPSILONS = (2, 4, 6, 8)
Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PGDEmbedding:
    """Drive the embedding of an unrelated public network as far away as epsilon allows.

    Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018, arXiv:1706.06083; as an
    attack on fingerprints An et al., "WAVES", ICML 2024, arXiv:2401.08573, with 200 steps of 0.05 epsilon.

    Attributes:
        epsilon_255: largest change of a value, in levels of 255.
        embed: see :class:`attacks.tools.Tools`.
        steps: gradient steps.
        stride: length of a step as a share of epsilon.
    """

    epsilon_255: int
    embed: Embed = field(repr=False, compare=False)
    steps: int = 40
    stride: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 255)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 that the network sees as something else."""
        with torch.no_grad():
            before = self.embed(to_unit(content)).float()
        return ascended(content, lambda x: _apart(self.embed(x), before), self, rng)


@dataclass(frozen=True)
class PGDAutoencoder:
    """Drive the latent of the generator's own public encoder as far away as epsilon allows.

    As :class:`PGDEmbedding`: WAVES' "AdvEmb-KLVAE8", which is the autoencoder of the generators under attack.

    Attributes:
        epsilon_255: largest change of a value, in levels of 255.
        encode: see :class:`attacks.tools.Tools`.
        steps: gradient steps.
        stride: length of a step as a share of epsilon.
    """

    epsilon_255: int
    encode: Embed = field(repr=False, compare=False)
    steps: int = 40
    stride: float = 0.1
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 255)

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 that the encoder sees as something else."""
        with torch.no_grad():
            before = self.encode(to_unit(content)).float()
        return ascended(content, lambda x: _apart(self.encode(x), before), self, rng)


def _apart(now: Tensor, before: Tensor) -> Tensor:
    return (now.float() - before).square().flatten(1).mean(1)


@dataclass(frozen=True)
class PGDSurrogate:
    """Train a classifier of fingerprinted against clean pictures, and make pictures that it takes for clean.

    An et al., "WAVES", ICML 2024, arXiv:2401.08573 ("AdvCls-UnWM-WM"), with a small network of its own from scratch.

    Attributes:
        epsilon_255: largest change of a value, in levels of 255.
        items: pictures of each kind that the attacker collects.
        training: steps of the surrogate's training, each on 32 pictures.
        steps: gradient steps.
        stride: length of a step as a share of epsilon.
        surrogate: pictures (B, 3, H, W) in [0, 1] to (B,), higher for fingerprinted; made by :meth:`armed`.
    """

    epsilon_255: int
    items: int = 128
    training: int = 200
    steps: int = 40
    stride: float = 0.1
    surrogate: Embed | None = field(default=None, repr=False, compare=False)
    target: ClassVar[Target] = "content"

    def __post_init__(self) -> None:
        check_strength(self, 0, 255)

    def armed(self, access: Access, rng: Generator) -> PGDSurrogate:
        """The same attack with a surrogate trained on collected pictures."""
        marked, clean = access.owned(self.items), access.clean(self.items)
        network = trained_surrogate(to_unit(marked), to_unit(clean), self.training, rng)
        return replace(self, surrogate=lambda x: network(x).flatten())

    def __call__(self, content: Tensor, rng: Generator) -> Tensor:
        """Images (B, 3, H, W) uint8 that the surrogate takes for clean.

        Raises:
            UserError: when there is no surrogate: only a run, which has a scheme, can collect its pictures.
        """
        surrogate = self.surrogate
        if surrogate is None:
            raise UserError(f"{self!r}: expected a surrogate trained on the scheme's pictures, found none; see `armed`")
        return ascended(content, lambda x: -surrogate(x), self, rng)


class FineDetail(nn.Module):
    """Pictures (B, 3, H, W) beside ten times what a 3 x 3 mean takes from them, (B, 6, H, W).

    Fingerprints are weak beside content; classifiers of hidden messages see high-passed pictures for that reason, as in
    Fridrich and Kodovský, "Rich Models for Steganalysis of Digital Images", IEEE TIFS 7(3), 2012.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Centred pictures and their fine detail."""
        return torch.cat([x - 0.5, 10 * (x - F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))], dim=1)


def trained_surrogate(marked: Tensor, clean: Tensor, steps: int, rng: Generator) -> nn.Module:
    """A small convolutional network that tells pictures (n, 3, H, W) in [0, 1] apart: above 0 is marked."""
    with fenced(int(torch.randint(2**31, (1,), generator=rng, device=rng.device))):
        layers: list[nn.Module] = [FineDetail()]
        for wide, out in ((6, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(wide, out, 3, stride=2, padding=1), nn.GroupNorm(4, out), nn.SiLU()]
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1)).to(marked.device)
    x = torch.cat([marked, clean])
    y = torch.cat([torch.ones(len(marked)), torch.zeros(len(clean))]).to(x.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    with torch.enable_grad():
        for _ in range(steps):
            rows = torch.randint(len(x), (32,), generator=rng, device=rng.device).to(x.device)
            loss = F.binary_cross_entropy_with_logits(network(x[rows]).flatten(), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.requires_grad_(False).eval()


def ascended(
    content: Tensor,
    aim: Callable[[Tensor], Tensor],
    attack: PGDEmbedding | PGDAutoencoder | PGDSurrogate,
    rng: Generator,
) -> Tensor:
    """Images moved uphill by signed gradient steps from a random start, within epsilon.

    Args:
        content: images (B, 3, H, W) uint8.
        aim: images in [0, 1] to a score each, (B,), differentiable.
        attack: says how far and in how many steps.
        rng: of the start; at no change at all the gradient of a distance is 0.
    """
    x, epsilon = to_unit(content), attack.epsilon_255 / 255
    start = torch.rand(content.shape, generator=child(rng, "start"), device=rng.device).to(x.device)
    change = ((2 * start - 1) * epsilon + x).clamp(0, 1) - x
    for _ in range(attack.steps):
        with torch.enable_grad():
            change.requires_grad_(True)
            (slope,) = torch.autograd.grad(aim(x + change).sum(), change)
        change = (change.detach() + attack.stride * epsilon * slope.sign()).clamp(-epsilon, epsilon)
        change = (x + change).clamp(0, 1) - x
    return to_bytes(x + change)


FAMILIES = (
    image_family(
        "pgd-surrogate",
        lambda s: PGDSurrogate(int(s)),
        Grid(EPSILONS, 2, "levels of 255"),
        Card(
            "Trains an own detector on collected pictures and fools it.",
            WAVES,
            "an own copy and the public generator",
        ),
        standard=(),
    ),
)


def tool_families(tools: Tools) -> tuple[AttackFamily, ...]:
    """The attacks on networks that the attacker holds, as far as they are there."""
    made: list[AttackFamily] = []
    grid, embed, encode = Grid(EPSILONS, 2, "levels of 255"), tools.embed, tools.encode
    if embed is not None:
        does = "Fools an unrelated public network, hoping that the reader is fooled too."
        card = Card(does, WAVES, "a public image network with gradients (embed)")
        made.append(image_family("pgd-embedding", lambda s: PGDEmbedding(int(s), embed), grid, card, standard=()))
    if encode is not None:
        does = "Fools the generator's public encoder, in whose space the fingerprint was made."
        card = Card(does, WAVES, "the generator's public encoder with gradients (encode)")
        made.append(image_family("pgd-autoencoder", lambda s: PGDAutoencoder(int(s), encode), grid, card, standard=()))
    return tuple(made)
