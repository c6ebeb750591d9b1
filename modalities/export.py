"""Writing a fingerprinted copy where the public decoder is: into a plain folder that any tool loads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from bench.protocol import UserError
from modalities.libraries import noted


@contextlib.contextmanager
def with_decoder(owner: Any, name: str, decoder: nn.Module) -> Iterator[None]:
    """Within the context, ``decoder`` stands in its owner's place of that name, and libraries write without bars.

    Raises:
        UserError: when its state has other keys than that of the public decoder, so that no other tool could load it.
    """
    public: nn.Module = getattr(owner, name)
    expected, found = set(public.state_dict()), set(decoder.state_dict())
    if expected != found:
        raise UserError(f"export: expected the decoder's own {len(expected)} tensors, found {min(expected ^ found)!r}")
    setattr(owner, name, decoder)
    try:
        with noted():
            yield
    finally:
        setattr(owner, name, public)
