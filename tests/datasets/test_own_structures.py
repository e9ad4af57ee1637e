from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from molspectra.chem.readers import from_smiles
from molspectra.data.store.store import Store
from molspectra.datasets.own.shared import checked_unit, column_name, split_header
from molspectra.datasets.own.structures import CSV, EXTXYZ, SDF
from molspectra.datasets.prepare import prepare
from molspectra.errors import InputError, MismatchError, NotFoundError, UnitError

SHARED = Path(__file__).resolve().parents[3] / "shared/data"


def block(smiles, name):
    molecule = from_smiles(smiles)
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    conformer = Chem.Conformer(len(molecule))
    for index, position in enumerate(molecule.positions):
        conformer.SetAtomPosition(index, position)
    mol.AddConformer(conformer)
    mol.SetProp("_Name", name)
    return Chem.MolToMolBlock(mol)


WATER, METHANE = block("O", "water"), block("C", "methane")
SDF_TEXT = (
    WATER
    + ">  <gap [eV]>\n9.5\n\n> 25 <mu> (1)\n1.85\n\n>  <comment>\nclear\nliquid\n\n$$$$\n"
    + METHANE
    + ">  <gap [eV]>\nNA\n\n>  <mu>\n0\n\n$$$$\n"
)
XYZ_TEXT = (
    '3\nProperties=species:S:1:pos:R:3:F:R:3 name=water E=-76.4 note="two words"\n'
    "O 0 0 0 1 2 3\nH 0.96 0 0 4 5 6\nH -0.24 0.93 0 7 8 9\n"
    "2\nProperties=species:S:1:pos:R:3:F:R:3 name=hydrogen E=-1.17\nH 0 0 0 0 0 1\nH 0 0 0.74 0 0 -1\n"
)
JDX = (
    "##TITLE=x\n##JCAMP-DX=4.24\n##DATA TYPE=INFRARED SPECTRUM\n##XUNITS=1/CM\n##YUNITS=TRANSMITTANCE\n"
    "##FIRSTX=4000\n##LASTX=400\n##NPOINTS=37\n##XYDATA=(X++(Y..Y))\n"
    + "".join(f"{4000 - 100 * i} 0.{i + 10}\n" for i in range(37))
    + "##END=\n"
)


def made(name, tmp_path, text, options=None, suffix=None):
    raw = tmp_path / f"a.{suffix or name}"
    raw.write_bytes(text if isinstance(text, bytes) else text.encode())
    out = tmp_path / f"{name}.arrow"
    report = prepare(name, raw, out, options=options or {}, show=False, overwrite=True)
    return report, Store(out)


# formats


def test_an_sdf_with_data_fields(tmp_path):
    report, store = made("sdf", tmp_path, SDF_TEXT, {"unit.mu": "Debye", "level": "B3LYP", "licence": "CC0"})
    assert {name: (each.unit, each.level) for name, each in store.metadata.properties.items()} == {
        "gap": ("eV", "B3LYP"),
        "mu": ("D", "B3LYP"),
    }
    assert np.allclose(store.column("gap"), [9.5, np.nan], equal_nan=True)
    assert store.column("mu").tolist() == [1.85, 0]
    assert (store.metadata.level, store.metadata.licence) == ("B3LYP", "CC0")
    assert store.metadata.notes["text_columns_left_out"] == "1: comment"
    assert [store.molecule(row).name for row in (0, 1)] == ["water", "methane"]
    assert report.tally.rejected == {}


def test_an_extended_xyz_with_energies_and_forces(tmp_path):
    options = {"energy": "E", "unit.energy": "Hartree", "forces": "F", "unit.forces": "Hartree/bohr"}
    _, store = made("extxyz", tmp_path, XYZ_TEXT, options)
    assert store.column("energy").tolist() == [-76.4, -1.17]
    assert store.metadata.forces.unit == "Hartree/bohr"
    forces = store.batch([0], targets=["forces"]).targets["forces"]
    assert forces.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert store.metadata.notes["text_columns_left_out"] == "1: note"


def test_coordinates_in_bohr_are_refused_and_converted_on_demand(tmp_path):
    text = (
        XYZ_TEXT.replace("0.96", "1.8141").replace("-0.24 0.93", "-0.4535 1.7574").replace("0.74", "1.3984")
    )
    with pytest.raises(UnitError, match="seem to be in bohr"):
        made("extxyz", tmp_path, text, {"unit.E": "eV"})
    _, store = made("extxyz", tmp_path, text, {"unit.E": "eV", "positions": "bohr"})
    assert store.molecule(0).positions == pytest.approx(
        np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]), abs=1e-4
    )


