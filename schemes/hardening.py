"""Recipes against attacks on the decoder: what happens to users' decoders while the fingerprint is trained.

Each switch alone is one recipe; several together take turns. A hardened step materialises few decoders, changes their
weights and asks for the bits in what they then make. The quality term stays with the unchanged decoders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.precision import mixed
from bench.weights import effective_weight, other_parameters, weighted_layers
from schemes import straight_through
from schemes.readers import settled
from schemes.trials import Setting, Trial, Weights, noisy


@dataclass(frozen=True)
class Hardening:
    """Switches; the default of each is off.

    Attributes:
        weight_noise: largest standard deviation of Gaussian noise, over that of each tensor; drawn evenly from 0. Wide
            flat minimum: Fei, Tondi and Barni, "Wide Flat Minimum Watermarking for Robust Ownership Verification of
            GANs", 2023, arXiv:2310.16919.
        base_noise: the same on the public decoder's weights, under all marks of a step: drawn evenly from 0 in two of
            three steps, none in the third. One draw is met by as many codes as there are items, at no cost; fidelity
            is measured to what the public decoder makes with that noise.
        sharpness: length of a step that unlearns the bits, over the norm of each layer. Foret et al., "Sharpness-Aware
            Minimization", ICLR 2021, arXiv:2010.01412, on the fingerprint's loss only, as OmniMark, AAAI 2025, does.
        purification: steps of fine-tuning towards unmarked content before the bits are asked for, their gradient taken
            as given: first-order MAML, Finn et al., ICML 2017, arXiv:1703.03400, sec. 5.2.
        unrolled: whether the bits' gradient goes through those steps, too: second-order MAML, sec. 2 there. Steps are
            then along the gradient, as long in every layer as the signed ones, which have no gradient.
        path: smallest share of the way from the public decoder to the user's at which the bits are asked for; the share
            is drawn evenly up to 1, which is off. Path smoothing of "RoMa", NeurIPS 2025.
        quantisation: fewest bits to which weights are rounded, up to 8, with a straight-through gradient.
        pruning: largest share of each layer's weights, smallest first, that is zeroed; drawn evenly from 0.
        attacks: whether what is read went through a random attack on content out of the benchmark's own.
        adaptation: steps after the training in which the reader alone learns to read attacked models.
        decoders: user decoders that a hardened step materialises, half of them under opposite codes.
        items: latents that each of them decodes.
        start: running bit accuracy from which on there is hardening: bits first.
    """

    weight_noise: float = 0.0
    base_noise: float = 0.0
    sharpness: float = 0.0
    purification: int = 0
    unrolled: bool = False
    path: float = 1.0
    quantisation: int = 0
    pruning: float = 0.0
    attacks: bool = False
    adaptation: int = 0
    decoders: int = 2
    items: int = 4
    start: float = 0.75

    @property
    def on_copies(self) -> bool:
        """Whether decoders of single users are materialised and changed."""
        return bool(changes(self)) or self.attacks

    def drawn_noise(self, accuracy: float, rng: torch.Generator) -> float:
        """A step's noise on the public decoder's weights, at this running bit accuracy."""
        if not self.base_noise or accuracy < self.start:
            return 0.0
        return max(0.0, _uniform(-0.5, 1, rng)) * self.base_noise


ADAPTED = Hardening(weight_noise=0.3, path=0.5, quantisation=4, pruning=0.5)
"""What the reader alone is adapted to."""
PURIFICATION_RATE = 1e-3
"""Of a signed step. Adam's first steps are signed, too; one here stands for ten of the attack's."""


Change = Callable[[Trial, Weights, torch.Generator], Weights]


def changes(spec: Hardening) -> list[Change]:
    """Those that are switched on."""
    listed: list[tuple[bool, Change]] = [
        (spec.weight_noise > 0, lambda trial, weights, rng: _noisy(weights, spec.weight_noise, rng)),
        (spec.sharpness > 0, lambda trial, weights, rng: _sharpened(trial, weights, spec.sharpness)),
        (spec.purification > 0 and not spec.unrolled, lambda trial, weights, rng: _purified(trial, weights, spec)),
        (spec.purification > 0 and spec.unrolled, lambda trial, weights, rng: _unrolled(trial, weights, spec)),
        (spec.path < 1, lambda trial, weights, rng: _interpolated(trial, weights, spec.path, rng)),
        (spec.quantisation > 0, lambda trial, weights, rng: _quantised(weights, spec.quantisation, rng)),
        (spec.pruning > 0, lambda trial, weights, rng: _pruned(weights, spec.pruning, rng)),
    ]
    return [change for on, change in listed if on]


def hardened_loss(trials: list[Trial], spec: Hardening, rng: torch.Generator) -> Tensor:
    """Bit loss over the decoders of ``trials``, each after a change drawn from those that are switched on."""
    active, seen = changes(spec), []
    modality, (_, reader) = trials[0].setting.modality, trials[0].setting.networks
    for trial in trials:
        weights = trial.weights()
        if active:
            weights = active[int(torch.randint(len(active), (1,), generator=rng))](trial, weights, rng)
        field = trial.field(weights)
        tensor = modality.soft_release(field)
        seen.append(straight_through.attacked(modality, field, tensor, rng) if spec.attacks else tensor)
    soft_targets = torch.cat([trial.code.expand(len(each), -1) for trial, each in zip(trials, seen, strict=True)])
    with mixed(seen[0].device), settled(reader):
        soft = reader(torch.cat(seen))
    return F.binary_cross_entropy_with_logits(soft, (soft_targets > 0).to(soft.dtype))


def harden(setting: Setting, spec: Hardening, rng: torch.Generator) -> None:
    """Add one hardened step's gradient to what is trained."""
    hardened_loss(trials(setting, spec, rng), spec, rng).backward()


