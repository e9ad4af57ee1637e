"""What moves in normal modes: shares that add up, and motions that chemists know."""

import numpy as np
import pytest

pytest.importorskip("tblite")

from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import from_smiles
from molspectra.errors import SettingError
from molspectra.simulation.api import simulate
from molspectra.simulation.assignment import assign


@pytest.fixture(scope="module")
def acetone():
    return assign(from_smiles("CC(C)=O"))


def test_the_carbonyl_stretch_of_acetone(acetone):
    inside = (acetone.wavenumbers > 1650) & (acetone.wavenumbers < 1800)
    strongest = int(np.argmax(np.where(inside, acetone.intensities["ir"], -1)))
    assert acetone.intensities["ir"][strongest] == acetone.intensities["ir"].max()
    assert acetone.motion(strongest).startswith("C=O stretch ")
    assert acetone.leading(strongest) == "C=O stretch"
    moving = [acetone.molecule.symbols[atom] for atom in acetone.moving(strongest)]
    assert moving == ["C", "O"]
    share = acetone.energies[strongest, acetone.kinds.index("C=O stretch")]
    assert 0.7 < share < 1
    assert f"{share:.0%}".replace("%", " %") in acetone.motion(strongest)


def test_groups_with_hydrogens_are_told_apart(acetone):
    assert {acetone.leading(mode) for mode in np.flatnonzero(acetone.wavenumbers > 2800)} == {
        "C-H stretch (CH3)"
    }
    assert acetone.leading(0) == "CH3 torsion"
    methanol = assign(from_smiles("CO"))
    assert methanol.leading(0) == "CH3 torsion"
    assert methanol.leading(len(methanol.wavenumbers) - 1) == "O-H stretch"
    assert {"C-O stretch", "C-O-H bend", "CH3 bend", "O-C-H bend (CH3)"} <= set(methanol.kinds)


def test_the_strong_band_of_benzene_is_out_of_plane():
    found = assign(from_smiles("c1ccccc1"))
    low = found.wavenumbers < 1000
    strongest = int(np.argmax(np.where(low, found.intensities["ir"], -1)))
    assert found.leading(strongest) == "C-H out-of-plane bend"
    assert {found.leading(mode) for mode in np.flatnonzero(found.wavenumbers > 2800)} == {"C-H stretch (=CH)"}


@pytest.mark.parametrize(
    ("smiles", "modes", "highest"),
    [
        ("O", 3, "O-H stretch"),
        ("O=C=O", 4, "C=O stretch"),
        ("C#N", 4, "C-H stretch (≡CH)"),
        ("C=O", 6, "C-H stretch (CH2O)"),
        ("Cl", 1, "Cl-H stretch"),
    ],
)
def test_shares_add_up(smiles, modes, highest):
    found = assign(from_smiles(smiles), ("ir", "raman"))
    assert found.energies.shape == (modes, len(found.kinds))
    assert found.atoms.shape == (modes, len(found.molecule))
    np.testing.assert_allclose(found.energies.sum(1), 1)
    np.testing.assert_allclose(found.atoms.sum(1), 1)
    assert (found.energies >= 0).all()
    assert found.leading(modes - 1) == highest


def test_an_atom_has_no_modes():
    found = assign(Molecule([18], [[0, 0, 0]]))
    assert len(found.wavenumbers) == 0
    assert found.energies.shape == (0, 0)


def test_molecules_apart_move_without_valence_coordinates():
    apart = Molecule([2, 2], [[0, 0, 0], [0, 0, 3.0]])  # two atoms of helium
    found = assign(apart, level="gfn2")
    assert found.energies.shape[1] == 0
    assert found.motion(0) == found.leading(0) == ""


def test_lines_are_those_of_simulate():
    molecule = from_smiles("C#N")
    for level in ("gfn2", "scaled"):
        found, lines = assign(molecule, level=level), simulate(molecule, ("ir",), level=level).lines["ir"]
        np.testing.assert_allclose(found.wavenumbers, lines.position, atol=1e-3)
        np.testing.assert_allclose(found.intensities["ir"], lines.intensity, atol=1e-4)
        assert found.levels["ir"] == lines.level


def test_only_vibrations_are_assigned():
    with pytest.raises(SettingError, match="ir and raman"):
        assign(from_smiles("C#N"), ("uv_vis",))
