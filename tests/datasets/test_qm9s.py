"""QM9S in its published files: tables, pickled list, folder of molecules; joins right and wrong."""

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qm9s_files import molecules, spectra_of, tables, write_folder, write_list, write_table, write_tables

from molspectra.chem.identity import identity_from_smiles
from molspectra.data.store.store import Store
from molspectra.datasets.prepare import prepare
from molspectra.datasets.published.qm9s import QM9S
from molspectra.datasets.published.qm9s_join import check_join, groups_of
from molspectra.datasets.published.qm9s_spectra import SpectrumTable
from molspectra.datasets.published.qm9s_structures import PickledStructures
from molspectra.errors import DamagedError, FormatError, InputError, MismatchError, NotFoundError, UnitError
from molspectra.spectra.modality import IR, UV_VIS

SHARED = Path(__file__).parents[3] / "shared/data/qm9/qm9_vibrations_gfn2.npz"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qm9s")
    write_tables(folder, tables())
    write_list(folder / "qm9s.pt", molecules())
    return folder


def linked(source: Path, target: Path, *left_out: str) -> Path:
    target.mkdir(exist_ok=True)
    for each in source.iterdir():
        if each.name not in left_out:
            (target / each.name).symlink_to(each)
    return target


def test_published_form(published: Path, tmp_path: Path) -> None:
    report = prepare("qm9s", published, tmp_path / "s.arrow", show=False)
    store = Store(tmp_path / "s.arrow")
    assert len(store) == len(molecules()) == report.tally.rows
    for row, expected in enumerate(molecules()):
        found = store.row(row)
        assert found.molecule.name == f"gdb_{expected.number}"
        assert found.molecule.smiles == expected.smiles
        np.testing.assert_array_equal(found.molecule.numbers, expected.z)
        np.testing.assert_allclose(found.molecule.positions, expected.pos, atol=1e-6)
        for name, values in spectra_of(expected, row).items():
            np.testing.assert_array_equal(found.spectra[name].values, values.astype(np.float32))
    assert store.identities == [identity_from_smiles(each.smiles) for each in molecules()]
    assert {"ir", "raman", "uv_vis"} == set(store.metadata.samples)
    assert "0.965" in store.metadata.samples["ir"]
    notes = report.remarks
    assert notes["one row later"].startswith("the spectra side with row i = entry i")
    assert notes["row number = QM9's number"].startswith("the spectra side with row i = entry i")


@pytest.mark.parametrize("old", [False, True])
def test_only_infrared_and_both_ages_of_the_list(published: Path, tmp_path: Path, old: bool) -> None:
    raw = linked(published, tmp_path / "raw", "qm9s.pt", "raman_boraden.csv", "uv_boraden.csv")
    write_list(raw / "qm9s.pt", molecules(), old=old)
    prepare("qm9s", raw, tmp_path / "s.arrow", options={"dtype": "float16"}, show=False)
    store = Store(tmp_path / "s.arrow")
    assert set(store.metadata.samples) == {"ir"}
    assert store.metadata.sample_dtype == "float16"
    expected = spectra_of(molecules()[5], 5)["ir"]
    found = store.spectrum(5, "ir")
    assert found is not None
    np.testing.assert_allclose(found.values, expected, rtol=1e-3, atol=1e-7)


