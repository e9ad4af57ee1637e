from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit.Chem import rdDetermineBonds
from scipy.spatial.transform import Rotation

from molspectra.chem.identity import (
    GEOMETRY_PATTERN,
    geometry_hash,
    identity_from_inchi,
    identity_from_smiles,
    perceived_bonds,
)
from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import from_smiles
from molspectra.errors import FormatError, InputError, MismatchError

QM9 = Path(__file__).resolve().parents[3] / "shared" / "data" / "qm9"
needs_qm9 = pytest.mark.skipif(not QM9.is_dir(), reason="the folder of QM9 samples is not there")


def bare(molecule):
    """The same structure without its SMILES, so that bonds must be perceived."""
    return Molecule(molecule.numbers, molecule.positions, charge=molecule.charge)


@pytest.mark.parametrize(
    ("smiles", "key"),
    [  # first blocks of InChIKeys as printed in chemical catalogues
        ("O", "XLYOFNOQVPJJNP"),
        ("C", "VNWKTOKETHGBQD"),
        ("c1ccccc1", "UHOVQNZJYSORNB"),
        ("CCO", "LFQSCWFLJHTTHZ"),
        ("CC(=O)C", "CSCPPACGZOOCGX"),
        ("CC(=O)O", "QTBSBXVTEAMEQO"),
        ("CC(=O)Oc1ccccc1C(=O)O", "BSYNRYMUTXBXSQ"),
        ("Cn1cnc2c1c(=O)n(C)c(=O)n2C", "RYYVLZVUVIJVGH"),
    ],
)
def test_known_keys(smiles, key):
    assert identity_from_smiles(smiles) == key
    assert from_smiles(smiles).identity == key


def test_an_inchi_and_its_smiles_agree():
    numbers = np.array([6, 6, 6, 8, 1, 1, 1, 1, 1, 1])
    assert identity_from_inchi("InChI=1S/C3H6O/c1-3(2)4/h1-2H3", numbers) == identity_from_smiles("CC(C)=O")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("C[C@H](O)F", "C[C@@H](O)F"),  # mirror images
        ("F/C=C/F", "F/C=C\\F"),  # E and Z
        ("CC(=O)O", "CC(=O)[O-]"),  # acid and anion
        ("C[NH3+]", "CN"),  # base and cation
        ("Oc1ccccn1", "O=c1cccc[nH]1"),  # tautomers
        ("[NH3+]CC(=O)[O-]", "NCC(=O)O"),  # zwitterion
        ("[2H]O[2H]", "O"),  # isotopes
    ],
)
def test_what_shares_an_identity(one, other):
    assert identity_from_smiles(one) == identity_from_smiles(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CCO", "COC"),
        ("C[N+](C)(C)C", "CC(C)(C)C"),
        ("CCC", "C1CC1"),
        ("C", "[CH3]"),
        ("Oc1ccccc1", "O=C1CC=CC=C1"),
    ],
)
def test_what_does_not(one, other):
    assert identity_from_smiles(one) != identity_from_smiles(other)


@pytest.mark.parametrize("smiles", ["xx", "C1CC", "C(C)(C)(C)(C)C", "", "*C"])
def test_a_bad_smiles_is_refused(smiles):
    with pytest.raises(InputError, match="SMILES"):
        identity_from_smiles(smiles)


def test_a_bad_smiles_of_a_molecule_is_refused_on_use():
    with pytest.raises(FormatError, match="'xx'"):
        _ = Molecule([2], [[0, 0, 0]], smiles="xx").identity


def test_a_bad_inchi_is_refused(capfd):
    with pytest.raises(MismatchError, match="InChI=1S/nonsense"):
        identity_from_inchi("InChI=1S/nonsense", np.array([6, 1, 1, 1, 1]))
    with pytest.raises(FormatError, match="CH4"):
        identity_from_inchi("CH4", np.array([6, 1, 1, 1, 1]))
    assert capfd.readouterr().err == ""


GALLERY = """
C N O C#C C#N C=O CC CO CC#N CC=O NC=O CCO COC C1CC1 C1CO1 CC(C)=O NC(N)=O N#CC#N O=C=O [C-]#[O+] [C-]#[NH+]
C=[N+]=[N-] C[N+](=O)[O-] [N-]=[N+]=O [O-][O+]=O FF ClCl FCl N#N O=O [H][H] S CS CS(C)=O CS(=O)(=O)C O=S=O
OS(=O)(=O)O CP(C)C FB(F)F C[Si](C)(C)C c1ccccc1 c1ccncc1 c1cc[nH]c1 c1ccoc1 c1ccsc1 C[N+](C)(C)C [NH4+]
[OH-] CC(=O)[O-] [CH3+] [CH3] [OH] C[CH2] N(=O)O O[N+](=O)[O-] OO CNN NO F FC(F)(F)F ClC(Cl)Cl C1CC12CC2
C1C2CC12 C12C3C4C1C5C2C3C45 C=C=C C=C=O N=C=O S=C=S c1ccc2ccccc2c1 C[S+](C)[O-] c1cc[n+]([O-])cc1 [He]
C/C=C/C
"""


@pytest.mark.parametrize("smiles", GALLERY.split())
def test_a_geometry_has_the_identity_of_its_smiles(smiles, capfd):
    molecule = from_smiles(smiles)
    assert bare(molecule).identity == molecule.identity
    assert capfd.readouterr().err == ""


