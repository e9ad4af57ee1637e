"""Filters of a search by formula, exact mass and elements."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from molspectra.chem.elements import atomic_number, hill_formula
from molspectra.errors import FormatError, SettingError, UnitError, ValueRangeError

_PART = re.compile(r"([A-Z][a-z]?)(\d*)")
_WITHIN = re.compile(r"(\d+(?:\.\d*)?(?:[eE][+-]?\d{1,2})?|\.\d+)\s*(ppm|da|u)", re.IGNORECASE)
_MAX_COUNT = 9_999  # atoms of one element


@dataclass(frozen=True)
class Filters:
    """Criteria that an answer must fulfil; None is no criterion.

    Attributes:
        formula: molecular formula in any order, without charge.
        mass: exact (monoisotopic) mass in Da.
        within: tolerance of `mass`, such as "10 ppm" or "0.01 Da".
        elements: the only elements that an answer may have.
        contains: elements that an answer must have, besides any others.

    Raises:
        InputError: an impossible formula, mass, tolerance or element.
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
            raise ValueRangeError(f"the mass must be a positive number of Da, not {self.mass}")
        for symbols in (self.elements, self.contains):
            if symbols is not None and not len(symbols):
                raise SettingError("name at least one element, or leave the filter out")
            element_bits([atomic_number(symbol) for symbol in symbols or ()])

    def select(self, table: pa.Table) -> npt.NDArray[np.bool_] | None:
        """Mask [n] of the entries in a library's table that fulfil all criteria; None without criteria."""
        masks = []
        if self.formula is not None:
            masks.append(pc.equal(table["formula"], hill(self.formula)).to_numpy())
        if self.mass is not None:
            within = tolerance(self.within, self.mass)
            masks.append(np.abs(table["mass"].to_numpy() - self.mass) <= within)
        halves = [table[name].to_numpy() for name in ("elements_low", "elements_high")]
        for symbols, only in ((self.elements, True), (self.contains, False)):
            if symbols is None:
                continue
            wanted = element_bits([atomic_number(symbol) for symbol in symbols])
            for present, bits in zip(halves, map(np.uint64, wanted), strict=True):
                masks.append((present & ~bits) == 0 if only else (present & bits) == bits)
        if not masks:
            return None
        selected: npt.NDArray[np.bool_] = np.logical_and.reduce(masks)
        return selected

    def required(self) -> list[int]:
        """Atomic numbers that every answer must have."""
        symbols = [symbol for symbol, _ in _PART.findall(self.formula or "")]
        return [atomic_number(symbol) for symbol in (*symbols, *(self.contains or ()))]

    def __str__(self) -> str:
        mass = None if self.mass is None else f"{self.mass:g} Da ± {self.within}"
        only = None if self.elements is None else f"only {' '.join(self.elements)}"
        some = None if self.contains is None else f"with {' '.join(self.contains)}"
        return ", ".join(filter(None, (self.formula, mass, only, some)))


def hill(formula: str) -> str:
    """A molecular formula in Hill order.

    Raises:
        FormatError: not a formula.
        ElementError: an element that does not exist.
    """
    parts = _PART.findall(formula)
    if not parts or "".join(symbol + count for symbol, count in parts) != formula:
        raise FormatError(f"{formula[:40]!r} is not a molecular formula such as C7H8")
    numbers: list[int] = []
    for symbol, count in parts:
        if len(count) > 4 or not 0 < int(count or 1) <= _MAX_COUNT:
            raise FormatError(f"{formula[:40]!r}: {symbol} occurs 1 to {_MAX_COUNT} times in a formula")
        numbers += [atomic_number(symbol)] * int(count or 1)
    return hill_formula(numbers)


def tolerance(text: str, mass: float) -> float:
    """A tolerance such as "10 ppm" or "0.01 Da", in Da at a mass in Da.

    Raises:
        UnitError: no such number with a unit.
    """
    match = _WITHIN.fullmatch(text.strip())
    if match is None:
        raise UnitError(f"{text[:40]!r} is not a tolerance of the mass such as 10ppm or 0.01Da")
    return float(match[1]) * (mass * 1e-6 if match[2].lower() == "ppm" else 1.0)


def element_bits(numbers: Sequence[int]) -> tuple[int, int]:
    """Set of elements as the low and high 64-bit words of a number whose bit z − 1 is atomic number z."""
    bits = 0
    for number in set(numbers):
        bits |= 1 << (number - 1)
    return bits & (2**64 - 1), bits >> 64
