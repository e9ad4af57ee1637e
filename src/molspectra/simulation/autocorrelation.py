"""Infrared and Raman spectra from dynamics: autocorrelations of dipoles and of polarisabilities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from ase import units

from molspectra.chem.molecule import Molecule
from molspectra.errors import ValueRangeError
from molspectra.simulation.api import check_supported
from molspectra.simulation.dynamics import dynamics_level
from molspectra.simulation.threads import one_thread
from molspectra.simulation.units import BOHR, DEBYE, IR_INTENSITY
from molspectra.spectra.units import FWHM_PER_SIGMA

Array = npt.NDArray[np.float64]

LIGHT = 2.99792458e10 / units.second
"""Speed of light, cm per ASE unit of time."""


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
    if molecule.charge:
        raise ValueRangeError(
            f"{molecule.formula} with charge {molecule.charge:+d}: the dipole of an ion has no fixed origin"
        )
    return _dipoles_in_fields(molecule, frames, np.zeros((1, 3)))[:, 0] * DEBYE


def xtb_polarisabilities(molecule: Molecule, frames: Iterable[npt.ArrayLike]) -> Array:
    """Compute GFN2-xTB polarisabilities [T, 3, 3] in Å³ (α/4πε₀) along a trajectory.

    α_ij = ∂μ_i/∂F_j by central differences of the dipoles in six uniform fields: 7 ms of processor time for
    ethanol. A minimal basis is too stiff: it gives 2.3 Å³ for ethanol (mean), half of the measured 5.

    Args:
        molecule: elements and charge.
        frames: T arrays of coordinates [N, 3] in Å.

    Raises:
        InputError: a molecule outside GFN2-xTB, no frames, or the `simulate` extra is not installed.
        SimulationError: the SCF fails.
    """
    strength = 0.002  # atomic units; the next order is 4e-5 Å³ for ethanol, the noise of the SCF half of it
    fields = strength * np.concatenate([np.eye(3), -np.eye(3)])
    dipoles = _dipoles_in_fields(molecule, frames, fields)
    tensors = (dipoles[:, :3] - dipoles[:, 3:]) / (2 * strength) * BOHR**3
    return np.asarray(0.5 * (tensors + tensors.swapaxes(1, 2)))


def _dipoles_in_fields(molecule: Molecule, frames: Iterable[npt.ArrayLike], fields: Array) -> Array:
    """Return the dipoles [T, K, 3], e·bohr, of T frames in K uniform fields [K, 3], atomic units."""
    dynamics_level()  # raises if the extra is missing, before anything is imported from it
    check_supported(molecule)
    from molspectra.simulation.xtb import Xtb, dipole

    dipoles = []
    with one_thread():
        numbers, first = molecule.numbers, molecule.positions / BOHR
        programs = [Xtb(numbers, first, molecule.charge, field if field.any() else None) for field in fields]
        last: list[Any] = [None] * len(programs)
        for frame in frames:
            positions = np.asarray(frame, dtype=np.float64) / BOHR
            last = [xtb.run(positions, start) for xtb, start in zip(programs, last, strict=True)]
            dipoles.append([dipole(result) for result in last])
    if not dipoles:
        raise ValueRangeError("there are no frames to compute")
    return np.array(dipoles)


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
    return _density(dipoles, IR_INTENSITY, interval_fs, temperature, width)


class RamanOfDynamics(NamedTuple):
    """Raman spectrum of a trajectory, for light that is polarised linearly and scattered at a right angle."""

    wavenumbers: Array
    """[M] from 0, cm⁻¹, at least four per width."""
    polarised: Array
    """[M] 45a′² + 4γ′², Å⁴/amu per cm⁻¹: scattered light with the polarisation of the incident."""
    depolarised: Array
    """[M] 3γ′², Å⁴/amu per cm⁻¹: the polarisation across it. Divided by `polarised`: depolarisation ratio."""

    @property
    def activity(self) -> Array:
        """[M] 45a′² + 7γ′², Å⁴/amu per cm⁻¹: both together."""
        return self.polarised + self.depolarised


def raman_of_polarisabilities(
    polarisabilities: Array, interval_fs: float, temperature: float, width: float = 10.0
) -> RamanOfDynamics:
    """Compute the Raman spectrum from the polarisability autocorrelation of a classical trajectory.

    R(ν̃) = [45 S_a(ν̃) + 7 S_γ(ν̃)]/kT, where S_a and S_γ are the densities of ⟨(da/dt)²⟩ and of
    (3/2)⟨tr (dβ/dt)²⟩ over positive wavenumbers, with the mean polarisability a = tr α/3 and its anisotropic
    part β = α - a·1 (McQuarrie 1976, chapter 21; Thomas, Brehm, Fligg, Vöhringer and Kirchner, Phys. Chem.
    Chem. Phys. 15, 6608, 2013; with the quantum correction of `infrared_of_dipoles`). A harmonic mode at
    temperature T therefore has the area 45a′² + 7γ′² of `vibrations.raman`, as a Gaussian of the given width.
    The intensity of Stokes scattering of light of wavenumber ν̃₀ is proportional to R(ν̃) · (ν̃₀ - ν̃)⁴ /
    [ν̃ · (1 - e^(-hcν̃/kT))].

    Args:
        polarisabilities: symmetric tensors [T, 3, 3], Å³ (α/4πε₀).
        interval_fs: time between two frames, fs; wavenumbers reach 16678/interval_fs cm⁻¹, and faster motion
            is aliased.
        temperature: of the trajectory, K.
        width: full width at half maximum of the Gaussian that smooths the spectrum, cm⁻¹.

    Raises:
        InputError: fewer than two polarisabilities, or values that are not symmetric, positive and finite.
    """
    tensors = np.asarray(polarisabilities, dtype=np.float64)
    if tensors.ndim != 3 or tensors.shape[1:] != (3, 3) or len(tensors) < 2 or not np.isfinite(tensors).all():
        raise ValueRangeError(
            f"polarisabilities must be finite numbers [T, 3, 3] with T > 1, not {tensors.shape}"
        )
    if not np.allclose(tensors, tensors.swapaxes(1, 2), rtol=0, atol=1e-4 * np.abs(tensors).max()):
        raise ValueRangeError("polarisabilities must be symmetric tensors")
    mean = np.trace(tensors, axis1=1, axis2=2) / 3
    traceless = tensors - mean[:, None, None] * np.eye(3)
    wavenumbers, isotropic = _density(mean[:, None], 1.0, interval_fs, temperature, width)
    anisotropic = _density(traceless.reshape(-1, 9), 1.5, interval_fs, temperature, width)[1]
    return RamanOfDynamics(wavenumbers, 45 * isotropic + 4 * anisotropic, 3 * anisotropic)


def _density(
    signal: Array, factor: float, interval_fs: float, temperature: float, width: float
) -> tuple[Array, Array]:
    """Return wavenumbers [M], cm⁻¹, and factor/kT times the density of ⟨|dx/dt|²⟩ of a signal x [T, K]."""
    for name, value in (("interval_fs", interval_fs), ("temperature", temperature), ("width", width)):
        if not 0 < value < np.inf:
            raise ValueRangeError(f"{name} must be a positive number, not {value}")
    step, length = interval_fs * units.fs, len(signal) - 1
    change = np.diff(signal, axis=0) / step
    transform = np.fft.rfft(change, 2 * length, axis=0)  # padded: correlations do not wrap around
    correlation = np.fft.irfft((np.abs(transform) ** 2).sum(1))[:length] / length
    lag = step * np.arange(length)
    deviation = 2 * np.pi * LIGHT * width / FWHM_PER_SIGMA
    windowed = correlation * np.exp(-0.5 * (deviation * lag) ** 2)
    points = max(2 * length, int(np.ceil(4 / (width * step * LIGHT))))
    density = step * (2 * np.fft.rfft(windowed, points).real - windowed[0])  # ∫ C(t) e^(-iωt) dt
    wavenumbers = np.fft.rfftfreq(points, step) / LIGHT
    damped = np.sinc(LIGHT * wavenumbers * step)  # ratio of the finite difference to the derivative
    return wavenumbers, factor / (units.kB * temperature) * 2 * LIGHT * density / damped**2
