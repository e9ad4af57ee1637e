import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from molspectra.data.store.store import Store
from molspectra.datasets.own.npz import NPZ
from molspectra.datasets.prepare import prepare
from molspectra.errors import FormatError, InputError, ValueRangeError
from molspectra.spectra.modality import IR

SHARED = Path(__file__).resolve().parents[3] / "shared/data/qm9"

WATER = ([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
METHANE = (
    [6, 1, 1, 1, 1],
    [[0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [-0.63, 0.63, -0.63], [0.63, -0.63, -0.63]],
)


def arrays(**changes):
    """The arrays of two molecules with everything that the layout knows; None leaves an array out."""
    z, pos = np.concatenate([WATER[0], METHANE[0]]), np.concatenate([WATER[1], METHANE[1]])
    found = {
        "n_atoms": np.array([3, 5], np.uint8),
        "z": z.astype(np.uint8),
        "pos": pos.astype(np.float32),
        "name": np.array(["water", "methane"]),
        "props": np.array([[1.8, np.nan], [0.0, 0.5]]),
        "prop_names": np.array(["mu", "gap"]),
        "prop_units": np.array(["Debye", "Hartree"]),
        "n_modes": np.array([3, 2], np.int16),
        "wavenumber": np.array([3700, 1600, 3800, 1300, 3000], np.float32),
        "ir": np.array([5, 70, 50, 0, 0], np.float32),
        "raman": np.array([1, 2, 3, 4, 5], np.float32),
        "forces": np.arange(24.0).reshape(8, 3),
    }
    found.update(changes)
    return {key: value for key, value in found.items() if value is not None}


def saved(path, **changes):
    np.savez_compressed(path, **arrays(**changes))
    return path


def test_everything_that_the_layout_knows(tmp_path):
    options = {"forces": "forces", "unit.forces": "kcal/mol/Å", "level": "B3LYP", "spectra_level": "GFN2-xTB"}
    report = prepare("npz", saved(tmp_path / "a.npz"), tmp_path / "a.arrow", options=options, show=False)
    store = Store(tmp_path / "a.arrow")
    assert len(store) == report.tally.rows == 2
    assert [store.molecule(i).name for i in (0, 1)] == ["water", "methane"]
    assert [store.molecule(i).formula for i in (0, 1)] == ["H2O", "CH4"]
    assert np.allclose(store.molecule(1).positions, METHANE[1])
    assert {name: each.unit for name, each in store.metadata.properties.items()} == {
        "mu": "D",
        "gap": "Hartree",
    }
    assert np.allclose(store.column("mu"), [1.8, 0.0])
    assert np.isnan(store.column("gap")[0])
    assert store.column("gap")[1] == 0.5
    lines = store.spectrum(0, "ir")
    assert lines.position.tolist() == [1600, 3700, 3800]
    assert lines.intensity.tolist() == [70, 5, 50]
    assert store.metadata.lines == {"ir": "GFN2-xTB", "raman": "GFN2-xTB"}
    assert store.spectrum(1, "ir") is None
    assert store.spectrum(1, "raman").intensity.tolist() == [4, 5]
    assert report.tally.left_out == {"ir: all intensities are zero": 1}
    assert np.allclose(
        store.batch([1], targets=["forces"]).targets["forces"], np.arange(9.0, 24.0).reshape(5, 3)
    )
    assert store.metadata.forces.unit == "kcal/mol/Å"


def test_reading_from_the_middle_gives_the_same_rows(tmp_path):
    opened = NPZ.open(saved(tmp_path / "a.npz"), {})
    whole = [candidate.make() for candidate in opened.candidates(0)]
    (second,) = [candidate.make() for candidate in opened.candidates(1)]
    assert second.molecule.name == whole[1].molecule.name == "methane"
    assert np.array_equal(second.molecule.positions, whole[1].molecule.positions)
    assert np.array_equal(second.spectra["raman"].position, whole[1].spectra["raman"].position)


def test_bohr_samples_charges_and_columns(tmp_path):
    pos = arrays()["pos"] / 0.529177210903
    path = saved(
        tmp_path / "a.npz",
        pos=pos,
        charge=np.array([0, 1]),
        dipole=np.array([1.0, 2.0]),
        ir_samples=np.stack([np.ones(3501), np.full(3501, -1.0)]),
        ir_axis=IR.axis(),
        n_modes=None,
        prop_units=None,
        props=None,
        prop_names=None,
    )
    rows = list(NPZ.open(path, {"positions": "bohr", "unit.dipole": "D"}).candidates(0))
    water, methane = (candidate.make() for candidate in rows)
    assert np.abs(water.molecule.positions - WATER[1]).max() < 1e-6
    assert (methane.molecule.charge, dict(methane.properties)) == (1, {"dipole": 2.0})
    assert water.spectra["ir"].values.sum() == 3501
    assert "negative" in methane.left_out["ir"]


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"pos": None}, {}, "has no array pos; it has: n_atoms, z, name"),
        (
            {"n_atoms": None, "pos": None, "R": np.zeros(3), "E": np.zeros(3)},
            {},
            "trajectory, see the dataset md17",
        ),
        ({"n_atoms": np.array([3, -5])}, {}, "'n_atoms' has a negative count"),
        ({"n_atoms": np.array([3, 6])}, {}, "'n_atoms' adds up to 9, but 'z' has 8 rows"),
        (
            {"n_atoms": np.array([2**63, 2**63], np.uint64)},
            {},
            "adds up to 18446744073709551616, but 'z' has 8",
        ),
        ({"n_atoms": np.array([3.0, 5.0])}, {}, "'n_atoms' must not be of type float64"),
        ({"n_atoms": np.array(8)}, {}, "'n_atoms' is a single value"),
        ({"z": np.array(["O"] * 8)}, {}, "'z' must not be of type"),
        ({"pos": np.zeros((8, 2))}, {}, r"'pos' has rows of shape \(2,\), not \(3,\)"),
        ({"pos": np.asfortranarray(np.zeros((8, 3)))}, {}, "Fortran order"),
        ({"pos": np.zeros((7, 3))}, {}, "but 'pos' has 7 rows"),
        (
            {"name": np.array(["water", None], object)},
            {},
            "'name' holds pickled Python objects, which are not read",
        ),
        ({"name": np.array(["water"])}, {}, "'name' has 1 rows for 2 molecules"),
        ({"net_charge": np.array([0, 1])}, {}, "rename 'net_charge' to 'charge'"),
        ({"prop_names": None}, {}, "'props' needs 'prop_names'"),
        ({"prop_names": np.array(["mu"])}, {}, r"shape \(2, 1\)"),
        ({"prop_names": np.array(["mu", "mu"])}, {}, "named twice"),
        ({"prop_units": np.array(["D"])}, {}, "2 'prop_names' but 1 'prop_units'"),
        ({"prop_units": None}, {"unit.mu": "D"}, "no unit is stated for 'gap'; give --option unit.gap="),
        ({"prop_units": np.array(["D", "hartree"])}, {}, "unknown unit 'hartree'; did you mean 'Hartree'"),
        ({}, {"unit.gap": "eV"}, "'gap' is in 'Hartree', not in 'eV'"),
        ({}, {"unit.gapp": "eV"}, "no numeric column 'gapp'.*did you mean 'gap'"),
        ({}, {"properties": "homo"}, "no numeric column 'homo'"),
        ({}, {"positions": "nm"}, "option positions='nm'"),
        ({}, {"forces": "F"}, "has no array 'F'"),
        ({}, {"forces": "forces"}, "no unit is stated for the forces"),
        ({"wavenumber": None}, {}, "'n_modes' needs 'wavenumber'"),
        ({"ir": np.zeros(4)}, {}, "'n_modes' adds up to 5, but 'ir' has 4 rows"),
        ({"ir_samples": np.zeros((2, 3501)), "n_modes": None}, {}, "ir_samples needs ir_axis"),
        ({"ir_samples": np.zeros((2, 3500)), "n_modes": None}, {}, "'ir_samples' has rows of shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, options, message):
    with pytest.raises(InputError, match=message) as caught:
        NPZ.open(saved(tmp_path / "a.npz", **changes), options)
    assert "a.npz" in str(caught.value) or "option" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z": np.array([8, 1, 1, 6, 1, 1, 0, 1])}, "atom 4 has atomic number 0"),
        (
            {"pos": np.where(np.arange(24).reshape(8, 3) == 12, np.nan, arrays()["pos"])},
            "not a finite number",
        ),
        ({"pos": arrays()["pos"] * (np.arange(8) < 3)[:, None]}, "closer than"),
        ({"props": np.array([[1, 1], [np.inf, 1]])}, "property 'mu' is inf"),
    ],
)
def test_a_bad_molecule_is_named_and_the_others_stay(tmp_path, changes, message):
    saved(tmp_path / "a.npz", **changes)
    report = prepare("npz", tmp_path / "a.npz", tmp_path / "a.arrow", show=False)
    assert report.tally.rows == 1
    ((name, reason),) = [(each["name"], each["reason"]) for each in report.named]
    assert name == "record 1 (methane)"
    assert message in reason


