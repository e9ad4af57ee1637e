"""Infrared spectra from molecular dynamics: dipole moments along a trajectory and their autocorrelation."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from ase import units

from molspectra.chem.molecule import Molecule
from molspectra.errors import ValueRangeError
from molspectra.simulation.api import check_supported
from molspectra.simulation.dynamics import dynamics_level
from molspectra.simulation.threads import one_thread
from molspectra.simulation.units import BOHR, DEBYE, IR_INTENSITY

Array = npt.NDArray[np.float64]

LIGHT = 2.99792458e10 / units.second
"""Speed of light, cm per ASE unit of time."""

FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))
"""Full width at half maximum of a Gaussian in units of its standard deviation."""


def xtb_dipoles(molecule: Molecule, frames: Iterable[npt.ArrayLike]) -> Array:
    """Compute GFN2-xTB dipole moments [T, 3] in D along a trajectory.

    Each calculation starts from the density of the frame before: 4 ms of processor time for ethanol.

    Args:
        molecule: elements and charge.
        frames: T arrays of coordinates [N, 3] in Å.

    Raises:
        InputError: a molecule outside GFN2-xTB, an ion, whose dipole needs an origin, no frames, or the
            `simulate` extra is not installed.
        SimulationError: the SCF fails.
    """
    dynamics_level()  # raises if the extra is missing, before anything is imported from it
    check_supported(molecule)
    if molecule.charge:
        raise ValueRangeError(
            f"{molecule.formula} with charge {molecule.charge:+d}: the dipole of an ion has no fixed origin"
        )
    from molspectra.simulation.xtb import Xtb, dipole

    dipoles = []
    with one_thread():
        xtb, last = Xtb(molecule.numbers, molecule.positions / BOHR), None
        for frame in frames:
            last = xtb.run(np.asarray(frame, dtype=np.float64) / BOHR, last)
            dipoles.append(dipole(last) * DEBYE)
    if not dipoles:
        raise ValueRangeError("there are no frames to compute dipoles of")
    return np.stack(dipoles)


def infrared_of_dipoles(
    dipoles: Array, interval_fs: float, temperature: float, width: float = 10.0
) -> tuple[Array, Array]:
    """Compute the infrared absorption from the dipole autocorrelation of a classical trajectory.

    A(ν̃) = N_A/(12 ε₀c²) · S(ν̃)/kT, where S is the density of ⟨|dμ/dt|²⟩ over positive wavenumbers (McQuarrie
    1976, with the quantum correction of the harmonic oscillator, βħω/(1 - e^(-βħω))). A harmonic mode at
    temperature T therefore has the area 42.2561·|∂μ/∂Q|² km/mol of `vibrations.infrared`, as a Gaussian of
    the given width. Rotation of the molecule and friction broaden the lines further.

    Args:
        dipoles: dipole moments [T, 3], D.
        interval_fs: time between two frames, fs; wavenumbers reach 16678/interval_fs cm⁻¹, and faster motion
            is aliased.
        temperature: of the trajectory, K.
        width: full width at half maximum of the Gaussian that smooths the spectrum, cm⁻¹.

    Returns:
        Wavenumbers [M] from 0, cm⁻¹, at least four per width, and A [M], km/mol per cm⁻¹.

    Raises:
        InputError: fewer than two dipoles, or values that are not positive and finite.
    """
    dipoles = np.asarray(dipoles, dtype=np.float64)
    if dipoles.ndim != 2 or dipoles.shape[1:] != (3,) or len(dipoles) < 2 or not np.isfinite(dipoles).all():
        raise ValueRangeError(f"dipoles must be finite numbers [T, 3] with T > 1, not {dipoles.shape}")
    for name, value in (("interval_fs", interval_fs), ("temperature", temperature), ("width", width)):
        if not 0 < value < np.inf:
            raise ValueRangeError(f"{name} must be a positive number, not {value}")
    step, length = interval_fs * units.fs, len(dipoles) - 1
    change = np.diff(dipoles, axis=0) / step
    transform = np.fft.rfft(change, 2 * length, axis=0)  # padded: correlations do not wrap around
    correlation = np.fft.irfft((np.abs(transform) ** 2).sum(1))[:length] / length
    lag = step * np.arange(length)
    deviation = 2 * np.pi * LIGHT * width / FWHM_PER_SIGMA
    windowed = correlation * np.exp(-0.5 * (deviation * lag) ** 2)
    points = max(2 * length, int(np.ceil(4 / (width * step * LIGHT))))
    density = step * (2 * np.fft.rfft(windowed, points).real - windowed[0])  # ∫ C(t) e^(-iωt) dt
    wavenumbers = np.fft.rfftfreq(points, step) / LIGHT
    damped = np.sinc(LIGHT * wavenumbers * step)  # ratio of the finite difference to the derivative
    absorption = IR_INTENSITY / (units.kB * temperature) * 2 * LIGHT * density / damped**2
    return wavenumbers, absorption
