"""Named random streams: adding an attack or a scheme changes no other draw."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def stream(seed: int, *what: object, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a generator that depends on ``seed`` and on the names in ``what``, and on nothing else.

    Args:
        seed: run seed, any integer.
        what: parts that name the draw, such as ``("latents", user)``; compared by ``repr``.
        device: where the draws happen; CPU streams are the same on every machine.

    Returns:
        A fresh ``torch.Generator``; two calls with equal arguments yield equal draws.

    Example:
        >>> torch.rand(1, generator=stream(0, "a")).equal(torch.rand(1, generator=stream(0, "a")))
        True
    """
    digest = hashlib.sha256(repr((seed, *what)).encode()).digest()
    generator = torch.Generator(device=device)
    generator.manual_seed(int.from_bytes(digest[:8], "big") & (2**63 - 1))
    return generator


def child(rng: torch.Generator, *what: object) -> torch.Generator:
    """Derive a named stream from ``rng`` by one draw, so that each consumer owns its own sequence."""
    seed = int(torch.randint(2**62, (1,), generator=rng, device=rng.device))
    return stream(seed, *what)


@contextlib.contextmanager
def fenced(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator inside the context only.

    Layers draw their initial weights from it and take no generator; outside, its state is as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
