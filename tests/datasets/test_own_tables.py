import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from molspectra.apps.cli import main
from molspectra.data.store.export import export_parquet
from molspectra.data.store.store import Store, write_store
from molspectra.datasets.own.parquet import PARQUET
from molspectra.datasets.own.shared import split_header
from molspectra.datasets.prepare import prepare
from molspectra.errors import FormatError, InputError
from molspectra.spectra.modality import UV_VIS

WATER = [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]
HYDROGEN = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]]


def table(**changes):
    columns = {
        "name": ["water", "hydrogen"],
        "numbers": [[8, 1, 1], [1, 1]],
        "positions": [WATER, HYDROGEN],
        "gap [eV]": [9.5, None],
        "ir_position": [[3700.0, 1600.0], None],
        "ir_intensity": [[5.0, 70.0], None],
        "uv_vis": [np.ones(701).tolist(), np.full(701, np.nan).tolist()],
        "note": ["wet", None],
    }
    columns.update(changes)
    return pa.table({name: values for name, values in columns.items() if values is not None})


def saved(tmp_path, **changes):
    path = tmp_path / "a.parquet"
    pq.write_table(table(**changes), path)
    return path


def test_structures_lines_samples_and_numbers(tmp_path):
    options = {"spectra_level": "made up", "level": "B3LYP"}
    report = prepare("parquet", saved(tmp_path), tmp_path / "a.arrow", options=options, show=False)
    store = Store(tmp_path / "a.arrow")
    assert [store.molecule(row).name for row in (0, 1)] == ["water", "hydrogen"]
    assert np.allclose(store.molecule(0).positions, WATER)
    assert np.allclose(store.column("gap"), [9.5, np.nan], equal_nan=True)
    assert store.spectrum(0, "ir").position.tolist() == [1600, 3700]
    assert store.spectrum(0, "ir").intensity.tolist() == [70, 5]
    assert store.spectrum(1, "ir") is None
    assert store.spectrum(0, "uv_vis").values.sum() == UV_VIS.points
    assert store.spectrum(1, "uv_vis") is None
    assert list(report.tally.left_out) == [
        "uv_vis: uv_vis samples contain a value that is not a finite number"
    ]
    assert store.metadata.lines == {"ir": "made up"}


def test_flat_positions_forces_charges_and_smiles(tmp_path):
    path = saved(
        tmp_path,
        positions=[np.ravel(WATER).tolist(), np.ravel(HYDROGEN).tolist()],
        F=[np.ones((3, 3)).tolist(), None],
        charge=[1, 0],
    )
    options = {"forces": "F", "unit.forces": "eV/Å"}
    prepare("parquet", path, tmp_path / "a.arrow", options=options, show=False)
    store = Store(tmp_path / "a.arrow")
    assert store.molecule(0).charge == 1
    assert store.has("forces").tolist() == [True, False]
    only_smiles = pa.table({"smiles": ["CCO", "C1C"], "logP": [0.1, 2.0]})
    pq.write_table(only_smiles, path)
    report = prepare("parquet", path, tmp_path / "b.arrow", options={"unit.logP": "1"}, show=False)
    assert Store(tmp_path / "b.arrow").molecule(0).formula == "C2H6O"
    assert Store(tmp_path / "b.arrow").metadata.level.startswith("one conformer")
    assert report.named[0]["reason"] == "unreadable SMILES 'C1C'"


def test_reading_from_the_middle_over_row_groups(tmp_path):
    path = tmp_path / "a.parquet"
    smiles = ["C" * (1 + i % 5) for i in range(700)]
    pq.write_table(pa.table({"smiles": smiles, "k [1]": np.arange(700.0)}), path, row_group_size=300)
    opened = PARQUET.open(path, {})
    assert opened.total == 700
    names = [candidate.name for candidate in opened.candidates(298)]
    assert names == [f"row {i}" for i in range(298, 700)]
    assert next(opened.candidates(601)).make().properties == {"k": 601.0}


