"""Functional groups, the ranges of their infrared bands, and what a measured spectrum says about them.

Ranges are those of the usual tables (such as Silverstein, Webster and Kiemle, Spectrometric Identification of
Organic Compounds), wide enough for vapours, solutions and pure liquids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

STRONG = 0.15
"""Height, relative to the highest point, from which a band can be that of a group whose band is strong."""

DEMANDING = 0.3
"""Height from which a band in a range of few groups asks for one of them."""

_NOTHING = 0.05  # height below which nothing is measured


@dataclass(frozen=True)
class Group:
    """A functional group and one of its bands.

    Attributes:
        name: of group and band.
        smarts: that finds it.
        low: of the range of the band, cm⁻¹.
        high: of the range, cm⁻¹.
        is_strong: whether the band is strong in every infrared spectrum.
    """

    name: str
    smarts: str
    low: float
    high: float
    is_strong: bool = False


GROUPS = (
    Group("O-H, alcohol, phenol or oxime", "[OX2H;!$(O[CX3]=[OX1])]", 3200, 3700),
    Group("O-H, carboxylic acid", "[OX2H][CX3]=[OX1]", 2500, 3600),
    Group("N-H", "[#7;!H0]", 3100, 3560),
    Group("C-H, alkyne", "[CX2H]#[CX2]", 3250, 3380),
    Group("C-H, aromatic or alkene", "[c,$([CX3]=[CX3]);!H0]", 3000, 3130),
    Group("C-H, alkyl", "[CX4;!H0]", 2800, 3010),
    Group("C-H, aldehyde", "[CX3;!H0](=[OX1])", 2680, 2880),
    Group("S-H", "[SX2H]", 2530, 2620),
    Group("C≡N, nitrile", "[CX2]#[NX1]", 2200, 2280),
    Group("N=C=O, isocyanate", "[NX2]=[CX2]=[OX1]", 2220, 2300, True),
    Group("N=C=S, isothiocyanate", "[NX2]=[CX2]=[SX1]", 1980, 2150, True),
    Group("C=C=O, ketene", "[CX3]=[CX2]=[OX1]", 2080, 2170, True),
    Group("C≡C, alkyne", "[CX2]#[CX2]", 2090, 2270),
    Group("C=O, anhydride", "[CX3](=[OX1])[OX2][CX3]=[OX1]", 1740, 1880, True),
    Group("C=O, acid chloride", "[CX3](=[OX1])Cl", 1740, 1840, True),
    Group("C=O, ester", "[CX3;!$(C(=O)OC=O)](=[OX1])[OX2][#6]", 1700, 1850, True),
    Group("C=O, carboxylic acid", "[CX3](=[OX1])[OX2H]", 1680, 1810, True),
    Group("C=O, aldehyde", "[CX3;!H0;!$(C[#7,#8])]=[OX1]", 1660, 1770, True),
    Group("C=O, ketone", "[#6][CX3](=[OX1])[#6]", 1640, 1830, True),
    Group("C=O, amide", "[CX3](=[OX1])[#7]", 1620, 1780, True),
    Group("C=C, alkene", "[CX3]=[CX3]", 1570, 1690),
    Group("C=N, imine or oxime", "[CX3]=[NX2]", 1580, 1700),
    Group("C=C, aromatic ring", "c:c", 1420, 1630),
    Group("NO2, nitro", "[$([NX3](=O)=O),$([NX3+](=O)[O-])][#6]", 1490, 1600, True),
    Group("N=O, nitrite or nitrate", "[OX2][$([NX2]=O),$([NX3](=O)=O),$([NX3+](=O)[O-])]", 1590, 1700, True),
    Group("S=O, sulfone or sulfonyl", "[SX4](=[OX1])=[OX1]", 1280, 1420, True),
    Group("S=O, sulfoxide", "[SX3]=[OX1]", 1010, 1130, True),
    Group("C-O, alcohol", "[OX2H][CX4]", 1000, 1260, True),
    Group("C-O, ester or acid", "[CX3](=[OX1])[OX2]", 1000, 1330, True),
    Group("C-O, ether", "[OX2;!r3]([#6;!$(C=O)])[#6;!$(C=O)]", 1000, 1310, True),
    Group("C-F", "[#6]F", 900, 1420, True),
    Group("C-Cl", "[#6]Cl", 500, 860),
)
"""Groups that are looked for in a candidate. A group with several bands has an entry for each."""


@dataclass(frozen=True)
class Demand:
    """A range in which a strong band asks for one of few groups.

    Attributes:
        name: what it asks for.
        smarts: that any molecule with such a band matches.
        low: of the range, cm⁻¹.
        high: of the range, cm⁻¹.
    """

    name: str
    smarts: str
    low: float
    high: float


DEMANDS = (
    Demand("O-H or N-H", "[#7,#8,#9;!H0]", 3400, 3700),
    Demand("C-H", "[#6;!H0]", 2850, 2990),
    Demand("triple or cumulated bond", "[$(*#*),$([#6,#7](=*)=*),$([PH,SiH,BH])]", 2080, 2300),
    # alkenes with fluorine and nitrosyl compounds have bands there too
    Demand("C=O", "[$([#6]=[OX1]),$([#6](F)=[#6]),$([NX2]=[OX1])]", 1700, 1850),
)


@dataclass(frozen=True)
class GroupEvidence:
    """What a spectrum says about one functional group of a candidate.

    Attributes:
        group: its name.
        present: whether the candidate has it.
        low: of the range looked at, cm⁻¹.
        high: of the range looked at, cm⁻¹.
        verdict: "supported", the candidate has it and a band is there; "contradicted", its band is always
            strong and nothing is measured there, or a strong band asks for it and the candidate lacks it;
            "open", all else.
        reason: a short sentence.
    """

    group: str
    present: bool
    low: float
    high: float
    verdict: Literal["supported", "contradicted", "open"]
    reason: str


def evidence(
    mol: Any,
    axis: Floats,
    query: Floats,
    known: npt.NDArray[np.bool_],
    peaks: Sequence[tuple[float, float]],
    asking: Sequence[tuple[float, float]] | None = None,
    *,
    infrared: bool = True,
) -> tuple[GroupEvidence, ...]:
    """What a spectrum says about the groups of a candidate, and about groups that it lacks.

    Args:
        mol: RDKit molecule of the candidate.
        axis: [points] cm⁻¹.
        query: [points] measured spectrum, largest 1.
        known: [points] mask of what was measured.
        peaks: position and height of each measured band.
        asking: the bands that may ask for a group that the candidate lacks; None for all.
        infrared: whether strong bands are those of the tables; False for Raman spectra, which can only
            support a group or leave it open.
    """
    found = [
        GroupEvidence(
            group.name, True, group.low, group.high, *_verdict(group, axis, query, known, peaks, infrared)
        )
        for group in GROUPS
        if has(mol, group)
    ]
    for demand in DEMANDS if infrared else ():
        place, height = _highest(peaks if asking is None else asking, demand.low, demand.high)
        if height >= DEMANDING and not has(mol, demand):
            reason = f"The strong band at {place:.0f} cm⁻¹ asks for it, and the candidate has none."
            found.append(GroupEvidence(demand.name, False, demand.low, demand.high, "contradicted", reason))
    return tuple(found)


def _verdict(
    group: Group,
    axis: Floats,
    query: Floats,
    known: npt.NDArray[np.bool_],
    peaks: Sequence[tuple[float, float]],
    infrared: bool,
) -> tuple[Literal["supported", "contradicted", "open"], str]:
    """Verdict and reason for a group that the candidate has."""
    inside = (axis >= group.low) & (axis <= group.high)
    measured = inside & known
    place, height = _highest(peaks, group.low, group.high)
    must = group.is_strong and infrared
    if height >= (STRONG if must else 0) and place:
        return "supported", f"A band is at {place:.0f} cm⁻¹ ({height:.0%} of the highest).".replace("%", " %")
    if not measured.any():
        return "open", "Nothing was measured there."
    if place:
        return "open", f"Only a weak band is at {place:.0f} cm⁻¹, and this one is strong as a rule."
    if not measured[inside].all():
        return "open", "No band is there, but only a part of the range was measured."
    if query[inside].max() >= _NOTHING:
        return "open", "There is absorption, but no band of its own."
    if must:
        return "contradicted", "Nothing is measured there, and the band is always strong."
    return "open", "No band is there, but it may be weak."


def _highest(peaks: Sequence[tuple[float, float]], low: float, high: float) -> tuple[float, float]:
    """Position and height of the highest band in a range; zeros without one."""
    return max(
        ((place, height) for place, height in peaks if low <= place <= high),
        key=lambda peak: peak[1],
        default=(0.0, 0.0),
    )


def has(mol: Any, group: Group | Demand) -> bool:
    """Whether an RDKit molecule has a functional group."""
    return bool(mol.HasSubstructMatch(_pattern(group.smarts)))


@lru_cache
def _pattern(smarts: str) -> Any:
    from rdkit import Chem

    return Chem.MolFromSmarts(smarts)
