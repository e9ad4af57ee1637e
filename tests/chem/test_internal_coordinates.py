import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import AllChem

from molspectra.chem.internal import internal_coordinates
from molspectra.chem.molecule import Molecule

SMILES = (
    "CCCC",
    "CC(=O)Nc1ccccc1",
    "C#CCO",
    "CC1CC1CO",
    "OC1CCCCC1",
    "C1CC12CC2",
    "c1ccccc1-c1ccccc1",
    "C",
    "N#CC#N",
    "CC(C)(C)C",
    "COC(=O)C=C",
    "C1CC1",
)


def built(smiles):
    """A molecule in 3D with its bonds."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    return Molecule(np.array(numbers), mol.GetConformer().GetPositions()), mol


def connected(mol, atoms, without):
    """Whether some atoms hang together when one bond is cut."""
    seen, queue = {atoms[0]}, [atoms[0]]
    while queue:
        here = queue.pop()
        for neighbour in mol.GetAtomWithIdx(int(here)).GetNeighbors():
            other = neighbour.GetIdx()
            if {here, other} != without and other not in seen:
                seen.add(other)
                queue.append(other)
    return seen == set(atoms)


@pytest.mark.parametrize("smiles", SMILES)
def test_sides_are_what_a_cut_leaves_and_the_smaller_one(smiles):
    molecule, mol = built(smiles)
    found = internal_coordinates(molecule, mol)
    start = 0
    for (inner, outer), count in zip(found.bonds.tolist(), found.side_count.tolist(), strict=True):
        side = found.sides[start : start + count].tolist()
        start += count
        assert outer in side
        assert inner not in side
        assert 2 * count <= len(molecule)
        assert connected(mol, side, {inner, outer})
        assert not mol.GetBondBetweenAtoms(inner, outer).IsInRing()
    assert start == len(found.sides)
    acyclic = sum(not bond.IsInRing() for bond in mol.GetBonds())
    assert len(found.bonds) == acyclic


@pytest.mark.parametrize("smiles", SMILES)
def test_rotatable_bonds_are_those_of_the_published_pattern_without_hydrogens(smiles):
    molecule, mol = built(smiles)
    found = internal_coordinates(molecule, mol)
    pattern = Chem.MolFromSmarts("[!$(*#*)&!D1]-&!@[!$(*#*)&!D1]")
    expected = {tuple(sorted(match)) for match in Chem.RemoveHs(mol).GetSubstructMatches(pattern)}
    ours = {tuple(sorted(bond)) for bond in found.bonds[found.rotatable == 1].tolist()}
    assert ours == expected


@pytest.mark.parametrize(
    ("smiles", "rotatable"),
    [("CC", 0), ("CCO", 0), ("CCCC", 1), ("CCCCC", 2), ("C#CCO", 0), ("c1ccccc1-c1ccccc1", 1), ("C1CC1", 0)],
)
def test_number_of_rotatable_bonds(smiles, rotatable):
    assert internal_coordinates(*built(smiles)).rotatable.sum() == rotatable


@pytest.mark.parametrize("smiles", SMILES)
def test_angles_move_the_end_that_is_named(smiles):
    molecule, mol = built(smiles)
    found = internal_coordinates(molecule, mol)
    starts = np.concatenate([[0], np.cumsum(found.side_count)])
    expected = set()
    for atom in mol.GetAtoms():
        around = [neighbour.GetIdx() for neighbour in atom.GetNeighbors()]
        for place, one in enumerate(around):
            for other in around[:place]:
                cut = [mol.GetBondBetweenAtoms(atom.GetIdx(), end) for end in (one, other)]
                if all(bond.IsInRing() for bond in cut):
                    continue
                a, b = (molecule.positions[end] - molecule.positions[atom.GetIdx()] for end in (one, other))
                cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                if cosine > np.cos(np.radians(175)):
                    expected.add((*sorted((one, other)), atom.GetIdx()))
    ours = set()
    for fixed, centre, moved, bond in found.angles.tolist():
        side = found.sides[starts[bond] : starts[bond + 1]].tolist()
        assert moved in side
        assert fixed not in side
        assert centre in found.bonds[bond]
        ours.add((*sorted((fixed, moved)), centre))
    assert ours == expected
    assert len(ours) == len(found.angles)


@pytest.mark.parametrize("smiles", SMILES)
def test_one_torsion_for_each_bond_between_atoms_with_neighbours(smiles):
    molecule, mol = built(smiles)
    found = internal_coordinates(molecule, mol)
    for first, bond, last in found.torsions.tolist():
        inner, outer = found.bonds[bond].tolist()
        assert mol.GetBondBetweenAtoms(first, inner) is not None
        assert mol.GetBondBetweenAtoms(outer, last) is not None
        assert first != outer
        assert last != inner
    bonds = found.torsions[:, 1].tolist()
    assert len(set(bonds)) == len(bonds)
    inline = {"C#CCO", "N#CC#N"}
    expected = [
        bond
        for bond, ends in enumerate(found.bonds.tolist())
        if all(mol.GetAtomWithIdx(end).GetDegree() > 1 for end in ends)
    ]
    assert (bonds == expected) == (smiles not in inline)


def test_the_heaviest_neighbours_make_the_torsion():
    molecule, mol = built("OCCCl")
    found = internal_coordinates(molecule, mol)
    torsions = {
        frozenset(found.bonds[bond].tolist()): {first, last} for first, bond, last in found.torsions.tolist()
    }
    assert torsions[frozenset({1, 2})] == {0, 3}


def test_sigmas_of_ethane():
    found = internal_coordinates(*built("CC"))
    bonds = {
        tuple(sorted(bond)): sigma
        for bond, sigma in zip(found.bonds.tolist(), found.bond_sigma.tolist(), strict=True)
    }
    assert bonds[0, 1] == pytest.approx(529.24**-0.5)
    assert bonds[0, 2] == pytest.approx(740.09**-0.5)
    assert found.torsion_sigma.tolist() == pytest.approx([(9 * 0.19119) ** -0.5])


def test_fallbacks_where_the_force_field_knows_nothing():
    found = internal_coordinates(*built("[SiH3][SiH3]"))
    np.testing.assert_allclose(found.bond_sigma, 0.058)
    np.testing.assert_allclose(found.angle_sigma, 0.129)
    np.testing.assert_allclose(found.torsion_sigma, 0.18)  # no heavy neighbours: not rotatable
    chain = internal_coordinates(*built("[SiH3][SiH2][SiH2][SiH3]"))
    np.testing.assert_allclose(sorted(chain.torsion_sigma), [0.18, 0.18, 1.0], rtol=1e-6)


def test_typical_sigmas_lie_near_the_published_fallbacks():
    """1/√k with k in kcal/mol is of the size of the fallbacks: kT = 1 kcal/mol is the unit they use."""
    every = [internal_coordinates(*built(smiles)) for smiles in SMILES]
    for name, fallback in (("bond_sigma", 0.058), ("angle_sigma", 0.129), ("torsion_sigma", 1.0)):
        values = np.concatenate([getattr(each, name) for each in every])
        assert fallback / 2 < np.median(values) <= fallback


def test_bonds_are_perceived_in_the_geometry():
    molecule, mol = built("CC(=O)Nc1ccccc1")
    given_bonds, perceived = internal_coordinates(molecule, mol), internal_coordinates(molecule)
    assert perceived.perceived
    for name in ("bonds", "rotatable", "sides", "angles", "torsions", "torsion_sigma", "angle_sigma"):
        np.testing.assert_array_equal(getattr(given_bonds, name), getattr(perceived, name))


def test_what_has_no_lewis_structure_has_nothing_that_moves():
    metal = np.stack(np.meshgrid(*[np.arange(8.0)] * 3), -1).reshape(-1, 3)  # too many atoms to try
    found = internal_coordinates(Molecule(np.full(512, 29), 2.5 * metal))
    assert not found.perceived
    assert not any(
        len(getattr(found, name))
        for name in ("bonds", "sides", "angles", "torsions", "rotatable", "side_count")
    )
    assert found.bonds.shape == (0, 2)
    assert found.angles.shape == (0, 4)
    assert found.torsions.shape == (0, 3)


def test_straight_chains_have_no_angle_and_no_torsion():
    x = np.array([0.0, 1.06, 2.26, 3.32])
    acetylene = Molecule([1, 6, 6, 1], np.stack([x, 0 * x, 0 * x], axis=1))
    found = internal_coordinates(acetylene)
    assert len(found.bonds) == 3
    assert len(found.angles) == len(found.torsions) == 0


def test_a_lone_atom_and_two_molecules():
    assert internal_coordinates(Molecule([18], [[0.0, 0.0, 0.0]])).bonds.shape == (0, 2)
    water = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    two = Molecule([8, 1, 1, 8, 1, 1], np.concatenate([water, water + 6.0]))
    found = internal_coordinates(two)
    assert found.perceived
    assert len(found.bonds) == 4
    assert len(found.angles) == 2
    assert set(found.side_count.tolist()) == {1}


@given(st.randoms(use_true_random=False), st.sampled_from(SMILES))
def test_another_order_of_the_atoms_gives_the_same_coordinates(random, smiles):
    molecule, mol = built(smiles)
    order = list(range(len(molecule)))
    random.shuffle(order)
    other = internal_coordinates(
        Molecule(molecule.numbers[order], molecule.positions[order]), Chem.RenumberAtoms(mol, order)
    )
    found = internal_coordinates(molecule, mol)
    name = np.argsort(order)  # old number -> new number

    def angles(each, names):
        ends = (frozenset(names[[fixed, moved]].tolist()) for fixed, _, moved, _ in each.angles.tolist())
        centres = names[each.angles[:, 1]].tolist()
        sigma = np.round(each.angle_sigma, 5).tolist()
        return sorted(zip(map(sorted, ends), centres, sigma, strict=True))

    assert angles(found, name) == angles(other, np.arange(len(order)))
    assert sorted(np.round(found.bond_sigma, 5)) == sorted(np.round(other.bond_sigma, 5))
    assert found.rotatable.sum() == other.rotatable.sum()
    assert len(found.torsions) == len(other.torsions)
