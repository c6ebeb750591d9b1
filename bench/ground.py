"""What a run compares with, made once and only when needed: unfingerprinted content, real content, what attackers hold.

Every scheme shares it, so two schemes are told apart on the same latents.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from bench.engine import Engine, move, report
from bench.latents import cached_latents
from bench.presets import Plan
from bench.protocol import Attacker, Content
from bench.rng import stream


class Ground:
    """The unfingerprinted side of a run.

    Args:
        engine: runs the networks.
        plan: numbers of the run.
    """

    def __init__(self, engine: Engine, plan: Plan) -> None:
        self.engine = engine
        self.plan = plan

    @cached_property
    def decoder(self) -> nn.Module:
        """The public decoder, on the engine's device."""
        decoder: nn.Module = move(self.engine.generator.decoder, self.engine.device)
        return decoder

    @cached_property
    def latents(self) -> Tensor:
        """Latents (users, items, ...), on the CPU."""
        with self.engine.clock.time("latents"):
            return cached_latents(self.engine.modality, self.engine.generator, self.plan)

    @cached_property
    def original(self) -> list[Content]:
        """The public decoder's content, one chunk of ``items`` per user."""
        content: list[Content] = []
        for user in range(self.plan.users):
            content.append(self.engine.content(self.decoder, self.latents[user]))
            report("original content", user + 1, self.plan.users)
        return content

    @cached_property
    def original_features(self) -> Tensor:
        """Features (users * items, d) of :attr:`original`."""
        return self.engine.features(self.original)

    @cached_property
    def reference(self) -> list[Content]:
        """Real held-out content, in chunks of ``items``."""
        content, items = self.engine.modality.reference(None), self.plan.items
        return [content[start : start + items] for start in range(0, len(content), items)]

    @cached_property
    def reference_features(self) -> Tensor:
        """Features (n, d) of :attr:`reference`."""
        return self.engine.features(self.reference)

    @cached_property
    def attacker(self) -> Attacker:
        """What the adversary of a model attack holds; never the benchmark's own latents."""
        pairs = self.engine.generator.public_pairs(self.plan.public_items, stream(self.plan.seed, "attacker"))
        latents, fields = (move(part, self.engine.device) for part in pairs)
        vocoder = getattr(self.engine.generator, "other_vocoder", None)
        vocoder = None if vocoder is None else move(vocoder, self.engine.device)
        decode = self.engine.generator.decode
        return Attacker(self.decoder, latents, fields, decode, self._perceptual_loss, vocoder)

    def _perceptual_loss(self, a: Tensor, b: Tensor) -> Tensor:
        """The modality's distance of two fields, (B,), differentiable in both."""
        modality = self.engine.modality
        return modality.perceptual_loss(modality.soft_release(a), modality.soft_release(b))

    def attack_stream(self, *what: object) -> torch.Generator:
        """Stream of one application of an attack; the scheme is not part of its name, so all meet the same damage."""
        return stream(self.plan.seed, "attack", *what)
