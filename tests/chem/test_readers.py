import io
import re
import time

import ase.io
import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import FORMATS, Rejection, from_ase, from_smiles, read_molecules, to_ase
from molspectra.chem.xyz import xyz_entries
from molspectra.errors import (
    ElementError,
    FormatError,
    MismatchError,
    NotFoundError,
    SettingError,
    UnitError,
    ValueRangeError,
)


def write(path, content):
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content, encoding="utf-8")
    return path


def mol_block(smiles, name=""):
    """MOL block with hydrogens, written by RDKit from our own conformer."""
    molecule = from_smiles(smiles)
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    conformer = Chem.Conformer(len(molecule))
    for index, position in enumerate(molecule.positions):
        conformer.SetAtomPosition(index, position)
    mol.AddConformer(conformer)
    mol.SetProp("_Name", name)
    return Chem.MolToMolBlock(mol)


WATER_XYZ = "3\nwater\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"
METHANOL = mol_block("CO", "methanol")


# SMILES


def test_charges_and_radicals_come_from_the_smiles():
    acetate = from_smiles("CC(=O)[O-]")
    assert (acetate.formula, acetate.charge, acetate.n_electrons) == ("C2H3O2", -1, 32)
    ammonium = from_smiles("[NH4+]", name="ammonium")
    assert (ammonium.formula, ammonium.charge, ammonium.name) == ("H4N", 1, "ammonium")
    assert from_smiles("C[CH2]").n_electrons == 17
    assert from_smiles("C[N+](=O)[O-]").charge == 0


@pytest.mark.parametrize(
    ("smiles", "kind", "message"),
    [
        ("", FormatError, "empty SMILES"),
        ("   ", FormatError, "empty SMILES"),
        ("C1CC", FormatError, "'C1CC'"),
        ("not a smiles", FormatError, "'not a smiles'.* space"),
        ("C(C)(C)(C)(C)C", ValueRangeError, "SMILES .* valence"),
        ("c1cccc1", ValueRangeError, "SMILES .* kekulize"),
        ("*CC", ElementError, "dummy atom"),
        ("[Na+].[Cl-]", ValueRangeError, "2 fragments"),
        ("[2H]C", ElementError, "isotope label"),
        ("[#999]", ValueRangeError, r"'\[#999\]': .*Atomic number not found$"),
        ("[C:99999999999999999999]", FormatError, "unreadable"),
        ("CCO,ethanol", FormatError, "'CCO,ethanol'.* not a comma"),
        ("C1CC1 |c:0|", FormatError, "CXSMILES"),
        ("[Zz]", FormatError, r"'\[Zz\]'"),
    ],
)
def test_bad_smiles_are_refused_in_one_line(smiles, kind, message, capfd):
    with pytest.raises(kind, match=message) as caught:
        from_smiles(smiles)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_smi_file(tmp_path):
    path = write(
        tmp_path / "a.smi", "smiles name\n# comment\n\nCCO ethanol (drink)\nF\n[OH-]\thydroxide ion\n"
    )
    molecules = list(read_molecules(path))
    assert [m.smiles for m in molecules] == ["CCO", "F", "[OH-]"]
    assert [m.name for m in molecules] == ["ethanol (drink)", None, "hydroxide ion"]
    assert molecules[2].charge == -1


def test_extensions_of_smiles_are_not_taken_for_names(tmp_path):
    path = write(tmp_path / "a.smi", "C[C@H](O)F |o1:1| x\nCC\t|c:0|\n")
    rejected: list[Rejection] = []
    assert list(read_molecules(path, on_error="skip", rejected=rejected)) == []
    assert all("CXSMILES" in each.reason for each in rejected)


