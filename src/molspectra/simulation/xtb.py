"""GFN2-xTB energies, nuclear gradients, Hessians and electric-field derivatives through tblite.

Everything here is in atomic units (bohr, Hartree); :mod:`molspectra.simulation.vibrations` turns it into
spectra.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tblite import library
from tblite.exceptions import TBLiteRuntimeError
from tblite.interface import Calculator, Result

from molspectra.errors import SimulationError

Array = npt.NDArray[np.float64]

ACCURACY = 0.01
"""Factor on tblite's SCF thresholds; 0.01 puts the noise of a gradient below 1e-7 Hartree/bohr."""

STEP = 0.005
"""Displacement of the central differences of the Hessian, bohr."""

FIELD = 0.004
"""Strength of the uniform electric field of the 13 gradients, atomic units."""


def _silent(_message: str) -> None:
    """Discard a message of tblite."""


class Xtb:
    """GFN2-xTB calculator of one closed-shell molecule.

    Args:
        numbers: atomic numbers [N].
        positions: coordinates [N, 3], bohr.
        charge: total charge, e.
        field: uniform electric field [3] in atomic units, or None; the energy then holds −F·μ.
    """

    def __init__(
        self, numbers: npt.NDArray[np.int64], positions: Array, charge: int = 0, field: Array | None = None
    ):
        """Build the calculator; see the class for the arguments."""
        self._calculator = Calculator(
            "GFN2-xTB", numbers, positions, charge=float(charge), uhf=0, color=False, logger=_silent
        )
        self._calculator.set("verbosity", 0)
        self._calculator.set("accuracy", ACCURACY)
        if field is not None:
            # tblite takes a C pointer and copies the array at once, so no reference has to be kept
            vector = np.ascontiguousarray(field, dtype=np.float64)
            self._calculator.add("electric-field", library.ffi.cast("double*", vector.ctypes.data))

    def run(self, positions: Array, start: Result | None = None) -> Result:
        """Converge the SCF at positions [N, 3] (bohr) from the density of `start`, which is not changed.

        Raises:
            SimulationError: the SCF did not converge.
        """
        self._calculator.update(positions=np.ascontiguousarray(positions))
        try:
            return self._calculator.singlepoint(start, copy=True)
        except TBLiteRuntimeError as error:
            reason = str(error).strip().splitlines()
            raise SimulationError(f"GFN2-xTB failed: {reason[0] if reason else 'unknown reason'}") from None


def energy_gradient(result: Result) -> tuple[float, Array]:
    """Return energy (Hartree) and gradient [N, 3] (Hartree/bohr) of a finished calculation."""
    return float(result.get("energy")), np.asarray(result.get("gradient"), dtype=np.float64)


def dipole(result: Result) -> Array:
    """Return the dipole moment [3] of a finished calculation, e·bohr; of an ion about the origin."""
    return np.asarray(result.get("dipole"), dtype=np.float64)


def hessian(xtb: Xtb, positions: Array, start: Result) -> Array:
    """Compute the Cartesian Hessian [3N, 3N] (Hartree/bohr²) by central differences of gradients.

    Args:
        xtb: the molecule.
        positions: coordinates [N, 3], bohr.
        start: converged calculation at `positions`, the initial guess of every displaced one.
    """
    n = len(positions)
    rows = np.empty((3 * n, 3 * n))
    for k in range(3 * n):
        shifted = positions.copy()
        shifted.flat[k] += STEP
        forward = energy_gradient(xtb.run(shifted, start))[1]
        shifted.flat[k] -= 2 * STEP
        backward = energy_gradient(xtb.run(shifted, start))[1]
        rows[k] = (forward - backward).ravel() / (2 * STEP)
    return 0.5 * (rows + rows.T)


@dataclass(frozen=True)
class FieldDerivatives:
    """Derivatives of dipole and polarisability with respect to the nuclei.

    Attributes:
        dipole: ∂μ_i/∂R [3N, 3], e.
        polarisability: ∂α_ij/∂R [3N, 3, 3], bohr².
    """

    dipole: Array
    polarisability: Array


def field_derivatives(
    numbers: npt.NDArray[np.int64], positions: Array, charge: int, start: Result
) -> FieldDerivatives:
    """Compute dipole and polarisability derivatives from 13 gradients in a uniform field.

    With g(F) the nuclear gradient in the field F = `FIELD` and E(F) = E − F·μ − ½ F·α·F:
    ∂μ_i/∂R = −[g(+i) − g(−i)]/2F, ∂α_ii/∂R = −[g(+i) + g(−i) − 2g(0)]/F²,
    ∂α_ij/∂R = −[g(+i+j) + g(−i−j) − g(+i) − g(−i) − g(+j) − g(−j) + 2g(0)]/2F².

    Args:
        numbers: atomic numbers [N].
        positions: coordinates [N, 3], bohr.
        charge: total charge, e.
        start: converged calculation at `positions` without a field; gives g(0).
    """

    def gradient(field: Array) -> Array:
        xtb = Xtb(numbers, positions, charge, field)
        return energy_gradient(xtb.run(positions, start))[1].ravel()

    axes = FIELD * np.eye(3)
    zero = energy_gradient(start)[1].ravel()
    plus = [gradient(axis) for axis in axes]
    minus = [gradient(-axis) for axis in axes]
    dipole = np.stack([-(p - m) / (2 * FIELD) for p, m in zip(plus, minus, strict=True)], axis=1)
    polarisability = np.empty((zero.size, 3, 3))
    for i in range(3):
        polarisability[:, i, i] = -(plus[i] + minus[i] - 2 * zero) / FIELD**2
        for j in range(i):
            both = gradient(axes[i] + axes[j]) + gradient(-axes[i] - axes[j])
            mixed = both - plus[i] - minus[i] - plus[j] - minus[j] + 2 * zero
            polarisability[:, i, j] = polarisability[:, j, i] = -mixed / (2 * FIELD**2)
    return FieldDerivatives(dipole, polarisability)
