"""What a 3D encoder is: atoms and their edges in, invariant scalars and equivariant vectors out."""

from abc import ABC, abstractmethod
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
