"""The internal coordinates of a batch: atoms and σ of every term, and the order of their changes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from molspectra.data.neighbours import offsets_of


@dataclass(frozen=True, eq=False)
class Moves:
    """K terms in the order in which they are changed: step k holds the k-th term of every molecule.

    Attributes:
        term: [K] int64, index of the term, step by step.
        atom: [M] int64, the atoms moved by each term, term by term; no atom occurs twice within a step.
        owner: [M] int64, the position of each atom's term within its step.
        terms: number of terms of each step.
        atoms: number of atoms of each step.
    """

    term: Tensor
    atom: Tensor
    owner: Tensor
    terms: tuple[int, ...]
    atoms: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Terms:
    """Bonds, angles or torsions of a batch, molecule by molecule.

    Attributes:
        atoms: [K, 2, 3 or 4] int64 atoms of the batch: (inner, outer), (fixed, centre, moved) or
            (first, inner, outer, last).
        sigma: [K] float32 standard deviations, Å or rad.
        counts: [B] int64 terms of each molecule.
    """

    atoms: Tensor
    sigma: Tensor
    counts: Tensor


@dataclass(frozen=True, eq=False)
class InternalBatch:
    """The internal coordinates of the B molecules of a batch, see `molspectra.chem.internal`.

    Attributes:
        bonds: the A acyclic bonds.
        angles: the G angles.
        torsions: the T torsions.
        rotatable: [R] int64, the rotatable among the bonds.
        rotatable_counts: [B] int64, how many each molecule has.
        side_bond: [S] int64, the bond of every entry of a side, sorted by the atom that moves.
        side_ptr: [N + 1] int64, the entries of atom i are `side_ptr[i]:side_ptr[i + 1]`.
        turns: moves of the rotatable bonds; terms count in `rotatable`.
        bends: moves of the angles.
        twists: moves of the torsions.
        slot_order: [2A + 3G + 4T] int64, positions in the flattened atoms of all terms, sorted by atom.
        slot_ptr: [N + 1] int64, offsets of each atom's positions in `slot_order`.
    """

    bonds: Terms
    angles: Terms
    torsions: Terms
    rotatable: Tensor
    rotatable_counts: Tensor
    side_bond: Tensor
    side_ptr: Tensor
    turns: Moves
    bends: Moves
    twists: Moves
    slot_order: Tensor
    slot_ptr: Tensor

    @property
    def moves(self) -> Tensor:
        """[B] bool, whether a molecule has any term."""
        total: Tensor = self.bonds.counts + self.angles.counts + self.torsions.counts
        return total > 0


def sorted_by_atom(atoms: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the order [K] that sorts atoms [K] stably, and the offsets [n + 1] of each of n atoms in it."""
    return torch.argsort(atoms, stable=True), offsets_of(torch.bincount(atoms, minlength=n))