def member(path, name, data):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return path


def header(shape, dtype="|u1"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an .npz file"),
        (b"\x93NUMPY\x01\x00", "not an .npz file"),
        (np.random.default_rng(0).bytes(5000), "not an .npz file"),
        (None, "directory"),
    ],
)
def test_files_that_are_no_archives(tmp_path, content, message):
    path = tmp_path / "a.npz"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        NPZ.open(path, {})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"junk", "cannot be read"),
        (b"\x93NUMPY\x09\x00", "npy version"),
        (b"\x93NUMPY\x01\x00\xff\xff{'descr'", "cannot be read"),
        (header("(2,)", "|O"), "pickled"),
        (header("(2,)", "|V8"), "not of numbers"),
        (header("(2,)", "<U0"), "0 bytes"),
        (header("(2, 999999999999)"), "takes 999999999999 bytes"),
        (header("(-2,)"), "negative size"),
        (header("__import__('os').system('false')"), "cannot be read"),
    ],
)
def test_hostile_headers(tmp_path, data, message):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(saved(path, n_atoms=None), "a") as archive:
        archive.writestr("n_atoms.npy", data)
    with pytest.raises(InputError, match=message):
        NPZ.open(path, {})


def test_a_cut_archive_and_a_short_array(tmp_path):
    whole = saved(tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut.npz: not an .npz file"):
        NPZ.open(tmp_path / "cut.npz", {})
    buffer = io.BytesIO()
    np.save(buffer, arrays()["pos"])
    with zipfile.ZipFile(saved(tmp_path / "b.npz", pos=None), "a") as archive:
        archive.writestr("pos.npy", buffer.getvalue()[:-12])
    candidates = NPZ.open(tmp_path / "b.npz", {}).candidates(0)
    assert next(candidates).make().molecule.name == "water"
    with pytest.raises(InputError, match=r"b.npz: array 'pos' ends before its 8 rows do"):
        next(candidates)


def test_a_zip_bomb_is_not_unpacked_into_memory(tmp_path):
    # one molecule of 9 million atoms: 117 MB of arrays in an archive of less than one
    atoms = 9_000_000
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        buffer = io.BytesIO()
        np.save(buffer, np.array([atoms]))
        archive.writestr("n_atoms.npy", buffer.getvalue())
        for name, shape, size in (("z", f"({atoms},)", 1), ("pos", f"({atoms}, 3)", 3)):
            with archive.open(f"{name}.npy", "w") as file:
                file.write(header(shape))
                for _ in range(30):
                    file.write(bytes(atoms // 30 * size))
    tracemalloc.start()
    try:
        (candidate,) = NPZ.open(path, {}).candidates(0)
        with pytest.raises(ValueRangeError, match="a structure of 9000000 atoms; at most 2000"):
            candidate.make()
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real subsets of QM9 are not here")
def test_the_subsets_of_qm9_open(tmp_path):
    opened = NPZ.open(SHARED / "qm9_labelled_18568.npz", {})
    assert (opened.total, opened.metadata.properties["U0"].unit) == (18568, "Hartree")
    first = next(opened.candidates(1)).make()
    assert (first.molecule.name, first.molecule.formula) == ("gdb_7", "C2H6")
    assert first.properties["U0"] == pytest.approx(-79.764152, abs=1e-9)
    lines = NPZ.open(SHARED / "qm9_vibrations_gfn2.npz", {"unit.dipole": "D"})
    row = next(lines.candidates(6136)).make()
    assert len(row.spectra["ir"]) == 3 * len(row.molecule) - 6


def test_arrays_that_are_nothing_are_named(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays(wide=np.ones((2, 1)), short=np.ones(3)))
    prepare("npz", path, tmp_path / "a.arrow", show=False)
    assert "other columns left out: 3: forces, wide, short" in (tmp_path / "a.arrow.report.txt").read_text()


def test_names_that_would_fill_the_memory(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **arrays(prop_names=np.array(["mu", "gap" + 3_000_000 * " x"])))
    with pytest.raises(FormatError, match="list of texts"):
        NPZ.open(path, {})
