"""Permuted and rescaled channels: other weights, the same function."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_oobleck import OobleckDecoder
from torch import Tensor, nn

from attacks.model import ChannelPermutation, ChannelRescaling
from attacks.model_invariance import _chains
from bench.protocol import Attacker, UserError
from bench.rng import fenced, stream
from bench.weights import other_parameters
from tests.decoders import LATENTS, PUBLIC, attacker, weights


class Mixed(nn.Module):
    """Layers with a ReLU between them, and others that a residual connection ties."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 16, 3, padding=1), nn.ConvTranspose2d(16, 8, 4, 2, 1)
        self.three, self.four = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 3, 3)
        self.act = nn.ReLU()

    def forward(self, latents: Tensor) -> Tensor:
        h = self.act(self.two(self.act(self.one(latents))))
        painted: Tensor = self.four(h + self.act(self.three(h)))
        return painted


def image_decoder() -> nn.Module:
    settings: dict[str, Any] = {"block_out_channels": [8, 16], "norm_num_groups": 4, "latent_channels": 4}
    blocks: dict[str, Any] = {
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    }
    return AutoencoderKL(**settings, **blocks).decoder


def audio_decoder() -> nn.Module:
    made = OobleckDecoder(8, 4, 1, [2, 2], [1, 2])
    for name, parameter in made.named_parameters():
        if name.endswith(("alpha", "beta")):
            parameter.data.normal_(std=0.3)
    return made


MAKERS: dict[str, Any] = {"mixed": Mixed, "image": image_decoder, "audio": audio_decoder}
SHAPES = {"mixed": (3, 4, 8, 8), "image": (2, 4, 8, 8), "audio": (2, 4, 16)}


def made(name: str) -> tuple[nn.Module, Attacker, Tensor]:
    with fenced(1):
        model = MAKERS[name]().eval().requires_grad_(False)
    latents = torch.randn(SHAPES[name], generator=stream(0, "latents"))
    return model, replace(attacker(), public_decoder=model, latents=latents), latents


@pytest.mark.parametrize("attack", [ChannelPermutation(), ChannelRescaling(4.0)], ids=repr)
@pytest.mark.parametrize("name", list(MAKERS))
@torch.no_grad()
def test_the_function_stays_and_the_weights_do_not(name: str, attack: Any) -> None:
    model, holder, latents = made(name)
    before, output = weights(model), model(latents)
    changed = attack(model, holder, stream(0))
    assert list(changed.state_dict()) == list(model.state_dict())
    assert (changed(latents) - output).abs().max() <= 2e-3 * output.square().mean().sqrt()
    assert (changed(-latents) - model(-latents)).abs().max() <= 2e-3 * output.square().mean().sqrt(), "other latents"
    moved = [key for key, weight in weights(changed).items() if not torch.allclose(weight, before[key], rtol=1e-3)]
    assert len(moved) >= {"mixed": 2, "image": 6, "audio": 12}[name] / (2 if "Rescaling" in repr(attack) else 1), moved
    assert all(torch.equal(weight, weights(model)[key]) for key, weight in before.items()), "changed in place"
    again = attack(model, holder, stream(0)).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in changed.state_dict().items())
    assert not any(module._forward_hooks for module in changed.modules()), "a probe was left behind"


@torch.no_grad()
def test_permuted_rows_are_the_old_ones_in_another_order() -> None:
    model, holder, _ = made("mixed")
    changed = weights(ChannelPermutation()(model, holder, stream(0)))
    rows, old = changed["one"].flatten(1), weights(model)["one"].flatten(1)
    assert not torch.equal(rows, old)
    order = (rows[:, None] - old[None]).abs().sum(2).argmin(1)
    assert sorted(order.tolist()) == list(range(16)) and torch.equal(rows, old[order])
    assert torch.equal(changed["two"], weights(model)["two"][order]), "the next layer follows"
    assert torch.equal(changed["three"], weights(model)["three"]), "a residual connection ties these"


@pytest.mark.parametrize("factor", [1.5, 4.0])
@torch.no_grad()
def test_scales_lie_within_the_factor(factor: float) -> None:
    model, holder, _ = made("mixed")
    changed = weights(ChannelRescaling(factor)(model, holder, stream(0)))
    scale = changed["one"].flatten(1).norm(dim=1) / weights(model)["one"].flatten(1).norm(dim=1)  # (16,)
    assert 1 / factor <= scale.min() < 0.8 and 1.2 < scale.max() <= factor
    assert torch.allclose(changed["two"], weights(model)["two"] / scale.view(-1, 1, 1, 1), rtol=1e-4)


@torch.no_grad()
def test_groups_of_a_normalisation_stay_together() -> None:
    model, holder, _ = made("image")
    changed = ChannelPermutation()(model, holder, stream(0))
    for key, value in other_parameters(changed).items():
        before = model.get_parameter(key)
        assert torch.equal(value.sort().values, before.sort().values), key
    block = "up_blocks.0.resnets.0.conv1"
    rows, old = (weights(each)[block].flatten(1) for each in (changed, model))
    groups = (rows[:, None] - old[None]).abs().sum(2).argmin(1).view(4, -1) // 4
    assert (groups == groups[:, :1]).all() and len(groups.unique()) == 4


@torch.no_grad()
def test_a_share_of_the_chains_is_permuted() -> None:
    model, holder, latents = made("audio")
    total = len(_chains(model, holder, latents[:1]))
    for share in (0.0, 0.25, 1.0):
        changed = weights(ChannelPermutation(share)(model, holder, stream(0)))
        moved = sum(not torch.equal(weight, weights(model)[key]) for key, weight in changed.items())
        assert math.ceil(share * total) / 2 <= moved <= 2 * math.ceil(share * total), share


@torch.no_grad()
def test_nothing_to_permute_is_an_error_and_norms_of_other_kinds_are_left_alone() -> None:
    with pytest.raises(UserError, match="Conv2d: expected layers in a row that bear the change, found none"):
        single = nn.Conv2d(4, 3, 3).requires_grad_(False)
        ChannelPermutation()(single, attacker(), stream(0))
    for attack in (ChannelPermutation(), ChannelRescaling(3.0)):
        same: Any = attack(PUBLIC, attacker(), stream(0))
        assert torch.allclose(same(LATENTS), PUBLIC(LATENTS), atol=1e-3)
    with pytest.raises(UserError, match=r"the strength must lie in \[1, 100\], found 0\.5"):
        ChannelRescaling(0.5)
