"""Plausibility checks of structures, and the table of covalent radii that they need."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.chem.elements import SYMBOLS
from molspectra.errors import ElementError, UnitError, ValueRangeError

RDKIT_ERRORS = (ValueError, RuntimeError, ArithmeticError)
"""What RDKit raises for molecules that it cannot treat; RuntimeError where an internal condition breaks."""

MAX_ATOMS = 2_000
"""Larger structures of a file are refused: the checks of a structure grow with the square of its size."""

_MAX_RINGS = 300  # a fullerene C240 closes 121; RDKit crashes where 60 atoms close 1000

SEEM_IN_BOHR = "the coordinates seem to be in bohr; they must be in Å (1 bohr = 0.529177 Å)"
"""Why such a structure is refused."""

_LOW, _HIGH = 1.35, 2.4  # F–F in Å has 1.24, N≡N in bohr 1.46 and F–F in bohr 2.34
_H2 = 0.74  # Å, the bond of H2
_FEWEST = 3  # atoms; the bond of two alone is no evidence

_BONDING = np.ones(119, np.bool_)
_BONDING[[0, 2, 10, 18, 36, 54, 86, 118]] = False  # noble gases have no bonds to measure


def check_size(atoms: int) -> None:
    """Refuse a structure of more than `MAX_ATOMS` atoms.

    Raises:
        ValueRangeError: if it has more.
    """
    if atoms > MAX_ATOMS:
        raise ValueRangeError(f"a structure of {atoms} atoms; at most {MAX_ATOMS} are read")


def check_rings(mol: Any) -> None:
    """Refuse an RDKit molecule whose bonds close more rings than the search for them survives.

    Raises:
        ValueRangeError: if they do.
    """
    rings = mol.GetNumBonds() - mol.GetNumAtoms() + 1
    if rings > _MAX_RINGS:
        raise ValueRangeError(f"the bonds close {rings} rings; at most {_MAX_RINGS} are read")


@cache
def covalent_radii() -> npt.NDArray[np.float64]:
    """Return covalent radii [119] in Å by atomic number from RDKit's table; 0 for the dummy atom."""
    from rdkit import Chem

    table = Chem.GetPeriodicTable()
    return np.array([0.0, *(table.GetRcovalent(number) for number in range(1, 119))])


def bohr_suspected(numbers: npt.NDArray[np.integer], positions: npt.NDArray[np.floating]) -> bool | None:
    """Return whether coordinates that should be in Å look as if they were in bohr; None if unclear.

    The distance of an atom to its nearest neighbour, in units of the bond between their elements, is near 1
    in a molecule in Å and near 1.89 in bohr. A structure is suspected if no atom has a neighbour nearer than
    1.35 and the median is below 2.4, so that it is stretched but not scattered. Noble gas atoms are ignored.
    Fewer than three other atoms cannot tell: their only bond may be stretched on purpose.

    Args:
        numbers: atomic numbers [N].
        positions: coordinates [N, 3].
    """
    bonding = _BONDING[numbers]
    bonding_numbers = numbers[bonding]
    if len(bonding_numbers) < _FEWEST:
        return None
    radii = covalent_radii()[bonding_numbers]
    lengths = radii[:, None] + radii
    hydrogen = bonding_numbers == 1
    lengths[np.ix_(hydrogen, hydrogen)] = _H2  # the radius of hydrogen is that of its bonds to other elements
    bonded = np.asarray(positions, np.float64)[bonding]
    difference = bonded[:, None, :] - bonded[None, :, :]
    ratio2 = np.einsum("ijk,ijk->ij", difference, difference) / np.square(lengths)
    ratio2.flat[:: len(ratio2) + 1] = np.inf
    if ratio2.min() <= _LOW**2:
        return False
    return bool(np.median(ratio2.min(axis=1)) < _HIGH**2)


def check_elements(numbers: Iterable[int], elements: Collection[int]) -> None:
    """Refuse atomic numbers [N] other than these, on which a model was trained.

    Raises:
        ElementError: naming the first such atom.
    """
    for atom, element in enumerate(map(int, numbers), start=1):
        if element not in elements:
            known = ", ".join(SYMBOLS[number] for number in sorted(elements))
            raise ElementError(
                f"atom {atom} is {SYMBOLS[element]}, which the model was not trained on, only {known}"
            )


def check_for_model(
    numbers: npt.NDArray[np.integer],
    positions: npt.NDArray[np.floating],
    elements: Collection[int] | None,
) -> None:
    """Check what a `Molecule` (elements, range, distances) does not, before a model sees it.

    Args:
        numbers: atomic numbers [N].
        positions: coordinates [N, 3].
        elements: those that the model was trained on; None where its files do not tell.

    Raises:
        UnitError: coordinates that look as if they were in bohr.
        ElementError: an element that the model was not trained on.
    """
    check_angstrom(numbers, positions)
    if elements is not None:
        check_elements(numbers, elements)


def check_angstrom(numbers: npt.NDArray[np.integer], positions: npt.NDArray[np.floating]) -> None:
    """Refuse coordinates [N, 3] that look as if they were in bohr, see `bohr_suspected`.

    Raises:
        UnitError: if they do.
    """
    if bohr_suspected(numbers, positions):
        raise UnitError(SEEM_IN_BOHR)
