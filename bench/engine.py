"""Where the networks run: the device, batches, and the clock of each stage."""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench.protocol import Clips, Codec, Content, Generator, Modality, UserError

logger = logging.getLogger("genprint")


def pick_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is CUDA when there is one.

    Raises:
        UserError: when torch knows no such device or this machine has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name!r}: expected auto, cpu or an available torch device: {reason}") from error
    return device


def set_up(device: torch.device) -> None:
    """Use the cores that this process may use, and convolutions that repeat themselves exactly."""
    if "OMP_NUM_THREADS" not in os.environ and hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True


def move(thing: Any, device: torch.device) -> Any:
    """``thing`` on ``device`` when it knows how to move there (tensors, modules, some generators), else as it is."""
    return thing.to(device) if hasattr(thing, "to") else thing


def join(parts: Sequence[Content]) -> Content:
    """One content from several: tensors and clips are concatenated, lists of meshes chained."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    if isinstance(parts[0], Clips):
        return Clips(torch.cat([part.samples for part in parts]), parts[0].rate_hz)
    return [item for part in parts for item in part]


def spans(size: int, *tracks: Sequence[Content]) -> Iterator[slice]:
    """Neighbouring chunks that can be joined: at most ``size`` items (or one chunk), one shape per track."""
    start, length, count = 0, 0, len(tracks[0])
    shapes = [tuple(_shape(track[index]) for track in tracks) for index in range(count)]
    for stop in range(count):
        chunk = len(tracks[0][stop])
        if stop > start and (length + chunk > size or shapes[stop] != shapes[start]):
            yield slice(start, stop)
            start, length = stop, 0
        length += chunk
    if count:
        yield slice(start, count)


def _shape(content: Content) -> tuple[int, ...]:
    if isinstance(content, Clips):
        return (content.rate_hz, *content.samples.shape[1:])
    return tuple(content.shape[1:]) if isinstance(content, Tensor) else ()


@dataclass
class Clock:
    """Wall time per stage, in seconds; stages inside a stage count in both."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to ``stage``."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - began


@dataclass(frozen=True)
class Engine:
    """Runs the networks of one modality and generator in batches, without gradients.

    Contents are lists of chunks, one per user, on the CPU. Networks are handed tensors on ``device`` and are expected
    to follow them there.

    Attributes:
        modality: what an item is.
        generator: makes fields.
        device: where the networks run.
        batch: items per call.
        clock: where the time goes.
    """

    modality: Modality
    generator: Generator
    device: torch.device
    batch: int
    clock: Clock = field(default_factory=Clock)

    @torch.no_grad()
    def content(self, decoder: nn.Module, latents: Tensor) -> Content:
        """Published content of one decoder, on the CPU.

        Args:
            decoder: on ``device``.
            latents: (n, ...).
        """
        with self.clock.time("decode"):
            fields = (self.generator.decode(decoder, part.to(self.device)) for part in torch.split(latents, self.batch))
            return join([move(self.modality.release(part), torch.device("cpu")) for part in fields])

    def read(self, codec: Codec, chunks: Sequence[Content]) -> Tensor:
        """Soft bits (n, bits), float32, of all items in order."""
        with self.clock.time("read"):
            return self._map(lambda content: codec.read(self.modality.observe(content)), chunks)

    def features(self, chunks: Sequence[Content]) -> Tensor:
        """Features (n, d), float32, of all items in order."""
        with self.clock.time("features"):
            return self._map(self.modality.features, chunks)

    @torch.no_grad()
    def paired(self, originals: Sequence[Content], others: Sequence[Content]) -> dict[str, Tensor]:
        """Fidelity of each pair, name to (n,), of all items in order."""
        parts: list[dict[str, Tensor]] = []
        with self.clock.time("paired"):
            for span in spans(self.batch, originals, others):
                pair = (move(join(track[span]), self.device) for track in (originals, others))
                parts.append({name: value.float().cpu() for name, value in self.modality.paired(*pair).items()})
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}

    @torch.no_grad()
    def _map(self, network: Callable[[Content], Tensor], chunks: Sequence[Content]) -> Tensor:
        joined = (move(join(chunks[span]), self.device) for span in spans(self.batch, chunks))
        return torch.cat([network(content).float().cpu() for content in joined])


def report(stage: str, done: int, total: int) -> None:
    """Tell whoever listens to the ``genprint`` log how far a stage is; see ``bench.progress``."""
    logger.info("%s %d/%d", stage, done, total, extra={"stage": stage, "done": done, "total": total})
