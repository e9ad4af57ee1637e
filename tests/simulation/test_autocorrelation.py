"""Infrared spectra from dipoles: areas and places of lines that are known, and GFN2-xTB dipoles."""

import numpy as np
import pytest
from ase import units

from molspectra.chem.molecule import Molecule
from molspectra.errors import ValueRangeError
from molspectra.simulation.autocorrelation import infrared_of_dipoles, xtb_dipoles
from molspectra.simulation.units import IR_INTENSITY

WATER = Molecule(np.array([8, 1, 1]), np.array([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]]))
LIGHT = 2.99792458e-5
"""cm/fs."""


def oscillator(wavenumber, slope, temperature, steps=20000, interval=1.0):
    """Dipole of a mode with |∂μ/∂Q| = slope (D/Å/√amu) and the kinetic energy kT/2, along (1, 2, 2)/3."""
    angular = 2 * np.pi * LIGHT * wavenumber  # 1/fs
    amplitude = np.sqrt(2 * units.kB * temperature) * units.fs / angular  # of Q in Å·√amu
    along = slope * amplitude * np.cos(angular * interval * np.arange(steps))
    return along[:, None] * np.array([1.0, 2.0, 2.0]) / 3


@pytest.mark.parametrize("temperature", [50.0, 300.0])
@pytest.mark.parametrize("wavenumber", [300.0, 1500.0, 3700.0])
def test_a_harmonic_mode_has_its_place_and_area(wavenumber, temperature):
    dipoles = oscillator(wavenumber, 0.7, temperature) + np.array([1.5, 0.0, -0.3])
    grid, absorption = infrared_of_dipoles(dipoles, 1.0, temperature, width=10.0)
    area = absorption.sum() * (grid[1] - grid[0])
    assert area == pytest.approx(IR_INTENSITY * 0.7**2, rel=0.02)
    assert grid[np.argmax(absorption)] == pytest.approx(wavenumber, abs=2.0)
    above = grid[absorption > absorption.max() / 2]
    assert above[-1] - above[0] == pytest.approx(10.0, abs=3.0)


def test_modes_add_up():
    dipoles = oscillator(1000.0, 0.5, 300.0) + oscillator(3000.0, 1.0, 300.0)
    grid, absorption = infrared_of_dipoles(dipoles, 1.0, 300.0)
    step = grid[1] - grid[0]
    assert absorption[grid < 2000].sum() * step == pytest.approx(IR_INTENSITY * 0.25, rel=0.03)
    assert absorption[grid > 2000].sum() * step == pytest.approx(IR_INTENSITY, rel=0.03)


def test_the_interval_only_sets_the_range():
    fine = infrared_of_dipoles(oscillator(1500.0, 0.7, 300.0), 1.0, 300.0)
    coarse = infrared_of_dipoles(oscillator(1500.0, 0.7, 300.0, 10000, 2.0), 2.0, 300.0)
    assert fine[0][-1] == pytest.approx(2 * coarse[0][-1])
    assert np.interp(1500, *coarse) == pytest.approx(np.interp(1500, *fine), rel=0.01)


def test_a_dipole_at_rest_absorbs_nothing():
    grid, absorption = infrared_of_dipoles(np.ones((100, 3)), 2.0, 300.0)
    assert grid[0] == 0
    assert not absorption.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((1, 3)), 1.0, 300.0), "dipoles"),
        ((np.ones((9, 2)), 1.0, 300.0), "dipoles"),
        ((np.full((9, 3), np.nan), 1.0, 300.0), "dipoles"),
        ((np.ones((9, 3)), 0.0, 300.0), "interval_fs"),
        ((np.ones((9, 3)), 1.0, -1.0), "temperature"),
        ((np.ones((9, 3)), 1.0, 300.0, 0.0), "width"),
    ],
)
def test_what_makes_no_spectrum_is_refused(arguments, message):
    with pytest.raises(ValueRangeError, match=message):
        infrared_of_dipoles(*arguments)


def test_dipoles_of_gfn2_xtb():
    pytest.importorskip("tblite")
    turned = WATER.positions @ np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    first, second = xtb_dipoles(WATER, [WATER.positions, turned + 3.0])
    assert np.linalg.norm(first) == pytest.approx(2.2, abs=0.2)  # GFN2-xTB; 1.85 D measured
    assert first[2] < -2  # from the negative oxygen to the hydrogens
    assert first[:2] == pytest.approx([0, 0], abs=1e-3)
    assert second == pytest.approx([first[2], first[0], first[1]], abs=1e-3)


def test_ions_and_nothing_are_refused():
    pytest.importorskip("tblite")
    ion = Molecule(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 0.96]]), charge=-1)
    with pytest.raises(ValueRangeError, match="ion has no fixed origin"):
        xtb_dipoles(ion, [ion.positions])
    with pytest.raises(ValueRangeError, match="no frames"):
        xtb_dipoles(WATER, [])