def trials(setting: Setting, spec: Hardening, rng: torch.Generator) -> list[Trial]:
    """Fresh users on latents of the pool, each pair of them under opposite codes on the same latents."""
    device, drawn = next(setting.generator.decoder.parameters()).device, []
    for _ in range((spec.decoders + 1) // 2):
        rows = torch.randint(len(setting.pool[0]), (spec.items,), generator=rng)
        latents, original = (part[rows].to(device).float() for part in setting.pool)
        code = (torch.randint(2, (setting.networks[0].bits,), generator=rng) * 2.0 - 1).to(device)
        drawn += [Trial(setting, latents, original, each) for each in (code, -code)]
    return drawn


def adapt(setting: Setting, steps: int, rng: torch.Generator) -> None:
    """Train the reader alone on models as attackers leave them and on unharmed ones; the modulator stays as it is."""
    modulator, reader = setting.networks
    optimiser = torch.optim.AdamW(reader.parameters(), lr=1e-3, weight_decay=0.0)
    trained = [parameter.requires_grad for parameter in modulator.parameters()]
    modulator.requires_grad_(False)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 1e-3 * (1 - step / steps)
        optimiser.zero_grad(set_to_none=True)
        for spec in (ADAPTED, Hardening()):
            harden(setting, spec, rng)
        optimiser.step()
    for parameter, wanted in zip(modulator.parameters(), trained, strict=True):
        parameter.requires_grad_(wanted)


def _uniform(low: float, high: float, rng: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand(1, generator=rng))


def _noisy(weights: Weights, largest: float, rng: torch.Generator) -> Weights:
    relative = _uniform(0, largest, rng)
    return weights.mapped(lambda value: noisy(value, relative, rng))


def _sharpened(trial: Trial, weights: Weights, length: float) -> Weights:
    """A step up the bit loss, as long in every layer, relative to its norm."""
    leaves = {name: value.detach().requires_grad_() for name, value in weights.effective.items()}
    loss = trial.bit_loss(trial.seen(Weights(leaves, weights.others)))
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    moved = {}
    for (name, value), gradient in zip(weights.effective.items(), gradients, strict=True):
        step = torch.zeros_like(value) if gradient is None else gradient / gradient.norm().clamp_min(1e-12)
        moved[name] = value + length * value.detach().norm() * step
    return Weights(moved, weights.others)


def _purified(trial: Trial, weights: Weights, spec: Hardening) -> Weights:
    for _ in range(spec.purification):
        leaves = {name: value.detach().requires_grad_() for name, value in weights.effective.items()}
        loss = trial.content_loss(Weights(leaves, weights.others))
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        moved = {}
        for (name, value), gradient in zip(weights.effective.items(), gradients, strict=True):
            moved[name] = value if gradient is None else value - PURIFICATION_RATE * gradient.sign()
        weights = Weights(moved, weights.others)
    return weights


def _unrolled(trial: Trial, weights: Weights, spec: Hardening) -> Weights:
    """Steps of gradient descent that stay in the graph, so that the bits' gradient knows how a purifier reacts."""
    for _ in range(spec.purification):
        # A layer without a graph of its own gets one, so that every layer is purified, marked or not.
        start = {name: v if v.requires_grad else v.detach().requires_grad_() for name, v in weights.effective.items()}
        loss = trial.content_loss(Weights(start, weights.others))
        gradients = torch.autograd.grad(loss, list(start.values()), create_graph=True, allow_unused=True)
        moved = {}
        for (name, value), gradient in zip(start.items(), gradients, strict=True):
            if gradient is not None:
                length = PURIFICATION_RATE * gradient.numel() ** 0.5
                value = value - length * gradient / gradient.norm().clamp_min(1e-12)
            moved[name] = value
        weights = Weights(moved, weights.others)
    return weights


def _interpolated(trial: Trial, weights: Weights, least: float, rng: torch.Generator) -> Weights:
    share, decoder = _uniform(least, 1, rng), trial.setting.generator.decoder
    layers, rest = weighted_layers(decoder), other_parameters(decoder)
    return Weights(
        {n: effective_weight(layers[n]).detach().lerp(value, share) for n, value in weights.effective.items()},
        {n: rest[n].detach().lerp(value, share) for n, value in weights.others.items()},
    )


def _quantised(weights: Weights, fewest: int, rng: torch.Generator) -> Weights:
    levels = 2 ** (int(torch.randint(fewest, max(fewest, 8) + 1, (1,), generator=rng)) - 1) - 1

    def rounded(value: Tensor) -> Tensor:
        step = value.detach().abs().amax().clamp_min(1e-12) / levels
        near: Tensor = value + ((value / step).round() * step - value).detach()
        return near

    return weights.mapped(rounded, others=False)


def _pruned(weights: Weights, largest: float, rng: torch.Generator) -> Weights:
    share = _uniform(0, largest, rng)

    def pruned(value: Tensor) -> Tensor:
        size = value.detach().abs().flatten()
        kept = torch.ones_like(size).index_fill(0, size.argsort(stable=True)[: round(share * len(size))], 0)
        return value * kept.view_as(value)

    return weights.mapped(pruned, others=False)
