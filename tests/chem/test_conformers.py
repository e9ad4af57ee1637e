import numpy as np
import pytest
from rdkit import Chem

from molspectra.chem.conformers import conformer
from molspectra.chem.readers import from_smiles
from molspectra.errors import SettingError, ValueRangeError


def test_the_same_seed_gives_the_same_coordinates_and_another_seed_others():
    first, second, third = (from_smiles("OCCCCO", seed=seed).positions for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.allclose(first, third)


def test_bond_lengths_are_those_of_the_textbook():
    molecule = from_smiles("CC=O")
    distance = np.linalg.norm(molecule.positions[:, None] - molecule.positions, axis=-1)
    assert molecule.symbols == ["C", "C", "O", "H", "H", "H", "H"]
    assert distance[0, 1] == pytest.approx(1.50, abs=0.03)
    assert distance[1, 2] == pytest.approx(1.21, abs=0.03)
    assert distance[0, 3] == pytest.approx(1.10, abs=0.03)


def test_stereochemistry_of_the_smiles_is_kept():
    for smiles, distance in (("F/C=C/F", 3.5), ("F/C=C\\F", 2.75)):
        molecule = from_smiles(smiles)
        first, second = molecule.positions[molecule.numbers == 9]
        assert np.linalg.norm(first - second) == pytest.approx(distance, abs=0.15)


@pytest.mark.parametrize("smiles", ["[He]", "[H][H]", "[Fe]", "Cl[Pt](Cl)(N)N"])
def test_elements_without_force_field_parameters_are_embedded_all_the_same(smiles, capfd):
    assert np.isfinite(from_smiles(smiles).positions).all()
    assert capfd.readouterr().err == ""


def test_the_given_molecule_is_left_alone():
    mol = Chem.AddHs(Chem.MolFromSmiles("CO"))
    conformer(mol)
    assert mol.GetNumConformers() == 0


def test_a_graph_that_fits_in_no_space_is_refused():
    with pytest.raises(ValueRangeError, match=r"'C1#CC1'.*no 3D structure"):
        from_smiles("C1#CC1")


def test_a_negative_seed_is_refused():
    with pytest.raises(SettingError, match="-1"):
        from_smiles("C", seed=-1)
