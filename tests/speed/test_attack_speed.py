"""How fast each attack is at a middle strength, and beside a plain loop over a well-known library.

`make speed` prints a table for each; in those of a pair, the number in brackets behind the library's time is how many
times as long as ours it takes. Attacks that need a generator's networks or a reader are measured by
`python -m bench.attack_page measure` only.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch

from attacks import ATTACKS
from bench.attack_pages import category
from bench.attack_rivals import RIVALS
from bench.parallel import in_parallel
from bench.rng import stream
from bench.selection import missing

ITEMS = {"image": 64, "audio": 16}
PLAIN = [
    family
    for family in ATTACKS.values()
    if family.modality in ITEMS and family.target == "content" and not hasattr(family.make(family.severity(3)), "armed")
]


@lru_cache(maxsize=2)
def content(modality: str, count: int) -> Any:
    """Real held-out items."""
    from modalities import MODALITIES

    return MODALITIES[modality]().reference(count)


def items(benchmark: Any, modality: str) -> Any:
    """A batch, or one item where nothing is timed."""
    held = content(modality, 1 if benchmark.disabled else ITEMS[modality])
    benchmark.extra_info["items"] = len(held)
    return held


@pytest.mark.parametrize("family", PLAIN, ids=lambda family: family.name)
def test_attack(benchmark: Any, family: Any) -> None:
    if lack := missing(family):
        pytest.skip(lack)
    benchmark.group = f"{family.modality}: {category(family)}"
    held = items(benchmark, family.modality)
    attacked = benchmark(family.make(family.severity(3)), held, stream(0))
    assert len(attacked) == len(held)


@pytest.mark.parametrize("who", ["ours", "library"])
@pytest.mark.parametrize("name", RIVALS)
def test_attack_beside_a_library(benchmark: Any, name: str, who: str) -> None:
    family, rival = ATTACKS[name], RIVALS[name]
    benchmark.group = f"{name} beside {rival.library} in a loop"
    held, strength = items(benchmark, family.modality), family.severity(3)
    attack = family.make(strength)
    work = (lambda: attack(held, stream(0))) if who == "ours" else (lambda: rival(held, strength))
    assert len(benchmark(work)) == len(held)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["mp3", "vorbis", "non-local-means"])
def test_serial_codec_on_several_cores(benchmark: Any, name: str, threads: int) -> None:
    family = ATTACKS[name]
    benchmark.group = f"{name} on several cores"
    held, attack = items(benchmark, family.modality), family.make(family.severity(3))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert len(benchmark(attack, held, stream(0))) == len(held)
    finally:
        torch.set_num_threads(before)


def test_threads_keep_the_order() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert in_parallel(lambda n: n * n, range(100)) == [n * n for n in range(100)]
    finally:
        torch.set_num_threads(before)