def test_folder_of_molecules(published: Path, tmp_path: Path) -> None:
    raw = linked(published, tmp_path / "raw", "qm9s.pt", "uv_boraden.csv", "raman_boraden.csv")
    write_folder(raw / "qm9s_csv", molecules())
    report = prepare("qm9s", raw, tmp_path / "s.arrow", show=False)
    store = Store(tmp_path / "s.arrow")
    assert len(store) == len(molecules())
    assert store.row(9).molecule.name == f"gdb_{molecules()[9].number}"
    assert report.remarks["one row earlier"].startswith("the spectra side with row i")
    with zipfile.ZipFile(raw / "qm9s_csv.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for each in sorted((raw / "qm9s_csv").iterdir()):
            file.write(each, f"qm9s_csv/{each.name}")
    damaged = raw / "qm9s_csv" / "000004.csv"
    damaged.write_text("\n".join(damaged.read_text().splitlines()[:12]))
    report = prepare("qm9s", raw, tmp_path / "t.arrow", show=False)
    assert report.tally.rejected == {"#.csv belongs to molecule #, or is cut short": 1}
    (raw / "qm9s_csv").rename(raw / "unpacked")
    prepare("qm9s", raw, tmp_path / "u.arrow", show=False)
    assert Store(tmp_path / "u.arrow").identities == store.identities
    (raw / "qm9s_csv.zip").write_bytes((raw / "qm9s_csv.zip").read_bytes()[:-100])
    with pytest.raises(DamagedError, match="not a zip archive, or cut short"):
        QM9S.open(raw, {})


def test_identities_of_a_store_of_qm9(published: Path, tmp_path: Path) -> None:
    prepare("qm9s", published, tmp_path / "a.arrow", show=False)
    given = {"qm9": str(tmp_path / "a.arrow")}
    raw = linked(published, tmp_path / "raw", "qm9s.pt")
    write_list(raw / "qm9s.pt", [replace(each, smiles="C") for each in molecules()])
    prepare("qm9s", raw, tmp_path / "b.arrow", options=given, show=False)
    assert Store(tmp_path / "b.arrow").identities == Store(tmp_path / "a.arrow").identities
    prepare("qm9s", raw, tmp_path / "c.arrow", show=False)
    assert set(Store(tmp_path / "c.arrow").identities) == {identity_from_smiles("C")}


def by_number(values: np.ndarray) -> np.ndarray:
    """Rows as if a row's number were QM9's number: row k for the molecule with number k."""
    found = np.zeros((len(values), values.shape[1]))
    for entry, molecule in enumerate(molecules()):
        if molecule.number < len(values):
            found[molecule.number] = values[entry]
    found[found.sum(1) == 0] = values[0]
    return found


@pytest.mark.parametrize(
    "wrong",
    [lambda rows: np.roll(rows, 1, axis=0), lambda rows: np.roll(rows, -1, axis=0), by_number],
    ids=["later", "earlier", "by number"],
)
def test_wrong_joins_are_refused(
    published: Path, tmp_path: Path, wrong: Callable[[np.ndarray], np.ndarray]
) -> None:
    raw = linked(published, tmp_path / "raw", "ir_boraden.csv", "raman_boraden.csv", "uv_boraden.csv")
    write_tables(raw, {name: wrong(rows) for name, rows in tables().items()})
    with pytest.raises(MismatchError, match=r"do not belong together.*side with row i = entry i against"):
        QM9S.open(raw, {})


@pytest.mark.skipif(not SHARED.is_file(), reason="needs the simulated vibrations of QM9 molecules")
def test_join_of_real_molecules() -> None:
    """Simulated at another level (GFN2-xTB, frequencies as they are), the bands still tell the join."""
    with np.load(SHARED) as file:
        data, count = dict(file), 1500
    atoms, modes = (np.cumsum([0, *data[name].astype(int)]) for name in ("n_atoms", "n_modes"))

    @cache
    def groups(row: int) -> dict[str, bool]:
        part = slice(atoms[row], atoms[row + 1])
        return groups_of(data["z"][part], data["pos"][part])

    def spectra(row: int) -> dict[str, np.ndarray]:
        part = slice(modes[row], modes[row + 1])
        shapes = 6 / np.pi / ((IR.axis() - data["wavenumber"][part, None]) ** 2 + 36)
        return {name: data[name][part] @ shapes for name in ("ir", "raman")}

    joins = {"later": lambda row: row + 1 if row + 1 < count else None}
    assert "side with row i = entry i" in check_join(count, joins, groups, spectra)["later"]
    for shift in (1, -1):
        with pytest.raises(MismatchError, match="do not belong together"):
            check_join(count, joins, groups, lambda row, by=shift: spectra((row + by) % count))


def test_spare_and_missing_rows(published: Path, tmp_path: Path) -> None:
    one = linked(published, tmp_path / "one", "qm9s.pt")
    extra = replace(molecules()[0], number=9999, pos=molecules()[0].pos * 1.01)
    write_list(one / "qm9s.pt", [*molecules(), extra])
    report = prepare("qm9s", one, tmp_path / "s.arrow", show=False)
    assert report.tally.rejected == {"it has no row in the tables of spectra": 1}
    two = linked(published, tmp_path / "two", "raman_boraden.csv")
    write_table(two / "raman_boraden.csv", IR.axis(), tables(60)["raman"])
    with pytest.raises(MismatchError, match=r"numbers of rows differ: .*raman_boraden.csv 60"):
        QM9S.open(two, {})


def test_spectra_that_cannot_be_used_are_named(published: Path, tmp_path: Path) -> None:
    raw = linked(published, tmp_path / "raw", "uv_boraden.csv")
    values = tables()["uv_vis"]
    values[3], values[4, 7], values[5, 9], values[6, 2] = 0, -1e-3, np.nan, np.inf
    write_table(raw / "uv_boraden.csv", UV_VIS.axis(), values)
    text = (raw / "uv_boraden.csv").read_text().splitlines()
    text[9] = text[9].replace(",", ",x", 3)
    text[10] = text[10].rpartition(",")[0]
    (raw / "uv_boraden.csv").write_text("\n".join(text) + "\n")
    report = prepare("qm9s", raw, tmp_path / "s.arrow", show=False)
    assert report.tally.rows == len(molecules())
    assert report.tally.left_out == {
        "uv_vis: all samples are zero": 1,
        "uv_vis: a sample is negative": 1,
        "uv_vis: a sample is not a finite number": 2,
        "uv_vis: a sample that is no number": 1,
        "uv_vis: # samples instead of #": 1,
    }
    store = Store(tmp_path / "s.arrow")
    assert [store.spectrum(row, "uv_vis") is None for row in range(12)] == [
        row in (3, 4, 5, 6, 8, 9) for row in range(12)
    ]


@pytest.mark.parametrize(
    ("axis", "text"),
    [
        (np.linspace(1.5, 15.5, 701), "1.5 to 15.5 in 701 points"),
        (np.linspace(1.0, 15.0, 700), "1 to 15 in 700 points"),
        (np.linspace(1.0, 15.001, 701), "1 to 15.001 in 701 points"),
    ],
)
def test_other_axes_are_refused(tmp_path: Path, axis: np.ndarray, text: str) -> None:
    path = tmp_path / "uv_boraden.csv"
    write_table(path, axis, np.ones((3, len(axis))))
    with pytest.raises(UnitError, match=f"its axis is {text} eV, .* 1 to 15 in 701 points eV"):
        SpectrumTable(path, UV_VIS)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_any_row_of_a_table(tmp_path: Path, end: str) -> None:
    path, rows = tmp_path / "uv.csv", np.random.default_rng(1).random((230, 701))
    rows[100:200] = 0.0  # shorter lines
    write_table(path, np.arange(1.0, 15.01, 0.02), rows, end)
    table = SpectrumTable(path, UV_VIS)
    assert table.rows == 230
    for row in (0, 1, 57, 99, 100, 150, 199, 200, 228, 229):
        np.testing.assert_array_equal(table.spectrum(row), rows[row].astype(np.float32))
    for start in (0, 1, 100, 229):
        np.testing.assert_array_equal(list(table.spectra(start)), rows[start:].astype(np.float32))
    assert list(table.spectra(230)) == []
    with pytest.raises(DamagedError, match="row 230"):
        table.spectrum(230)


def test_any_row_beside_damaged_ones(tmp_path: Path) -> None:
    """Rows around a damaged one are the same numbers, wherever it is and whatever the damage."""
    path, rows = tmp_path / "uv.csv", np.random.default_rng(1).random((900, 701)) * 1e-3  # several blocks
    write_table(path, UV_VIS.axis(), rows)
    lines = path.read_bytes().splitlines()
    lines[1 + 5] += b",1"
    lines[1 + 600] = b"600,\xff" + lines[1 + 600].removeprefix(b"600,")
    lines[1 + 700] = b"700,\xff"
    path.write_bytes(b"\n".join(lines))
    table = SpectrumTable(path, UV_VIS)
    assert table.rows == 900
    bad = {5: "702 samples", 600: "no number", 700: "1 samples"}
    for row, samples in enumerate(table.spectra()):
        if row in bad:
            assert isinstance(samples, FormatError)
            assert bad[row] in str(samples)
            assert str(table.spectrum(row)) == str(samples)
        else:
            np.testing.assert_array_equal(samples, rows[row].astype(np.float32))


def test_damaged_tables(tmp_path: Path) -> None:
    path = tmp_path / "uv.csv"
    write_table(path, UV_VIS.axis(), np.random.default_rng(1).random((20, 701)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(DamagedError, match=r"uv.csv.*last row"):
        SpectrumTable(path, UV_VIS)
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:8] + lines[9:]))
    with pytest.raises(DamagedError, match=r"uv.csv: row 7 .*'8,"):
        list(SpectrumTable(path, UV_VIS).spectra())
    path.write_bytes(b"a" + whole)
    with pytest.raises(FormatError, match=r"uv.csv.*first line"):
        SpectrumTable(path, UV_VIS)
    path.write_bytes(b"")
    with pytest.raises(FormatError, match=r"uv.csv.*first line"):
        SpectrumTable(path, UV_VIS)


