"""Which molecules of a library may be answers: formula, exact mass, elements."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from molspectra.chem.elements import atomic_number, hill_formula
from molspectra.errors import InputError

_PART = re.compile(r"([A-Z][a-z]?)(\d*)")
_WITHIN = re.compile(r"(\d+(?:\.\d*)?(?:[eE][+-]?\d{1,2})?|\.\d+)\s*(ppm|da|u)", re.IGNORECASE)
_MOST = 9_999  # atoms of one element
ELECTRON = 5.485799e-4
"""Mass of an electron in unified atomic mass units (CODATA 2018)."""


@dataclass(frozen=True)
class Filters:
    """What an answer must fulfil; a criterion that is None is none.

    Attributes:
        formula: molecular formula in any order, without charge.
        mass: exact (monoisotopic) mass in Da.
        within: tolerance of `mass`, such as "10 ppm" or "0.01 Da".
        elements: an answer consists of these elements and no others.
        contains: elements that an answer has, with any others.

    Raises:
        InputError: a formula, mass, tolerance or element that cannot be.
    """

    formula: str | None = None
    mass: float | None = None
    within: str = "10 ppm"
    elements: Sequence[str] | None = None
    contains: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.formula is not None:
            hill(self.formula)
        tolerance(self.within, 1.0)
        if self.mass is not None and not (np.isfinite(self.mass) and self.mass > 0):
            raise InputError(f"the mass must be a positive number of Da, not {self.mass}")
        for symbols in (self.elements, self.contains):
            if symbols is not None and not len(symbols):
                raise InputError("name at least one element, or leave the filter out")
            element_bits([atomic_number(symbol) for symbol in symbols or ()])

    def select(self, table: pa.Table) -> npt.NDArray[np.bool_] | None:
        """The rows of a library's table [n] that may be answers; None where all may."""
        masks = []
        if self.formula is not None:
            masks.append(pc.equal(table["formula"], hill(self.formula)).to_numpy())
        if self.mass is not None:
            slack = tolerance(self.within, self.mass)
            masks.append(np.abs(table["mass"].to_numpy() - self.mass) <= slack)
        halves = [table[name].to_numpy() for name in ("elements_low", "elements_high")]
        for symbols, only in ((self.elements, True), (self.contains, False)):
            if symbols is None:
                continue
            asked = element_bits([atomic_number(symbol) for symbol in symbols])
            for own, bits in zip(halves, map(np.uint64, asked), strict=True):
                masks.append((own & ~bits) == 0 if only else (own & bits) == bits)
        if not masks:
            return None
        chosen: npt.NDArray[np.bool_] = np.logical_and.reduce(masks)
        return chosen

    def __str__(self) -> str:
        mass = None if self.mass is None else f"{self.mass:g} Da ± {self.within}"
        only = None if self.elements is None else f"only {' '.join(self.elements)}"
        some = None if self.contains is None else f"with {' '.join(self.contains)}"
        return ", ".join(each for each in (self.formula, mass, only, some) if each)


def hill(formula: str) -> str:
    """A formula in Hill order, from any order of its elements.

    Raises:
        InputError: not a formula.
    """
    parts = _PART.findall(formula)
    if not parts or "".join(symbol + count for symbol, count in parts) != formula:
        raise InputError(f"{formula[:40]!r} is not a molecular formula such as C7H8")
    numbers: list[int] = []
    for symbol, count in parts:
        if len(count) > 4 or not 0 < int(count or 1) <= _MOST:
            raise InputError(f"{formula[:40]!r}: {symbol} occurs 1 to {_MOST} times in a formula")
        numbers += [atomic_number(symbol)] * int(count or 1)
    return hill_formula(numbers)


def tolerance(text: str, mass: float) -> float:
    """A tolerance such as "10 ppm" or "0.01 Da", in Da at a mass in Da.

    Raises:
        InputError: not such a text.
    """
    found = _WITHIN.fullmatch(text.strip())
    if found is None:
        raise InputError(f"{text[:40]!r} is not a tolerance of the mass such as 10ppm or 0.01Da")
    return float(found[1]) * (mass * 1e-6 if found[2].lower() == "ppm" else 1.0)


def element_bits(numbers: Sequence[int]) -> tuple[int, int]:
    """Elements as two 64-bit words: bit z − 1, counted through both, for atomic number z."""
    bits = 0
    for number in set(numbers):
        bits |= 1 << (number - 1)
    return bits & (2**64 - 1), bits >> 64


def exact_mass(numbers: npt.NDArray[np.int64], charge: int) -> float:
    """Mass in Da of the molecule of most abundant isotopes, of an ion without its missing electrons."""
    from molspectra.simulation.vibrations import masses_of

    return float(masses_of(numbers).sum()) - charge * ELECTRON
