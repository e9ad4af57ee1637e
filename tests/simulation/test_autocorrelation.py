"""Spectra from dipoles and polarisabilities: areas and places of lines that are known, and GFN2-xTB's."""

import numpy as np
import pytest
from ase import units

from molspectra.chem.molecule import Molecule
from molspectra.errors import ValueRangeError
from molspectra.simulation.autocorrelation import (
    infrared_of_dipoles,
    raman_of_polarisabilities,
    xtb_dipoles,
    xtb_polarisabilities,
)
from molspectra.simulation.units import BOHR, IR_INTENSITY
from molspectra.simulation.vibrations import masses_of, normal_modes, raman

WATER = Molecule(np.array([8, 1, 1]), np.array([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]]))
LIGHT = 2.99792458e-5
"""cm/fs."""


def coordinate(wavenumber, temperature, steps=20000, interval=1.0):
    """Normal coordinate Q [steps], Å·√amu, of a mode with the kinetic energy kT/2."""
    angular = 2 * np.pi * LIGHT * wavenumber  # 1/fs
    amplitude = np.sqrt(2 * units.kB * temperature) * units.fs / angular
    return amplitude * np.cos(angular * interval * np.arange(steps))


def oscillator(wavenumber, slope, temperature, steps=20000, interval=1.0):
    """Dipole of a mode with |∂μ/∂Q| = slope (D/Å/√amu) and the kinetic energy kT/2, along (1, 2, 2)/3."""
    along = slope * coordinate(wavenumber, temperature, steps, interval)
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


ISOTROPIC = 0.8 * np.eye(3)
ANISOTROPIC = np.array([[0.5, 0.3, 0.0], [0.3, -0.7, 0.1], [0.0, 0.1, 0.2]])
SCATTERERS = {
    # ∂α/∂Q in Å²/√amu, and from its elements a′² and γ′² (Long, The Raman Effect, 2002, appendix 14)
    "isotropic": (ISOTROPIC, 0.64, 0.0),
    "anisotropic": (ANISOTROPIC, 0.0, (1.2**2 + 0.9**2 + 0.3**2) / 2 + 3 * (0.3**2 + 0.1**2)),
    "mixed": (ISOTROPIC + ANISOTROPIC, 0.64, (1.2**2 + 0.9**2 + 0.3**2) / 2 + 3 * (0.3**2 + 0.1**2)),
}


@pytest.mark.parametrize("temperature", [50.0, 300.0])
@pytest.mark.parametrize("name", SCATTERERS)
def test_a_harmonic_mode_scatters_its_activity(name, temperature):
    slope, mean, anisotropy = SCATTERERS[name]
    moving = coordinate(1500.0, temperature)[:, None, None] * slope
    found = raman_of_polarisabilities(moving + np.diag([4.0, 5.0, 6.0]), 1.0, temperature, width=10.0)
    step = found.wavenumbers[1]
    assert found.activity.sum() * step == pytest.approx(45 * mean + 7 * anisotropy, rel=0.01)
    assert found.polarised.sum() * step == pytest.approx(45 * mean + 4 * anisotropy, rel=0.01)
    assert found.depolarised.sum() * step == pytest.approx(3 * anisotropy, rel=0.01, abs=1e-9)
    assert found.wavenumbers[np.argmax(found.activity)] == pytest.approx(1500.0, abs=2.0)
    above = found.wavenumbers[found.activity > found.activity.max() / 2]
    assert above[-1] - above[0] == pytest.approx(10.0, abs=3.0)


def test_the_frame_of_the_laboratory_does_not_matter():
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    moving = sum(
        coordinate(place, 300.0, 4000)[:, None, None] * slope
        for place, slope in ((1000.0, ANISOTROPIC), (3000.0, ISOTROPIC + 2 * ANISOTROPIC))
    )
    for one, other in zip(
        raman_of_polarisabilities(moving, 1.0, 300.0),
        raman_of_polarisabilities(turn @ moving @ turn.T, 1.0, 300.0),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12 * one.max())


def test_what_makes_no_raman_spectrum_is_refused():
    good, slanted = np.ones((9, 3, 3)), np.ones((9, 3, 3))
    slanted[4, 0, 1] = 1.5
    for bad in (np.ones((1, 3, 3)), np.ones((9, 6)), np.full((9, 3, 3), np.inf), slanted):
        with pytest.raises(ValueRangeError, match="polarisabilities must be"):
            raman_of_polarisabilities(bad, 1.0, 300.0)
    for name in ("interval_fs", "temperature", "width"):
        values = {"interval_fs": 1.0, "temperature": 300.0, "width": 10.0} | {name: 0.0}
        with pytest.raises(ValueRangeError, match=name):
            raman_of_polarisabilities(good, **values)
    assert not raman_of_polarisabilities(good, 1.0, 300.0).activity.any()


def test_water_scatters_as_its_normal_modes():
    """Polarisabilities along harmonic motion at 300 K, against the lines of the harmonic formula."""
    pytest.importorskip("tblite")
    from molspectra.simulation.api import relax
    from molspectra.simulation.xtb import Xtb, field_derivatives, hessian

    positions = relax(WATER, WATER.positions / BOHR)
    xtb = Xtb(WATER.numbers, positions)
    start = xtb.run(positions)
    modes = normal_modes(masses_of(WATER.numbers), positions, hessian(xtb, positions, start))
    derivatives = field_derivatives(WATER.numbers, positions, 0, start)
    lines = raman(modes, derivatives)

    slopes = np.einsum("mk,kij->mij", modes.displacements, derivatives.polarisability) * BOHR**2
    for slope, displacement in zip(slopes, modes.displacements, strict=True):
        shift = 0.01 * displacement.reshape(3, 3)  # Q of 0.01 Å·√amu
        back, forth = xtb_polarisabilities(WATER, [positions * BOHR - shift, positions * BOHR + shift])
        np.testing.assert_allclose((forth - back) / 0.02, slope, atol=0.01 * np.abs(slopes).max())

    motion = [coordinate(wavenumber, 300.0) for wavenumber in modes.wavenumbers]
    moving = np.einsum("mt,mij->tij", motion, slopes)
    grid, polarised, depolarised = raman_of_polarisabilities(moving, 1.0, 300.0)
    bend = grid < 2500
    assert (polarised + depolarised)[bend].sum() * grid[1] == pytest.approx(lines[0], rel=0.02)
    assert (polarised + depolarised)[~bend].sum() * grid[1] == pytest.approx(lines[1:].sum(), rel=0.02)


def test_polarisabilities_of_gfn2_xtb_turn_with_the_molecule():
    pytest.importorskip("tblite")
    order = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    first, second = xtb_polarisabilities(WATER, [WATER.positions, WATER.positions @ order + 3.0])
    assert second == pytest.approx(order.T @ first @ order, abs=1e-4)
    assert (np.diag(first) >= 0).all()
    assert first[1, 1] > 0.3  # in the plane; a minimal basis has little out of it
    ion = Molecule(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 0.96]]), charge=-1)
    near, far = xtb_polarisabilities(ion, [ion.positions, ion.positions + 2.0])
    assert near == pytest.approx(far, abs=1e-3)


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
