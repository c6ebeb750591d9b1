"""Other weights in the place of the user's: the public decoder's, wholly or on the line to it, fresh ones, a copy's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from attacks.limits import check_strength
from attacks.model_training import fitted, outputs_of
from bench.protocol import Attacker, Target, UserError
from bench.rng import child
from bench.weights import (
    detached_copy,
    effective_weight,
    mapped_copy,
    other_parameters,
    set_effective_weight,
    weighted_layers,
)

NORMS = (nn.GroupNorm, nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class DecoderSwap:
    """Put the public decoder in the place of the user's, wholly or in part.

    Whoever has it can do so, and no fingerprint in a decoder survives: a structural limit, so it is in no suite, and
    ``--attack attacks.model:DecoderSwap`` runs it. Below 1, effective weights and other parameters are interpolated.

    Attributes:
        share: how much of the user's decoder is replaced.
    """

    share: float = 1.0
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy with the user's architecture.

        Raises:
            ValueError: when the public decoder has other layers than the user's.
        """
        return _towards(decoder, attacker.public_decoder, self.share)


@dataclass(frozen=True)
class Interpolation:
    """Move all parameters along the straight line from the user's decoder to the public one, and beyond it.

    Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT), CVPR 2022, arXiv:2109.01903; beyond 1 the
    change that the fingerprint made is negated, as by Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023,
    arXiv:2212.04089. The cheapest removal wherever the public decoder can be had.

    Attributes:
        share: of the way to the public decoder; 1 is there, 2 as far beyond it.
    """

    share: float = 0.5
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0, 10)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy with the user's architecture.

        Raises:
            ValueError: when the public decoder has other layers than the user's.
        """
        return _towards(decoder, attacker.public_decoder, self.share)


@dataclass(frozen=True)
class VocoderSwap:
    """Put another vocoder behind the user's decoder, wholly or in part.

    For audio generators whose decoder holds a ``vocoder`` (from spectrogram to waveform): it is a part that anyone can
    exchange. With ``Attacker.vocoder`` that takes the place whole, else the public decoder's own does. In no suite;
    ``--attack attacks.model:VocoderSwap`` runs it.

    Attributes:
        share: how much of the user's vocoder is replaced; less than 1 only by the public decoder's.
    """

    share: float = 1.0
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy that ends in another vocoder.

        Raises:
            UserError: when the decoder has no vocoder, or part of one of another architecture is asked for.
        """
        own = getattr(decoder, "vocoder", None)
        if not isinstance(own, nn.Module):
            raise UserError(f"{self!r}: expected a decoder with a vocoder, found {type(decoder).__name__} without one")
        swapped, other = detached_copy(decoder), attacker.vocoder
        if other is None:
            public: nn.Module = attacker.public_decoder.get_submodule("vocoder")
            swapped.vocoder = _towards(own, public, self.share)
        elif self.share not in (0, 1):
            raise UserError(f"{self!r}: expected to swap in a whole {type(other).__name__}, found a share of it")
        elif self.share:
            swapped.vocoder = detached_copy(other)
        return swapped


@dataclass(frozen=True)
class Bypass:
    """Load the user's weights into the public decoder's code, which has no stage that marks.

    What a user does to a post-hoc codec (``removable``): the copy's state-dict keys are the original's, so that the
    ordinary loader takes it and leaves out whatever was put behind the decoder. A fingerprint in the weights stays.

    Attributes:
        share: 1 drops the stage, 0 keeps it.
    """

    share: int = 1
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        if self.share not in (0, 1):
            raise UserError(f"{self!r}: expected 0 or 1, a stage is dropped or not, found {self.share:g}")

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy of the public decoder with the user's weights.

        Raises:
            UserError: when the state-dict keys are not the public decoder's.
        """
        if not self.share:
            return detached_copy(decoder)
        plain = detached_copy(attacker.public_decoder)
        state = decoder.state_dict()
        if odd := sorted(state.keys() ^ plain.state_dict().keys()):
            raise UserError(f"{self!r}: expected the state-dict keys of the public decoder, these differ: {odd[0]}")
        plain.load_state_dict(state)
        return plain


@dataclass(frozen=True)
class LayerReset:
    """Draw the weights of some layers anew, as an untrained decoder has them.

    "Weight reinitialization" in Lukas et al., "SoK: How Robust is Image Classification Deep Neural Network
    Watermarking?", IEEE S&P 2022, arXiv:2108.04974, here without the fine-tuning after it.

    Attributes:
        share: of the layers, whichever chance picks; a higher share on the same stream resets more in the same order.
    """

    share: float = 0.1
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    @torch.no_grad()
    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy with fresh layers."""
        reset = detached_copy(decoder)
        layers = weighted_layers(reset)
        order = torch.randperm(len(layers), generator=rng, device=rng.device).tolist()
        names = list(layers)
        for index in order[: round(self.share * len(names))]:
            _reset(layers[names[index]], rng)
        return reset


@dataclass(frozen=True)
class Distillation:
    """Train a fresh decoder of the same architecture to put out what the user's does.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531, as an attack in Lukas et al.,
    "SoK: How Robust is Image Classification Deep Neural Network Watermarking?", IEEE S&P 2022, arXiv:2108.04974. No
    weight is inherited: what is still read was learned from the output. Parameters of layers that know no initial
    state, such as those of learned activations, are the user's.

    Attributes:
        steps: steps of Adam; fewer leave a worse decoder.
        rate: its learning rate.
        batch: latents per step, drawn with replacement.
    """

    steps: int = 1000
    rate: float = 1e-3
    batch: int = 16
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """The new decoder."""
        fresh = _fresh(decoder, child(rng, "weights"))
        return fitted(fresh, attacker, outputs_of(decoder, attacker), self, child(rng, "training"))


@torch.no_grad()
def _towards(decoder: nn.Module, public: nn.Module, share: float) -> nn.Module:
    """A copy of ``decoder`` on the line to ``public``: effective weights, other parameters and statistics."""
    layers = weighted_layers(public)
    others = {**other_parameters(public), **dict(public.named_buffers())}
    if layers.keys() != weighted_layers(decoder).keys():
        raise ValueError(f"{len(layers)} layers to swap in, expected those of the {type(decoder).__name__}")
    moved = mapped_copy(decoder, lambda name, _, weight: weight.lerp(effective_weight(layers[name]), share))
    for name, value in {**other_parameters(moved), **dict(moved.named_buffers())}.items():
        if value.is_floating_point():
            value.lerp_(others[name], share)
    return moved


@torch.no_grad()
def _fresh(decoder: nn.Module, rng: Generator) -> nn.Module:
    """A copy of which every layer and norm is as torch makes them."""
    fresh = detached_copy(decoder)
    for layer in weighted_layers(fresh).values():
        _reset(layer, rng)
    for norm in (module for module in fresh.modules() if isinstance(module, NORMS)):
        norm.reset_parameters()
    return fresh


def _reset(layer: nn.Module, rng: Generator) -> None:
    """Weight and bias uniform in ±1/√fan-in, as torch draws those of convolutions and linear layers."""
    weight, bias = effective_weight(layer), getattr(layer, "bias", None)
    bound = weight[0].numel() ** -0.5  # torch counts axis 1 as inputs, also of transposed convolutions
    set_effective_weight(layer, _uniform(weight, bound, rng))
    if isinstance(bias, Tensor):
        bias.copy_(_uniform(bias, bound, rng))


def _uniform(like: Tensor, bound: float, rng: Generator) -> Tensor:
    drawn = torch.rand(like.shape, generator=rng, device=rng.device).to(like.device)
    return bound * (2 * drawn - 1)
