"""Calling diffusers and transformers: their errors, logs, warnings and bars, in plain words or not at all."""

from __future__ import annotations

import contextlib
import logging
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from bench.protocol import UserError

logger = logging.getLogger("genprint")

FAILURES = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, SafetensorError)
"""What diffusers, transformers, tokenizers and safetensors raise for a damaged folder."""
HARMLESS = (
    "`torch.nn.utils.weight_norm` is deprecated",  # diffusers' Oobleck autoencoder is built with it
    "Should have t[ab]",  # torchsde, of the rounded ends of the Cosine solver's time
)
"""How warnings begin that tell the user nothing."""


def read(load: Callable[[], Any], source: str) -> Any:
    """What a library loads, with its many errors and its silent inventions turned into one line.

    Raises:
        UserError: when it fails, or invents tensors that a file lacks.
    """
    try:
        with noted() as notes:
            loaded = load()
    except UserError:
        raise
    except FAILURES as error:
        hint = "" if Path(source).is_dir() else "; offline, pass a local folder"
        raise UserError(f"generator {source}: cannot be loaded: {one_line(str(error))}{hint}") from error
    if invented := [note for note in notes if "newly initialized" in note]:
        raise UserError(f"generator {source}: expected all its tensors, found some missing: {one_line(invented[0])}")
    return loaded


def tell(generator: str, notes: list[str]) -> None:
    """Log each of a library's different notes once, in plain words."""
    for note in dict.fromkeys(map(_plainly, notes)):
        logger.info("generator %s: %s", generator, note)


def _plainly(note: str) -> str:
    """A library's note in one line; of a cut prompt there are two, one of which lists every token of padding."""
    if "truncated" in note or "Token indices sequence length" in note:
        return "a prompt is longer than its text encoder reads; its end was cut"
    return one_line(note)


def one_line(text: str) -> str:
    """One line of plain text, shortened."""
    return textwrap.shorten(re.sub(r"\x1b\[[0-9;]*m", "", text), 300, placeholder=" ...")


class _Notes(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def noted() -> Iterator[list[str]]:
    """Loading bars and harmless warnings off, and logged warnings kept instead of shown.

    A tensor that is missing from a file is invented by diffusers and transformers; only their log says so.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    notes = _Notes()
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    before = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    for logger in loggers:
        logger.handlers, logger.propagate = [notes], False  # transformers lets its log through where CI is set
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for beginning in HARMLESS:
                warnings.filterwarnings("ignore", beginning)
            yield notes.lines
    finally:
        for logger, handlers, level, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        for library in (diffusers_logging, transformers_logging):
            library.enable_progress_bar()