def test_interrupted_preparation_gives_the_same_store(published: Path, tmp_path: Path) -> None:
    prepare("qm9s", published, tmp_path / "a.arrow", part_records=20, show=False)
    importer = QM9S
    opened = importer.open(published, {})

    class Killed:
        name, title, files, options = QM9S.name, QM9S.title, QM9S.files, QM9S.options

        def open(self, raw: Path, options: Any) -> Any:
            def candidates(start: int) -> Iterator[Any]:
                for number, each in enumerate(opened.candidates(start)):
                    if number == 50:
                        raise KeyboardInterrupt
                    yield each

            return replace(opened, candidates=candidates)

    with pytest.raises(KeyboardInterrupt):
        prepare(Killed(), published, tmp_path / "b.arrow", part_records=20, show=False)
    report = prepare("qm9s", published, tmp_path / "b.arrow", part_records=20, show=False)
    assert report.resumed == 2
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()


def test_missing_files(tmp_path: Path, published: Path) -> None:
    with pytest.raises(NotFoundError, match="spectra"):
        QM9S.open(tmp_path, {})
    raw = linked(published, tmp_path / "raw", "qm9s.pt")
    with pytest.raises(NotFoundError, match="structures"):
        QM9S.open(raw, {})
    torch.save({"a": 1}, raw / "qm9s.pt")
    with pytest.raises(InputError, match="holds no list"):
        QM9S.open(raw, {})
    torch.save([1, 2], raw / "qm9s.pt")
    with pytest.raises(FormatError, match="entry 0 is no record of a molecule"):
        QM9S.open(raw, {})


@pytest.mark.parametrize("name", ["number", "z"])
def test_numbers_that_no_integer_holds(tmp_path: Path, name: str) -> None:
    entry = {"number": 1, "z": torch.tensor([1, 1]), "pos": torch.zeros(2, 3)}
    entry[name] = torch.tensor(float("inf")) if name == "number" else [2**80, 1]
    torch.save([entry], tmp_path / "qm9s.pt")
    with pytest.raises(FormatError, match="entry 0"):
        PickledStructures(tmp_path / "qm9s.pt")[0]
