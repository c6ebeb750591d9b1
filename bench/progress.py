"""What a person sees while a run works: bars with the time left on a terminal, plain lines elsewhere, or nothing.

The harness only writes to the ``genprint`` log; a program that uses it as a library listens there, or does not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bench.engine import logger

PATIENCE_S = 2.0
"""A stage that is over sooner is not worth a line."""


class Bars(logging.Handler):
    """One bar per stage that runs, on a terminal."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress
        self.tasks: dict[str, TaskID] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Move the stage's bar, or print the message above the bars."""
        stage = getattr(record, "stage", None)
        if stage is None:
            self.progress.console.print(record.getMessage(), markup=False, highlight=False)
            return
        done, total = record.__dict__["done"], record.__dict__["total"]
        if stage not in self.tasks:
            self.tasks[stage] = self.progress.add_task(stage, total=total)
        self.progress.update(self.tasks[stage], completed=done)
        if done >= total:
            self.progress.remove_task(self.tasks.pop(stage))


class Lines(logging.Handler):
    """A line when a stage has taken a while, and then at most every few seconds."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.began: dict[str, float] = {}
        self.told: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message, unless it is about a stage that was heard of a moment ago."""
        message = record.getMessage()
        if (stage := getattr(record, "stage", None)) is not None:
            done, total, now = record.__dict__["done"], record.__dict__["total"], time.monotonic()
            began = self.began.setdefault(stage, now)
            if done >= total:
                del self.began[stage]  # a stage of this name may come again
            if now - self.told.get(stage, began) < PATIENCE_S and not (done >= total and stage in self.told):
                return
            self.told[stage] = now
            if done >= total:
                del self.told[stage]
            left = (now - began) / done * (total - done) if done else 0.0
            message += f" after {now - began:.0f} s" + (f", about {left:.0f} s left" if 0 < done < total else "")
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def shown(console: Console, *, quiet: bool) -> Iterator[None]:
    """Show the ``genprint`` log on ``console`` while the block runs."""
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    handler: logging.Handler = Bars(bars) if console.is_terminal else Lines(console)
    handler.setLevel(logging.CRITICAL if quiet else logging.INFO)
    level, spread = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        with bars:
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = spread
