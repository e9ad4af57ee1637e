"""QM9 in both published forms; the files are made here in exactly the published layout."""

import bz2
import csv
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import inchi as rdkit_inchi

from molspectra.chem.identity import identity_from_inchi, identity_from_smiles
from molspectra.data.store.bundled import bundled
from molspectra.data.store.store import Store
from molspectra.datasets.prepare import prepare
from molspectra.datasets.published import qm9_sdf, qm9_xyz
from molspectra.datasets.published.qm9_targets import ATOMIC_ENERGIES, PUBLISHED
from molspectra.datasets.report import Report
from molspectra.errors import (
    DamagedError,
    FormatError,
    InputError,
    MismatchError,
    NotFoundError,
    SettingError,
)
from molspectra.simulation.units import HARTREE, KCAL

# The first three molecules of QM9 and their numbers, written as in dsgdb9nsd_00000{1,2,3}.xyz.
METHANE = """5
gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t-40.47893\t\
-40.476062\t-40.475117\t-40.498597\t6.469\t
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 0.0002765748\t 0.133922
H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923
1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788\t3151.7078
C\tC\t
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
"""
AMMONIA = """4
gdb 2\t293.60975\t293.54111\t191.39397\t1.6256\t9.46\t-0.257\t0.0829\t0.3399\t26.1563\t0.034358\t-56.525887\t\
-56.523026\t-56.522082\t-56.544961\t6.316\t
N\t-0.0404260543\t 1.0241077531\t 0.0625637998\t-0.707143
H\t 0.0172574639\t 0.0125452063\t-0.0273771593\t 0.235712
H\t 0.9157893661\t 1.3587451948\t-0.0287577581\t 0.235712
H\t-0.5202777357\t 1.3435321258\t-0.7755426124\t 0.235719
1103.8733\t1684.1158\t1684.3072\t3458.7145\t3597.0562\t3597.1345
N\tN\t
InChI=1S/H3N/h1H3\tInChI=1S/H3N/h1H3
"""
WATER = """3
gdb 3\t799.58812\t437.90386\t282.94545\t1.8511\t6.31\t-0.2928\t0.0687\t0.3615\t19.0002\t0.021375\t\
-76.404702\t-76.401867\t-76.400922\t-76.422349\t6.002\t
O\t-0.0343604951\t 9.775395708*^-1\t 0.0076015923\t-0.589706
H\t 0.0647664923\t 2.05721989*^-2\t 1.5346341*^-3\t 0.294853
H\t 0.8717903737\t 1.3007924048\t 6.931336*^-4\t 0.294853
1671.4222\t3803.6305\t3907.698
O\tO\t
InChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2
"""
MOLECULES = {1: METHANE, 2: AMMONIA, 3: WATER}

RULE = "=" * 158
LIST = f"""
List of molecules among the 133885 GDB9 molecules for which the Corina generated Cartesian coordinates and \
the B3LYP/6-31G(2df,p) equilibrium geometry lead to
different SMILES and InChI strings when parsed through the program Openbabel. Given are the indices of these \
molecules in the database, the original GDB17

SMILES, the SMILES generated from the Cartesian coordinates.
{RULE}
  # Index     GDB17 SMILES      SMILES for B3LYP XYZ       SMILES for Corina generated XYZ         D_IJ
{RULE}

     2      N          N           [NH3]            6.036217
   133885   NC(=N)C=O  NC(=N)C=O   [NH]C(=[NH2])C=O 5.631463
{RULE}
"""


def archive(folder: Path, files: dict[str, str]) -> Path:
    """`dsgdb9nsd.xyz.tar.bz2` with these files."""
    path = folder / "dsgdb9nsd.xyz.tar.bz2"
    with tarfile.open(path, "w:bz2", format=tarfile.USTAR_FORMAT) as packed:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            packed.addfile(member, io.BytesIO(text.encode()))
    return path


def xyz_files(molecules: dict[int, str]) -> dict[str, str]:
    return {f"dsgdb9nsd_{index:06}.xyz": text for index, text in molecules.items()}


