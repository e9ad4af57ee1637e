"""Verlet neighbour lists for atoms that move little between calls: searched with a skin."""

from __future__ import annotations

import torch
from torch import Tensor

from molspectra.data.neighbours import Edges, edges_of_pairs, neighbour_edges
from molspectra.errors import SettingError

SAFETY = 0.999
"""Fraction of half the skin that an atom may move; the rest is a margin for rounding."""


class VerletList:
    """Computes the edges of `neighbour_edges`, bit for bit, for positions that change little between calls.

    Pairs nearer than cutoff + skin are searched once and kept until an atom has moved by half the skin
    (Verlet 1967). Each call selects those within the cutoff, since an encoder must not receive longer edges:
    the published vector messages (`vector_cutoff: false`) do not vanish there. While the same pairs are
    inside, the edges of the last call are returned again.

    Args:
        cutoff: in Å, positive.
        skin: in Å; 0 searches at every call.

    Attributes:
        searches: number of searches so far.

    Raises:
        SettingError: if the skin is negative or not finite.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        if not 0 <= skin < float("inf"):
            raise SettingError(f"skin must be a number of Å from 0 on, not {skin}")
        self.cutoff, self.skin = cutoff, skin
        self.searches = 0
        self._start: Tensor | None = None
        self._ptr: Tensor | None = None
        self._inside: Tensor | None = None

    def edges(self, positions: Tensor, ptr: Tensor) -> Edges:
        """Return the edges at these positions [N, 3] (Å) of molecules with atom offsets `ptr` [B + 1]."""
        positions = positions.detach()
        if self.skin == 0:
            self.searches += 1
            return neighbour_edges(positions, ptr, self.cutoff)
        if not self._is_valid(positions, ptr):
            candidates = neighbour_edges(positions, ptr, self.cutoff + self.skin)
            self._first, self._second = candidates.pair_first, candidates.pair_second
            self._start, self._ptr, self._inside = positions.clone(), ptr.clone(), None
            self.searches += 1
        squared = (positions[self._first] - positions[self._second]).square().sum(1)
        inside = ~(squared >= self.cutoff * self.cutoff)  # not (>=): a NaN is kept
        if self._inside is None or not torch.equal(inside, self._inside):
            keep = torch.nonzero(inside).squeeze(1)
            self._edges = edges_of_pairs(self._first[keep], self._second[keep], len(positions))
            self._inside = inside
        return self._edges

    def _is_valid(self, positions: Tensor, ptr: Tensor) -> bool:
        """Return whether the candidate pairs still include every pair within the cutoff."""
        if self._start is None or self._ptr is None or not torch.equal(ptr, self._ptr):
            return False
        if positions.dtype != self._start.dtype or positions.device != self._start.device:
            return False
        moved = (positions - self._start).square().sum(1)
        return bool((moved <= (SAFETY * self.skin / 2) ** 2).all())  # False for a NaN
