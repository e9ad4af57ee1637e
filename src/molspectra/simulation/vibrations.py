"""Normal modes, infrared and Raman intensities, zero-point energy and heat capacity; all harmonic."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from molspectra.simulation.units import (
    AMU,
    BOHR,
    DEBYE,
    EV_PER_WAVENUMBER,
    GAS_CONSTANT,
    IR_INTENSITY,
    KELVIN_PER_WAVENUMBER,
    WAVENUMBER,
)
from molspectra.simulation.xtb import FieldDerivatives

Array = npt.NDArray[np.float64]

TEMPERATURE = 298.15
ELECTRON = 5.485799e-4
"""Mass of an electron in unified atomic mass units (CODATA 2018)."""
_LINEAR = 1e-3  # smallest / largest principal extent below which a molecule counts as linear


@dataclass(frozen=True)
class Modes:
    """Normal modes without translations and rotations; M is 3N−6, 3N−5 for linear molecules, 0 for an atom.

    Attributes:
        wavenumbers: [M] cm⁻¹, ascending; an imaginary frequency is negative.
        displacements: [M, 3N] unit vectors in mass-weighted coordinates divided by √mass, 1/√amu: ∂R/∂Q.
    """

    wavenumbers: Array
    displacements: Array


def masses_of(numbers: npt.NDArray[np.int64]) -> Array:
    """Return the mass of the most abundant isotope of each element [N], amu (IUPAC, as tabulated in ASE)."""
    from ase.data import atomic_masses_common

    return np.asarray(atomic_masses_common, dtype=np.float64)[numbers]


def exact_mass(numbers: npt.NDArray[np.int64], charge: int) -> float:
    """Mass in Da of the molecule of most abundant isotopes; electrons are counted in ions."""
    return float(masses_of(numbers).sum()) - charge * ELECTRON


def rigid_motions(masses: Array, positions: Array) -> Array:
    """Return orthonormal mass-weighted translations and rotations [3N, 6].

    Linear molecules have 5 columns, atoms 3.

    Args:
        masses: [N] amu.
        positions: [N, 3], any unit.
    """
    centred = positions - masses @ positions / masses.sum()
    root = np.sqrt(masses)[:, None, None]
    translations = np.broadcast_to(np.eye(3), (len(masses), 3, 3))
    # column k: the unit rotation about the principal axis k, e_k × r
    _, extent, axes = np.linalg.svd(centred * np.sqrt(masses)[:, None], full_matrices=True)
    extent = np.concatenate([extent, np.zeros(3 - len(extent))])
    # an atom has no rotation, and a linear molecule none about its long axis, the first
    first = 3 if extent[0] < 1e-8 else int(extent[1] < _LINEAR * extent[0])
    rotations = np.cross(axes[first:, None], centred).transpose(1, 2, 0)
    motions = np.concatenate([translations, rotations], axis=-1)
    weighted = (root * motions).reshape(3 * len(masses), -1)
    return np.asarray(np.linalg.qr(weighted)[0], dtype=np.float64)


def normal_modes(masses: Array, positions: Array, hessian: Array) -> Modes:
    """Diagonalise the mass-weighted Hessian in the space orthogonal to translations and rotations.

    Args:
        masses: [N] amu.
        positions: [N, 3].
        hessian: [3N, 3N] Hartree/bohr².
    """
    root = np.repeat(np.sqrt(masses), 3)
    rigid = rigid_motions(masses, positions)
    basis = np.linalg.qr(rigid, mode="complete")[0][:, rigid.shape[1] :]
    reduced = basis.T @ (hessian / np.outer(root, root)) @ basis
    squares, vectors = np.linalg.eigh(0.5 * (reduced + reduced.T))
    wavenumbers = np.sign(squares) * np.sqrt(np.abs(squares) / AMU) * WAVENUMBER
    return Modes(wavenumbers, (basis @ vectors).T / root)


def infrared(modes: Modes, derivatives: FieldDerivatives) -> Array:
    """Return the integrated absorption of each mode [M], km/mol: 42.2561·|∂μ/∂Q|² with (D/Å)/√amu."""
    change = modes.displacements @ derivatives.dipole * (DEBYE / BOHR)
    return IR_INTENSITY * (change**2).sum(axis=1)


def raman(modes: Modes, derivatives: FieldDerivatives) -> Array:
    """Return the Raman activity of each mode [M], Å⁴/amu.

    45a′² + 7γ′² of ∂α/∂Q (Wilson, Decius and Cross, 1955).
    """
    change = np.einsum("mk,kij->mij", modes.displacements, derivatives.polarisability) * BOHR**2
    mean = np.trace(change, axis1=1, axis2=2) / 3
    traceless = change - mean[:, None, None] * np.eye(3)
    anisotropy = 1.5 * (traceless**2).sum(axis=(1, 2))
    return np.asarray(45 * mean**2 + 7 * anisotropy, dtype=np.float64)


def zero_point_energy(modes: Modes) -> float:
    """Return half the sum of the real wavenumbers, eV, unscaled."""
    return float(0.5 * np.maximum(modes.wavenumbers, 0.0).sum() * EV_PER_WAVENUMBER)


def heat_capacity(modes: Modes, n_atoms: int) -> float:
    """Return Cv of the ideal gas at 298.15 K, cal/mol/K.

    The sum of translation 3R/2, rotation 3R/2 (linear R, atom 0) and vibrations.
    """
    rigid = 3 * n_atoms - len(modes.wavenumbers)
    x = np.maximum(np.abs(modes.wavenumbers), 1e-3) * KELVIN_PER_WAVENUMBER / TEMPERATURE
    vibrations = float(((x / 2) ** 2 / np.sinh(np.minimum(x / 2, 300.0)) ** 2).sum())
    return GAS_CONSTANT * (rigid / 2 + vibrations)
