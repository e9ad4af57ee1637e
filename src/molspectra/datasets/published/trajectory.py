"""Check of the units of the labels of a trajectory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from molspectra.chem.sanity import bohr_suspected
from molspectra.errors import UnitError

_ENERGY_UNITS = {"Hartree": 1.0, "eV": 27.211, "kcal/mol": 627.51, "kJ/mol": 2625.5}
_FORCE_LOW, _FORCE_HIGH = 4.0, 200.0


def total_energy(numbers: npt.NDArray[np.integer]) -> float:
    """Estimate the total energy of a neutral molecule in Hartree, to about 10 %.

    Thomas-Fermi, −0.77 Z^(7/3) for each atom, scaled by 0.78 to fit H to Cl.
    """
    return float(-0.6 * (np.asarray(numbers, np.float64) ** (7 / 3)).sum())


def check_labels(
    numbers: npt.NDArray[np.integer],
    positions: npt.NDArray[np.floating],
    energies: npt.NDArray[np.floating],
    forces: npt.NDArray[np.floating],
) -> None:
    """Refuse frames whose magnitudes indicate other units.

    Total energies are compared with a rough estimate from the elements; energies with another zero cannot be
    judged and pass. Forces at the temperatures of molecular dynamics are some tens of kcal/mol/Å, about 1
    in eV/Å and about 0.02 in Hartree/bohr. Values that are not finite are ignored here; their rows are
    rejected later.

    Args:
        numbers: atomic numbers [N].
        positions: of the first frames [T, N, 3], Å.
        energies: [T], kcal/mol.
        forces: [T, N, 3], kcal/mol/Å.

    Raises:
        UnitError: with the unit that they seem to be in.
    """
    if sum(bool(bohr_suspected(numbers, frame)) for frame in positions) > len(positions) / 2:
        raise UnitError("the coordinates seem to be in bohr; they must be in Å (1 bohr = 0.529177 Å)")
    energies = energies[np.isfinite(energies)]
    ratio = float(np.median(energies)) / total_energy(numbers) if energies.size else float("nan")
    for unit, value in _ENERGY_UNITS.items():
        if unit != "kcal/mol" and 0.75 < ratio / value < 1.33:
            raise UnitError(f"the energies seem to be in {unit}; they must be in kcal/mol")
    forces = forces[np.isfinite(forces)]
    size = float(np.sqrt(np.mean(forces.astype(np.float64) ** 2))) if forces.size else _FORCE_LOW
    if len(numbers) > 1 and not _FORCE_LOW <= size <= _FORCE_HIGH:
        raise UnitError(
            f"the forces have a root mean square of {size:.3g}, where {_FORCE_LOW:g} to {_FORCE_HIGH:g} "
            f"kcal/mol/Å are expected of molecular dynamics; {_force_hint(size)}"
        )


def _force_hint(size: float) -> str:
    """Guess the unit of forces of that size."""
    if 0.2 < size < _FORCE_LOW:
        return "they seem to be in eV/Å (1 eV = 23.0605 kcal/mol)"
    if size < 0.2:
        return "they seem to be in Hartree/bohr (1 Hartree/bohr = 1185.82 kcal/mol/Å)"
    return "convert them first"