def test_a_table_of_smiles(tmp_path):
    text = "name;smiles;gap (eV);logP\nethanol;CCO;9.1;-0.3\nbad;C1CC;1;1\nwater;O;;-1.4\n"
    report, store = made("csv", tmp_path, text, {"unit.logP": "1"})
    assert store.metadata.level.startswith("one conformer from the SMILES: RDKit")
    assert (store.molecule(0).name, store.molecule(0).smiles) == ("ethanol", "CCO")
    assert np.array_equal(store.molecule(0).positions, from_smiles("CCO").positions.astype(np.float32))
    assert store.metadata.properties["logP"].unit == ""
    assert np.allclose(store.column("gap"), [9.1, np.nan], equal_nan=True)
    assert [each["name"] for each in report.named] == ["line 3, 'bad'"]


def test_reading_from_the_middle(tmp_path):
    for importer, text, options in ((SDF, SDF_TEXT, {"unit.mu": "D"}), (EXTXYZ, XYZ_TEXT, {"unit.E": "eV"})):
        path = tmp_path / importer.name
        path.write_text(text)
        opened = importer.open(path, options)
        assert opened.total == 2
        (last,) = opened.candidates(1)
        assert last.make().molecule.name in ("methane", "hydrogen")


# spectra by name


def spectra(tmp_path):
    folder = tmp_path / "spectra"
    (folder / "raman").mkdir(parents=True)
    (folder / "ethanol.jdx").write_text(JDX)
    (folder / "nobody.jdx").write_text(JDX)
    (folder / "acid.jdx").write_text(JDX.replace("##END=", ""))
    axis = np.arange(500, 4001, 7.0)
    np.savetxt(folder / "ethanol.uv_vis.csv", [[100, 1], [1200, 2]], header="nm abs", delimiter=",")
    np.savetxt(folder / "raman/water.txt", np.stack([axis, axis], 1), header="cm-1 counts")
    (folder / "notes.md").write_text("not looked at")
    (folder / "README.txt").write_text("no numbers")
    return folder


TABLE = "name,smiles\nethanol,CCO\nwater,O\nacid,CC(=O)O\nmethane,C\n"


