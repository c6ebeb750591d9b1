"""A decoder with every kind of weight, what an attacker of it holds, and what holds for every attack on it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from bench.protocol import Attacker
from bench.rng import stream
from bench.weights import effective_weight, set_effective_weight, weighted_layers


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.nn.utils.weight_norm(layer)


def decoder(*names: object) -> nn.Module:
    """A toy decoder of latents (B, 4, 8, 8) with every kind of weight, in eval mode and frozen."""
    model = nn.Sequential(
        nn.Conv2d(4, 24, 3, padding=1),
        nn.GroupNorm(4, 24),
        nn.SiLU(),
        old_weight_norm(nn.Conv2d(24, 24, 3, padding=1)),
        nn.BatchNorm2d(24),
        nn.SiLU(),
        weight_norm(nn.ConvTranspose2d(24, 12, 4, 2, 1)),
        nn.SiLU(),
        nn.Conv2d(12, 3, 3, padding=1),
    )
    rng = stream(0, "decoder", *names)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
        for layer in weighted_layers(model).values():
            weight = effective_weight(layer)
            fan = weight.numel() / max(weight.shape[:2])
            set_effective_weight(layer, torch.randn(weight.shape, generator=rng) / fan**0.5)
    return model.eval().requires_grad_(False)


LATENTS = torch.randn(12, 4, 8, 8, generator=stream(0, "latents"))
PUBLIC = decoder("public")


def attacker(fields: Tensor | None = None) -> Attacker:
    return Attacker(
        public_decoder=PUBLIC,
        latents=LATENTS,
        fields=PUBLIC(LATENTS) if fields is None else fields,
        decode=lambda model, latents: model(latents),
        perceptual_loss=lambda a, b: F.mse_loss(a, b, reduction="none").flatten(1).mean(1),
    )


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: effective_weight(layer).detach() for name, layer in weighted_layers(model).items()}


def contract(model: nn.Module, attack: Callable[[], nn.Module]) -> None:
    """What holds for every attack on decoders; ``attack`` starts from a fresh stream at each call."""
    before, output = copy.deepcopy(model.state_dict()), model(LATENTS)
    once, again = attack(), attack()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), "changed in place"
    assert {p.data_ptr() for p in model.parameters()}.isdisjoint(p.data_ptr() for p in once.parameters())
    assert list(once.state_dict()) == list(before)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in once.state_dict().items())
    assert not once.training and not any(p.requires_grad for p in once.parameters())
    assert torch.isfinite(once(LATENTS)).all() and not torch.equal(once(LATENTS), output)
    for name, weight in weights(once).items():
        assert not torch.allclose(weight, weights(model)[name], rtol=1e-5), f"layer {name} is as it was"
