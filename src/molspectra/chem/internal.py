"""Internal coordinates of a molecule: its bonds, angles and torsions with their standard deviations.

Only acyclic bonds move: cutting one splits the molecule, and the smaller of the two sides moves. Sides are
nested or disjoint, so that a move changes only its own coordinate, and others of the same kind at the same
atom. As in the published methods, coordinates inside a ring are left out.

==========  =============================================================================================
coordinate  definition
==========  =============================================================================================
bond        every acyclic bond
angle       every angle with at least one acyclic bond, unless it is straight (above 175°)
torsion     one per acyclic bond between two atoms that have other neighbours: through the heaviest
            neighbour on each side (the first of equals) whose bond is not nearly in line (above 165°)
rotatable   bonds that match the SMARTS `[!$(*#*)&!D1]-&!@[!$(*#*)&!D1]` on the structure without its
            hydrogens: a methyl or hydroxyl group does not count
==========  =============================================================================================

The standard deviations are σ = 1/√k with k of the force field in kcal/mol, which is a Boltzmann distribution
at kT = 1 kcal/mol (503 K); a term without a force constant has the published fallback.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from molspectra.chem.forcefield import Kind, Term, directed, stiffness, with_force_field_aromaticity
from molspectra.chem.identity import perceived_bonds

if TYPE_CHECKING:
    from molspectra.chem.molecule import Molecule

BOND_SIGMA = 0.058
"""σ of a bond without a force constant, in Å (SliDe)."""
ANGLE_SIGMA = 0.129
"""σ of an angle without a force constant, in rad (SliDe)."""
FIXED_TORSION_SIGMA = 0.18
"""σ of a torsion without a force constant about a bond that is not rotatable, in rad (SliDe)."""
ROTATABLE_SIGMA = 1.0
"""σ of a torsion without a force constant about a rotatable bond, in rad (SliDe); the largest of torsions."""

STRAIGHT = math.radians(175.0)
"""An angle above this (rad) has no defined plane to bend in."""
IN_LINE = math.radians(165.0)
"""A torsion is not measured through an angle above this (rad)."""

ROTATABLE = "[!#1;!$(*#*);$(*(~[!#1])~[!#1])]-&!@[!#1;!$(*#*);$(*(~[!#1])~[!#1])]"
"""The published pattern of rotatable bonds, for structures with explicit hydrogens."""

Integers = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float32]
Points = list[list[float]]
Graph = list[list[int]]
"""The neighbours of every atom, ascending."""


@dataclass(frozen=True, eq=False)
class InternalCoordinates:
    """A molecule's A acyclic bonds, G angles and T torsions; atoms count from 0.

    Attributes:
        bonds: [A, 2] acyclic bonds (inner, outer): what lies beyond the outer atom moves.
        bond_sigma: [A] standard deviation of the length, Å.
        rotatable: [A] 1 for a rotatable bond.
        side_count: [A] atoms that move with each bond, the outer one included.
        sides: [S] the atoms that move, bond by bond.
        angles: [G, 4] (fixed, centre, moved, bond): the side of `bond`, which contains `moved`, turns about
            the centre; a positive turn opens the angle.
        angle_sigma: [G] rad.
        torsions: [T, 3] (first, bond, last): the dihedral first-inner-outer-last, turned by the bond's side.
        torsion_sigma: [T] rad.
        perceived: whether bonds were found in the geometry; if not, all arrays are empty.
    """

    bonds: Integers
    bond_sigma: Floats
    rotatable: npt.NDArray[np.uint8]
    side_count: Integers
    sides: Integers
    angles: Integers
    angle_sigma: Floats
    torsions: Integers
    torsion_sigma: Floats
    perceived: bool = True


def internal_coordinates(molecule: Molecule, mol: Any = None) -> InternalCoordinates:
    """Return the internal coordinates of a structure.

    Args:
        molecule: the structure; its geometry determines which angles are straight or in line.
        mol: its sanitised RDKit molecule with explicit hydrogens in the same order of atoms; None perceives
            the bonds from the geometry.
    """
    from rdkit import Chem

    mol = perceived_bonds(molecule) if mol is None else mol
    perceived = mol is not None
    mol = mol if perceived else Chem.Mol()
    positions = molecule.positions.tolist()
    graph = [sorted(other.GetIdx() for other in atom.GetNeighbors()) for atom in mol.GetAtoms()]
    sides = _sides(mol, graph)
    bonds = list(sides)
    angles = _angles(graph, bonds, sides, positions)
    torsions = _torsions(graph, bonds, molecule.numbers.tolist(), positions)
    matches = {directed(match) for match in mol.GetSubstructMatches(_rotatable_query(), uniquify=False)}
    rotatable = [directed(bond) in matches for bond in bonds]
    typed = with_force_field_aromaticity(mol)

    def sigmas(kind: Kind, terms: list[Term], fallbacks: list[float]) -> Floats:
        """Return the standard deviations of terms, from their force constants or else the fallbacks."""
        terms = [directed(term) for term in terms]
        constants = stiffness(typed, kind, terms)
        pairs = zip((constants.get(term, 0.0) for term in terms), fallbacks, strict=True)
        return np.array([k**-0.5 if k > 0 else fallback for k, fallback in pairs], dtype=np.float32)

    atoms = [(first, *bonds[bond], last) for first, bond, last in torsions]
    about = [ROTATABLE_SIGMA if rotatable[bond] else FIXED_TORSION_SIGMA for _, bond, _ in torsions]
    return InternalCoordinates(
        bonds=_integers(bonds, 2),
        bond_sigma=sigmas("bond", bonds, [BOND_SIGMA] * len(bonds)),
        rotatable=np.array(rotatable, dtype=np.uint8),
        side_count=np.array([len(side) for side in sides.values()], dtype=np.int16),
        sides=np.array([atom for side in sides.values() for atom in side], dtype=np.int16),
        angles=_integers(angles, 4),
        angle_sigma=sigmas("angle", [angle[:3] for angle in angles], [ANGLE_SIGMA] * len(angles)),
        torsions=_integers(torsions, 3),
        torsion_sigma=np.minimum(sigmas("torsion", atoms, about), np.float32(ROTATABLE_SIGMA)),
        perceived=perceived,
    )


@lru_cache(maxsize=1)
def _rotatable_query() -> Any:
    from rdkit import Chem

    return Chem.MolFromSmarts(ROTATABLE)


def _sides(mol: Any, graph: Graph) -> dict[Term, list[int]]:
    """Return the atoms that move with each acyclic bond (inner, outer): the smaller side of its fragment."""
    sides: dict[Term, list[int]] = {}
    for bond in mol.GetBonds():
        if not bond.IsInRing():
            ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            candidates = [(_reached(graph, *pair), pair) for pair in (ends, ends[::-1])]
            side, directed_bond = min(candidates, key=lambda candidate: (len(candidate[0]), candidate[1]))
            sides[directed_bond] = side
    return dict(sorted(sides.items()))


def _reached(graph: Graph, inner: int, outer: int) -> list[int]:
    """Return the atoms beyond a bond, `outer` included."""
    side, seen = [outer], {inner, outer}
    for atom in side:  # grows during the loop
        for neighbour in graph[atom]:
            if neighbour not in seen:
                seen.add(neighbour)
                side.append(neighbour)
    return sorted(side)


def _angles(graph: Graph, bonds: list[Term], sides: dict[Term, list[int]], positions: Points) -> list[Term]:
    """Return every angle that can be bent, as (fixed, centre, moved, number of the bond)."""
    number = {bond: index for index, bond in enumerate(bonds)}
    angles: list[Term] = []
    for centre, neighbours in enumerate(graph):
        for first, second in combinations(neighbours, 2):
            if _angle(positions, first, centre, second) > STRAIGHT:
                continue
            outward = [end for end in (first, second) if (centre, end) in number]
            inward = [end for end in (first, second) if (end, centre) in number]
            if outward:
                moved = min(outward, key=lambda end: (len(sides[centre, end]), -end))
                angles.append((first + second - moved, centre, moved, number[centre, moved]))
            elif inward:  # the other end is in a ring with the centre: the whole side of the bond turns
                fixed = inward[0]
                angles.append((fixed, centre, first + second - fixed, number[fixed, centre]))
    return angles


def _torsions(graph: Graph, bonds: list[Term], numbers: list[int], positions: Points) -> list[Term]:
    """Return one torsion for each bond with usable end atoms, as (first, number of the bond, last)."""

    def end(inner: int, outer: int) -> int | None:
        neighbours = (atom for atom in graph[inner] if atom != outer)
        usable = [atom for atom in neighbours if _angle(positions, atom, inner, outer) < IN_LINE]
        return max(usable, key=lambda atom: (numbers[atom], -atom), default=None)

    torsions: list[Term] = []
    for number, (inner, outer) in enumerate(bonds):
        first, last = end(inner, outer), end(outer, inner)
        if first is not None and last is not None:
            torsions.append((first, number, last))
    return torsions


def _angle(positions: Points, first: int, centre: int, second: int) -> float:
    """Return the angle at `centre` in rad."""
    x, y, z = positions[centre]
    a, b, c = positions[first]
    d, e, f = positions[second]
    a, b, c, d, e, f = a - x, b - y, c - z, d - x, e - y, f - z
    return math.atan2(math.hypot(b * f - c * e, c * d - a * f, a * e - b * d), a * d + b * e + c * f)


def _integers(terms: list[Term], width: int) -> Integers:
    return np.array(terms, dtype=np.int16).reshape(-1, width)
