"""One molecular structure: elements, coordinates and, if known, its SMILES."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape

import numpy as np
import numpy.typing as npt

from molspectra.chem.drawing import html_of
from molspectra.chem.elements import MAX_ATOMIC_NUMBER, SYMBOLS, hill_formula
from molspectra.chem.identity import identity_of
from molspectra.errors import ElementError, ValueRangeError
from molspectra.printable import printable

MIN_DISTANCE = 0.3
"""Two atoms closer than this (Å) are an error; the shortest bond, H2, is 0.74 Å."""

MAX_COORDINATE = 1e4
"""Å; a coordinate beyond it is an error of units, or of columns that were taken for others."""

_ROWS = 256  # rows of the distance matrix held at once


@dataclass(frozen=True, eq=False, repr=False)
class Molecule:
    """One structure of N atoms; immutable, validated on construction.

    Attributes:
        numbers: atomic numbers [N], int64, 1 to 118; read-only.
        positions: coordinates [N, 3] in Å, float64, finite; read-only.
        smiles: SMILES of the same molecule if the source has one; it determines the identity.
        charge: total charge in elementary charges.
        name: label given by the source.

    Raises:
        ElementError: unknown element.
        ValueRangeError: wrong shapes, no atoms, coordinates that are not finite or beyond `MAX_COORDINATE`,
            atoms closer than `MIN_DISTANCE`, or a charge that is no whole number or, of either sign, larger
            than the nuclear charge.
    """

    numbers: npt.NDArray[np.int64]
    positions: npt.NDArray[np.float64]
    smiles: str | None = None
    charge: int = 0
    name: str | None = None

    def __post_init__(self) -> None:
        numbers = _checked_numbers(self.numbers)
        positions = _checked_positions(self.positions, len(numbers))
        charge = whole(self.charge)
        if charge is None or charge != self.charge:
            raise ValueRangeError(f"the charge of a molecule must be a whole number, not {self.charge!r}")
        nuclear = int(numbers.sum())
        if charge > nuclear:
            raise ValueRangeError(f"charge {charge:+.6g} leaves fewer than zero electrons")
        if -charge > nuclear:
            raise ValueRangeError(
                f"charge {charge:+.6g} is more than the nuclear charge {nuclear:+d} can bind"
            )
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "charge", charge)

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        optional = {"smiles": self.smiles, "name": self.name, "charge": self.charge or None}
        extras = [f"{key}={value!r}" for key, value in optional.items() if value is not None]
        return f"Molecule({', '.join([self.formula, f'{len(self)} atoms', *extras])})"

    def _repr_html_(self) -> str:
        """The drawn structure, for notebooks; a line of text where bonds cannot be told."""
        return html_of(self) or f"<code>{escape(printable(repr(self)))}</code>"

    @property
    def symbols(self) -> list[str]:
        """Element symbols, one per atom."""
        return [SYMBOLS[number] for number in self.numbers]

    @property
    def formula(self) -> str:
        """Molecular formula in Hill order, without the charge."""
        return hill_formula(self.numbers)

    @property
    def n_electrons(self) -> int:
        """Number of electrons; odd for a radical."""
        return int(self.numbers.sum()) - self.charge

    def with_positions(self, positions: npt.ArrayLike) -> Molecule:
        """Return the same molecule with other coordinates [N, 3] in Å."""
        return replace(self, positions=np.asarray(positions, dtype=np.float64))

    @cached_property
    def identity(self) -> str:
        """Key of the molecule for splits and records; see `molspectra.chem.identity.identity_of`."""
        return identity_of(self)

    @cached_property
    def geometry_id(self) -> int:
        """Signed 64-bit hash of the elements and the coordinates rounded to 1e-4 Å, in their given order.

        Seeds the noise and masks of this structure; it changes with rotation and with atom order.
        """
        return geometry_id_of(self.numbers, self.positions)


def geometry_id_of(numbers: npt.NDArray[np.integer], positions: npt.NDArray[np.floating]) -> int:
    """Return `Molecule.geometry_id` for valid atomic numbers [N] and coordinates [N, 3] in Å."""
    digest = hashlib.blake2b(numbers.astype("<i8").tobytes(), digest_size=8)
    digest.update(np.rint(positions.astype(np.float64) * 1e4).astype("<i8").tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True)


def whole(charge: float, tolerance: float = 1e-3) -> int | None:
    """Return the whole number that a charge is but for a rounding error, or None."""
    if not math.isfinite(charge) or abs(charge - round(charge)) > tolerance:
        return None
    return round(charge)


def _checked_numbers(numbers: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return atomic numbers as a read-only int64 array [N] after checking them."""
    given = np.asarray(numbers)
    if given.ndim != 1 or given.size == 0:
        raise ValueRangeError(
            f"a molecule needs a list of atomic numbers, not an array of shape {given.shape}"
        )
    if given.dtype.kind not in "iu":
        raise ValueRangeError(f"atomic numbers must be integers, not {given.dtype}")
    unknown = (given < 1) | (given > MAX_ATOMIC_NUMBER)
    if unknown.any():
        atom = int(np.argmax(unknown))
        raise ElementError(
            f"atom {atom + 1} has atomic number {given[atom]}; known are 1 to {MAX_ATOMIC_NUMBER}"
        )
    result = given.astype(np.int64)
    result.setflags(write=False)
    return result


def _checked_positions(positions: npt.ArrayLike, n_atoms: int) -> npt.NDArray[np.float64]:
    """Return coordinates as a read-only float64 array [N, 3] after checking shape, values and distances."""
    try:
        result = np.array(positions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueRangeError("coordinates must be numbers, three per atom") from error
    if result.shape != (n_atoms, 3):
        raise ValueRangeError(f"{n_atoms} atoms need coordinates of shape ({n_atoms}, 3), not {result.shape}")
    finite = np.isfinite(result)
    if not finite.all():
        raise ValueRangeError(
            f"atom {int(np.argmin(finite.all(axis=1))) + 1} has a coordinate that is not a finite number"
        )
    far = np.abs(result).max(axis=1) > MAX_COORDINATE
    if far.any():
        atom = int(np.argmax(far))
        place = " ".join(f"{value:g}" for value in result[atom])
        raise ValueRangeError(f"atom {atom + 1} is at {place}, beyond {MAX_COORDINATE:,.0f} Å")
    pair = _coincident_pair(result)
    if pair:
        raise ValueRangeError(f"atoms {pair[0] + 1} and {pair[1] + 1} are closer than {MIN_DISTANCE} Å")
    result.setflags(write=False)
    return result


def _coincident_pair(positions: npt.NDArray[np.float64]) -> Sequence[int] | None:
    """Return the first pair of atoms nearer than MIN_DISTANCE, or None."""
    for start in range(0, len(positions), _ROWS):
        difference = positions[start : start + _ROWS, None, :] - positions
        near = np.einsum("ijk,ijk->ij", difference, difference) < MIN_DISTANCE**2
        if np.count_nonzero(near) > len(near):  # more than the distances of atoms to themselves
            row, column = np.argwhere(np.triu(near, k=start + 1))[0]
            return int(row) + start, int(column)
    return None
