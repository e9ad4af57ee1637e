"""Interfaces that the models share: 3D encoders with their settings, and modules that see all ranks of a run.

A run may spread a batch over several processes (ranks). Models know nothing of processes: for the time of a
pass, training gives them a function that gathers equally shaped tensors of all ranks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn

from molspectra.data.batch import Batch
from molspectra.models.config import EGNNConfig as EGNNConfig
from molspectra.models.config import EquivariantTransformerConfig as EquivariantTransformerConfig

# 3D encoders


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
        fades: whether an edge beyond the cutoff adds exactly 0, so that a batch may have more edges.
    """

    channels: int
    cutoff: float
    fades: bool = False

    @abstractmethod
    def forward(self, batch: Batch) -> Encoded:
        """Encode a batch whose `edges` were built with `batch.with_edges(encoder.cutoff)`."""


# Ranks

AllGather = Callable[[Tensor], Tensor]
"""A tensor [...] of this rank, without gradient, to the tensors of all ranks, [world, ...]. All ranks must
call it equally often, with equal shapes."""


class Shared(nn.Module):
    """A module whose result for one molecule depends on the whole batch, over all ranks.

    Attributes:
        all_gather: gathers from all ranks; None where this process has the whole batch.
    """

    all_gather: AllGather | None = None

    def any_rank(self, flags: Tensor) -> bool:
        """Whether any of the flags (bool, any shape) is set on any rank."""
        own = flags.any()
        return bool(own if self.all_gather is None else self.all_gather(own.float()).any())


@contextmanager
def gathering(module: nn.Module, all_gather: AllGather | None) -> Iterator[None]:
    """Give the `Shared` parts of a module a function that gathers from all ranks, within a block."""
    parts = [part for part in module.modules() if isinstance(part, Shared)]
    try:
        for part in parts:
            part.all_gather = all_gather
        yield
    finally:
        for part in parts:
            part.all_gather = None