def test_a_csv_table_with_its_columns_in_any_order(tmp_path):
    path = write(tmp_path / "a.csv", '\ufeffID,extra,SMILES\n"a, b",1,CCO\n\nc,2,C#N\n')
    assert [(m.name, m.smiles) for m in read_molecules(path)] == [("a, b", "CCO"), ("c", "C#N")]


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ("name,formula\nwater,H2O\n", NotFoundError, "a.csv, line 1: .* no column 'smiles'"),
        ("smiles\nCCO\nxyz\n", FormatError, "a.csv, line 3: .*'xyz'"),
        ("name,smiles\nwater\n", FormatError, "a.csv, line 2: empty SMILES"),
        ('smiles\n"CCO\n', FormatError, "a.csv, line 2: broken CSV"),
        ("smiles\n", FormatError, "a.csv holds no molecules"),
    ],
)
def test_bad_csv_tables(tmp_path, content, kind, message):
    with pytest.raises(kind, match=message):
        list(read_molecules(write(tmp_path / "a.csv", content)))


# SDF


@pytest.mark.parametrize("suffix", ["sdf", "mol"])
def test_an_sdf_record_has_coordinates_bonds_charge_and_name(tmp_path, suffix):
    (molecule,) = read_molecules(write(tmp_path / f"a.{suffix}", mol_block("CC(=O)[O-]", "acetate")))
    assert (molecule.name, molecule.charge, molecule.smiles) == ("acetate", -1, "CC(=O)[O-]")
    assert np.abs(molecule.positions - from_smiles("CC(=O)[O-]").positions).max() < 1e-4


def test_an_sdf_of_several_records_with_properties_and_windows_line_ends(tmp_path):
    text = METHANOL + ">  <boiling point>\n338\n\n$$$$\n" + mol_block("[CH3]") + "$$$$\n"
    molecules = list(read_molecules(write(tmp_path / "a.sdf", text.replace("\n", "\r\n").encode())))
    assert [(m.name, m.formula, m.identity) for m in molecules] == [
        ("methanol", "CH4O", "OKKJLVBELUTLKV"),
        (None, "CH3", "WCYWZMWISLQXQU"),
    ]


def test_v3000_records_are_read(tmp_path):
    block = Chem.MolToV3KMolBlock(Chem.MolFromMolBlock(METHANOL, removeHs=False))
    (molecule,) = read_molecules(write(tmp_path / "a.sdf", block))
    assert molecule.identity == "OKKJLVBELUTLKV"


def test_several_fragments_are_kept_as_they_lie(tmp_path):
    pair = Chem.CombineMols(*[Chem.MolFromMolBlock(METHANOL, removeHs=False)] * 2)
    for index in range(6):
        pair.GetConformer().SetAtomPosition(
            index + 6, pair.GetConformer().GetPositions()[index] + [0.0, 0.0, 4.0]
        )
    (molecule,) = read_molecules(write(tmp_path / "a.sdf", Chem.MolToMolBlock(pair)))
    assert (molecule.formula, molecule.smiles) == ("C2H8O2", "CO.CO")


def test_impossible_valences_leave_the_bonds_to_the_geometry(tmp_path):
    block = METHANOL.replace("  1  2  1  0", "  1  2  3  0")
    (molecule,) = read_molecules(write(tmp_path / "a.sdf", block))
    assert molecule.smiles is None
    assert molecule.identity == "OKKJLVBELUTLKV"


def replaced_line(block, number, change):
    lines = block.split("\n")
    lines[number] = change(lines[number])
    return "\n".join(lines)


def flat(smiles, hydrogens, header="3D"):
    mol = Chem.MolFromSmiles(smiles)
    mol = Chem.AddHs(mol) if hydrogens else mol
    from rdkit.Chem import rdDepictor

    rdDepictor.Compute2DCoords(mol)
    return Chem.MolToMolBlock(mol).replace("          2D", f"          {header}")


