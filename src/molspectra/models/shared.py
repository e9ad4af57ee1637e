"""Interfaces that the models share: 3D encoders with their settings, and modules that see all ranks of a run.

A run may spread a batch over several processes (ranks). Models know nothing of processes: for the time of a
pass, training gives them a function that gathers equally shaped tensors of all ranks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor, nn

from molspectra.data.batch import Batch
from molspectra.errors import SettingError

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
    """

    channels: int
    cutoff: float

    @abstractmethod
    def forward(self, batch: Batch) -> Encoded:
        """Encode a batch whose `edges` were built with `batch.with_edges(encoder.cutoff)`."""


CUTOFFS = (0.1, 1000.0)
"""Range of cutoffs in Å; below it radial functions lose their digits, above it there are no molecules."""


@dataclass(frozen=True)
class EquivariantTransformerConfig:
    """Sizes and variants of the equivariant transformer."""

    kind: Literal["et"] = field(default="et", kw_only=True)
    """Which encoder it is: "et", the equivariant transformer, or "egnn"."""
    channels: int = 256
    """Width C of scalars and vectors."""
    layers: int = 8
    """Number of attention layers."""
    heads: int = 8
    """Attention heads; must divide `channels`."""
    radial: int = 64
    """Radial basis functions K."""
    cutoff: float = 5.0
    """Neighbour cutoff in Å."""
    layer_norms: bool = True
    """Normalise scalars and whiten vectors after every layer (QM9 variant); False is the MD17 variant."""
    whitening: Literal["isotropic", "reference"] = "isotropic"
    """Regulariser of the whitening; "reference" is the reference implementation's (not quite equivariant)."""
    vector_cutoff: bool = True
    """Let the vector messages, too, vanish at the cutoff; False is the published form, which jumps there."""
    max_number: int = 99
    """Largest atomic number with an embedding."""

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            SettingError: a size that is not positive, or heads that do not divide the channels.
        """
        sizes = (self.layers, self.heads, self.radial, self.max_number)
        if min(sizes) < 1 or self.channels < 2:
            raise SettingError("encoder: channels must be at least 2, all other sizes positive")
        _check_cutoff(self.cutoff)
        if self.channels % self.heads:
            raise SettingError(f"encoder: {self.heads} heads do not divide {self.channels} channels")


@dataclass(frozen=True)
class EGNNConfig:
    """Sizes of the E(n)-equivariant graph network."""

    kind: Literal["egnn"] = field(default="egnn", kw_only=True)
    """Which encoder it is."""
    channels: int = 128
    """Width C of scalars and vectors."""
    layers: int = 7
    """Number of message-passing layers."""
    cutoff: float = 12.0
    """Neighbour cutoff in Å; molecules of QM9 are hardly longer."""
    switch: float = 2.0
    """EGNN: width in Å of the range before the cutoff in which messages fade."""
    radial: int = 0
    """Radial basis functions K given to the messages beside d², as edge attributes; 0 is the published form,
    which hardly resolves the small displacements of denoising."""
    gate: bool = True
    """EGNN: weigh every message by a learnt number between 0 and 1 (the publication's edge inference)."""
    max_number: int = 99
    """Largest atomic number with an embedding."""

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            SettingError: a size that is not positive, or a switch wider than the cutoff.
        """
        sizes = (self.layers, self.max_number, self.radial + 1)
        if min(sizes) < 1 or self.channels < 2:
            raise SettingError("encoder: channels must be at least 2, all other sizes positive")
        _check_cutoff(self.cutoff)
        if not 0 < self.switch <= self.cutoff:
            raise SettingError(f"encoder: switch must lie in (0, cutoff], not {self.switch}")


def _check_cutoff(cutoff: float) -> None:
    low, high = CUTOFFS
    if not low <= cutoff <= high:
        raise SettingError(f"encoder: the cutoff must lie in [{low:g}, {high:g}] Å, not {cutoff:g}")


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
