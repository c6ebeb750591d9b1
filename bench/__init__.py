"""GenPrint: fingerprint generators, attack what they make and what they are made of, score who made what."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__version__ = "0.1.0"


def _refuse_intruders() -> None:
    """Our neighbours have generic names; another distribution's would be used without a word.

    Raises:
        ImportError: when a package of that name is found first somewhere else.
    """
    home = Path(__file__).resolve().parent.parent
    for name in ("attacks", "modalities", "schemes"):
        spec = find_spec(name)
        for place in (spec.submodule_search_locations or [spec.origin or ""]) if spec else ():
            if Path(place).resolve() not in (home / name, home / f"{name}.py"):
                raise ImportError(
                    f"package {name!r} is found at {place}, expected {home / name}; uninstall the other one"
                )
            break


_refuse_intruders()
