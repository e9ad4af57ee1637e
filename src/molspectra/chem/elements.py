"""The names of the chemical elements, without importing a chemistry library."""

import re
from collections import Counter
from collections.abc import Iterable

from molspectra.errors import ElementError, hint

_ROWS = """
X H He
Li Be B C N O F Ne
Na Mg Al Si P S Cl Ar
K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe
Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn
Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""

SYMBOLS: tuple[str, ...] = tuple(_ROWS.split())
"""Symbol of each atomic number; index 0 is the dummy atom X."""

MAX_ATOMIC_NUMBER = len(SYMBOLS) - 1

_NUMBERS = dict(zip(SYMBOLS[1:], range(1, len(SYMBOLS)), strict=True))

_HYDROGEN_ISOTOPES = {"D": "deuterium", "T": "tritium"}
_DUMMY = re.compile(r"xx?|q|du|dum|lp|\*|r#?|bq.*|gh(?:\(.*)?|.*-bq|@.*|.*:", re.ASCII | re.IGNORECASE)
"""Matches what programs write for points without an element: dummy and ghost atoms, lone pairs."""

_ISOTOPE = re.compile(r"\d{1,3}[A-Z][a-z]?|[A-Z][a-z]?(?:-\d{1,3}|\(iso=.*)", re.ASCII | re.IGNORECASE)


def atomic_number(symbol: str) -> int:
    """Return the atomic number of an element symbol.

    Raises:
        ElementError: if it is not the symbol of an element (the dummy atom X is none).
    """
    number = _NUMBERS.get(symbol)
    if number is None:
        raise ElementError(f"{symbol[:20]!r} is not the symbol of a chemical element{_advice(symbol)}")
    return number


def _advice(symbol: str) -> str:
    """Return the end of a message about what is not a symbol: what it is, or what may have been meant."""
    if symbol in _HYDROGEN_ISOTOPES:
        return f" but of {_HYDROGEN_ISOTOPES[symbol]}, and isotopes are not supported; write H"
    if _ISOTOPE.fullmatch(symbol):
        return " but of an isotope, which is not supported; write the element alone"
    if symbol == "Tv":
        return " but of a translation vector: a periodic structure is not a molecule"
    if _DUMMY.fullmatch(symbol):
        return " but of a dummy or ghost atom; remove it"
    candidates = [known for known in _NUMBERS if known[0] == symbol[:1].upper()]
    label = "symbols with this first letter"
    return f"; {hint(symbol.capitalize(), candidates, label=label)}" if candidates else ""


def hill_formula(numbers: Iterable[int]) -> str:
    """Return the molecular formula in Hill order: C and H first if there is carbon, else alphabetical."""
    counts = Counter(SYMBOLS[int(number)] for number in numbers)
    first = ("C", "H") if "C" in counts else ()
    order = [s for s in first if s in counts] + sorted(s for s in counts if s not in first)
    return "".join(f"{s}{counts[s] if counts[s] > 1 else ''}" for s in order)
