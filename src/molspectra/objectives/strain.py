"""Lengths, angles and torsions of structures, and the harmonic energy of their deviations from a reference.

E = ½ Σ ((d - d₀)/σ)² over bonds, angles and torsions, in units of kT; f = ∇E. Angles and their gradients stay
finite where atoms coincide or are in line: there the gradient counts as zero.
"""

import math

import torch
from torch import Tensor

from molspectra.data.coordinates import InternalBatch
from molspectra.models.segments import segment_sum

MIN_SINE = 0.1
"""A torsion whose chain is nearer to a line than this (6°) is not counted: its gradient has no bound."""


def dot(first: Tensor, second: Tensor) -> Tensor:
    """Inner products [...] of vectors [..., 3]."""
    x, y, z = (first * second).unbind(-1)
    return x + y + z


def norm(vectors: Tensor) -> Tensor:
    """Lengths [...] of vectors [..., 3], with a zero gradient at zero."""
    squared = dot(vectors, vectors)
    zero = squared == 0
    return torch.sqrt(squared.masked_fill(zero, 1.0)).masked_fill(zero, 0.0)


def polar_angle(y: Tensor, x: Tensor) -> Tensor:
    """Angles [K] in (-π, π] whose tangents are y/x.

    The arguments are stacked as columns of one table first: for contiguous vectors, torch computes the last
    few elements by another routine than the others.
    """
    table = torch.stack([y, x], dim=1)
    return torch.atan2(table[:, 0], table[:, 1])


def lengths(ends: Tensor) -> Tensor:
    """Distances [K] between two points each, [K, 2, 3]."""
    return norm(ends[:, 1] - ends[:, 0])


def bend_angles(corners: Tensor) -> Tensor:
    """Angles [K] in [0, π] at the second of three points each, [K, 3, 3]."""
    first, second = corners[:, 0] - corners[:, 1], corners[:, 2] - corners[:, 1]
    return polar_angle(norm(torch.linalg.cross(first, second)), dot(first, second))


def dihedrals(chains: Tensor) -> tuple[Tensor, Tensor]:
    """Dihedral angles [K] in (-π, π] of four points each, [K, 4, 3], and [K] bool, which are well defined.

    Positive is clockwise, seen from the second point to the third (IUPAC).
    """
    first, axis, last = chains.diff(dim=1).unbind(1)
    first_normal, last_normal = torch.linalg.cross(first, axis), torch.linalg.cross(axis, last)
    length = norm(axis)
    sines = torch.stack(
        [norm(first_normal) / (norm(first) * length), norm(last_normal) / (norm(last) * length)]
    )
    defined = (sines > MIN_SINE).all(0)  # False for NaN, from a division by zero
    y = length * dot(first, last_normal)
    x = dot(first_normal, last_normal)
    return polar_angle(torch.where(defined, y, 0.0), torch.where(defined, x, 1.0)), defined


def wrapped(angle: Tensor) -> Tensor:
    """Angles of any shape, wrapped to [-π, π]."""
    return angle - math.tau * (angle / math.tau).round()


def energies(reference: list[Tensor], moved: list[Tensor], internal: InternalBatch) -> list[Tensor]:
    """½((d - d₀)/σ)² of every bond [A], angle [G] and torsion [T].

    Args:
        reference: points of bonds [A, 2, 3], angles [G, 3, 3] and torsions [T, 4, 3] in the reference.
        moved: the same in the moved structure.
        internal: standard deviations.
    """
    bond = lengths(moved[0]) - lengths(reference[0])
    angle = bend_angles(moved[1]) - bend_angles(reference[1])
    (before, defined_before), (after, defined_after) = dihedrals(reference[2]), dihedrals(moved[2])
    torsion = torch.where(defined_before & defined_after, wrapped(after - before), 0.0)
    sigmas = (internal.bonds.sigma, internal.angles.sigma, internal.torsions.sigma)
    deviations = (bond, angle, torsion)
    return [0.5 * (deviation / sigma).square() for deviation, sigma in zip(deviations, sigmas, strict=True)]


def points(positions: Tensor, internal: InternalBatch) -> list[Tensor]:
    """The points of bonds [A, 2, 3], angles [G, 3, 3] and torsions [T, 4, 3] of a structure [N, 3]."""
    return [positions[terms.atoms] for terms in (internal.bonds, internal.angles, internal.torsions)]


def gradient(reference: Tensor, positions: Tensor, internal: InternalBatch) -> Tensor:
    """Return f = ∇E [N, 3] in 1/Å (kT per Å) at `positions` against `reference`, both [N, 3] in Å.

    Automatic differentiation by term, then one sum per atom in a fixed order: no atomic additions.
    """
    before = points(reference.detach(), internal)
    with torch.enable_grad():
        leaves = [corners.detach().requires_grad_(True) for corners in points(positions, internal)]
        total = torch.stack([energy.sum() for energy in energies(before, leaves, internal)]).sum()
        gradients = torch.autograd.grad(total, leaves)
    by_atom = torch.cat([gradient.reshape(-1, 3) for gradient in gradients])[internal.slot_order]
    owner = torch.repeat_interleave(internal.slot_ptr.diff(), output_size=len(by_atom))
    return segment_sum(by_atom, owner, internal.slot_ptr)