@pytest.mark.parametrize(
    ("block", "kind", "message"),
    [
        (METHANOL[:300], FormatError, "truncated or not an SDF"),
        (
            METHANOL + "$$$$\n" + METHANOL[:200],
            FormatError,
            r"record 2 \(line \d+, 'methanol'\): .*truncated",
        ),
        ("hello\nworld\n", FormatError, r"record 1 \(line 1, 'hello'\): .*truncated or not an SDF"),
        (
            replaced_line(METHANOL, 4, lambda t: t.replace(" C ", " R#")),
            ElementError,
            r"atom 1 \(.*\) is a dummy or query atom",
        ),
        (
            replaced_line(METHANOL, 4, lambda t: t.replace(" C ", " * ")),
            ElementError,
            r"atom 1 \(\*\) is a dummy or query atom",
        ),
        (
            replaced_line(METHANOL, 5, lambda t: t.replace(" O ", " Zz")),
            ElementError,
            "atom 2: 'Zz' is not the symbol",
        ),
        (
            replaced_line(METHANOL, 6, lambda t: "       nan" + t[10:]),
            FormatError,
            "atom 3: .* are not three coordinates",
        ),
        (
            replaced_line(METHANOL, 5, lambda t: METHANOL.split("\n")[4].replace(" C ", " O ")),
            ValueRangeError,
            "atoms 1 and 2 are",
        ),
        (METHANOL.replace("M  END", "M  ISO  1   1  13\nM  END"), ElementError, "isotope label"),
        (
            METHANOL.replace("  6  5  0", "  6  9  0"),
            FormatError,
            "RDKit cannot read the atom and bond lines",
        ),
        (flat("CCO", hydrogens=True, header="2D"), ValueRangeError, "flat drawing"),
        (flat("CCO", hydrogens=False), ValueRangeError, "flat drawing"),
        (flat("c1ccccc1", hydrogens=False, header="2D"), ValueRangeError, "flat drawing"),
        (flat("c1ccccc1", hydrogens=False), ValueRangeError, "6 hydrogen atoms have no coordinates"),
        (Chem.MolToMolBlock(Chem.MolFromSmiles("")), FormatError, "the record has no atoms"),
    ],
)
def test_bad_sdf_records_are_named(tmp_path, block, kind, message, capfd):
    path = write(tmp_path / "a.sdf", block)
    with pytest.raises(kind, match=message) as caught:
        list(read_molecules(path))
    assert str(caught.value).startswith(f"{path}, record ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_planar_molecule_may_lie_in_the_plane(tmp_path):
    block = flat("FC=O", hydrogens=True)
    (molecule,) = read_molecules(write(tmp_path / "a.sdf", block))
    assert molecule.formula == "CHFO"


@pytest.mark.parametrize(
    ("field", "kind"),
    [("charge", MismatchError), ("Total_Charge", MismatchError), ("charges", None), ("mu", None)],
)
def test_a_charge_in_a_field_must_be_that_of_the_atoms(tmp_path, field, kind):
    path = write(tmp_path / "a.sdf", METHANOL + f"> <{field}>\n-1\n\n$$$$\n")
    if kind is None:
        assert next(read_molecules(path)).charge == 0
        return
    with pytest.raises(kind, match=r"stated as -1, .* \+0"):
        list(read_molecules(path))
    path = write(tmp_path / "a.sdf", mol_block("CC(=O)[O-]") + f"> <{field}>\n-1\n\n$$$$\n")
    assert next(read_molecules(path)).charge == -1


def test_a_charge_in_a_column_must_be_that_of_the_smiles(tmp_path):
    path = write(tmp_path / "a.csv", "smiles,charge\n[OH-],-1\nC,\nC,unknown\nC,1\n")
    rejected: list[Rejection] = []
    molecules = list(read_molecules(path, on_error="skip", rejected=rejected))
    assert [molecule.charge for molecule in molecules] == [-1, 0, 0]
    assert [each.where for each in rejected] == ["line 5"]
    assert "stated as +1" in rejected[0].reason


# XYZ


def test_xyz_frames_with_names_numbers_and_further_columns(tmp_path):
    text = WATER_XYZ + "\n2\n\n1 0 0 0 0.1 x\n CL 1.27 0 0 -0.1 y\n\n"
    water, hydrogen_chloride = read_molecules(write(tmp_path / "a.xyz", text))
    assert (water.name, water.formula) == ("water", "H2O")
    assert water.positions.tolist() == [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]
    assert (hydrogen_chloride.name, hydrogen_chloride.symbols) == (None, ["H", "Cl"])


def test_extended_xyz_says_where_its_columns_are(tmp_path):
    text = (
        '2\nLattice="9 0 0 0 9 0 0 0 9" Properties=forces:R:3:pos:R:3:species:S:1 charge=-1 name="a b" '
        'smiles="[OH-]" pbc="F F F"\n1 2 3 0 0 0 O\n4 5 6 0 0 0.97 H\n'
    )
    (molecule,) = read_molecules(write(tmp_path / "a.extxyz", text))
    assert (molecule.formula, molecule.charge, molecule.smiles, molecule.name) == ("HO", -1, "[OH-]", "a b")
    assert molecule.positions.tolist() == [[0, 0, 0], [0, 0, 0.97]]


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            WATER_XYZ + "3\n\nO 0 0 0\nH 1 0 0\n",
            FormatError,
            r"frame 2 \(line 6\): the frame has 3 atoms, but .* after 2",
        ),
        ("3\nwater\n", FormatError, "the frame has 3 atoms, but the file ends after 0"),
        ("3\n", FormatError, "the frame has 3 atoms, but the file ends after 0"),
        (
            "O 0 0 0\nH 1 0 0\n",
            FormatError,
            r"frame 1 \(line 1\): expected the number of atoms, found 'O 0 0 0'",
        ),
        (
            "2" + WATER_XYZ[1:],
            FormatError,
            r"frame 1 \(line 1\): the frame should have 2 atoms, but line 5 is one more: 'H -0.24",
        ),
        ("0\n\n", FormatError, "a frame of 0 atoms"),
        ("-2\n\n", FormatError, "a frame of -2 atoms"),
        (
            WATER_XYZ.replace("O 0", "Qq 0"),
            ElementError,
            "atom 1: 'Qq' is not the symbol of a chemical element",
        ),
        (
            WATER_XYZ.replace("O 0", "X 0"),
            ElementError,
            "atom 1: 'X' is not the symbol of a chemical element",
        ),
        (WATER_XYZ.replace("O 0", "0 0"), ElementError, "atom 1: 0 is not an atomic number"),
        (
            WATER_XYZ.replace("0.96", "nan"),
            ValueRangeError,
            "atom 2 has a coordinate that is not a finite number",
        ),
        (WATER_XYZ.replace("0.96", "one"), FormatError, "atom 2: 'one 0 0' are not three numbers"),
        (WATER_XYZ.replace("0.96", "0.05"), ValueRangeError, "atoms 1 and 2 are closer than"),
        (
            WATER_XYZ.replace("O 0 0 0", "O 0 0"),
            FormatError,
            "atom 1: expected symbol, x, y, z, found 'O 0 0'",
        ),
        (WATER_XYZ.replace("water", 'Lattice="5 0 0 0 5 0 0 0 5"'), ValueRangeError, "periodic structure"),
        (WATER_XYZ.replace("water", 'pbc="F F T"'), ValueRangeError, "periodic structure"),
        (WATER_XYZ.replace("water", 'pbc="1 1 1"'), ValueRangeError, "periodic structure"),
        (WATER_XYZ.replace("water", 'pbc="T F F"'), ValueRangeError, "periodic structure"),
        (WATER_XYZ.replace("water", "pbc=[false, false, true]"), ValueRangeError, "periodic structure"),
        (WATER_XYZ.replace("water", 'pbc="yes"'), FormatError, "pbc=yes is neither T nor F"),
        (WATER_XYZ.replace("water", 'Lattice="9 0 0 0 9 0 0 0 9"'), ValueRangeError, "add pbc=F"),
        (WATER_XYZ.replace("water", "charge=0.5"), ValueRangeError, "charge=0.5 is not a whole number"),
        (WATER_XYZ.replace("water", "total_charge=1 charge=0"), MismatchError, "two different charges"),
        (WATER_XYZ.replace("water", "charge=-1e18"), ValueRangeError, "more than the nuclear charge"),
        (WATER_XYZ.replace("water", "0 2"), ValueRangeError, "charge and multiplicity.* 10 electrons"),
        (WATER_XYZ.replace("water", "Charge: 0.3"), ValueRangeError, "0.3 is not a whole number"),
        (
            WATER_XYZ.replace("O 0", "D 0"),
            ElementError,
            "atom 1: 'D' .* deuterium.* isotopes are not supported",
        ),
        (WATER_XYZ.replace("O 0", "18O 0"), ElementError, "atom 1: .* isotope"),
        (WATER_XYZ.replace("O 0", "Tv 0"), ElementError, "atom 1: 'Tv' .* periodic"),
        (WATER_XYZ.replace("O 0", "Bq 0"), ElementError, "atom 1: 'Bq' .* ghost atom"),
        (
            WATER_XYZ.replace("O 0", "J 0"),
            ElementError,
            "atom 1: 'J' is not the symbol of a chemical element$",
        ),
        (WATER_XYZ.replace("0.96", "1_0"), FormatError, "atom 2: '1_0 0 0' are not three numbers"),
        (WATER_XYZ.replace("0.96", "96000"), ValueRangeError, "atom 2 is at 96000 0 0, beyond"),
        (
            WATER_XYZ.replace("0.96", "1.81").replace("-0.24 0.93", "-0.45 1.76"),
            UnitError,
            "seem to be in bohr",
        ),
        (
            WATER_XYZ.replace("water", "gdb 3\t799.58812\t437.90386\t282.94545\t1.8511\t6.31"),
            FormatError,
            "molspectra prepare qm9",
        ),
        (WATER_XYZ.replace("water", "charge=many"), FormatError, "charge=many is not a number"),
        (WATER_XYZ.replace("water", "charge=nan"), FormatError, "charge=nan is not a number"),
        (
            WATER_XYZ.replace("water", "Properties=species:S:1"),
            FormatError,
            "does not name the columns species and pos",
        ),
    ],
)
def test_bad_xyz_frames_are_named(tmp_path, text, kind, message):
    path = write(tmp_path / "a.xyz", text)
    with pytest.raises(kind, match=message) as caught:
        list(read_molecules(path))
    assert str(caught.value).startswith(f"{path}, frame ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("comment", "charge"),
    [
        ("charge=-1", -1),
        ("charge=-1=", -1),
        ('Charge="-1.0" energy=-75', -1),
        ("total_charge=-1 total_spin=1", -1),
        ("net_charge = -1", -1),
        ("CSD_code = ABC | q = -1 | S = 0", -1),
        ("q=-0.5", 0),
        ("-1 1", -1),
        ("  -1   3", -1),
        ("0 2", 0),
        ("+1,1", 1),
        ("-1", -1),
        ("charge: -1, multiplicity: 1", -1),
        ("-1 1 hydroxide", -1),
        ("hydroxide 1", 0),
        ('Properties=species:S:1:pos:R:3:charges:R:1 note="charge 3"', -1),
        ("Properties=species:S:1:pos:R:3:charges:R:1 charge=1", 1),
        ("Properties=species:S:1:pos:R:3:nuclear_charge:R:1", 0),
    ],
)
def test_charges_of_xyz_frames(tmp_path, comment, charge):
    (molecule,) = read_molecules(write(tmp_path / "a.xyz", f"2\n{comment}\nO 0 0 0 -1.2\nH 0 0 0.97 0.201\n"))
    assert molecule.charge == charge
    has_words = comment in ("hydroxide 1", "-1 1 hydroxide", "charge: -1, multiplicity: 1")
    assert molecule.name == (comment if has_words else None)


