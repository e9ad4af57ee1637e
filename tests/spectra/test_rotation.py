"""Rotational branches of bands of small molecules."""

import numpy as np
import pytest

from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import from_smiles
from molspectra.spectra.modality import IR
from molspectra.spectra.rotation import branch_distance, with_branches


@pytest.mark.parametrize(
    ("numbers", "places", "constant"),  # cm⁻¹, observed: HCl, CO2, HCN
    [
        ([17, 1], [0, 1.275], 10.59),
        ([8, 6, 8], [-1.162, 0, 1.162], 0.390),
        ([1, 6, 7], [-1.066, 0, 1.153], 1.478),
    ],
)
def test_distance_of_linear_molecules(numbers, places, constant):
    molecule = Molecule(np.array(numbers), np.array([[0.0, 0.0, place] for place in places]))
    expected = np.sqrt(8 * constant * 0.695035 * 298.15)
    assert branch_distance(molecule) == pytest.approx(expected, rel=0.02)


def test_branches_of_ammonia_are_wide_and_of_butane_narrow():
    ammonia, butane = from_smiles("N"), from_smiles("CCCC")
    assert 100 < branch_distance(ammonia) < 150
    assert branch_distance(butane) < 20
    assert branch_distance(butane, widest=True) > branch_distance(butane)
    assert branch_distance(from_smiles("[Ar]")) == 0


def test_a_band_keeps_its_area_and_centre():
    axis = IR.axis()
    band = np.exp(-0.5 * ((axis - 2000) / 5) ** 2)
    wide = with_branches(band, IR.step, 120.0)
    assert wide.sum() == pytest.approx(band.sum(), rel=1e-3)
    assert (wide * axis).sum() / wide.sum() == pytest.approx(2000, abs=0.5)
    assert wide[axis == 2000] == pytest.approx(1 / 3, abs=0.05)
    assert axis[wide > 0.05][0] < 1960
