"""Restricted Kohn-Sham B3LYP/def2-SVP with density fitting, tuned for many small molecules. Atomic units.

PySCF supplies integrals, grids and the functional. The SCF loop is implemented here because PySCF evaluates
the basis functions on the grid anew in every cycle, which takes most of its time for small molecules. Here
they are kept in single precision: the resulting error of an orbital energy, about 1e-6 Hartree, is far below
that of the grid.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from molspectra.errors import SimulationError

Array = npt.NDArray[np.float64]
Array32 = npt.NDArray[np.float32]

FUNCTIONAL = "b3lyp"
"""PySCF's `b3lyp`: libxc's hyb_gga_xc_b3lyp (402), with VWN(RPA) correlation as in Gaussian."""

EXACT_EXCHANGE = 0.2
BASIS = "def2-svp"
AUXILIARY = "def2-universal-jkfit"

GRID = 1
"""PySCF grid level of the Kohn-Sham potential; the first cycles use level 0."""

MAX_CYCLES = 80
TOLERANCE = 2e-5
"""Largest element of the orbital gradient FDS − SDF in the orthonormal basis at convergence, Hartree."""

_COARSE_TOLERANCE = 5e-3  # orbital gradient at which the fine grid takes over

_BLOCK = 2048  # grid points handled at a time
_ROWS = 64  # fitting functions unpacked at a time
_KEEP = 8  # Fock matrices kept for DIIS


@dataclass(frozen=True)
class GroundState:
    """A converged closed-shell determinant.

    Attributes:
        molecule: PySCF's `Mole`.
        energy: total energy, Hartree.
        orbitals: MO coefficients [nao, nmo].
        orbital_energies: [nmo], Hartree, ascending.
        n_occupied: number of doubly occupied orbitals.
        fitting: density-fitting integrals.
        dipole: [3] e·bohr about the centre of nuclear charge.
    """

    molecule: Any
    energy: float
    orbitals: Array
    orbital_energies: Array
    n_occupied: int
    fitting: "Fitting"
    dipole: Array


def build_molecule(numbers: npt.NDArray[np.int64], positions: Array, charge: int) -> Any:
    """Build a PySCF `Mole` with def2-SVP, and its effective core potentials beyond krypton.

    Positions [N, 3] in bohr.
    """
    from pyscf import gto

    atoms = [(int(z), tuple(r)) for z, r in zip(numbers, positions, strict=True)]
    ecp = BASIS if (numbers > 36).any() else {}
    return gto.M(atom=atoms, unit="Bohr", basis=BASIS, ecp=ecp, charge=charge, verbose=0, parse_arg=False)


@dataclass(frozen=True)
class Fitting:
    """Density-fitting integrals (μν|λσ) ≈ Σ_P (μν|P)(P|λσ) with orthonormalised fitting functions.

    Attributes:
        packed: L⁻¹(P|μν), lower triangles μ ≥ ν [naux, nao(nao+1)/2].
        square: the same [nao, naux, nao] in single precision.
        metric: lower Cholesky factor L of the Coulomb metric (P|Q) = L Lᵀ [naux, naux].
        auxiliary: PySCF's `Mole` of the fitting basis.
    """

    packed: Array
    square: Array32
    metric: Array
    auxiliary: Any

    @classmethod
    def of(cls, molecule: Any) -> "Fitting":
        """Compute the integrals.

        Raises:
            SimulationError: the Coulomb metric is not positive definite.
        """
        from pyscf import df, lib

        auxiliary = df.addons.make_auxmol(molecule, AUXILIARY)
        three = df.incore.aux_e2(molecule, auxiliary, intor="int3c2e", aosym="s2ij")
        try:
            metric = np.linalg.cholesky(auxiliary.intor("int2c2e"))
        except np.linalg.LinAlgError:
            raise SimulationError("the density-fitting metric is not positive definite") from None
        packed = scipy.linalg.solve_triangular(
            metric, three.T, lower=True, check_finite=False, overwrite_b=True
        )
        square = np.empty((molecule.nao, len(metric), molecule.nao), dtype=np.float32)
        for row in range(0, len(metric), _ROWS):
            square[:, row : row + _ROWS] = lib.unpack_tril(packed[row : row + _ROWS]).transpose(1, 0, 2)
        return cls(packed, square, metric, auxiliary)

    def coulomb(self, occupied: Array) -> Array:
        """Return the Coulomb matrix J [nao, nao] of doubly occupied orbitals [nao, n]."""
        from pyscf import lib

        density = 2.0 * occupied @ occupied.T
        doubled = lib.pack_tril(2.0 * density - np.diag(np.diag(density)))
        return np.asarray(lib.unpack_tril((self.packed @ doubled) @ self.packed), dtype=np.float64)

    def exchange(self, occupied: Array) -> Array:
        """Return the exchange matrix K [nao, nao] of doubly occupied orbitals [nao, n]."""
        nao = len(occupied)
        half = (self.square.reshape(-1, nao) @ occupied.astype(np.float32)).reshape(nao, -1)
        return 2.0 * (half @ half.T).astype(np.float64)


class _ExchangeCorrelation:
    """Exchange-correlation energy and potential on a grid; keeps the basis functions on its points."""

    def __init__(self, molecule: Any, level: int):
        from pyscf import dft

        grid = dft.Grids(molecule)
        grid.level = level
        grid.build(with_non0tab=False)
        self._blocks: list[tuple[Array32, Array]] = []
        for start in range(0, len(grid.weights), _BLOCK):
            part = slice(start, start + _BLOCK)
            values = dft.numint.eval_ao(molecule, grid.coords[part], deriv=1)
            self._blocks.append((values.transpose(0, 2, 1).astype(np.float32), grid.weights[part]))

    def __call__(self, occupied: Array) -> tuple[float, Array]:
        """Return energy (Hartree) and potential matrix [nao, nao] of occupied orbitals [nao, n_occupied]."""
        from pyscf.dft import libxc

        n = len(occupied)
        energy, potential = 0.0, np.zeros((n, n))
        density = (2.0 * occupied @ occupied.T).astype(np.float32)
        for values, weights in self._blocks:
            contracted = density @ values[0]
            rho = np.empty((4, len(weights)))
            rho[0] = np.einsum("ig,ig->g", contracted, values[0])
            for k in (1, 2, 3):
                rho[k] = 2 * np.einsum("ig,ig->g", contracted, values[k])
            rho[0] = np.maximum(rho[0], 0.0)
            per_electron, (first, gradient, *_), _, _ = libxc.eval_xc(FUNCTIONAL, rho, spin=0, deriv=1)
            energy += float((weights * rho[0]) @ per_electron)
            factor = np.vstack([0.5 * weights * first, 2 * weights * gradient * rho[1:]]).astype(np.float32)
            weighted = values[0] * factor[0]
            for k in (1, 2, 3):
                weighted += values[k] * factor[k]
            potential += values[0] @ weighted.T
        return energy, potential + potential.T


def ground_state(numbers: npt.NDArray[np.int64], positions: Array, charge: int = 0) -> GroundState:
    """Converge B3LYP/def2-SVP for a closed-shell molecule.

    Args:
        numbers: atomic numbers [N].
        positions: coordinates [N, 3], bohr.
        charge: total charge, e.

    Raises:
        SimulationError: no convergence in `MAX_CYCLES` cycles.
    """
    from pyscf import scf

    molecule = build_molecule(numbers, positions, charge)
    fitting = Fitting.of(molecule)
    core = scf.hf.get_hcore(molecule)
    overlap = molecule.intor("int1e_ovlp")
    values, vectors = np.linalg.eigh(overlap)
    orthogonal = vectors / np.sqrt(values)
    n_occupied = molecule.nelectron // 2
    guess = scf.hf.init_guess_by_minao(molecule)
    natural = scipy.linalg.eigh(overlap @ guess @ overlap, overlap)[1]
    occupied: Array = np.asarray(natural[:, ::-1][:, :n_occupied], dtype=np.float64)
    exchange_correlation, coarse = _ExchangeCorrelation(molecule, 0), True
    focks: list[Array] = []
    errors: list[Array] = []
    for _ in range(MAX_CYCLES):
        coulomb, exchange = fitting.coulomb(occupied), fitting.exchange(occupied)
        xc_energy, xc = exchange_correlation(occupied)
        fock = core + coulomb - 0.5 * EXACT_EXCHANGE * exchange + xc
        density = 2.0 * occupied @ occupied.T
        commutator = fock @ density @ overlap
        error = orthogonal.T @ (commutator - commutator.T) @ orthogonal
        residual = float(np.abs(error).max())
        if residual < TOLERANCE and not coarse:
            break
        focks, errors = [*focks[1 - _KEEP :], fock], [*errors[1 - _KEEP :], error]
        mixed = _extrapolate(focks, errors)
        occupied = orthogonal @ np.linalg.eigh(orthogonal.T @ mixed @ orthogonal)[1][:, :n_occupied]
        if coarse and residual < _COARSE_TOLERANCE:
            exchange_correlation, coarse = _ExchangeCorrelation(molecule, GRID), False
            focks, errors = [], []
    else:
        raise SimulationError(
            f"B3LYP did not converge in {MAX_CYCLES} cycles (residual {residual:.0e} Hartree)"
        )
    orbital_energies, rotation = np.linalg.eigh(orthogonal.T @ fock @ orthogonal)
    two_electron = 0.5 * coulomb - 0.25 * EXACT_EXCHANGE * exchange
    energy = float(np.einsum("ij,ij->", density, core + two_electron)) + xc_energy
    return GroundState(
        molecule=molecule,
        energy=energy + float(molecule.energy_nuc()),
        orbitals=orthogonal @ rotation,
        orbital_energies=orbital_energies,
        n_occupied=n_occupied,
        fitting=fitting,
        dipole=_dipole(molecule, density),
    )


def _extrapolate(focks: list[Array], errors: list[Array]) -> Array:
    """Return the combination of Fock matrices with the smallest error (Pulay's DIIS)."""
    size = len(focks)
    flat = np.stack([error.ravel() for error in errors])
    system = np.ones((size + 1, size + 1))
    system[-1, -1] = 0.0
    gram = flat @ flat.T
    system[:size, :size] = gram / gram[-1, -1]
    target = np.zeros(size + 1)
    target[-1] = 1.0
    weights = np.linalg.lstsq(system, target, rcond=None)[0][:size]
    return np.asarray(np.tensordot(weights, np.stack(focks), axes=1), dtype=np.float64)


def _dipole(molecule: Any, density: Array) -> Array:
    """Return the dipole [3], e·bohr, about the centre of nuclear charge (which matters only for ions)."""
    charges = molecule.atom_charges().astype(np.float64)
    centre = charges @ molecule.atom_coords() / charges.sum()
    with molecule.with_common_origin(centre):
        integrals = molecule.intor_symmetric("int1e_r", comp=3)
    return np.asarray(-np.einsum("xij,ij->x", integrals, density), dtype=np.float64)
