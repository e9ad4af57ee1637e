"""The internal coordinates of a batch: atoms and σ of every term, and the order in which terms are moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T", bound="_Tensors")


@dataclass(frozen=True, eq=False)
class _Tensors:
    """Tensors and plain values that move between devices together."""

    def map(self: T, function: Callable[[Tensor], Tensor]) -> T:
        """Return the same with a function applied to every tensor, in the parts as well."""
        return type(self)(**{each.name: _mapped(getattr(self, each.name), function) for each in fields(self)})


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    return value.map(function) if isinstance(value, _Tensors) else value


@dataclass(frozen=True, eq=False)
class Moves(_Tensors):
    """Terms in the order in which they are moved: the k-th of every molecule that has so many is step k.

    Attributes:
        term: [K] int64, which term, step by step.
        atom: [M] int64, the atoms that each of them moves, term by term; within a step no atom twice.
        owner: [M] int64, the place of each atom's term within its step.
        terms: terms of each step.
        atoms: atoms of each step.
    """

    term: Tensor
    atom: Tensor
    owner: Tensor
    terms: tuple[int, ...]
    atoms: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Terms(_Tensors):
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
class InternalBatch(_Tensors):
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
        slot_order: [2A + 3G + 4T] int64, places in the flattened atoms of all terms, by atom.
        slot_ptr: [N + 1] int64, the places of each atom.
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
    """The order [K] that sorts atoms [K] stably, and where each of n atoms begins in it, [n + 1]."""
    order = torch.argsort(atoms, stable=True)
    ptr = torch.zeros(n + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(atoms, minlength=n), 0, out=ptr[1:])
    return order, ptr
