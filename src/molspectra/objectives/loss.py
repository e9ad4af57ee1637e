"""The loss that every objective returns, and the key of its random numbers."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Loss:
    """A sum over items and their number: exact to reduce over micro-batches and ranks."""

    sum: Tensor
    """[] sum over all items."""
    count: float | Tensor
    """Number of items; [] where it was counted on a GPU, which is not waited for."""

    @property
    def mean(self) -> Tensor:
        """[] sum / count; 0 where there are no items."""
        return self.sum / (
            self.count.clamp(min=1) if isinstance(self.count, Tensor) else max(self.count, 1.0)
        )


class NoiseKey(NamedTuple):
    """Key of noise and masks, besides the molecule; never the worker, the rank or the batch."""

    seed: int
    """Seed of the run."""
    epoch: Tensor
    """[B] int64, number of earlier passes over each molecule's data."""