def test_a_store_goes_to_parquet_and_back(tmp_path, metadata, make_row):
    rows = [make_row(i) for i in range(40)]
    write_store(tmp_path / "a.arrow", rows, metadata, chunk_rows=7)
    store = Store(tmp_path / "a.arrow")
    assert export_parquet(store, tmp_path / "a.parquet") == 40
    with pytest.raises(InputError, match="exists already"):
        export_parquet(store, tmp_path / "a.parquet")
    file = pq.ParquetFile(tmp_path / "a.parquet")
    facts = json.loads(file.schema_arrow.metadata[b"molspectra"])
    assert (facts["source"], facts["licence"]) == ("made up", "CC0-1.0")
    assert file.schema_arrow.field("gap").metadata[b"unit"] == b"eV"
    frame = file.read().to_pydict()
    assert frame["numbers"][3] == rows[3].molecule.numbers.tolist()
    options = {"unit.forces": "kcal/mol/Å"}
    prepare("parquet", tmp_path / "a.parquet", tmp_path / "b.arrow", options=options, show=False)
    again = Store(tmp_path / "b.arrow")
    assert (again.metadata.source, again.metadata.licence) == ("made up", "CC0-1.0")
    assert again.metadata.lines == metadata.lines
    assert again.metadata.samples == metadata.samples
    assert again.metadata.properties["gap"] == metadata.properties["gap"]
    assert again.identities == store.identities
    for i in range(40):
        one, two = store.row(i), again.row(i)
        assert one.molecule.geometry_id == two.molecule.geometry_id
        assert dict(one.properties) == dict(two.properties)
        assert (one.molecule.charge, one.molecule.name) == (two.molecule.charge, two.molecule.name)
        assert (one.forces is None) == (two.forces is None)
        assert one.forces is None or np.array_equal(one.forces, two.forces)
        lost = {
            name
            for name, each in one.spectra.items()
            if name not in two.spectra and name != "uv_vis" and len(each)
        }
        assert not lost
        for name, spectrum in two.spectra.items():
            kept = "values" if name == "uv_vis" else "intensity"
            assert np.array_equal(getattr(spectrum, kept), getattr(one.spectra[name], kept))


def test_the_command(tmp_path, metadata, make_row, capsys):
    write_store(tmp_path / "a.arrow", [make_row(3)], metadata)
    assert main(["export", str(tmp_path / "a.arrow"), "--out", str(tmp_path / "a.parquet")]) == 0
    assert capsys.readouterr().out == f"1 rows in {tmp_path / 'a.parquet'}\n"
    assert main(["export", str(tmp_path / "a.arrow"), "--out", str(tmp_path / "no/a.parquet")]) == 2
    assert "does not exist" in capsys.readouterr().err
    with (tmp_path / "a.arrow").open("r+b") as file:
        file.seek(-4000, 2)
        file.write(b"\x07" * 64)
    assert main(["export", str(tmp_path / "a.arrow"), "--out", str(tmp_path / "b.parquet")]) == 2
    assert not (tmp_path / "b.parquet").exists()


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"numbers": None, "positions": None}, {}, "neither a column smiles nor numbers and positions"),
        ({"numbers": None, "smiles": ["O", "C"]}, {}, "numbers and positions need each other"),
        ({"numbers": ["8 1 1", "1"]}, {}, "the column 'numbers' must hold lists, not string"),
        ({"name": [1, 2]}, {}, "the column 'name' must be text, not int64"),
        ({"charge": ["+", "-"]}, {}, "the column 'charge' must hold integers"),
        ({"total_charge": [0, 1]}, {}, "rename 'total_charge' to 'charge'"),
        ({"ir_intensity": None}, {}, "'ir_position' has no partner"),
        ({"uv_vis": [1.0, 2.0]}, {}, "the column 'uv_vis' must hold lists"),
        ({"homo": [1.0, 2.0]}, {}, "no unit is stated for 'homo'"),
        ({}, {"forces": "F"}, "has no column 'F'"),
        ({"forces": [[1.0], [2.0]]}, {}, "no unit is stated for the forces"),
        ({}, {"properties": "homo"}, "no numeric column 'homo'"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, changes, options, message):
    with pytest.raises(InputError, match=message) as caught:
        PARQUET.open(saved(tmp_path, **changes), options)
    assert "a.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numbers": [[8, 1, 1], [1, 200]]}, "atom 2 has atomic number 200"),
        ({"numbers": [[8, 1, 1], [1, -1]]}, "atom 2 has atomic number -1"),
        ({"numbers": [[8, 1, 1], []]}, "0 atoms but 6 coordinates"),
        ({"numbers": [[8, 1, 1], None]}, "0 atoms but 6 coordinates"),
        ({"numbers": [[8, 1, 1], [1, None]]}, "atomic numbers must be integers"),
        ({"numbers": [[8.0, 1.0, 1.0], [1.0, 1.0]]}, "atomic numbers must be integers"),
        ({"numbers": [[8, 1, 1], [1] * 5000]}, "a structure of 5000 atoms; at most 2000"),
        ({"positions": [WATER, HYDROGEN[:1]]}, "2 atoms but 3 coordinates"),
        ({"positions": [WATER, None]}, "positions: a number is missing"),
        ({"positions": [WATER, [[0.0, 0.0, None], [0.0, 0.0, 1.0]]]}, "positions: a number is missing"),
        ({"positions": [WATER, [[0.0, 0.0, 0.0]] * 2]}, "closer than"),
        ({"positions": [WATER, [[0.0, 0.0, 0.0], [0.0, 0.0, float("inf")]]]}, "not a finite number"),
        ({"positions": [["a"], ["b"]]}, "positions holds string, not numbers"),
        ({"gap [eV]": [1.0, float("inf")]}, "property 'gap' is inf"),
    ],
)
def test_bad_rows_are_named(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        prepare("parquet", saved(tmp_path, **changes), tmp_path / "a.arrow", on_error="raise", show=False)
    assert "row " in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ir_intensity": [[5.0], None]}, "ir: 2 positions but 1 intensities"),
        ({"ir_intensity": [[5.0, -1.0], None]}, "negative intensity"),
        ({"ir_intensity": [[0.0, 0.0], None]}, "ir: all intensities are zero"),
        ({"uv_vis": [[1.0] * 600, None]}, "uv_vis spectrum has 701 points, not 600"),
    ],
)
def test_bad_spectra_are_left_out_and_named(tmp_path, changes, reason):
    report = prepare("parquet", saved(tmp_path, **changes), tmp_path / "a.arrow", show=False)
    assert report.tally.rows == 2
    assert reason.split(": ", 1)[-1] in str(report.named)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(500) + b"PAR1", b"smiles,gap\nC,1\n" * 99])
