"""The 19 targets of QM9: names, units, conversion from the published numbers, atomic reference energies."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from molspectra.chem.elements import SYMBOLS
from molspectra.data.store.schema import Quantity
from molspectra.errors import ElementError, MismatchError, ValueRangeError
from molspectra.simulation.units import HARTREE, KCAL

LEVEL = "B3LYP/6-31G(2df,p)"
"""Level of theory of the geometries and of all targets."""

PUBLISHED = (
    *("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "u298", "h298", "g298", "cv"),
)
"""The 15 published scalars in the order of the files, under the names of `gdb9.sdf.csv`."""

ENERGIES = ("homo", "lumo", "gap", "zpve", "u0", "u298", "h298", "g298")
"""Scalars that are published in Hartree and stored in eV."""

ATOMIC_ENERGIES: dict[str, dict[int, float]] = {
    "u0": {1: -0.500273, 6: -37.846772, 7: -54.583861, 8: -75.064579, 9: -99.718730},
    "u298": {1: -0.498857, 6: -37.845355, 7: -54.582445, 8: -75.063163, 9: -99.717314},
    "h298": {1: -0.497912, 6: -37.844411, 7: -54.581501, 8: -75.062219, 9: -99.716370},
    "g298": {1: -0.510927, 6: -37.861317, 7: -54.598897, 8: -75.079532, 9: -99.733544},
}
"""Reference energies of the free atoms, Hartree by atomic number (`atomref.txt` of the dataset)."""

ATOMIC_CV = 2.981
"""Published heat capacity of a free atom of any element, cal/mol/K; the zero-point energy is 0."""

_UNITS = {"A": "GHz", "B": "GHz", "C": "GHz", "mu": "D", "alpha": "a0^3", "r2": "a0^2", "cv": "cal/mol/K"}


def quantities() -> dict[str, Quantity]:
    """Return unit and level of the 19 targets in the store."""
    names = (*PUBLISHED[3:], *(f"{name}_atom" for name in ATOMIC_ENERGIES), *PUBLISHED[:3])
    return {name: Quantity(_UNITS.get(name, "eV"), LEVEL) for name in names}


def notes() -> dict[str, str]:
    """Return notes for the store's metadata: the atomic references by element in its units, as JSON."""
    references = {
        name: {SYMBOLS[number]: round(energy * HARTREE, 9) for number, energy in atoms.items()}
        for name, atoms in ATOMIC_ENERGIES.items()
    }
    references["zpve"] = dict.fromkeys(references["u0"], 0.0)
    references["cv"] = dict.fromkeys(references["u0"], ATOMIC_CV)
    return {
        "atomic_references": json.dumps(references),
        "atomisation": "u0_atom, u298_atom, h298_atom, g298_atom: molecule minus atomic references, below 0",
        "hartree_in_ev": repr(HARTREE),
        "not_stored": "Mulliken charges, harmonic frequencies",
    }


def targets(published: Sequence[float], numbers: npt.NDArray[np.integer]) -> dict[str, float]:
    """Return the 19 targets of one molecule in the units of the store.

    Args:
        published: the 15 scalars in the order of `PUBLISHED`, as published (energies in Hartree).
        numbers: atomic numbers [N].

    Raises:
        InputError: if a number is not finite, or an element has no reference energy.
    """
    values = dict(zip(PUBLISHED, published, strict=True))
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueRangeError(f"{name} is {value}")
    atoms = numbers.tolist()
    try:
        references = {name: sum(energy[atom] for atom in atoms) for name, energy in ATOMIC_ENERGIES.items()}
    except KeyError as error:
        raise ElementError(f"QM9 has no {SYMBOLS[int(error.args[0])]}, only H, C, N, O and F") from error
    values |= {f"{name}_atom": values[name] - energy for name, energy in references.items()}
    for name in (*ENERGIES, *(f"{energy}_atom" for energy in ATOMIC_ENERGIES)):
        values[name] *= HARTREE
    return values


def check_atomisation(values: Mapping[str, float], published: Mapping[str, float]) -> None:
    """Refuse atomisation energies that differ from those of `gdb9.sdf.csv` by more than 0.01 kcal/mol.

    Args:
        values: result of `targets`, eV.
        published: `u0_atom` and so on in kcal/mol; names may be missing.
    """
    for name, energy in published.items():
        computed = values[name] / HARTREE * KCAL
        if not abs(computed - energy) <= 0.01:
            raise MismatchError(f"{name} is {energy} kcal/mol, but molecule minus atoms gives {computed:.3f}")