def test_charges_of_atoms_that_are_not_of_a_whole_molecule(tmp_path):
    comment = "Properties=species:S:1:pos:R:3:q_mulliken:R:1:charges:R:1"
    path = write(tmp_path / "a.xyz", f"2\n{comment}\nO 0 0 0 0 -0.3\nH 0 0 0.97 0 0.8\n")
    with pytest.raises(ValueRangeError, match=r"column 'charges' adds up to 0\.5"):
        list(read_molecules(path))


@pytest.mark.parametrize(
    "comment",
    [
        'Lattice="9 0 0 0 9 0 0 0 9" pbc="0 0 0"',
        'Lattice="9 0 0 0 9 0 0 0 9" pbc="False False False"',
        "pbc=[false, false, false]",
        "pbc=F",
        'Lattice="0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0"',
    ],
)
def test_structures_that_are_not_periodic(tmp_path, comment):
    (molecule,) = read_molecules(write(tmp_path / "a.xyz", WATER_XYZ.replace("water", comment)))
    assert molecule.formula == "H2O"


def test_exponents_of_fortran_and_mathematica(tmp_path):
    path = write(tmp_path / "a.xyz", WATER_XYZ.replace("0.96 0 0", "9.6D-1 2.1*^-6 0.1d+1"))
    (molecule,) = read_molecules(path)
    assert molecule.positions[1].tolist() == [0.96, 2.1e-6, 1]


