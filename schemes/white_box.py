"""Reading from weights, for those who hold the decoder: a small contract beside that of codecs."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class WhiteBox(Protocol):
    """A codec whose code is in the weights, too.

    It tells a code that an attack on the decoder wiped out from one that content no longer shows.
    """

    @property
    def reads_weights(self) -> bool:
        """Whether :meth:`read_weights` can: whether this codec's modulation leaves a code that weights show."""
        ...

    def read_weights(self, decoder: nn.Module, public: nn.Module) -> Tensor:
        """Soft bits (bits,) in the weights of ``decoder``, given the public one.

        Raises:
            bench.protocol.UserError: when this codec's code cannot be read from weights.
        """
        ...
