"""Neighbour lists of atoms that move a little at a time: found with a skin, used within the cutoff."""

from __future__ import annotations

import torch
from torch import Tensor

from molspectra.data.neighbours import Edges, edges_of_pairs, neighbour_edges
from molspectra.errors import InputError

SAFE = 0.999
"""Part of half the skin that an atom may move: the rest is for rounding."""


class VerletList:
    """The edges of `neighbour_edges`, equal in every bit, for positions that change little between calls.

    Pairs nearer than cutoff + skin are searched once and kept until an atom has moved by half the skin
    (Verlet 1967). Each call takes of them those within the cutoff, so that no edge beyond it reaches an
    encoder: the published vector messages (`vector_cutoff: false`) do not vanish there. While the same pairs
    are inside, the edges of the last call are given again.

    Args:
        cutoff: in Å, positive.
        skin: in Å; 0 searches at every call.

    Attributes:
        searches: how often pairs have been searched.

    Raises:
        InputError: a skin that is negative or no number.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        if not 0 <= skin < float("inf"):
            raise InputError(f"skin must be a number of Å from 0 on, not {skin}")
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
        if not self._holds(positions, ptr):
            found = neighbour_edges(positions, ptr, self.cutoff + self.skin)
            self._first, self._second = found.pair_first, found.pair_second
            self._start, self._ptr, self._inside = positions.clone(), ptr.clone(), None
            self.searches += 1
        squared = (positions[self._first] - positions[self._second]).square().sum(1)
        inside = ~(squared >= self.cutoff * self.cutoff)  # not (>=): a NaN is kept
        if self._inside is None or not torch.equal(inside, self._inside):
            keep = torch.nonzero(inside).squeeze(1)
            self._edges = edges_of_pairs(self._first[keep], self._second[keep], len(positions))
            self._inside = inside
        return self._edges

    def _holds(self, positions: Tensor, ptr: Tensor) -> bool:
        """Whether no pair can have come within the cutoff that was not within cutoff + skin."""
        if self._start is None or self._ptr is None or not torch.equal(ptr, self._ptr):
            return False
        if positions.dtype != self._start.dtype or positions.device != self._start.device:
            return False
        moved = (positions - self._start).square().sum(1)
        return bool((moved <= (SAFE * self.skin / 2) ** 2).all())  # False for a NaN
