"""From a name on the command line to an object: one explicit phone book per package, or ``package.module:Class``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, TypeVar

from bench.protocol import UserError

T = TypeVar("T")


def is_outside(name: str) -> bool:
    """Whether ``name`` has the form ``package.module:Class``."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def lookup(kind: str, name: str, book: Mapping[str, T]) -> T:
    """The entry of ``book``.

    Raises:
        UserError: when there is none; names the nearest one.
    """
    if name not in book:
        raise unknown(kind, name, book)
    return book[name]


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not known, with the nearest known one."""
    names = list(known)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return UserError(f"unknown {kind} {name!r}: {hint}expected one of {', '.join(names) or '(none)'}")


def outside(kind: str, name: str, contract: type) -> Any:
    """Make an object of a class that is not ours, without arguments.

    Args:
        kind: what it is, for messages.
        name: ``package.module:Class``.
        contract: the protocol that it has to satisfy.

    Raises:
        UserError: when the module or the class is not there, or is no such thing.
    """
    module_name, _, class_name = name.partition(":")
    try:
        made = getattr(import_module(module_name), class_name)()
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(f"{kind} {name!r}: expected a class that can be made without arguments: {error}") from error
    require(kind, name, made, contract)
    return made


def require(kind: str, name: str, made: object, contract: type) -> None:
    """Refuse what does not satisfy a contract.

    Raises:
        UserError: names the thing and the contract.
    """
    if not isinstance(made, contract):
        raise UserError(
            f"{kind} {name!r}: expected the members of bench.protocol.{contract.__name__}, some are missing"
        )