def test_what_is_no_parquet(tmp_path, content):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"a.parquet: not a readable Parquet file") as caught:
        PARQUET.open(path, {})
    assert "\n" not in str(caught.value)


def test_a_damaged_page_ends_in_one_line(tmp_path):
    path = saved(tmp_path)
    data = bytearray(path.read_bytes())
    data[40:400] = bytes(360)
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.parquet") as caught:
        prepare("parquet", path, tmp_path / "a.arrow", show=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a.arrow").exists()


def test_importing_the_command_is_light():
    code = (
        "import sys, molspectra.apps.commands.export;"
        "assert not {'torch', 'pyarrow', 'rdkit'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


def test_columns_that_are_no_properties_are_named(tmp_path):
    path = saved(tmp_path, flag=[True, False], name=["water", None])
    prepare("parquet", path, tmp_path / "a.arrow", show=False)
    notes = Store(tmp_path / "a.arrow").metadata.notes
    assert notes["other_columns_left_out"] == "2: note, flag"
    assert "other columns left out: 2: note, flag" in (tmp_path / "a.arrow.report.txt").read_text()
    second = list(PARQUET.open(path, {}).candidates(0))[1]
    assert second.name == "row 1"


def test_a_long_header_is_split_in_linear_time():
    """The expression takes the square of the length: minutes for this one."""
    header = "a" + " /" * 50_000 + " b" + " " * 100_000 + "c"
    assert split_header(header) == (" ".join(header.split()), None)
    assert split_header("gap / eV") == ("gap", "eV")


def test_spectra_that_are_all_left_out_are_an_error(tmp_path, capsys):
    (tmp_path / "spectra").mkdir()
    points = "".join(f"{wavenumber},{wavenumber % 7}\n" for wavenumber in range(500, 4001, 10))
    for name in ("a", "b"):
        (tmp_path / "spectra" / f"{name}.ir.csv").write_text(points)
    (tmp_path / "m.csv").write_text("name,smiles,gap\na,C,1\nb,CC,2\n")
    command = ["prepare", "csv", "--raw", str(tmp_path / "m.csv"), "--out", str(tmp_path / "a.arrow")]
    command += ["--quiet", "--option", "unit.gap=eV", f"spectra={tmp_path / 'spectra'}"]
    assert main(command) == 2
    message = capsys.readouterr().err
    assert "all 2 spectra were left out" in message
    assert "spectra_unit=" in message
    assert not list(tmp_path.glob("a.arrow*"))
    assert main([*command, "spectra_unit=cm-1", "spectra_quantity=absorbance"]) == 0
    assert json.loads((tmp_path / "a.arrow.report.json").read_text())["tally"]["spectra"] == 2
