"""Langevin dynamics with GFN2-xTB: forces, exact continuation, heat."""

import itertools
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
from ase import Atoms, units

from molspectra.chem.molecule import Molecule
from molspectra.errors import MissingExtraError, SimulationError, ValueRangeError
from molspectra.simulation import dynamics as module
from molspectra.simulation.dynamics import (
    DynamicsSettings,
    XtbCalculator,
    dynamics_frames,
    sample_dynamics,
)

WATER = Molecule(np.array([8, 1, 1]), np.array([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]]))
SHORT = DynamicsSettings(interval_fs=5.0, equilibration_fs=20.0, seed=3)
KCAL_PER_EV = units.mol / units.kcal  # ASE's own constants, independent of those of the package


def take(count, settings=SHORT, start=None, molecule=WATER):
    return list(itertools.islice(dynamics_frames(molecule, settings, start), count))


@pytest.fixture(scope="module")
def six():
    return take(6)


def test_forces_are_the_derivative_of_the_energy(six):
    frame = six[2]
    calculator = XtbCalculator(WATER)

    def energy(positions):
        return (
            calculator.get_potential_energy(Atoms(numbers=WATER.numbers, positions=positions)) * KCAL_PER_EV
        )

    assert energy(frame.positions) == pytest.approx(frame.energy, abs=1e-4)
    step = 1e-3
    for atom, axis in itertools.product(range(3), range(3)):
        shift = np.zeros((3, 3))
        shift[atom, axis] = step
        slope = (energy(frame.positions + shift) - energy(frame.positions - shift)) / (2 * step)
        assert frame.forces[atom, axis] == pytest.approx(-slope, abs=0.02)
    assert np.abs(frame.forces).max() > 1


def test_units(six):
    assert six[0].energy == pytest.approx(-5.07 * 627.5, rel=0.01)  # GFN2-xTB water, valence electrons alone
    assert all(np.abs(frame.forces.sum(0)).max() < 1e-6 for frame in six)
    masses = np.array([15.9949, 1.00783, 1.00783])
    assert all(np.abs(masses @ frame.positions).max() < 1e-3 for frame in six)


def test_continues_bit_for_bit(six):
    again = take(3, start=six[2].state)
    for one, other in zip(again, six[3:], strict=True):
        assert np.array_equal(one.positions, other.positions)
        assert np.array_equal(one.forces, other.forces)
        assert one.energy == other.energy
        assert one.temperature == other.temperature


def test_seeds(six):
    assert np.array_equal(take(1)[0].positions, six[0].positions)
    other = take(1, DynamicsSettings(interval_fs=5.0, equilibration_fs=20.0, seed=4))
    assert not np.allclose(other[0].positions, six[0].positions, atol=1e-3)


def test_frames_are_distinct_and_warm(six):
    gaps = [np.abs(a.positions - b.positions).max() for a, b in itertools.pairwise(six)]
    assert min(gaps) > 0.005
    heat = [frame.temperature for frame in six]
    assert min(heat) > 30
    assert max(heat) < 2500


def test_kinetic_temperature_is_that_of_the_momenta(six):
    momenta = six[1].state.momenta
    atoms = Atoms(
        numbers=WATER.numbers, momenta=momenta, masses=np.array([15.99491462, 1.00782503, 1.00782503])
    )
    assert six[1].temperature == pytest.approx(atoms.get_temperature(), rel=1e-4)


def test_the_bath_sets_the_temperature():
    hydrogen = Molecule(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 0.74]]))
    settings = DynamicsSettings(
        temperature=300.0, interval_fs=5.0, equilibration_fs=100.0, friction_per_ps=100.0, seed=1
    )
    heat = [frame.temperature for frame in take(100, settings, molecule=hydrogen)]
    error = np.std(heat) / np.sqrt(len(heat) / 4)  # about four frames per correlation time
    assert np.mean(heat) == pytest.approx(300.0, abs=4 * error)
    assert error < 50


def test_sample_dynamics():
    made = sample_dynamics(WATER, temperature=400, frames=3, interval_fs=2.0, seed=5, equilibration_fs=5.0)
    settings = DynamicsSettings(temperature=400, interval_fs=2.0, equilibration_fs=5.0, seed=5)
    expected = take(3, settings)
    assert made.positions.shape == made.forces.shape == (3, 3, 3)
    assert made.positions == pytest.approx(np.stack([frame.positions for frame in expected]), abs=1e-7)
    assert made.energies == pytest.approx([frame.energy for frame in expected], abs=1e-6)
    assert made.temperatures.shape == (3,)
    assert made.level.startswith("GFN2-xTB (tblite")
    assert made.settings == settings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": 0.0}, "temperature must be a positive number"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"interval_fs": 0.3}, "whole number of time steps of 0.5 fs"),
        ({"equilibration_fs": -1.0}, "equilibration_fs"),
        ({"seed": -1}, "seed"),
    ],
)
def test_values_out_of_range(change, words):
    with pytest.raises(ValueRangeError, match=words):
        DynamicsSettings(**change)


def test_molecules_outside_the_method():
    with pytest.raises(ValueRangeError, match="closed-shell"):
        take(1, molecule=Molecule(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 0.97]])))
    with pytest.raises(ValueRangeError, match="frames must be at least 1"):
        sample_dynamics(WATER, frames=0)


def test_a_missing_extra_is_named(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'molspectra\[simulate\]'"):
        take(1)


def test_an_integration_that_comes_apart_is_told(monkeypatch):
    monkeypatch.setattr(module, "MAX_HEAT", 1e-3)
    with pytest.raises(SimulationError, match="shorter time step"):
        take(1)
