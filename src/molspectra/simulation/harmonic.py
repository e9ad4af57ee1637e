"""Minimum, Hessian and dipole derivatives at B3LYP/def2-SVP, by PySCF with density fitting. Atomic units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.errors import SimulationError
from molspectra.simulation.dft import FUNCTIONAL, build_molecule
from molspectra.simulation.geometry import minimise, positive

Array = npt.NDArray[np.float64]

GRID = 2
"""PySCF grid level; gradients without the grid's own derivatives err by up to 1e-4 Hartree/bohr."""

NOISE = 2e-5
"""Rise of the energy, Hartree, that such an error may cause in a step of 0.2 bohr."""

TOLERANCE = 3e-4
"""Largest component of the gradient at the minimum, Hartree/bohr."""

RESPONSE_GRID = 0
"""Grid level of the coupled-perturbed equations, which bear a coarse one: frequencies move by 0.7 cm⁻¹."""

_ENERGY = 1e-9  # convergence of the SCF, Hartree
_RESPONSE = 3e-4  # of the coupled-perturbed equations, for each atom


@dataclass(frozen=True)
class Harmonic:
    """Results for one molecule.

    Attributes:
        positions: the minimum [N, 3], bohr.
        hessian: [3N, 3N], Hartree/bohr².
        dipole: ∂μ_i/∂R [3N, 3], e.
    """

    positions: Array
    hessian: Array
    dipole: Array


def harmonic(numbers: npt.NDArray[np.int64], positions: Array, charge: int, start_hessian: Array) -> Harmonic:
    """Optimise a closed-shell molecule and compute its analytic Hessian and dipole derivatives.

    Args:
        numbers: atomic numbers [N].
        positions: start [N, 3], bohr.
        charge: total charge, e.
        start_hessian: Hessian near the start [3N, 3N], such as that of GFN2-xTB.

    Raises:
        SimulationError: SCF or optimiser did not converge.
    """
    density: list[Array | None] = [None]

    def converged(x: Array) -> Any:
        from pyscf import dft

        field = dft.RKS(build_molecule(numbers, x, charge), xc=FUNCTIONAL).density_fit()
        field.grids.level, field.conv_tol = GRID, _ENERGY
        field.kernel(dm0=density[0])
        if not field.converged:
            raise SimulationError("B3LYP did not converge")
        density[0] = field.make_rdm1()
        return field

    def energy_gradient(x: Array) -> tuple[float, Array]:
        field = converged(x)
        return float(field.e_tot), np.asarray(field.nuc_grad_method().kernel(), np.float64)

    if len(numbers) > 1:
        positions = minimise(energy_gradient, positions, positive(start_hessian), TOLERANCE, NOISE)
    field = converged(positions)
    hessian, dipole = _second_derivatives(field)
    return Harmonic(positions, hessian, dipole)


def _second_derivatives(field: Any) -> tuple[Array, Array]:
    """Return Hessian [3N, 3N] and dipole derivatives [3N, 3] from one coupled-perturbed calculation."""
    from pyscf import dft, lib

    molecule, solver = field.mol, field.Hessian()
    solver.grids = field.grids
    field.grids = dft.Grids(molecule)
    field.grids.level, field.conv_tol_cpscf = RESPONSE_GRID, _RESPONSE
    atoms, silent = range(molecule.natm), lib.logger.new_logger(molecule, 0)
    energies, orbitals, occupations = field.mo_energy, field.mo_coeff, field.mo_occ
    first = solver.make_h1(orbitals, occupations, None, atoms, silent)
    memory = max(field.max_memory - lib.current_memory()[0], 1000)
    change, change_energy = solver.solve_mo1(
        energies, orbitals, occupations, first, None, atoms, memory, silent
    )
    blocks = solver.hess_elec(energies, orbitals, occupations, mo1=change, mo_e1=change_energy)
    blocks = blocks + solver.hess_nuc(molecule)
    size = 3 * molecule.natm
    hessian = np.asarray(blocks.transpose(0, 2, 1, 3).reshape(size, size), np.float64)

    # μ = Σ Z R − tr(P r): nuclei, change of the orbitals, and basis functions that move with their atom
    occupied, density = orbitals[:, occupations > 0], field.make_rdm1()
    position = molecule.intor("int1e_r")
    moving = molecule.intor("int1e_irp", comp=9).reshape(3, 3, molecule.nao, molecule.nao)
    dipole = np.zeros((molecule.natm, 3, 3))
    for atom, (*_, start, stop) in enumerate(molecule.aoslice_by_atom()):
        response = np.stack([part @ occupied.T for part in np.asarray(change[atom])])  # [3, nao, nao]
        dipole[atom] -= 4 * np.einsum("xpq,kpq->kx", position, response)
        shifted = np.einsum("xkpq,pq->kx", moving[..., start:stop], density[:, start:stop])
        dipole[atom] += 2 * shifted + molecule.atom_charge(atom) * np.eye(3)
    return hessian, dipole.reshape(size, 3)
