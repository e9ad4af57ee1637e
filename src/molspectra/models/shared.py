"""Modules whose result for one molecule hangs on the whole batch, and how they see all of it.

The processes of a run (ranks) share out a batch. Models know nothing of processes: training lends them, for
the time of a pass, a function that gathers equally shaped tensors of all ranks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn

from molspectra.data.batch import Batch


class Encoded(NamedTuple):
    """Per-atom features of a batch."""

    scalars: Tensor
    """[N, C] invariant under rotation, reflection and translation."""
    vectors: Tensor
    """[N, 3, C] rotate and reflect with the molecule (axis 1 is x, y, z)."""


class Encoder(nn.Module, ABC):
    """Base of all 3D encoders.

    Attributes:
        channels: width C of the features.
        cutoff: neighbour cutoff in Å; a batch must carry edges built with it.
    """

    channels: int
    cutoff: float

    @abstractmethod
    def forward(self, batch: Batch) -> Encoded:
        """Encode a batch whose `edges` were built with `batch.with_edges(encoder.cutoff)`."""


Everyone = Callable[[Tensor], Tensor]
"""A tensor [...] of this rank, without gradient, to those of all ranks, [world, ...]. All ranks must call it
equally often, with equal shapes."""


class Shared(nn.Module):
    """A module that needs to know of the other ranks.

    Attributes:
        everyone: gathers from all ranks; None where this process has the whole batch.
    """

    everyone: Everyone | None = None

    def anywhere(self, flags: Tensor) -> bool:
        """Whether any of the flags (bool, any shape) is set on any rank."""
        some = flags.any()
        return bool(some if self.everyone is None else self.everyone(some.float()).any())


@contextmanager
def sharing(module: nn.Module, everyone: Everyone | None) -> Iterator[None]:
    """Let the `Shared` parts of a module see all ranks for the duration of a block."""
    parts = [part for part in module.modules() if isinstance(part, Shared)]
    try:
        for part in parts:
            part.everyone = everyone
        yield
    finally:
        for part in parts:
            part.everyone = None
