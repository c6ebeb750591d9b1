"""Training through a large decoder: its blocks' activations are computed again instead of kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

from torch import nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

LARGE = 10_000_000
"""Parameters from which on a decoder is recomputed: memory then falls to the largest block's, time rises by a third."""


@contextlib.contextmanager
def recomputed(decoder: nn.Module) -> Iterator[None]:
    """Within the context, calls of a large decoder keep their blocks' inputs only; see :func:`blocks`.

    The context has to hold the backward pass too when hooks on the decoder are part of what is differentiated.
    Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, arXiv:1604.06174.
    """
    chosen = blocks(decoder) if sum(p.numel() for p in decoder.parameters()) >= LARGE else []
    for block in chosen:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for block in chosen:
            del block.forward


def blocks(decoder: nn.Module) -> list[nn.Module]:
    """The innermost members of module lists: residual blocks, attentions, upsamplers; else the children."""
    inner = [module for each in filter(_is_list, decoder.modules()) for module in each.children()]
    chosen = [module for module in inner if _has_weights(module) and not any(map(_is_list, module.modules()))]
    return list(dict.fromkeys(chosen)) or [child for child in decoder.children() if _has_weights(child)]


def _is_list(module: nn.Module) -> bool:
    """Whether it only holds others; a parametrised weight is a list to torch too."""
    return isinstance(module, nn.ModuleList | nn.Sequential) and not isinstance(module, parametrize.ParametrizationList)


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