def test_a_count_that_is_too_small_gives_no_molecule(tmp_path):
    rejected: list[Rejection] = []
    path = write(tmp_path / "a.xyz", WATER_XYZ + "2" + WATER_XYZ[1:])
    assert len(list(read_molecules(path, on_error="skip", rejected=rejected))) == 1
    assert [each.where for each in rejected] == ["frame 2 (line 6)"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.xyz", WATER_XYZ.replace("water", "a" * 10**5)),
        ("a.xyz", WATER_XYZ.replace("water", "charge" + " " * 10**5 + "x")),
        ("a.xyz", "\x1c" * 10**5 + WATER_XYZ),
        ("a.xyz", WATER_XYZ.replace("water", " ".join(f"k{i}=1" for i in range(30_000)))),
        ("a.xyz", WATER_XYZ.replace("water", " ".join(f"a{i}={{" for i in range(30_000)))),
        ("a.sdf", METHANOL + "> " + "<a" * 50_000 + "\n1\n\n$$$$\n"),
        ("a.csv", "smiles," + ",".join(f"c{i}" for i in range(30_000)) + "\nC\n"),
    ],
    ids=["word", "charge", "separators", "keys", "braces", "field", "columns"],
)
def test_long_lines_take_no_long_time(tmp_path, name, text):
    path = write(tmp_path / name, text)
    began = time.process_time()
    for entry in FORMATS[path.suffix[1:]](path):
        entry.fields()
        entry.molecule()
    assert time.process_time() - began < 5


