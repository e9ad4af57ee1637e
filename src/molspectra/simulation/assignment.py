"""What moves in each normal mode: shares of atoms, and of stretches, bends, wags and torsions.

The share of a valence coordinate i in mode k is that of its part of the potential energy, L_ik (FL)_ik / λ_k
with L = ∂S/∂Q (Wilson, Decius and Cross, Molecular Vibrations, 1955), which is the element L_ik (L⁻¹)_ki of
Pulay and Török, Acta Chim. Acad. Sci. Hung. 47 (1966) 273. Parts are added up by kind; negative sums, which
couplings make, count by their size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.simulation.api import DFT_LIBRARIES, Level, check_supported, levels_of_theory, vibrations_of
from molspectra.simulation.threads import one_thread
from molspectra.simulation.units import BOHR

Array = npt.NDArray[np.float64]

_SMALL = 0.05  # share of a kind that is not named
_NAMED = 3  # kinds of motion that are named at most
_MOVING = 0.25  # share of an atom, relative to the largest, that counts as moving


@dataclass(frozen=True, eq=False)
class Assignment:
    """Normal modes of a molecule and what moves in them: M modes, N atoms, K kinds of motion.

    Attributes:
        molecule: the minimum, with the atoms in the order given.
        wavenumbers: [M] cm⁻¹, ascending; an imaginary one is negative.
        intensities: [M] by modality: km/mol for `ir`, Å⁴/amu for `raman`.
        levels: level of theory of the geometry and of each modality.
        atoms: [M, N] share of each atom in the kinetic energy; rows have the sum 1.
        kinds: [K] readable kinds of motion, such as "C=O stretch", "C-H stretch (CH3)", "O-H torsion".
        energies: [M, K] share of each kind in the potential energy; rows have the sum 1, or 0 where molecules
            that are not bonded move against each other.
        displacements: [M, N, 3] Cartesian displacements of the modes; the mass-weighted ones are orthonormal.
    """

    molecule: Molecule
    wavenumbers: Array
    intensities: Mapping[str, Array]
    levels: Mapping[str, str]
    atoms: Array
    kinds: tuple[str, ...]
    energies: Array
    displacements: Array

    def motion(self, mode: int) -> str:
        """The leading kinds of motion of a mode, such as "C=O stretch 82 %, C-C stretch 9 %"."""
        shares = self.energies[mode]
        leading = [kind for kind in np.argsort(-shares, kind="stable")[:_NAMED] if shares[kind] >= _SMALL]
        return ", ".join(f"{self.kinds[kind]} {shares[kind]:.0%}".replace("%", " %") for kind in leading)

    def leading(self, mode: int) -> str:
        """The kind of motion with the largest share in a mode; "" where there is none."""
        return self.kinds[int(self.energies[mode].argmax())] if self.kinds else ""

    def moving(self, mode: int) -> tuple[int, ...]:
        """The atoms that move most in a mode, most first."""
        shares = self.atoms[mode]
        order = np.argsort(-shares, kind="stable")
        return tuple(int(atom) for atom in order if shares[atom] >= _MOVING * shares[order[0]])


def assign(molecule: Molecule, modalities: Sequence[str] = ("ir",), *, level: Level = "scaled") -> Assignment:
    """Compute the normal modes of the minimum next to a structure, and what moves in them.

    Args:
        molecule: start structure.
        modalities: `ir`, `raman` or both.
        level: see `molspectra.simulation.api.simulate`.

    Raises:
        InputError: another modality, a molecule that the level does not cover, or the extra is missing.
        SimulationError: SCF or optimisation failure.
    """
    from molspectra.simulation.valence import force_constants, valence
    from molspectra.simulation.vibrations import masses_of

    levels = levels_of_theory(modalities, level=level)
    check_supported(molecule)
    with one_thread(["tblite.interface", *(DFT_LIBRARIES if level == "dft" else ())]):
        found = vibrations_of(molecule, molecule.positions / BOHR, level)
    moves = found.modes.displacements
    coordinates = valence(molecule.numbers, found.positions)
    labels = _labels(molecule.symbols, coordinates.kinds, coordinates.atoms)
    kinds = tuple(dict.fromkeys(labels))
    member = np.array([[label == kind for kind in kinds] for label in labels], float)
    member = member.reshape(len(labels), len(kinds))
    changes = moves @ coordinates.derivatives.T  # L transposed [M, R]
    parts = changes * (changes @ force_constants(found.hessian, coordinates))
    energies = np.abs(parts @ member)
    total = energies.sum(1, keepdims=True)
    displacements = moves.reshape(-1, len(molecule), 3)
    kinetic = (displacements**2).sum(-1) * masses_of(molecule.numbers)
    return Assignment(
        molecule.with_positions(found.positions * BOHR),
        found.modes.wavenumbers,
        {name: found.intensities(name) for name in modalities},
        levels,
        kinetic / kinetic.sum(1, keepdims=True),
        kinds,
        energies / np.where(total > 0, total, 1),
        displacements,
    )


def _labels(symbols: Sequence[str], kinds: Sequence[str], atoms: Sequence[tuple[int, ...]]) -> list[str]:
    """Readable kinds [R] of valence coordinates."""
    neighbours: list[set[int]] = [set() for _ in symbols]
    for kind, ends in zip(kinds, atoms, strict=True):
        if kind.startswith("stretch"):
            neighbours[ends[0]].add(ends[1])
            neighbours[ends[1]].add(ends[0])
    hydrogens = [sum(symbols[other] == "H" for other in around) for around in neighbours]

    def group(atom: int) -> str:
        """An atom with its hydrogens, such as CH3."""
        return symbols[atom] + ("H" + (str(hydrogens[atom]) if hydrogens[atom] > 1 else "")) * (
            hydrogens[atom] > 0
        )

    def stretch(kind: str, ends: tuple[int, ...]) -> str:
        bond = kind.removeprefix("stretch ")
        if "H" not in (symbols[ends[0]], symbols[ends[1]]):
            return f"{_bond(bond)} stretch"
        heavy = ends[0] if symbols[ends[1]] == "H" else ends[1]
        name = f"{symbols[heavy]}-H stretch"
        if symbols[heavy] != "C":
            return f"{name} ({group(heavy)})" if hydrogens[heavy] > 1 and symbols[heavy] != "O" else name
        around = neighbours[heavy]
        if len(around) == 3 and any(symbols[atom] == "O" and len(neighbours[atom]) == 1 for atom in around):
            return f"{name} ({group(heavy)}O)"
        order = {1: "≡", 2: "="}.get(len(neighbours[heavy]) - 1, "")
        return f"{name} ({order}{group(heavy)})"

    def bend(ends: tuple[int, ...]) -> str:
        first, centre, second = ends
        around = sorted((symbols[first], symbols[second]), key=lambda symbol: (symbol == "H", symbol))
        if around == ["H", "H"] and symbols[centre] != "O":
            return f"{group(centre)} bend"
        name = f"{around[0]}-{symbols[centre]}-{around[1]} bend"
        return (
            f"{name} ({group(centre)})" if around[1] == "H" != around[0] and hydrogens[centre] > 1 else name
        )

    def wag(centre: int) -> str:
        if hydrogens[centre] > 1:
            return f"{group(centre)} wag"
        return f"{symbols[centre]}{'-H' * hydrogens[centre]} out-of-plane bend"

    def torsion(kind: str, ends: tuple[int, ...]) -> str:
        inner = ends[1:3]
        for atom in inner:
            if hydrogens[atom] and hydrogens[atom] == len(neighbours[atom]) - 1 and "single" in kind:
                return f"{group(atom) if hydrogens[atom] > 1 else symbols[atom] + '-H'} torsion"
        for end, atom in ((ends[0], ends[1]), (ends[3], ends[2])):
            if symbols[end] == "H" and hydrogens[atom] == 1 and ":" in kind:  # as of benzene at 673 cm⁻¹
                return wag(atom)
        order = next((order for order in "=:" if order in kind), "-")
        return f"{_bond(order.join(sorted(symbols[atom] for atom in inner)))} torsion"

    def label(kind: str, ends: tuple[int, ...]) -> str:
        word = kind.split()[0]
        if word == "stretch":
            return stretch(kind, ends)
        if word == "wag":
            return wag(ends[0])
        return torsion(kind, ends) if word == "torsion" else bend(ends)

    return [label(kind, ends) for kind, ends in zip(kinds, atoms, strict=True)]


def _bond(kind: str) -> str:
    """A bond as chemists write it: "S=O" for "O=S", "C≡N" for "C#N", "C-N (conjugated)" for "C:N"."""
    order = next(order for order in "#=:-" if order in kind)
    first, second = kind.split(order)
    if first in ("N", "O", "F") and second not in ("N", "O", "F"):
        first, second = second, first
    return {"#": f"{first}≡{second}", ":": f"conjugated {first}-{second}"}.get(
        order, f"{first}{order}{second}"
    )
