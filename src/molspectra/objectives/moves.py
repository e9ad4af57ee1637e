"""Exact moves along internal coordinates, for all molecules of a batch at once.

Each move takes the atoms on one side of an acyclic bond with it as a rigid body, as RDKit's
`SetBondLength`, `SetAngleRad` and `SetDihedralRad` do. Stretching only translates sides along directions that
no other stretch changes, so all stretches are made in one step. Turns do not commute: step k makes the k-th
turn of every molecule, in the order of the terms, each about an axis in the structure that the turns before
have left.
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

    def axis(now: Tensor, terms: Tensor) -> tuple[Tensor, Tensor]:
        fixed, centre, moved = now[internal.angles.atoms[terms]].unbind(1)
        return centre, torch.linalg.cross(fixed - centre, moved - centre)

    return _turned(positions, internal.bends, by, axis)


def twist(positions: Tensor, internal: InternalBatch, by: Tensor) -> Tensor:
    """Positions [N, 3] after turning every torsion by `by` [T] rad, one after the other."""
    bonds = internal.torsions.atoms[:, 1:3]
    return _turned(positions, internal.twists, by, lambda now, terms: _along(now, bonds[terms]))


def rotate(positions: Tensor, internal: InternalBatch, by: Tensor) -> Tensor:
    """Positions [N, 3] after turning every rotatable bond by `by` [R] rad, one after the other."""
    bonds = internal.bonds.atoms[internal.rotatable]
    return _turned(positions, internal.turns, by, lambda now, terms: _along(now, bonds[terms]))


def _along(positions: Tensor, bonds: Tensor) -> tuple[Tensor, Tensor]:
    inner, outer = positions[bonds].unbind(1)
    return outer, outer - inner


def _turned(positions: Tensor, moves: Moves, by: Tensor, axis: Axis) -> Tensor:
    """Make the turns of `moves` by angles [K] in the order of the terms."""
    now = positions.clone()
    terms = moves.term.split(moves.terms)
    steps = zip(terms, moves.atom.split(moves.atoms), moves.owner.split(moves.atoms), strict=True)
    for term, atom, owner in steps:
        origin, direction = axis(now, term)
        unit = _unit(direction)
        angle = by[term] * (dot(unit, unit) > 0)  # no axis, no turn
        cosine, sine = angle.cos()[owner, None], angle.sin()[owner, None]
        through, along = origin[owner], unit[owner]
        arm = now[atom] - through
        parallel = along * dot(along, arm).unsqueeze(1)
        turned = parallel + cosine * (arm - parallel) + sine * torch.linalg.cross(along, arm)  # Rodrigues
        now.index_copy_(0, atom, through + turned)
    return now


def _unit(vectors: Tensor) -> Tensor:
    """Directions [K, 3]; zero for what has none."""
    length = norm(vectors).unsqueeze(1)
    return torch.where(length > 1e-9, vectors / length.clamp(min=1e-9), 0.0)