LABELS = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S"], exclude_characters="\\\"'{}="), min_size=1
)


@settings(max_examples=50)
@given(
    numbers=st.lists(st.integers(1, 118), min_size=1, max_size=8),
    seed=st.integers(0, 2**32 - 1),
    charge=st.integers(-1, 1),
    name=st.none() | LABELS,
    smiles=st.sampled_from([None, "F", "C/C=C\\C", "[H][H]", "N#C[O-]", "T", "C=C"]),
)
def test_what_ase_writes_is_read_back(tmp_path_factory, numbers, seed, charge, name, smiles):
    positions = np.arange(len(numbers))[:, None] + np.random.default_rng(seed).uniform(
        -0.3, 0.3, (len(numbers), 3)
    )
    molecule = Molecule(np.array(numbers), positions, smiles, charge, name)
    text = io.StringIO()
    ase.io.write(text, [to_ase(molecule), to_ase(molecule)], format="extxyz")
    path = write(tmp_path_factory.mktemp("xyz") / "a.extxyz", text.getvalue())
    first, second = (frame.structure() for frame in xyz_entries(path))  # maybe as far apart as in bohr
    assert first.geometry_id == second.geometry_id
    assert first.numbers.tolist() == numbers
    assert np.abs(first.positions - positions).max() < 1e-7
    assert (first.smiles, first.charge, first.name) == (smiles, charge, name)


# files, policies, ASE


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xyz", b"", "is empty"),
        ("a.xyz", b"\n \n", "holds no molecules"),
        ("a.smi", b"# nothing\n", "holds no molecules"),
        ("a.sdf", b"\x1f\x8b\x08\x00\xff\xfe", "not UTF-8 text"),
        ("a.xyz", b"3\n\0\0\0\n", "line 2: not a text file"),
        ("a.smi", "CCO ethanol\nC=O Aldéhyde\n".encode("latin-1"), "not UTF-8 text"),
        ("a.smi", "CCO ethanol\n".encode("utf-16"), "not UTF-8 text"),
        ("a.pdb", b"ATOM", "unknown format 'pdb' .* known: smi, csv"),
        ("a.xzy", b"3", "did you mean 'xyz'"),
        ("molecules", b"3", "unknown format ''"),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_bad_files_are_refused_under_either_policy(tmp_path, name, content, message, on_error):
    path = write(tmp_path / name, content)
    with pytest.raises(FormatError, match=message) as caught:
        list(read_molecules(path, on_error=on_error, rejected=[]))
    assert str(path) in str(caught.value)