def test_spectra_matched_by_name(tmp_path):
    options = {"spectra": str(spectra(tmp_path)), "spectra_level": "FT-IR", "outside": "zero"}
    report, store = made("csv", tmp_path, TABLE, options)
    assert set(store.metadata.samples) == {"ir", "raman", "uv_vis"}
    assert store.metadata.samples["ir"] == "FT-IR; linear interpolation onto the axis"
    assert store.has("ir").tolist() == [True, False, False, False]
    assert store.has("raman").tolist() == [False, True, False, False]
    assert store.has("uv_vis").tolist() == [False] * 4  # two points are no spectrum
    ir = store.spectrum(0, "ir")
    assert ir.values[ir.axis == 1000.0] == pytest.approx(-np.log10(0.40), rel=1e-6)  # point 30 of the file
    ((reason, count),) = report.tally.left_out.items()
    assert reason.startswith("uv_vis: ")
    assert "of its points" in reason
    assert count == 1
    assert report.tally.changes == {}  # both measured spectra cover the whole axis
    assert store.metadata.notes["spectra_files"].startswith("4 files, sha256 of their names and sizes ")
    remarks = report.remarks
    assert remarks["spectra without a molecule"] == "1: nobody.jdx"
    assert remarks["molecules without a spectrum"] == "2: acid, methane"
    assert "README.txt" in remarks["files that are no spectra"]
    assert "acid.jdx" in remarks["files that are no spectra"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spectra": "nowhere"}, "option spectra=nowhere: no such folder"),
        ({"outside": "zero"}, "option outside needs option spectra"),
        ({"spectra": ".", "floor": "x"}, "option floor='x' is not a number"),
        ({"spectra": ".", "floor": "2"}, "option floor=2 must lie between 0 and 1"),
        ({"spectra": ".", "outside": "guess"}, "option outside='guess' is not known"),
        ({"spectra": ".", "spectra_unit": "furlong"}, "unknown unit 'furlong'"),
        ({"spectra": ".", "modality": "nmr"}, "unknown modality 'nmr'"),
    ],
)
def test_options_of_spectra(tmp_path, options, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text(TABLE)
    with pytest.raises(InputError, match=message):
        CSV.open(tmp_path / "a.csv", options)


def test_a_folder_without_spectra_and_one_with_two_of_a_kind(tmp_path):
    (tmp_path / "a.csv").write_text(TABLE)
    (tmp_path / "b").mkdir()
    with pytest.raises(NotFoundError, match=r"no spectrum found: no files .jdx"):
        CSV.open(tmp_path / "a.csv", {"spectra": str(tmp_path / "b")})
    (tmp_path / "b/water.ir.jdx").write_text(JDX)
    (tmp_path / "b/water_ir.dx").write_text(JDX)
    with pytest.raises(MismatchError, match="are both the ir spectrum of 'water'; remove one"):
        CSV.open(tmp_path / "a.csv", {"spectra": str(tmp_path / "b")})


# units and names


def test_headers_and_units():
    assert split_header("gap [eV]") == ("gap", "eV")
    assert split_header("gap (kcal/mol)") == ("gap", "kcal/mol")
    assert split_header("gap / eV") == ("gap", "eV")
    assert split_header("a/b") == ("a/b", None)
    assert split_header("[eV]") == ("[eV]", None)
    assert [column_name(text) for text in ("<R2>", "boiling point", "2nd")] == [
        "R2",
        "boiling_point",
        "p_2nd",
    ]
    assert (checked_unit("1", "x"), checked_unit(" debye ", "x"), checked_unit("furlong", "x")) == (
        "",
        "D",
        "furlong",
    )


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("smiles,gap\nC,1\n", {}, "no unit is stated for 'gap'; give --option unit.gap=eV"),
        ("smiles,gap [ev]\nC,1\n", {}, "unknown unit 'ev'; did you mean 'eV'"),
        ("smiles,gap []\nC,1\n", {}, "'' is not a unit"),
        ("smiles,gap [eV]\nC,1\n", {"unit.gap": "Hartree"}, r"'gap \[eV\]' is in 'eV', not in 'Hartree'"),
        ("smiles,gap\nC,1\n", {"unit.gapp": "eV"}, "no numeric column 'gapp'.*did you mean 'gap'"),
        ("smiles,gap\nC,1\n", {"properties": "homo"}, "no numeric column 'homo'"),
        (
            "smiles,a b,a-b\nC,1,1\n",
            {"unit.a b": "1", "unit.a-b": "1"},
            "two properties would be called 'a_b'",
        ),
        ("smiles,identity\nC,1\n", {"unit.identity": "1"}, "no property can be called 'identity'"),
    ],
)
def test_units_that_are_missing_or_wrong(tmp_path, text, options, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        CSV.open(tmp_path / "a.csv", options)
    assert "\n" not in str(caught.value)


def test_properties_can_be_chosen(tmp_path):
    text = "smiles,gap,homo\nC,1,2\n"
    _, store = made("csv", tmp_path, text, {"properties": "gap", "unit.gap": "eV"})
    assert list(store.metadata.properties) == ["gap"]
    assert store.metadata.notes["columns_left_out"] == "1: homo"
    _, store = made("csv", tmp_path, text, {"properties": "none"})
    assert not store.metadata.properties


# malformed and hostile files

HUGE = "9" * 1_000_000
BAD = [
    ("sdf", b"", "a.sdf is empty"),
    ("sdf", b"\x00\x01\x02\x03" * 200, "line 1: not a text file"),
    ("sdf", b"\xff\xfe\xff" * 50, "not UTF-8 text"),
    ("sdf", "\n\n\n", "holds no molecules"),
    ("sdf", WATER.replace("M  END\n", ""), "'M  END'"),
    ("sdf", WATER[: len(WATER) // 2], "'M  END'"),
    ("sdf", WATER.replace(" O  ", " Qq "), "atom 1: 'Qq' is not the symbol of a chemical element"),
    ("sdf", WATER.replace(WATER.split("\n")[4][:10], "       nan"), "are not three coordinates"),
    ("sdf", WATER.replace(WATER.split("\n")[4][:10], "      -inf"), "are not three coordinates"),
    ("sdf", WATER.replace("  3  2", " -3  2"), "cannot read the atom and bond lines"),
    ("sdf", WATER.replace("  3  2", "999  2"), "cannot read|is not|are not"),
    (
        "sdf",
        block("C", "x").replace("\n".join(block("C", "x").split("\n")[5:6]), block("C", "x").split("\n")[6]),
        "closer than",
    ),
    ("sdf", WATER + ">  <mu>\n1\n\n>  <mu>\n2\n\n$$$$\n", "the data field 'mu' occurs twice"),
    (
        "sdf",
        WATER + ">  <mu [D]>\n1.8\n\n$$$$\n" + METHANE + ">  <mu [D]>\nzero\n\n$$$$\n",
        r"mu \[D\]: 'zero' is not a number",
    ),
    ("sdf", WATER + f">  <mu [D]>\n{HUGE}\n\n$$$$\n", r"mu \[D\]: '9+' is not a finite number"),
    ("extxyz", b"", "a.extxyz is empty"),
    ("extxyz", b"PK\x03\x04" + b"\0" * 99, "not a text file"),
    ("extxyz", "many\n\n", "frame 1 .line 1..: expected the number of atoms, found 'many'"),
    ("extxyz", "-3\n\nH 0 0 0\n", "a frame of -3 atoms"),
    ("extxyz", "999999999999\n\nH 0 0 0\n", "a frame of 999999999999 atoms"),
    ("extxyz", HUGE + "\n\nH 0 0 0\n", "expected the number of atoms, found '9999"),
    ("extxyz", "3\n\nH 0 0 0\n", "the frame has 3 atoms, but the file ends after 1"),
    ("extxyz", "1\n\nQq 0 0 0\n", "atom 1: 'Qq' is not the symbol"),
    ("extxyz", "1\n\nH 0 0 nan\n", "atom 1 has a coordinate that is not a finite number"),
    ("extxyz", "1\n\nH 0 0 " + HUGE + "\n", "atom 1 has a coordinate that is not a finite number"),
    ("extxyz", "1\n\nH 0 x 0\n", "'0 x 0' are not three numbers"),
    ("extxyz", "2\n\nH 0 0 0\nH 0 0 0\n", "closer than 0.3"),
    ("extxyz", "1\nProperties=species:S\nH 0 0 0\n", "does not name the columns"),
    ("extxyz", '1\nLattice="1 0 0 0 1 0 0 0 1"\nH 0 0 0\n', "a periodic structure"),
    ("extxyz", "1\nE_1=1 E_1=2\nH 0 0 0\n", "the entry 'E_1' occurs twice"),
    ("extxyz", "1\ncharge=lots\nH 0 0 0\n", "charge=lots is not a number"),
    ("extxyz", "1\ncharge=-1e18\nC 0 0 0\n", "charge -1e.18 is more than the nuclear charge"),
    ("extxyz", "2\n\nC 100000 0 0\nC 0 0 0\n", "atom 1 is at 100000 0 0"),
    ("csv", "smiles\n[#999]\n", "Atomic number not found"),
    ("csv", f"smiles,a{' ' * 100_000}b\nC,1\n", "no unit is stated for 'a "),
    ("csv", f"smiles,{'(' * 100_000}b\nC,1\n", "no unit is stated for '"),
    ("csv", b"", "a.csv is empty"),
    ("csv", "name,formula\nx,H2O\n", "no column 'smiles'"),
    ("csv", "smiles,smiles\nC,C\n", "the column 'smiles' occurs twice"),
    ("csv", "smiles\n", "holds no molecules"),
    ("csv", 'smiles\n"C\n', "broken CSV"),
    ("csv", "smiles\nC1CC\n", "unreadable SMILES"),
    ("csv", "smiles,gap [eV]\nC,1,2,3\n", "the row has 4 cells, the header 2"),
    ("csv", "smiles,gap [eV]\nC,inf\n", "'inf' is not a finite number"),
    ("csv", "smiles,gap [eV]\nC,1\nCC,1e999\n", "'1e999' is not a finite number"),
    ("csv", "smiles,gap [eV]\nC," + HUGE + "\n", "not a finite number|field larger than field limit"),
    ("csv", "smiles\n" + "C" * 5000 + "\n", "SMILES .*: 15002 atoms are more than the 400"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD, ids=[f"{b[0]}-{b[2][:30]}" for b in BAD])
def test_malformed_and_hostile_files_give_one_clear_line(tmp_path, name, content, message, capfd):
    raw = tmp_path / f"a.{name}"
    raw.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        prepare(name, raw, tmp_path / "a.arrow", on_error="raise", show=False)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 600
    assert "a." + name in said or "record" in said or "frame" in said or "line" in said
    assert not (tmp_path / "a.arrow").exists()
    assert capfd.readouterr() == ("", "")


def test_the_reason_of_a_single_bad_record_is_given_in_full(tmp_path):
    with pytest.raises(
        InputError, match=r"frame 1 \(line 1\): atom 1: 'D' is not .* isotopes are not supported"
    ):
        made("extxyz", tmp_path, "1\n\nD 0 0 0\n")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real subsets are not here")
def test_the_92_molecules_of_qm9(tmp_path):
    options = {"properties": "U0,R2", "unit.U0": "Hartree", "unit.R2": "a0^2"}
    out = tmp_path / "a.arrow"
    report = prepare("extxyz", SHARED / "qm9/qm9_92.extxyz", out, options=options, show=False)
    assert report.tally.rows == 92
    assert Store(out).column("U0")[:3].tolist() == [-40.47893, -56.525887, -76.404702]
    assert Store(out).column("R2")[0] == 35.3641