def block(text: str, bonds: list[tuple[int, int, int]]) -> str:
    """A record of `gdb9.sdf` for a molecule in the other form."""
    lines = text.replace("*^", "e").split("\n")
    atoms = [line.split() for line in lines[2 : 2 + int(lines[0])]]
    rows = [f"gdb_{lines[1].split()[1]}", "  -OEChem-03231823243D", ""]
    rows.append(f"{len(atoms):3}{len(bonds):3}  0     0  0  0  0  0  0999 V2000")
    for symbol, *xyz, _ in atoms:
        x, y, z = (float(each) for each in xyz)
        rows.append(f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  0  0  0  0  0  0  0  0  0  0  0")
    rows += [f"{one:3}{other:3}{order:3}  0  0  0  0" for one, other, order in bonds]
    return "\n".join([*rows, "M  END", "$$$$", ""])


def table(molecules: dict[int, str]) -> str:
    """`gdb9.sdf.csv` of these molecules."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["mol_id", *PUBLISHED, "u0_atom", "u298_atom", "h298_atom", "g298_atom"])
    for text in molecules.values():
        words = text.split("\n")[1].split()
        symbols = [line.split()[0] for line in text.split("\n")[2 : 2 + int(text.split("\n")[0])]]
        numbers = [{"H": 1, "C": 6, "N": 7, "O": 8}[symbol] for symbol in symbols]
        free = [sum(energy[number] for number in numbers) for energy in ATOMIC_ENERGIES.values()]
        atomisation = [(float(own) - each) * 627.509 for own, each in zip(words[12:16], free, strict=True)]
        writer.writerow([f"gdb_{words[1]}", *(float(word) for word in words[2:]), *atomisation])
    return out.getvalue()


BONDS = {
    index: [(1, atom, 1) for atom in range(2, int(text.split("\n")[0]) + 1)]
    for index, text in MOLECULES.items()
}


def sdf_form(folder: Path, molecules: dict[int, str] = MOLECULES) -> None:
    records = (block(text, BONDS[index]) for index, text in molecules.items())
    (folder / "gdb9.sdf").write_text("".join(records))
    (folder / "gdb9.sdf.csv").write_text(table(molecules))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with the list of uncharacterised molecules, among them the second one here."""
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "uncharacterized.txt").write_text(LIST)
    return folder


def prepared(raw: Path, **options: object) -> tuple[Store, Report]:
    out = raw.parent / "qm9.arrow"
    report = prepare("qm9", raw, out, show=False, overwrite=True, **options)
    return Store(out), report


def keep(**options: str) -> dict[str, str]:
    return {"keep-uncharacterised": "true", **options}


def test_methane_in_the_first_form(raw: Path) -> None:
    archive(raw, xyz_files(MOLECULES))
    store, report = prepared(raw)
    assert len(store) == 2
    assert report.tally.excluded == {"uncharacterised": 1}
    molecule = store.molecule(0)
    assert molecule.name == "gdb_1"
    assert molecule.smiles == "C"
    assert store.identities == [identity_from_smiles("C"), identity_from_smiles("O")]
    np.testing.assert_allclose(molecule.positions[0], [-0.0126981359, 1.0858041578, 0.0080009958], atol=1e-7)
    published = {"mu": 0.0, "alpha": 13.21, "r2": 35.3641, "cv": 6.469, "A": 157.7118, "C": 157.70699}
    energies = {"homo": -0.3877, "lumo": 0.1171, "gap": 0.5048, "zpve": 0.044749, "u0": -40.47893}
    for name, value in published.items():
        assert store.column(name)[0] == value
    for name, value in energies.items():
        assert store.column(name)[0] == pytest.approx(value * HARTREE, rel=1e-14)
        assert store.metadata.properties[name].unit == "eV"
    # published with the other form: -395.999594594 kcal/mol
    assert store.column("u0_atom")[0] / HARTREE * KCAL == pytest.approx(-395.999594594, abs=1e-3)
    assert len(store.metadata.properties) == 19


def test_exponents_of_mathematica(raw: Path) -> None:
    archive(raw, xyz_files(MOLECULES))
    store, _ = prepared(raw)
    np.testing.assert_allclose(
        store.molecule(1).positions[1], [0.0647664923, 0.0205721989, 0.0015346341], atol=1e-7
    )


def test_both_forms_agree(raw: Path, tmp_path: Path) -> None:
    archive(raw, xyz_files(MOLECULES))
    sdf_form(raw)
    first, _ = prepared(raw, options={"form": "xyz"})
    rows = [first.row(row) for row in range(2)]
    second, report = prepared(raw, options={"form": "sdf"})
    assert report.tally.rejected == {}
    assert second.identities == first.identities
    assert second.metadata.properties == first.metadata.properties
    for number, row in enumerate(rows):
        other = second.row(number)
        assert other.molecule.name == row.molecule.name
        assert other.properties == pytest.approx(row.properties, rel=1e-12)
        np.testing.assert_allclose(other.molecule.positions, row.molecule.positions, atol=5.1e-5)


