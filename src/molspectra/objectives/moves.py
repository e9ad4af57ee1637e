"""Exact moves along internal coordinates, for all molecules of a batch at once.

Each move displaces the atoms on one side of an acyclic bond as a rigid body, as RDKit's `SetBondLength`,
`SetAngleRad` and `SetDihedralRad` do. Stretching only translates sides along directions that no other stretch
changes, so all stretches are made in one step. Turns do not commute: step k makes the k-th turn of every
molecule, in the order of the terms, each about an axis in the structure after the turns before.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from molspectra.data.coordinates import InternalBatch, Moves
from molspectra.models.segments import segment_sum
from molspectra.objectives.strain import dot, norm

Axis = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(positions [N, 3], terms [k]) to (a point on each axis [k, 3], its direction [k, 3], of any length)."""


def stretch(positions: Tensor, internal: InternalBatch, by: Tensor) -> Tensor:
    """Positions [N, 3] with every acyclic bond longer by `by` [A] Å."""
    inner, outer = positions[internal.bonds.atoms].unbind(1)
    shift = _unit(outer - inner) * by.unsqueeze(1)
    owner = torch.repeat_interleave(internal.side_ptr.diff(), output_size=len(internal.side_bond))
    return positions + segment_sum(shift[internal.side_bond], owner, internal.side_ptr)


def bend(positions: Tensor, internal: InternalBatch, by: Tensor) -> Tensor:
    """Positions [N, 3] after opening every angle by `by` [G] rad, one after the other."""

    def axis(positions: Tensor, terms: Tensor) -> tuple[Tensor, Tensor]:
        fixed, centre, moved = positions[internal.angles.atoms[terms]].unbind(1)
        return centre, torch.linalg.cross(fixed - centre, moved - centre)

    return _turned(positions, internal.bends, by, axis)


def twist(positions: Tensor, internal: InternalBatch, by: Tensor) -> Tensor:
    """Positions [N, 3] after turning every torsion by `by` [T] rad, one after the other."""
    bonds = internal.torsions.atoms[:, 1:3]
    return _turned(positions, internal.twists, by, lambda current, terms: _bond_axis(current, bonds[terms]))


def rotate(positions: Tensor, internal: InternalBatch, by: Tensor) -> Tensor:
    """Positions [N, 3] after turning every rotatable bond by `by` [R] rad, one after the other."""
    bonds = internal.bonds.atoms[internal.rotatable]
    return _turned(positions, internal.turns, by, lambda current, terms: _bond_axis(current, bonds[terms]))


def _bond_axis(positions: Tensor, bonds: Tensor) -> tuple[Tensor, Tensor]:
    """Axes through bonds [k, 2]: a point [k, 3] and a direction [k, 3] each."""
    inner, outer = positions[bonds].unbind(1)
    return outer, outer - inner


def _turned(positions: Tensor, moves: Moves, by: Tensor, axis: Axis) -> Tensor:
    """Positions [N, 3] after the turns of `moves` by angles [K] in rad, in the order of the terms."""
    turned = positions.clone()
    terms = moves.term.split(moves.terms)
    steps = zip(terms, moves.atom.split(moves.atoms), moves.owner.split(moves.atoms), strict=True)
    for term, atom, owner in steps:
        origin, direction = axis(turned, term)
        unit = _unit(direction)
        angle = by[term] * (dot(unit, unit) > 0)  # no turn where the axis is undefined
        cosine, sine = angle.cos()[owner, None], angle.sin()[owner, None]
        through, along = origin[owner], unit[owner]
        arm = turned[atom] - through
        parallel = along * dot(along, arm).unsqueeze(1)
        rotated = parallel + cosine * (arm - parallel) + sine * torch.linalg.cross(along, arm)  # Rodrigues
        turned.index_copy_(0, atom, through + rotated)
    return turned


def _unit(vectors: Tensor) -> Tensor:
    """Unit vectors [K, 3] along vectors [K, 3]; zero for those shorter than 1e-9."""
    length = norm(vectors).unsqueeze(1)
    return torch.where(length > 1e-9, vectors / length.clamp(min=1e-9), 0.0)
