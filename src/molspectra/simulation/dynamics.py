"""Thermal structures of a molecule with energies and forces: GFN2-xTB Langevin dynamics with ASE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms, units
from ase.md.langevin import Langevin

from molspectra.chem.molecule import Molecule
from molspectra.errors import SimulationError, ValueRangeError
from molspectra.simulation.api import check_supported, levels_of_theory, relax
from molspectra.simulation.threads import one_thread
from molspectra.simulation.units import BOHR, HARTREE, KCAL
from molspectra.simulation.vibrations import masses_of

Array = npt.NDArray[np.float64]

MAX_HEAT = 10.0
"""Ratio of kinetic to bath temperature above which the integration is considered unstable."""


@dataclass(frozen=True)
class DynamicsSettings:
    """Settings of a trajectory: constant N, V, T, classical nuclei, no constraints.

    Attributes:
        temperature: of the heat bath, K.
        interval_fs: time between two frames, fs; a whole number of time steps.
        timestep_fs: of the integrator, fs. Half a femtosecond is a twentieth of an O–H vibration.
        friction_per_ps: coupling to the bath, 1/ps.
        equilibration_fs: time before the first frame, fs; a whole number of time steps.
        seed: of the initial velocities and of the bath.

    Raises:
        InputError: a value out of range.
    """

    temperature: float = 500.0
    interval_fs: float = 200.0
    timestep_fs: float = 0.5
    friction_per_ps: float = 5.0
    equilibration_fs: float = 5000.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        for name in ("temperature", "interval_fs", "timestep_fs", "friction_per_ps"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueRangeError(f"{name} must be a positive number, not {getattr(self, name)}")
        for name in ("interval_fs", "equilibration_fs"):
            steps = getattr(self, name) / self.timestep_fs
            if not 0 <= steps < np.inf or abs(steps - round(steps)) > 1e-6:
                raise ValueRangeError(f"{name} must be a whole number of time steps of {self.timestep_fs} fs")
        if self.seed < 0:
            raise ValueRangeError(f"seed must not be negative, but is {self.seed}")


@dataclass(frozen=True, eq=False)
class State:
    """State from which a trajectory continues bit for bit.

    Attributes:
        positions: [N, 3] Å, not centred.
        momenta: [N, 3] in ASE's unit, √(eV·amu).
        random: state of numpy's random generator, as JSON values.
    """

    positions: Array
    momenta: Array
    random: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Frame:
    """One structure of a trajectory.

    Attributes:
        positions: [N, 3] Å, centre of mass at the origin.
        energy: total GFN2-xTB energy, kcal/mol.
        forces: −∂energy/∂positions [N, 3], kcal/mol/Å.
        temperature: kinetic temperature of all 3N velocities, K.
        state: state after this frame.
    """

    positions: Array
    energy: float
    forces: Array
    temperature: float
    state: State


@dataclass(frozen=True, eq=False)
class Trajectory:
    """T structures of one molecule.

    Attributes:
        molecule: the relaxed structure that the dynamics started from.
        positions: [T, N, 3] Å.
        energies: [T] kcal/mol.
        forces: [T, N, 3] kcal/mol/Å.
        temperatures: [T] kinetic temperatures, K; their mean is close to that of the bath.
        level: level of theory.
        settings: settings of the dynamics.
    """

    molecule: Molecule
    positions: Array
    energies: Array
    forces: Array
    temperatures: Array
    level: str
    settings: DynamicsSettings


class XtbCalculator:
    """GFN2-xTB with the two methods that ASE's dynamics calls; no cell, closed shell.

    Not a subclass of ASE's calculator, which compares all arrays of the atoms several times a step and so
    takes as long as the SCF of ethanol.

    Args:
        molecule: its elements and charge.

    Both methods raise a SimulationError if the SCF does not converge.
    """

    def __init__(self, molecule: Molecule) -> None:
        """Build the calculator; see the class for the arguments."""
        from molspectra.simulation.xtb import Xtb, energy_gradient

        self._energy_gradient = energy_gradient
        self._xtb = Xtb(molecule.numbers, molecule.positions / BOHR, molecule.charge)
        self.forget()

    def forget(self) -> None:
        """Discard the density, so that the next result depends only on the positions."""
        self._last: Any = None
        self._positions: Array | None = None
        self._energy, self._forces = np.nan, np.empty((0, 3))

    def get_potential_energy(self, atoms: Any = None, force_consistent: bool = False) -> float:
        """Return the energy of the atoms, eV."""
        self._run(atoms)
        return self._energy

    def get_forces(self, atoms: Any = None) -> Array:
        """Return the forces on the atoms [N, 3], eV/Å."""
        self._run(atoms)
        return self._forces.copy()

    def _run(self, atoms: Any) -> None:
        """Compute energy and forces if the atoms have moved, starting from the last density."""
        if self._positions is None or not np.array_equal(self._positions, atoms.positions):
            self._last = self._xtb.run(atoms.positions / BOHR, self._last)
            energy, gradient = self._energy_gradient(self._last)
            self._positions = atoms.positions.copy()
            self._energy, self._forces = energy * HARTREE, -gradient * (HARTREE / BOHR)


def dynamics_frames(
    molecule: Molecule, settings: DynamicsSettings | None = None, start: State | None = None
) -> Iterator[Frame]:
    """Yield the frames of an endless trajectory.

    The same molecule and settings give the same frames on one machine; another machine or library version
    rounds differently, which a trajectory amplifies without bound, and samples the same distribution.

    Args:
        molecule: start structure, relaxed first; with `start` only its elements and charge are used.
        settings: settings of the dynamics; None takes the defaults.
        start: state of the last frame to continue from; None begins with the equilibration.

    Raises:
        InputError: a molecule outside GFN2-xTB, or the `simulate` extra is not installed.
        SimulationError: the SCF fails, or the integration is unstable (a shorter time step helps).
    """
    settings = settings or DynamicsSettings()
    dynamics_level()  # raises if the extra is missing, before anything is imported from it
    check_supported(molecule)
    generator = np.random.default_rng(settings.seed)
    masses = masses_of(molecule.numbers)
    if start is None:
        relaxed = relaxed_structure(molecule)
        width = np.sqrt(masses * units.kB * settings.temperature)
        momenta = width[:, None] * generator.standard_normal((len(molecule), 3))
        equilibration = round(settings.equilibration_fs / settings.timestep_fs)
        positions = relaxed.positions
    else:
        positions, momenta, equilibration = start.positions, start.momenta, 0
        generator.bit_generator.state = start.random
    atoms = Atoms(numbers=molecule.numbers, positions=positions, masses=masses, momenta=momenta)
    atoms.calc = XtbCalculator(molecule)
    bath = Langevin(
        atoms,
        settings.timestep_fs * units.fs,
        temperature_K=settings.temperature,
        friction=settings.friction_per_ps / (1000 * units.fs),
        fixcm=False,  # fixing the centre of mass is not exact; frames are centred instead
        rng=generator,
    )
    with one_thread():  # several would sum in a changing order
        bath.run(equilibration)
    while True:
        with one_thread():
            bath.run(round(settings.interval_fs / settings.timestep_fs))
            frame = _frame(atoms, masses, generator, settings)
        yield frame


def sample_dynamics(
    molecule: Molecule,
    temperature: float = 500.0,
    frames: int = 1000,
    interval_fs: float = 200.0,
    seed: int = 0,
    equilibration_fs: float = 5000.0,
) -> Trajectory:
    """Sample structures of a molecule in a heat bath, with GFN2-xTB energies and forces.

    Langevin dynamics of classical nuclei, time step 0.5 fs, friction 5/ps. Ethanol takes 0.6 s of processor
    time per 200 fs.

    Args:
        molecule: start structure; closed shell, elements up to radon.
        temperature: K.
        frames: T, number of frames.
        interval_fs: time between two frames, fs. At 200 fs slow torsions of consecutive frames are
            correlated.
        seed: of the velocities and the bath.
        equilibration_fs: time before the first frame, fs.

    Raises:
        InputError: a value out of range, or a molecule outside GFN2-xTB.
        SimulationError: the SCF fails or the integration is unstable.
    """
    if frames < 1:
        raise ValueRangeError(f"frames must be at least 1, not {frames}")
    settings = DynamicsSettings(
        temperature=temperature, interval_fs=interval_fs, equilibration_fs=equilibration_fs, seed=seed
    )
    level = dynamics_level()
    relaxed = relaxed_structure(molecule)
    source = dynamics_frames(relaxed, settings)
    sampled = [next(source) for _ in range(frames)]
    return Trajectory(
        relaxed,
        np.stack([frame.positions for frame in sampled]),
        np.array([frame.energy for frame in sampled]),
        np.stack([frame.forces for frame in sampled]),
        np.array([frame.temperature for frame in sampled]),
        level,
        settings,
    )


def dynamics_level() -> str:
    """Return the level of theory of energies and forces, with the version of the program.

    Raises:
        MissingExtraError: the `simulate` extra is not installed.
    """
    return levels_of_theory(("ir",))["geometry"]


def relaxed_structure(molecule: Molecule) -> Molecule:
    """Optimise a structure to the nearest GFN2-xTB minimum."""
    with one_thread():
        return molecule.with_positions(relax(molecule, molecule.positions / BOHR) * BOHR)


def _frame(atoms: Any, masses: Array, generator: np.random.Generator, settings: DynamicsSettings) -> Frame:
    """Return the current frame; its energy and forces depend only on its positions."""
    atoms.calc.forget()
    energy, forces = float(atoms.get_potential_energy()), np.array(atoms.get_forces())
    positions, momenta = atoms.get_positions(), atoms.get_momenta()
    kinetic = float((momenta**2 / (2 * masses[:, None])).sum())
    temperature = 2 * kinetic / (momenta.size * units.kB)
    if not temperature < MAX_HEAT * settings.temperature:
        raise SimulationError(
            f"came apart at {temperature:.0f} K; a shorter time step than {settings.timestep_fs} fs helps"
        )
    centre = masses @ positions / masses.sum()
    kcal = KCAL / HARTREE
    state = State(positions, momenta, generator.bit_generator.state)
    return Frame(positions - centre, energy * kcal, forces * kcal, temperature, state)
