"""Bond lengths, angles and torsions, and the energy of their deviations from a reference structure.

E = ½ Σ ((d - d₀)/σ)² over bonds, angles and torsions, in units of kT; f = ∇E. An angle and its gradient stay
finite where atoms coincide or are in line: there the gradient counts as zero.
"""

import math

import torch
from torch import Tensor

from molspectra.data.coordinates import InternalBatch
from molspectra.models.segments import segment_sum


def dot(one: Tensor, other: Tensor) -> Tensor:
    """Inner products [...] of vectors [..., 3]."""
    x, y, z = (one * other).unbind(-1)
    return x + y + z


def norm(vectors: Tensor) -> Tensor:
    """Lengths [...] of vectors [..., 3], with a zero gradient at zero."""
    squared = dot(vectors, vectors)
    zero = squared == 0
    return torch.sqrt(squared.masked_fill(zero, 1.0)).masked_fill(zero, 0.0)


def polar_angle(y: Tensor, x: Tensor) -> Tensor:
    """Angles [K] in (-π, π] whose tangents are y/x.

    Of columns of one table, not of vectors of their own: for those, torch takes another routine for the last
    few elements than for the others.
    """
    table = torch.stack([y, x], dim=1)
    return torch.atan2(table[:, 0], table[:, 1])


MIN_SINE = 0.1
"""A torsion whose chain is nearer to a line than this (6°) is not counted: its gradient has no bound."""


def lengths(ends: Tensor) -> Tensor:
    """Distances [K] between two points each, [K, 2, 3]."""
    return norm(ends[:, 1] - ends[:, 0])


def bend_angles(corners: Tensor) -> Tensor:
    """Angles [K] in [0, π] at the second of three points each, [K, 3, 3]."""
    one, other = corners[:, 0] - corners[:, 1], corners[:, 2] - corners[:, 1]
    return polar_angle(norm(torch.linalg.cross(one, other)), dot(one, other))


def dihedrals(chains: Tensor) -> tuple[Tensor, Tensor]:
    """Dihedral angles [K] in (-π, π] of four points each, [K, 4, 3], and which of them are well defined.

    Positive is clockwise, seen from the second point to the third (IUPAC).
    """
    first, axis, last = chains.diff(dim=1).unbind(1)
    one, other = torch.linalg.cross(first, axis), torch.linalg.cross(axis, last)
    width = norm(axis)
    sines = torch.stack([norm(one) / (norm(first) * width), norm(other) / (norm(last) * width)])
    good = (sines > MIN_SINE).all(0)  # a division by zero gives NaN, which is not above it
    y = width * dot(first, other)
    x = dot(one, other)
    return polar_angle(torch.where(good, y, 0.0), torch.where(good, x, 1.0)), good


def wrapped(angle: Tensor) -> Tensor:
    """The same angles in [-π, π]."""
    return angle - math.tau * (angle / math.tau).round()


def energies(reference: list[Tensor], moved: list[Tensor], internal: InternalBatch) -> list[Tensor]:
    """½((d - d₀)/σ)² of every bond [A], angle [G] and torsion [T].

    Args:
        reference: points of bonds [A, 2, 3], angles [G, 3, 3] and torsions [T, 4, 3] in the reference.
        moved: the same in the structure in question.
        internal: standard deviations.
    """
    bond = lengths(moved[0]) - lengths(reference[0])
    angle = bend_angles(moved[1]) - bend_angles(reference[1])
    (before, known), (after, good) = dihedrals(reference[2]), dihedrals(moved[2])
    torsion = torch.where(known & good, wrapped(after - before), 0.0)
    sigmas = (internal.bonds.sigma, internal.angles.sigma, internal.torsions.sigma)
    differences = (bond, angle, torsion)
    return [0.5 * (each / sigma).square() for each, sigma in zip(differences, sigmas, strict=True)]


def points(positions: Tensor, internal: InternalBatch) -> list[Tensor]:
    """The points of bonds [A, 2, 3], angles [G, 3, 3] and torsions [T, 4, 3] of a structure [N, 3]."""
    return [positions[each.atoms] for each in (internal.bonds, internal.angles, internal.torsions)]


def gradient(reference: Tensor, positions: Tensor, internal: InternalBatch) -> Tensor:
    """Return f = ∇E [N, 3] in 1/Å (kT per Å) at `positions` against `reference`, both [N, 3] in Å.

    Automatic differentiation by term, then one sum per atom in a fixed order: no atomic additions.
    """
    before = points(reference.detach(), internal)
    with torch.enable_grad():
        leaves = [each.detach().requires_grad_(True) for each in points(positions, internal)]
        total = torch.stack([each.sum() for each in energies(before, leaves, internal)]).sum()
        slopes = torch.autograd.grad(total, leaves)
    flat = torch.cat([each.reshape(-1, 3) for each in slopes])[internal.slot_order]
    owner = torch.repeat_interleave(internal.slot_ptr.diff(), output_size=len(flat))
    return segment_sum(flat, owner, internal.slot_ptr)