@pytest.mark.parametrize("holder", ["file", "tar", "folder", "folder of folder"])
def test_places_of_the_first_form(raw: Path, holder: str) -> None:
    packed = archive(raw, xyz_files(MOLECULES))
    given = raw
    if holder == "file":
        given = packed
    else:
        content = bz2.decompress(packed.read_bytes())
        packed.unlink()
        if holder == "tar":
            (raw / "dsgdb9nsd.xyz.tar").write_bytes(content)
        else:
            folder = raw / "dsgdb9nsd" if holder == "folder of folder" else raw
            folder.mkdir(exist_ok=True)
            for name, text in xyz_files(MOLECULES).items():
                (folder / name).write_text(text)
    report = prepare("qm9", given, raw.parent / "a.arrow", show=False)
    assert report.tally.rows == 2


@pytest.mark.parametrize("suffix", ["tar.gz", "zip"])
def test_bundles_of_the_second_form(raw: Path, suffix: str) -> None:
    sdf_form(raw)
    names = ("gdb9.sdf", "gdb9.sdf.csv")
    path = raw / f"gdb9.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in names:
                packed.write(raw / name, f"raw/{name}")
    else:
        with tarfile.open(path, "w:gz") as packed:
            for name in names:
                packed.add(raw / name, f"./{name}")
    for name in names:
        (raw / name).unlink()
    for given in (raw, path):
        store, _ = prepared(given if given == raw else raw)
        assert [store.molecule(row).name for row in range(len(store))] == ["gdb_1", "gdb_3"]


def test_atomic_references_are_kept_for_others(raw: Path) -> None:
    archive(raw, xyz_files(MOLECULES))
    store, _ = prepared(raw)
    references = json.loads(store.metadata.notes["atomic_references"])
    assert references["u0"]["C"] == pytest.approx(-37.846772 * HARTREE)
    assert references["cv"]["H"] == 2.981
    water = store.column("u298")[1] - references["u298"]["O"] - 2 * references["u298"]["H"]
    assert water == pytest.approx(store.column("u298_atom")[1], abs=1e-6)


def test_no_list_of_uncharacterised_molecules(raw: Path) -> None:
    archive(raw, xyz_files(MOLECULES))
    (raw / "uncharacterized.txt").unlink()
    with pytest.raises(NotFoundError, match=r"uncharacterized.txt is missing.*keep-uncharacterised=true"):
        prepared(raw)
    store, report = prepared(raw, options=keep())
    assert len(store) == 3
    assert report.expected == 133_885


def test_a_list_that_is_none(raw: Path) -> None:
    archive(raw, xyz_files(MOLECULES))
    (raw / "uncharacterized.txt").write_text("404 Not Found".removeprefix("404 "))
    with pytest.raises(FormatError, match="is not the list"):
        prepared(raw)


