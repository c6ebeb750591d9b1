"""Attacks on the decoder that a user received, all on its effective weights.

Under weight normalisation, noise on ``weight_v`` or pruning of ``weight_g`` would be another attack than the one its
name promises, so everything goes through ``bench.weights``. Results keep the state-dict keys; the input stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from attacks.limits import check_strength
from bench.protocol import Attacker, AttackFamily, Target
from bench.weights import detached_copy, effective_weight, input_axis, mapped_copy, other_parameters, weighted_layers


@dataclass(frozen=True)
class WeightNoise:
    """Add white Gaussian noise to every effective weight, in proportion to that layer's own spread.

    Biases, norm scales and embeddings get noise in proportion to their own spread, too. A parameter whose values are
    all equal has none, and keeps them.

    Attributes:
        relative_std: standard deviation of the noise over that of the tensor it is added to.
        kernels_only: leave the other parameters alone.
    """

    relative_std: float = 0.1
    kernels_only: bool = False
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    @torch.no_grad()
    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A noisy copy."""
        noisy = mapped_copy(decoder, lambda name, layer, weight: self._noisy(weight, rng))
        if not self.kernels_only:
            for parameter in other_parameters(noisy).values():
                parameter.copy_(self._noisy(parameter, rng))
        return noisy

    def _noisy(self, tensor: Tensor, rng: Generator) -> Tensor:
        exact = tensor.float()
        noise = torch.randn(tensor.shape, generator=rng, device=rng.device).to(tensor.device)
        return exact + self.relative_std * exact.std(correction=0) * noise


@dataclass(frozen=True)
class WeightQuantization:
    """Round every effective weight to the nearest of 2^bits - 1 evenly spaced levels, symmetric about 0.

    The uniform symmetric quantiser of Krishnamoorthi, "Quantizing deep convolutional networks for efficient
    inference", 2018, arXiv:1806.08342, with the largest magnitude as its range. Values stay floating point; biases
    and norms stay exact, as deployments keep them.

    Attributes:
        bits: bits per weight; lower is stronger.
        per_channel: one range for each output channel, instead of one for each layer.
    """

    bits: int = 8
    per_channel: bool = False
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 2, 16)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy with quantised weights."""
        return mapped_copy(decoder, lambda name, layer, weight: self._rounded(layer, weight.float()))

    def _rounded(self, layer: nn.Module, weight: Tensor) -> Tensor:
        outputs = 1 - input_axis(layer)
        axes = [axis for axis in range(weight.ndim) if not self.per_channel or axis != outputs]
        step = weight.abs().amax(axes, keepdim=True) / (2 ** (self.bits - 1) - 1)
        step = torch.where(step > 0, step, 1)  # an all-zero channel stays zero
        return (weight / step).round() * step


@dataclass(frozen=True)
class MagnitudePruning:
    """Set the smallest effective weights of every layer to zero.

    Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015, arXiv:1506.02626,
    without retraining.

    Attributes:
        ratio: share of each layer's weights that is zeroed.
    """

    ratio: float = 0.3
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0, 1)

    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A pruned copy."""
        return mapped_copy(decoder, lambda name, layer, weight: self._pruned(weight))

    def _pruned(self, weight: Tensor) -> Tensor:
        flat = weight.flatten()
        order = flat.abs().argsort(stable=True)
        return flat.index_fill(0, order[: round(self.ratio * flat.numel())], 0).view_as(weight)


@dataclass(frozen=True)
class FineTune:
    """Train the decoder on clean content and its latents, as anyone with the public encoder can.

    The model purification of Fernandez et al., "The Stable Signature", ICCV 2023, arXiv:2303.15435, section 5; the
    encoder-aware attack of Hu et al., "Stable Signature is Unstable", 2024, arXiv:2405.07145. The loss is L1 plus the
    modality's perceptual distance. The decoder stays in evaluation mode.

    Attributes:
        steps: steps of Adam.
        rate: its learning rate.
        batch: pairs per step, drawn with replacement.
    """

    steps: int = 100
    rate: float = 1e-4
    batch: int = 16
    target: ClassVar[Target] = "model"

    def __post_init__(self) -> None:
        check_strength(self, 0)

    @torch.enable_grad()
    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy, trained further.

        Raises:
            ValueError: when the attacker's latents and fields differ in number.
        """
        if len(attacker.latents) != len(attacker.fields):
            raise ValueError(f"{len(attacker.latents)} latents for {len(attacker.fields)} fields, expected as many")
        tuned = detached_copy(decoder)
        trained = {name: p.requires_grad for name, p in tuned.named_parameters()}
        optimiser = torch.optim.Adam(tuned.requires_grad_(True).parameters(), lr=self.rate)
        for _ in range(self.steps):
            chosen = torch.randint(len(attacker.latents), (self.batch,), generator=rng, device=rng.device)
            optimiser.zero_grad(set_to_none=True)
            _loss(tuned, attacker, chosen.to(attacker.latents.device)).backward()
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        for name, parameter in tuned.named_parameters():
            parameter.requires_grad_(trained[name])
        return tuned


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

    @torch.no_grad()
    def __call__(self, decoder: nn.Module, attacker: Attacker, rng: Generator) -> nn.Module:
        """A copy with the user's architecture.

        Raises:
            ValueError: when the public decoder has other layers than the user's.
        """
        public = weighted_layers(attacker.public_decoder)
        others = {**other_parameters(attacker.public_decoder), **dict(attacker.public_decoder.named_buffers())}
        if public.keys() != weighted_layers(decoder).keys():
            raise ValueError(f"{len(public)} layers to swap in, expected those of the {type(decoder).__name__}")
        swapped = mapped_copy(decoder, lambda name, _, weight: weight.lerp(effective_weight(public[name]), self.share))
        for name, value in {**other_parameters(swapped), **dict(swapped.named_buffers())}.items():
            if value.is_floating_point():
                value.lerp_(others[name], self.share)
        return swapped


def _loss(decoder: nn.Module, attacker: Attacker, chosen: Tensor) -> Tensor:
    fields = attacker.fields[chosen]
    decoded = attacker.decode(decoder, attacker.latents[chosen])
    return F.l1_loss(decoded, fields) + attacker.perceptual_loss(decoded, fields).mean()


FAMILIES = (
    AttackFamily(
        name="weight-noise",
        modality="any",
        target="model",
        make=WeightNoise,
        strengths=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
        quick=3,
        unit="std over each tensor's own",
        source="own grid",
    ),
    AttackFamily(
        name="weight-quantization",
        modality="any",
        target="model",
        make=lambda s: WeightQuantization(int(s)),
        strengths=(8, 6, 4),
        quick=2,
        unit="bits",
        source="Krishnamoorthi 2018, arXiv:1806.08342",
    ),
    AttackFamily(
        name="magnitude-pruning",
        modality="any",
        target="model",
        make=MagnitudePruning,
        strengths=(0.1, 0.2, 0.3, 0.5, 0.7),
        quick=2,
        unit="share of each layer's weights",
        source="Han et al. 2015, arXiv:1506.02626",
    ),
    AttackFamily(
        name="fine-tune",
        modality="any",
        target="model",
        make=lambda s: FineTune(int(s)),
        strengths=(10, 30, 100),
        quick=0,
        unit="steps",
        source="Stable Signature, arXiv:2303.15435; Hu et al. 2024, arXiv:2405.07145",
    ),
)