def test_missing_files_and_directories_are_refused_before_the_iteration(tmp_path):
    with pytest.raises(NotFoundError, match=r"missing\.xyz"):
        read_molecules(tmp_path / "missing.xyz")
    with pytest.raises(FormatError, match="directory"):
        read_molecules(tmp_path)


def test_the_format_may_be_given(tmp_path):
    path = write(tmp_path / "water.dat", WATER_XYZ)
    assert [m.formula for m in read_molecules(path, format="XYZ")] == ["H2O"]
    assert set(FORMATS) == {"smi", "csv", "sdf", "mol", "xyz", "extxyz"}


def test_skip_collects_what_it_leaves_out(tmp_path):
    path = write(tmp_path / "a.smi", "CCO\nxx bad\nC\n*C\n")
    rejected: list[Rejection] = []
    assert [m.smiles for m in read_molecules(path, on_error="skip", rejected=rejected)] == ["CCO", "C"]
    assert [(r.where, r.reason) for r in rejected] == [
        ("line 2", "unreadable SMILES 'xx'"),
        ("line 4", "SMILES '*C' has a dummy atom; name an element in its place"),
    ]
    assert str(rejected[0]) == f"{path}, line 2: unreadable SMILES 'xx'"


def test_skip_goes_on_after_a_bad_record_of_a_structure_file(tmp_path):
    rejected: list[Rejection] = []
    frames = WATER_XYZ + WATER_XYZ.replace("0.96", "nan") + WATER_XYZ + "5\n\nO 0 0 0\n"
    path = write(tmp_path / "a.xyz", frames)
    assert len(list(read_molecules(path, on_error="skip", rejected=rejected))) == 2
    assert [r.where for r in rejected] == ["frame 2 (line 6)", "frame 4 (line 16)"]
    path = write(tmp_path / "a.sdf", METHANOL + "$$$$\n" + METHANOL[:300] + "\n$$$$\n" + METHANOL)
    assert len(list(read_molecules(path, on_error="skip", rejected=rejected))) == 2
    assert re.fullmatch(r"record 2 \(line \d+, 'methanol'\)", rejected[2].where)


def test_nothing_is_skipped_unseen(tmp_path):
    path = write(tmp_path / "a.xyz", WATER_XYZ)
    with pytest.raises(SettingError, match="'rejected'"):
        read_molecules(path, on_error="skip")
    with pytest.raises(SettingError, match="'ignore'"):
        read_molecules(path, on_error="ignore")


def test_reading_is_lazy(tmp_path):
    path = write(tmp_path / "a.smi", "CCO\nxx\n")
    molecules = read_molecules(path)
    assert next(molecules).formula == "C2H6O"
    with pytest.raises(FormatError, match="line 2"):
        next(molecules)


def test_ase_there_and_back():
    molecule = from_smiles("CC(=O)[O-]", name="acetate")
    back = from_ase(to_ase(molecule))
    assert (back.smiles, back.charge, back.name) == ("CC(=O)[O-]", -1, "acetate")
    assert back.geometry_id == molecule.geometry_id


def test_charges_of_ase_atoms_add_up():
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])
    assert from_ase(atoms).charge == 0
    atoms.set_initial_charges([-1.3, 0.3])
    assert from_ase(atoms).charge == -1
    atoms.set_initial_charges([-0.5, 0.0])
    with pytest.raises(ValueRangeError, match=r"add up to -0\.5"):
        from_ase(atoms)
    atoms.info["charge"] = 1
    assert from_ase(atoms).charge == 1


def test_periodic_ase_atoms_are_refused():
    with pytest.raises(ValueRangeError, match="periodic"):
        from_ase(Atoms("He", [[0, 0, 0]], cell=[5, 5, 5], pbc=True))