DAMAGES = {
    "line 1 is 'five'": METHANE.replace("5\n", "five\n", 1),
    "4 atoms need 9 lines, the file has 10": METHANE.replace("5\n", "4\n", 1),
    "6 atoms need 11 lines, the file has 10": METHANE.replace("5\n", "6\n", 1),
    "line 2 is not": METHANE.replace("\t6.469", ""),
    "line 2 has index 7, the name of the file 1": METHANE.replace("gdb 1", "gdb 7"),
    "line 2 has a word that is not a number": METHANE.replace("13.21", "many"),
    "homo is nan": METHANE.replace("-0.3877", "nan"),
    "a coordinate is not a number": METHANE.replace("1.0858041578", "1.08x"),
    "atom 1 has a coordinate that is not a finite number": METHANE.replace("1.0858041578", "inf"),
    "'Xx' is not the symbol": METHANE.replace("C\t-0.0126", "Xx\t-0.0126"),
    "QM9 has no Si": METHANE.replace("C\t-0.0126", "Si\t-0.0126").replace("CH4", "H4Si"),
    "not symbol, x, y, z, charge": METHANE.replace("\t-0.535689", ""),
    "5 atoms cannot have 8 vibrations": METHANE.replace("1341.307\t", ""),
    "does not describe the 5 atoms CH4": METHANE.replace(
        "InChI=1S/CH4/h1H4\n", "InChI=1S/C2H6/c1-2/h1-2H3\n"
    ),
    "unreadable InChI": METHANE.replace("InChI=1S/CH4/h1H4\n", "CH4\n"),
    "not two SMILES and two InChI": METHANE.replace("C\tC\t\n", "C\n"),
    "closer than": METHANE.replace("1.4637511618\t 0.0002765748", "1.4637511618\t 0.0002765748").replace(
        "H\t-0.5238136345\t 1.4379326443\t 0.9063972942", "H\t-0.540815069\t 1.4475266138\t-0.8766437152"
    ),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_a_damaged_molecule_is_named(raw: Path, reason: str) -> None:
    archive(raw, xyz_files({1: DAMAGES[reason], 3: WATER}))
    store, report = prepared(raw)
    assert len(store) == 1
    assert reason in str(report.named[0]["reason"])
    assert report.named[0]["name"] == "dsgdb9nsd_000001.xyz"
    with pytest.raises(InputError, match=r"record 0 \(dsgdb9nsd_000001.xyz\)"):
        prepared(raw, on_error="raise")


def test_an_index_that_occurs_twice(raw: Path) -> None:
    moved = WATER.replace("9.775395708", "9.785395708")
    path = archive(
        raw, {"a/dsgdb9nsd_000003.xyz": WATER, "b/dsgdb9nsd_000003.xyz": moved, "._dsgdb9nsd_000003.xyz": "x"}
    )
    store, report = prepared(raw)
    assert len(store) == 1
    assert report.named[0]["reason"] == "index 3 occurs a second time"
    assert report.tally.records == 2
    (again,) = qm9_xyz.candidates(path, (), 1)  # as a worker reads the second part
    with pytest.raises(MismatchError, match="index 3 occurs a second time"):
        again.make()


def test_an_index_that_occurred_before_the_first_record_that_is_read(raw: Path) -> None:
    sdf_form(raw)
    for name in ("gdb9.sdf", "gdb9.sdf.csv"):
        text = (raw / name).read_text()
        (raw / name).write_text(text + (text if name == "gdb9.sdf" else text.partition("\n")[2]))
    _, again, *_ = qm9_sdf.candidates(raw, (), len(MOLECULES) - 1)
    with pytest.raises(MismatchError, match=f"index {next(iter(MOLECULES))} occurs a second time"):
        again.make()


@pytest.mark.parametrize("left", [0.3, 0.6, 0.95])
def test_an_archive_cut_short(raw: Path, left: float) -> None:
    many = {index: METHANE.replace("gdb 1\t", f"gdb {index}\t") for index in range(1, 200) if index != 2}
    path = archive(raw, xyz_files(many))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole))])
    with pytest.raises(InputError, match="is cut short or damaged"):
        prepared(raw)
    assert not (raw.parent / "qm9.arrow").exists()


def test_a_tar_cut_between_two_files(raw: Path) -> None:
    """The standard module takes this one for complete."""
    packed = archive(raw, xyz_files(MOLECULES))
    content = bz2.decompress(packed.read_bytes())
    packed.unlink()
    (raw / "dsgdb9nsd.xyz.tar").write_bytes(content[: 2 * (512 + 1024)])
    with pytest.raises(DamagedError, match=r"\.tar is cut short"):
        prepared(raw)


def test_bytes_that_are_no_archive(raw: Path) -> None:
    (raw / "dsgdb9nsd.xyz.tar.bz2").write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(InputError, match="is cut short or damaged"):
        prepared(raw)


def test_nothing_there(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="holds no QM9; it must be a folder with"):
        prepared(raw)
    with pytest.raises(NotFoundError, match="no such file or folder"):
        prepare("qm9", tmp_path / "nowhere", tmp_path / "a.arrow")


def test_tables_that_do_not_belong_to_the_structures(raw: Path) -> None:
    sdf_form(raw)
    (raw / "gdb9.sdf.csv").write_text(table({1: METHANE, 3: WATER, 2: AMMONIA}))
    with pytest.raises(
        InputError, match=r"record 2 of gdb9.sdf is molecule 2, that of gdb9.sdf.csv is molecule 3"
    ):
        prepared(raw)
    (raw / "gdb9.sdf.csv").write_text(table({1: METHANE}))
    with pytest.raises(InputError, match=r"gdb9.sdf.csv ends after 1 rows"):
        prepared(raw)
    sdf_form(raw, {1: METHANE})
    (raw / "gdb9.sdf.csv").write_text(table(MOLECULES))
    with pytest.raises(InputError, match=r"gdb9.sdf ends after 1 records, but gdb9.sdf.csv goes on"):
        prepared(raw)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("9" * 5000 + ",1", "row 1 of gdb9.sdf.csv does not begin with an index"),
        ('"' + "a" * 200_000, r"line 2 of gdb9.sdf.csv is no row of a table \(field larger"),
    ],
)
def test_hostile_tables(raw: Path, line: str, said: str) -> None:
    sdf_form(raw)
    head = (raw / "gdb9.sdf.csv").read_text().partition("\n")[0]
    (raw / "gdb9.sdf.csv").write_text(f"{head}\n{line}\n")
    with pytest.raises(InputError, match=said):
        prepared(raw)
    (raw / "gdb9.sdf.csv").write_text("a" * 200_000)
    with pytest.raises(InputError, match=r"line 1 of gdb9\.sdf\.csv is no row of a table"):
        prepared(raw)