def qm9_molecules(name, wanted):
    with np.load(QM9 / name) as data:
        index, counts, numbers, positions = (data[key] for key in ("gdb_idx", "n_atoms", "z", "pos"))
    ends = np.cumsum(counts.astype(int))
    return {
        int(index[k]): Molecule(
            numbers[ends[k] - counts[k] : ends[k]], positions[ends[k] - counts[k] : ends[k]]
        )
        for k in np.flatnonzero(np.isin(index, wanted))
    }


QM9_FIRST = """
C N O C#C C#N C=O CC CO CC#C CC#N CC=O NC=O CCC CCO COC C1CC1 C1CO1 CC(C)=O CC(N)=O NC(N)=O CC(C)C CC(C)O
C#CC#C C#CC#N N#CC#N
"""


@needs_qm9
def test_the_first_qm9_structures_are_what_the_database_says():
    smiles = QM9_FIRST.split()
    found = qm9_molecules("qm9_geometries.npz", range(1, len(smiles) + 1))
    assert len(found) > 15
    for index, molecule in found.items():
        assert molecule.identity == identity_from_smiles(smiles[index - 1])


@needs_qm9
def test_two_levels_of_theory_give_one_identity():
    with np.load(QM9 / "qm9_vibrations_gfn2.npz") as data:
        sample = data["gdb_idx"][::48]
    assert len(sample) > 100
    dft = qm9_molecules("qm9_labelled_18568.npz", sample)
    for index, xtb in qm9_molecules("qm9_vibrations_gfn2.npz", sample).items():
        assert dft[index].identity == xtb.identity
        assert not GEOMETRY_PATTERN.fullmatch(xtb.identity)
        hashes = {geometry_hash(m.numbers, m.positions) for m in (dft[index], xtb)}
        assert len(hashes) == 1


def test_hexafluoride_falls_back_to_the_geometry_hash():
    molecule = bare(from_smiles("FS(F)(F)(F)(F)F"))
    assert perceived_bonds(molecule) is None
    assert GEOMETRY_PATTERN.fullmatch(molecule.identity)
    assert molecule.identity == geometry_hash(molecule.numbers, molecule.positions)


def test_atoms_that_close_too_many_rings_have_no_bonds(monkeypatch):
    packed = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)
    tried = []
    monkeypatch.setattr(rdDetermineBonds, "DetermineBonds", lambda *args, **options: tried.append(args))
    molecule = Molecule(np.full(64, 6), packed)
    assert perceived_bonds(molecule) is None
    assert not tried
    assert GEOMETRY_PATTERN.fullmatch(molecule.identity)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("geom-0123456789abcdef", True),
        ("geom-0123456789ABCDEF", False),
        ("geom-0123", False),
        ("UHOVQNZJYSORNB", False),
    ],
)
def test_geometry_hashes_are_recognised(text, answer):
    assert bool(GEOMETRY_PATTERN.fullmatch(text)) is answer


def test_a_hopeless_structure_is_given_up():
    # a chain of 31 nitrogens has 2^31 combinations of valences, none of which fits; unguarded: hours
    chain = [[1.2 * k, 0.7 * (k % 2), 0.0] for k in range(31)]
    assert GEOMETRY_PATTERN.fullmatch(Molecule([7] * 31, chain).identity)


def test_large_structures_get_no_bond_perception():
    grid = np.stack(np.meshgrid(*[np.arange(8) * 1.5] * 3), -1).reshape(-1, 3)
    assert GEOMETRY_PATTERN.fullmatch(Molecule(np.full(len(grid), 6), grid).identity)


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.sampled_from(["CC(=O)Nc1ccccc1", "FS(F)(F)(F)(F)F", "C1CC1F"]),
)
def test_the_geometry_hash_ignores_orientation_handedness_order_and_jitter(seed, mirror, smiles):
    rng = np.random.default_rng(seed)
    molecule = STRUCTURES[smiles]
    order = rng.permutation(len(molecule))
    moved = molecule.positions @ Rotation.random(rng=rng).as_matrix().T * (-1 if mirror else 1) + rng.normal(
        size=3
    )
    moved += rng.uniform(-1e-6, 1e-6, moved.shape)
    expected = geometry_hash(molecule.numbers, molecule.positions)
    assert geometry_hash(molecule.numbers[order], moved[order]) == expected


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_the_identity_of_a_geometry_ignores_orientation_and_order(seed):
    rng = np.random.default_rng(seed)
    molecule = STRUCTURES["CC(=O)Nc1ccccc1"]
    order = rng.permutation(len(molecule))
    moved = molecule.positions @ Rotation.random(rng=rng).as_matrix().T + rng.normal(size=3)
    assert Molecule(molecule.numbers[order], moved[order]).identity == "FZERHIULMFGESH"


STRUCTURES = {s: from_smiles(s) for s in ("CC(=O)Nc1ccccc1", "FS(F)(F)(F)(F)F", "C1CC1F")}


def test_conformers_share_the_geometry_hash_and_isomers_do_not():
    def hashed(smiles, seed=0):
        molecule = from_smiles(smiles, seed=seed)
        return geometry_hash(molecule.numbers, molecule.positions)

    assert len({hashed("OCCCO", seed) for seed in range(5)}) == 1
    assert len({hashed(s) for s in ("CCCO", "CC(O)C", "CCOC", "OC1CC1", "CCC=O")}) == 5
