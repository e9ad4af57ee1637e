"""Force constants of the Open Force Field "Sage" 2.0.0 for the bonds, angles and torsions of a molecule.

The table `parameters/sage.tsv` (CC BY 4.0) lists the SMIRKS patterns and constants. Of several patterns that
match a term, the last one applies (SMIRNOFF). The patterns assume the MDL model of aromaticity.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

Kind = Literal["bond", "angle", "torsion"]
Term = tuple[int, ...]
"""The atoms of a bond, angle or torsion, ordered so that the first index is below the last."""

_KINDS: dict[str, Kind] = {"b": "bond", "a": "angle", "t": "torsion"}
_ATOM = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]")
_NESTED = re.compile(r"\$\([^()]*(?:\([^()]*\)[^()]*)*\)")
_NUMBER = re.compile(r"#(\d+)")


@dataclass(frozen=True)
class Pattern:
    """One line of the table.

    Attributes:
        name: identifier in the force field, such as "b1".
        query: RDKit query molecule.
        tagged: atoms of the query that form the term, in order.
        stiffness: k in kcal/mol/Å² (bond) or kcal/mol/rad² (angle); of a torsion Σ n²|k_n|, the largest
            curvature that its cosines can have.
        elements: for each atom of the query that lists its elements, their atomic numbers.
    """

    name: str
    query: Any
    tagged: tuple[int, ...]
    stiffness: float
    elements: tuple[frozenset[int], ...]


def directed(atoms: Term) -> Term:
    """Return the same bond, angle or torsion with its first atom below its last."""
    return atoms if atoms[0] < atoms[-1] else atoms[::-1]


def with_force_field_aromaticity(mol: Any) -> Any:
    """Return a copy of a sanitised RDKit molecule with MDL aromaticity, as the patterns require."""
    from rdkit import Chem

    copy = Chem.Mol(mol)
    Chem.Kekulize(copy, clearAromaticFlags=True)
    Chem.SetAromaticity(copy, Chem.AromaticityModel.AROMATICITY_MDL)
    return copy


def stiffness(mol: Any, kind: Kind, terms: Collection[Term]) -> dict[Term, float]:
    """Return the force constants of terms of a molecule.

    Args:
        mol: from `with_force_field_aromaticity`, with explicit hydrogens.
        kind: of all the terms.
        terms: atoms of each term, as `directed`.

    Returns:
        Constants by term, in kcal/mol/Å² or kcal/mol/rad²; a term without a matching pattern is absent.
    """
    remaining, constants = set(terms), {}
    for pattern in _last_first(kind, frozenset(atom.GetAtomicNum() for atom in mol.GetAtoms())):
        if not remaining:
            break
        for match in mol.GetSubstructMatches(pattern.query, uniquify=False, maxMatches=1_000_000):
            term = directed(tuple(match[atom] for atom in pattern.tagged))
            if term in remaining:
                remaining.remove(term)
                constants[term] = pattern.stiffness
    return constants


@lru_cache(maxsize=4096)
def _last_first(kind: Kind, present: frozenset[int]) -> list[Pattern]:
    """Return the patterns that a molecule of these elements can match, the last one first."""
    return [
        pattern
        for pattern in reversed(patterns()[kind])
        if all(elements & present for elements in pattern.elements)
    ]


@lru_cache(maxsize=1)
def patterns() -> dict[Kind, list[Pattern]]:
    """Return all patterns of each kind, in the order of the force field."""
    by_kind: dict[Kind, list[Pattern]] = {"bond": [], "angle": [], "torsion": []}
    table = files("molspectra.chem") / "parameters" / "sage.tsv"
    for line in table.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, smirks, constants = line.split("\t")
            kind = _KINDS[name[0]]
            by_kind[kind].append(_pattern(name, smirks, _stiffness(kind, constants)))
    return by_kind


def _pattern(name: str, smirks: str, constant: float) -> Pattern:
    from rdkit import Chem

    query = Chem.MolFromSmarts(smirks)
    tags = {atom.GetAtomMapNum(): atom.GetIdx() for atom in query.GetAtoms() if atom.GetAtomMapNum()}
    return Pattern(name, query, tuple(tags[tag] for tag in sorted(tags)), constant, _elements(smirks))


def _stiffness(kind: Kind, constants: str) -> float:
    """Return the harmonic constant of a column such as `529.24` or `3:0.14213/3 1:0.5`."""
    if kind != "torsion":
        return float(constants)
    total = 0.0
    for cosine in constants.split():
        period, _, rest = cosine.partition(":")
        constant, _, divisor = rest.partition("/")
        total += int(period) ** 2 * abs(float(constant)) / float(divisor or 1)
    return total


def _elements(smirks: str) -> tuple[frozenset[int], ...]:
    """Return the elements that a molecule needs, a set for each atom whose alternatives all begin with #."""
    required = set()
    for text in _ATOM.findall(_NESTED.sub("", smirks)):
        numbers = [_NUMBER.match(choice) for choice in text.partition(";")[0].split(",")]
        if all(numbers):
            required.add(frozenset(int(number[1]) for number in numbers if number))
    return tuple(required)