def test_numbers_of_thousands_of_digits(raw: Path) -> None:
    archive(raw, {**xyz_files(MOLECULES), "dsgdb9nsd_001234.xyz": "9" * 5000})
    _, report = prepared(raw, options=keep())
    assert (report.tally.rows, sum(report.tally.rejected.values())) == (3, 1)
    (raw / "uncharacterized.txt").write_text("9" * 5000)
    with pytest.raises(FormatError, match="is not the list"):
        prepared(raw)


def test_a_table_without_a_target(raw: Path) -> None:
    sdf_form(raw)
    text = (raw / "gdb9.sdf.csv").read_text()
    (raw / "gdb9.sdf.csv").write_text(text.replace(",gap,", ",band_gap,"))
    with pytest.raises(FormatError, match=r"gdb9.sdf.csv has no column gap"):
        prepared(raw)


def test_published_atomisation_energies_are_checked(raw: Path) -> None:
    sdf_form(raw)
    text = (raw / "gdb9.sdf.csv").read_text()
    (raw / "gdb9.sdf.csv").write_text(text.replace(",-395.99", ",-395.89"))
    store, report = prepared(raw)
    assert len(store) == 1
    assert "u0_atom is -395.89" in str(report.named[0]["reason"])


def test_bonds_that_lack_hydrogens_are_found_again_in_the_geometry(raw: Path) -> None:
    (raw / "gdb9.sdf").write_text(block(METHANE, BONDS[1][:2]))
    (raw / "gdb9.sdf.csv").write_text(table({1: METHANE}))
    store, _ = prepared(raw)
    assert store.molecule(0).smiles is None
    assert store.identities == [identity_from_smiles("C")]


def test_options_are_checked(raw: Path) -> None:
    archive(raw, xyz_files(MOLECULES))
    with pytest.raises(SettingError, match="did you mean 'keep-uncharacterised'"):
        prepared(raw, options={"keep-uncharacterized": "true"})
    with pytest.raises(SettingError, match="option keep-uncharacterised='yes' is not known"):
        prepared(raw, options={"keep-uncharacterised": "yes"})
    with pytest.raises(NotFoundError, match="holds no QM9 in form sdf"):
        prepared(raw, options={"form": "sdf"})


# --- identity from the InChI in the file -----------------------------------------------------------------


def inchi_and_numbers(smiles: str) -> tuple[str, np.ndarray]:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    return rdkit_inchi.MolToInchi(mol), np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])


def test_identity_of_an_inchi_with_known_atoms_is_that_of_the_molecule() -> None:
    store = bundled()
    for row, identity in enumerate(store.identities):
        molecule = store.molecule(row)
        inchi = rdkit_inchi.MolToInchi(Chem.MolFromSmiles(molecule.smiles))
        assert identity_from_inchi(inchi, molecule.numbers) == identity
    assert row > 2000


@pytest.mark.parametrize(
    "smiles", ["[NH4+]", "CC(=O)[O-]", "[Na+].[Cl-]", "C.C", "C.C.O", "[NH3+]CC([O-])=O", "[H][H]", "[2H]C"]
)
def test_formulas_of_salts_and_mixtures(smiles: str) -> None:
    inchi, numbers = inchi_and_numbers(smiles)
    assert identity_from_inchi(inchi, numbers) == rdkit_inchi.MolToInchiKey(Chem.MolFromSmiles(smiles))[:14]
    with pytest.raises(InputError, match="does not describe"):
        identity_from_inchi(inchi, np.append(numbers, 1))


@pytest.mark.parametrize("text", ["", "InChI=1S", "InChI=1S/", "InChI=1S/garbage", "CH4", "InChI=1S/Qq/h1H"])
def test_texts_that_are_no_inchi(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError):
        identity_from_inchi(text, np.array([6, 1, 1, 1, 1]))
    assert capfd.readouterr().err == ""
