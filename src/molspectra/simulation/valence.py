"""Force fields and dipole derivatives, corrected by kind of valence coordinate. Atomic units.

GFN2-xTB errs in the same way for the same kind of bond or angle: C-H and C=O stretches lie 2 % too high, O-H
stretches 3 % and C-Cl stretches 15 % too low. So its Hessian is written in stretches, bends, wags and
torsions, and each force constant is multiplied by the factor of its kind, √(sᵢsⱼ) for a pair (Pulay et al.,
J. Am. Chem. Soc. 105 (1983) 7037; of redundant coordinates, Baker, Jarzecki and Pulay, J. Phys. Chem. A 102
(1998) 1412). Dipole derivatives get terms of the bonds, whose moment turns and stretches with them, and of
bends and wags, along their bisectors and axes (electro-optical parameters: Gribov and Orville-Thomas, 1988).

`scripts/fit_valence.py` fits the factors (`factors.json`) to observed fundamentals of small molecules and,
for other kinds of bonds, to B3LYP/def2-SVP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
import numpy.typing as npt

from molspectra.simulation.factors import Parameters, parameters
from molspectra.simulation.geometry import bend_vectors, torsion_vector
from molspectra.simulation.units import BOHR
from molspectra.simulation.vibrations import rigid_motions
from molspectra.simulation.xtb import FieldDerivatives

Array = npt.NDArray[np.float64]

BONDED = 1.25
"""Largest length of a bond, in sums of covalent radii."""

_LINEAR = 0.985  # cosine beyond which an angle is straight
_RANK = 1e-5  # relative singular value below which a combination of coordinates is redundant
_LENGTHS: dict[tuple[int, int], tuple[tuple[float, str], ...]] = {  # longest bond of each order, Å
    (6, 6): ((1.27, "#"), (1.37, "="), (1.445, ":")),
    (6, 7): ((1.22, "#"), (1.325, "="), (1.40, ":")),
    (6, 8): ((1.26, "="), (1.385, ":")),
    (7, 7): ((1.17, "#"), (1.32, "=")),
    (7, 8): ((1.27, "="),),
    (6, 16): ((1.68, "="),),
    (8, 16): ((1.53, "="),),
    (7, 16): ((1.58, "="),),
}


@dataclass(frozen=True, eq=False)
class Valence:
    """The R valence coordinates of a structure, more than its degrees of freedom.

    Attributes:
        derivatives: of each coordinate by the positions [R, 3N], 1 or 1/bohr.
        atoms: [R] the atoms of each: ends of a bond; end, centre, end of a bend; centre first in a wag; the
            four of a torsion in their order.
        kinds: [R] its kind, such as "stretch C=O", "bend HX C4", "wag C1", "straight XX", "torsion single".
        directions: [R, 3] unit vectors of bisectors of bends and axes of wags; zeros for others.
        bonds: (lower end, higher end, kind) of each bond; ends alike in element and number of neighbours make
            none, since such a bond has no moment.
    """

    derivatives: Array
    atoms: tuple[tuple[int, ...], ...]
    kinds: tuple[str, ...]
    directions: Array
    bonds: tuple[tuple[int, int, str], ...]


def valence(numbers: npt.NDArray[np.int64], positions: Array) -> Valence:
    """Find the valence coordinates of a structure.

    Args:
        numbers: atomic numbers [N].
        positions: coordinates [N, 3], bohr.
    """
    return _Finder(numbers, positions).found()


class _Finder:
    """Lists the valence coordinates of one structure."""

    def __init__(self, numbers: npt.NDArray[np.int64], positions: Array) -> None:
        from ase.data import chemical_symbols, covalent_radii

        self.numbers, self.positions = numbers.tolist(), positions
        self.symbols = [chemical_symbols[number] for number in self.numbers]
        self.distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
        radii = covalent_radii[numbers] / BOHR
        bonded = (self.distances < BONDED * (radii[:, None] + radii)) & ~np.eye(len(radii), dtype=bool)
        self.neighbours = [np.flatnonzero(row).tolist() for row in bonded]
        self.pairs = [(i, j) for i, j in combinations(range(len(radii)), 2) if bonded[i, j]]
        self.rows: list[Array] = []
        self.atoms: list[tuple[int, ...]] = []
        self.kinds: list[str] = []
        self.directions: list[Array] = []

    def found(self) -> Valence:
        """All coordinates."""
        kinds = {pair: self._bond(*pair) for pair in self.pairs}
        for (i, j), kind in kinds.items():
            unit = self._unit(i, j)
            self._add(f"stretch {kind}", ((i, -unit), (j, unit)))
        for centre in range(len(self.numbers)):
            self._around(centre)
        for (b, c), kind in kinds.items():
            self._torsions(b, c, kind if "=" in kind or ":" in kind else "single")
        for centre, around in enumerate(self.neighbours):
            if len(around) == 2 and self._is_straight(around[0], centre, around[1]):
                self._torsions(around[0], around[1], "through", centre)
        size = 3 * len(self.numbers)
        # bends of an angle that is only nearly straight turn a little with the molecule
        rigid = rigid_motions(np.ones(len(self.numbers)), self.positions)
        rows = np.array(self.rows).reshape(-1, size)
        return Valence(
            rows - rows @ rigid @ rigid.T,
            tuple(self.atoms),
            tuple(self.kinds),
            np.array(self.directions).reshape(-1, 3),
            tuple(self._polar(kinds)),
        )

    def _polar(self, kinds: Mapping[tuple[int, int], str]) -> Iterator[tuple[int, int, str]]:
        """Bonds between unlike ends, the end of lower element or fewer neighbours first."""
        for (i, j), kind in kinds.items():
            ends = sorted((self.numbers[atom], len(self.neighbours[atom]), atom) for atom in (i, j))
            if ends[0][:2] != ends[1][:2]:
                yield ends[0][2], ends[1][2], kind

    def _add(self, kind: str, parts: tuple[tuple[int, Array], ...], direction: Array | None = None) -> None:
        row = np.zeros((len(self.numbers), 3))
        for atom, part in parts:
            row[atom] += part
        self.rows.append(row.ravel())
        self.atoms.append(tuple(atom for atom, _ in parts))
        self.kinds.append(kind)
        self.directions.append(np.zeros(3) if direction is None else direction)

    def _unit(self, i: int, j: int) -> Array:
        return np.asarray((self.positions[j] - self.positions[i]) / self.distances[i, j])

    def _bond(self, i: int, j: int) -> str:
        """Kind of a bond: its elements and the order that its length tells; for C-H, neighbours of C."""
        (low, first), (high, second) = sorted((self.numbers[atom], atom) for atom in (i, j))
        if low == 1:
            count = min(len(self.neighbours[second]) - 1, 3) if high == 6 else ""
            return f"{self.symbols[second]}{count}-H"
        length = float(self.distances[i, j]) * BOHR
        orders = (order for longest, order in _LENGTHS.get((low, high), ()) if length < longest)
        return f"{self.symbols[first]}{next(orders, '-')}{self.symbols[second]}"

    def _around(self, centre: int) -> None:
        """Bends of all pairs of neighbours, and the wag of an atom with three."""
        around = self.neighbours[centre]
        name = self.symbols[centre] + (str(len(around)) if self.numbers[centre] in (6, 7) else "")
        for i, j in combinations(around, 2):
            hydrogens = (self.numbers[i] == 1) + (self.numbers[j] == 1)
            ends = "H" * hydrogens + "X" * (2 - hydrogens)
            first, second = (self.positions[end] - self.positions[centre] for end in (i, j))
            is_straight = self._is_straight(i, centre, j)
            bisector = self._unit(centre, i) + self._unit(centre, j)
            for at_i, at_centre, at_j in bend_vectors(first, second):
                parts = ((i, at_i), (centre, at_centre), (j, at_j))
                if is_straight:
                    self._add(f"straight {ends}", parts)
                else:
                    self._add(f"bend {ends} {name}", parts, bisector / np.linalg.norm(bisector))
        if len(around) == 3 and self.numbers[centre] in (5, 6, 7):
            self._wag(centre, around)

    def _wag(self, centre: int, around: list[int]) -> None:
        """Height of an atom above the plane of its three neighbours, divided by the mean bond length."""
        corners = self.positions[around]
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        area = float(np.linalg.norm(normal))
        if area < 1e-3:
            return
        normal = normal / area
        # weights of the corners in the foot of the perpendicular: with these, rigid motions do not count
        foot = self.positions[centre] - normal * (normal @ (self.positions[centre] - corners[0]))
        system = np.vstack([corners.T, np.ones(3)])
        weights = np.linalg.lstsq(system, np.append(foot, 1.0), rcond=None)[0]
        length = float(self.distances[centre, around].mean())
        parts = [(centre, normal / length)]
        parts += [(atom, -weight * normal / length) for atom, weight in zip(around, weights, strict=True)]
        hydrogens = min(sum(self.numbers[atom] == 1 for atom in around), 2)
        self._add(f"wag {self.symbols[centre]}{hydrogens}", tuple(parts), normal)

    def _is_straight(self, i: int, centre: int, j: int) -> bool:
        return bool(self._unit(centre, i) @ self._unit(centre, j) < -_LINEAR)

    def _torsions(self, b: int, c: int, name: str, between: int | None = None) -> None:
        """Torsions about a bond, or a straight line of three atoms, each with the weight of one among all."""
        x = self.positions
        before = [atom for atom in self.neighbours[b] if atom not in (c, between)]
        after = [atom for atom in self.neighbours[c] if atom not in (b, between)]
        inner = (c, b) if between is None else (between, between)
        before = [atom for atom in before if not self._is_straight(atom, b, inner[0])]
        after = [atom for atom in after if not self._is_straight(atom, c, inner[1])]
        weight = 1 / np.sqrt(max(len(before) * len(after), 1))
        for a, d in product(before, after):
            vectors = torsion_vector(x[a] - x[b], x[c] - x[b], x[d] - x[c]) if a != d else None
            if vectors is not None:
                parts = zip((a, b, c, d), (weight * vector for vector in vectors), strict=True)
                self._add(f"torsion {name}", tuple(parts))


def scaled(constants: Array, coordinates: Valence, factor: Callable[[str], float]) -> Array:
    """Return the Hessian of force constants times factors.

    Args:
        constants: F [R, R], see `force_constants`.
        coordinates: valence coordinates of the structure.
        factor: by kind of coordinate.

    Returns:
        [3N, 3N], Hartree/bohr²: BᵀS^½ F S^½ B with the factors S. With factors of 1 it is the Hessian without
        translations and rotations, as long as the coordinates span all vibrations.
    """
    roots = np.sqrt([factor(kind) for kind in coordinates.kinds])
    weighted = roots[:, None] * coordinates.derivatives
    return np.asarray(weighted.T @ constants @ weighted, np.float64)


def force_constants(hessian: Array, coordinates: Valence) -> Array:
    """Return the force constants F = (B⁺)ᵀHB⁺ [R, R] of the Hessian [3N, 3N] of a minimum."""
    inverse = np.linalg.pinv(coordinates.derivatives, rcond=_RANK)
    return np.asarray(inverse.T @ (0.5 * (hessian + hessian.T)) @ inverse, np.float64)


def dipole_terms(coordinates: Valence, positions: Array) -> dict[str, Array]:
    """Derivatives of the dipole [3N, 3], e, that a parameter of 1 adds, by kind.

    "along K": the moment of bonds of kind K grows with their length; "across K": it turns with them; "bend K"
    and "wag K": the dipole grows along the bisector or axis, e·bohr per radian. None changes the sum over the
    atoms, which is the molecule's charge.

    Args:
        coordinates: valence coordinates of the structure.
        positions: coordinates [N, 3], bohr.
    """
    count = len(positions)
    terms: dict[str, Array] = {}

    def add(kind: str, rows: slice, part: Array) -> None:
        terms.setdefault(kind, np.zeros((3 * count, 3)))[rows] += part

    for low, high, kind in coordinates.bonds:
        unit = positions[high] - positions[low]
        unit = unit / np.linalg.norm(unit)
        along = np.outer(unit, unit)
        for name, part in ((f"along {kind}", along), (f"across {kind}", np.eye(3) - along)):
            add(name, slice(3 * high, 3 * high + 3), part)
            add(name, slice(3 * low, 3 * low + 3), -part)
    for kind, row, direction in zip(
        coordinates.kinds, coordinates.derivatives, coordinates.directions, strict=True
    ):
        if direction.any():
            add(kind, slice(None), np.outer(row, direction))
    return terms


def corrected_dipole(dipole: Array, terms: Mapping[str, Array], fitted: Parameters) -> Array:
    """Return dipole derivatives [3N, 3], e, times the fitted factor, plus fitted terms (`dipole_terms`)."""
    result = fitted.charge * dipole
    for kind, term in terms.items():
        result = result + fitted.terms.get(kind, 0.0) * term
    return result


def corrected(
    method: str,
    numbers: npt.NDArray[np.int64],
    positions: Array,
    hessian: Array,
    derivatives: FieldDerivatives,
) -> tuple[Array, FieldDerivatives]:
    """Correct a Hessian [3N, 3N] and dipole derivatives; polarisabilities stay as they are.

    Args:
        method: what computed them, see `parameters`.
        numbers: atomic numbers [N].
        positions: the minimum [N, 3], bohr.
        hessian: Hartree/bohr².
        derivatives: of dipole and polarisability.
    """
    coordinates, fitted = valence(numbers, positions), parameters(method)
    dipole = corrected_dipole(derivatives.dipole, dipole_terms(coordinates, positions), fitted)
    constants = force_constants(hessian, coordinates)
    return scaled(constants, coordinates, fitted.factor), replace(derivatives, dipole=dipole)
