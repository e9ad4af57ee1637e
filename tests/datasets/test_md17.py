"""MD17 and rMD17 files in exactly the published layouts, made here; the labels are never mixed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molspectra.data.store.store import Store
from molspectra.datasets.prepare import prepare
from molspectra.datasets.published.md17 import MD17, RMD17
from molspectra.datasets.published.trajectory import check_labels, total_energy
from molspectra.errors import FormatError, InputError, MismatchError, NotFoundError, SettingError, UnitError

SHARED = Path(__file__).parents[2] / "../shared/data/md17"
ETHANOL = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
START = np.array(
    [
        [-1.17, -0.40, 0.0],
        [0.0, 0.56, 0.0],
        [1.19, -0.21, 0.0],
        [-2.12, 0.14, 0.0],
        [-1.13, -1.04, 0.89],
        [-1.13, -1.04, -0.89],
        [-0.05, 1.20, 0.89],
        [-0.05, 1.20, -0.89],
        [1.93, 0.40, 0.0],
    ]
)
FIELDS = ("R", "E", "F")


def frames(count, seed=0, drift=0.0):
    rng = np.random.default_rng(seed)
    return {
        "R": START + rng.normal(0, 0.03, (count, 9, 3)) + drift * np.arange(count)[:, None, None],
        "E": -97196.0 + rng.normal(0, 4, count),
        "F": rng.normal(0, 26, (count, 9, 3)),
    }


def md17(path, count=30, column=True, **changes):
    """As sGDML publishes it: numbers as uint8, energies [T, 1], further entries of text."""
    made = frames(count)
    content = {
        "name": np.array(b"ethanol"),
        "theory": np.array(b"unknown"),
        "type": np.array(b"d"),
        "md5": np.array(b"0" * 32),
        "z": ETHANOL.astype(np.uint8),
        **made,
        "E": made["E"][:, None] if column else made["E"],
    } | changes
    np.savez_compressed(path, **{key: value for key, value in content.items() if value is not None})
    return path


def rmd17(path, count=30, **changes):
    """As published on figshare: old labels and indices beside the new ones."""
    made = frames(count)
    content = {
        "nuclear_charges": ETHANOL.astype(np.uint8),
        "coords": made["R"],
        "energies": made["E"] + 120.0,
        "forces": made["F"] + 0.5,
        "old_indices": np.arange(count) * 5 + 7,
        "old_energies": made["E"],
        "old_forces": made["F"],
    } | changes
    np.savez_compressed(path, **content)
    return path


def made_store(importer, raw, tmp_path, **options):
    report = prepare(importer, raw, tmp_path / "out.arrow", options=options, show=False, overwrite=True)
    return Store(tmp_path / "out.arrow"), report


@pytest.mark.parametrize("column", [True, False])
def test_md17(tmp_path, column):
    store, report = made_store(MD17, md17(tmp_path / "md17_ethanol.npz", column=column), tmp_path)
    made = frames(30)
    assert len(store) == 30
    assert store.metadata.properties["energy"].unit == "kcal/mol"
    assert store.metadata.forces.unit == "kcal/mol/Å"
    assert store.metadata.forces.level == store.metadata.properties["energy"].level == "PBE+vdW-TS (MD17)"
    assert store.column("energy") == pytest.approx(made["E"], abs=1e-9)
    assert set(store.identities) == {"LFQSCWFLJHTTHZ"}
    row = store.row(17)
    assert row.molecule.name == "ethanol frame 17"
    assert row.forces == pytest.approx(made["F"][17].astype(np.float32), abs=0)
    centred = made["R"][17] - made["R"][17].mean(0)
    assert row.molecule.positions == pytest.approx(centred, abs=1e-6)
    assert report.expected == 555_092  # the published file has more frames than this one, which is told


def test_rmd17_names_the_original_frames_and_takes_the_new_labels(tmp_path):
    store, _ = made_store(RMD17, rmd17(tmp_path / "rmd17_ethanol.npz"), tmp_path)
    made = frames(30)
    assert store.column("energy") == pytest.approx(made["E"] + 120.0, abs=1e-9)
    assert store.row(3).forces == pytest.approx(made["F"][3] + 0.5, abs=1e-4)
    assert store.molecule(3).name == "ethanol frame 22"
    assert store.metadata.forces.level == "PBE/def2-SVP (rMD17)"
    assert store.metadata.licence == "CC0"


def test_each_importer_refuses_the_others_files(tmp_path):
    with pytest.raises(MismatchError, match="file of rMD17; prepare it with the dataset 'rmd17'"):
        MD17.open(rmd17(tmp_path / "rmd17_ethanol.npz"), {})
    with pytest.raises(MismatchError, match="file of MD17; prepare it with the dataset 'md17'"):
        RMD17.open(md17(tmp_path / "md17_ethanol.npz"), {})


def test_both_sets_in_one_file_need_a_choice(tmp_path):
    made = frames(30)
    more = {"E_revised": made["E"] + 120.0, "F_revised": made["F"] * 1.01, "frame": np.arange(30) * 11}
    path = md17(tmp_path / "md17_ethanol.npz", **more)
    with pytest.raises(SettingError, match=r"labels=original or labels=revised"):
        MD17.open(path, {})
    with pytest.raises(MismatchError, match="--option labels=revised"):
        RMD17.open(path, {})
    with pytest.raises(SettingError, match="did you mean 'revised'"):
        MD17.open(path, {"labels": "revise"})
    original, _ = made_store(MD17, path, tmp_path, labels="original")
    assert original.column("energy") == pytest.approx(made["E"], abs=1e-9)
    assert original.metadata.forces.level == "PBE+vdW-TS (MD17)"
    revised, _ = made_store(MD17, path, tmp_path, labels="revised")
    assert revised.column("energy") == pytest.approx(made["E"] + 120.0, abs=1e-9)
    assert revised.metadata.forces.level == "PBE/def2-SVP (rMD17)"
    assert revised.row(2).forces == pytest.approx(made["F"][2] * 1.01, abs=1e-4)
    assert revised.molecule(2).name == "ethanol frame 22"


def test_revised_labels_are_not_made_up(tmp_path):
    with pytest.raises(MismatchError, match="only the original labels"):
        MD17.open(md17(tmp_path / "md17_ethanol.npz"), {"labels": "revised"})


def test_frames_start_anywhere_and_span_chunks(tmp_path, monkeypatch):
    path = md17(tmp_path / "md17_ethanol.npz", count=50)
    whole = [each.make().molecule.positions for each in MD17.open(path, {}).candidates(0)]
    monkeypatch.setattr("molspectra.datasets.published.md17._CHUNK_BYTES", 7 * 24 * 9)
    for start in (0, 13, 49, 50):
        part = list(MD17.open(path, {}).candidates(start))
        assert [each.name for each in part] == [f"ethanol frame {k}" for k in range(start, 50)]
        assert all(
            np.array_equal(a.make().molecule.positions, b) for a, b in zip(part, whole[start:], strict=True)
        )


def test_arrays_in_fortran_order(tmp_path):
    made = frames(30)
    path = md17(tmp_path / "md17_ethanol.npz", R=np.asfortranarray(made["R"]), F=np.asfortranarray(made["F"]))
    row = list(MD17.open(path, {}).candidates(11))[3].make()
    assert row.forces == pytest.approx(made["F"][14], abs=0)
    assert row.molecule.positions == pytest.approx(made["R"][14] - made["R"][14].mean(0), abs=1e-12)


def test_a_drifting_trajectory_keeps_its_accuracy(tmp_path):
    drifting = frames(30, drift=100.0)["R"]
    store, _ = made_store(MD17, md17(tmp_path / "md17_ethanol.npz", R=drifting), tmp_path)
    stored = store.molecule(29).positions
    distances = np.linalg.norm(stored[:, None] - stored, axis=-1)
    true = np.linalg.norm(drifting[29][:, None] - drifting[29], axis=-1)
    assert distances == pytest.approx(true, abs=1e-6)


def test_a_bad_frame_is_named_and_kept_out(tmp_path):
    made = frames(30)
    made["F"][4, 2, 1] = np.nan
    made["E"][9] = np.inf
    made["R"][21, 0] = made["R"][21, 1]
    store, report = made_store(MD17, md17(tmp_path / "md17_ethanol.npz", **made), tmp_path)
    assert len(store) == 27
    assert {each["name"] for each in report.named} == {f"ethanol frame {k}" for k in (4, 9, 21)}
    assert store.molecule(26).name == "ethanol frame 29"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"E": frames(30)["E"] / 627.5095}, "energies seem to be in Hartree"),
        ({"E": frames(30)["E"] / 23.0605}, "energies seem to be in eV"),
        ({"E": frames(30)["E"] * 4.184}, "energies seem to be in kJ/mol"),
        ({"F": frames(30)["F"] / 23.0605}, "seem to be in eV/Å"),
        ({"F": frames(30)["F"] / 1185.82}, "seem to be in Hartree/bohr"),
        ({"F": frames(30)["F"] * 4184}, "convert them first"),
        ({"R": frames(30)["R"] / 0.529177}, "in bohr"),
        ({"F": frames(29)["F"]}, r"'F' is float64 \(29, 9, 3\), which does not fit 30 frames"),
        ({"F": frames(30)["F"][:, :8]}, "'F' is float64"),
        ({"E": np.zeros((30, 2))}, r"'E' is float64 \(30, 2\)"),
        ({"frame": np.zeros((30, 2), int)}, r"'frame' is int64 \(30, 2\), which does not fit 30"),
        ({"frame": np.array(["a"] * 30)}, "'frame' is <U1"),
        ({"frame": np.full(30, np.nan)}, "'frame' holds a value that is not a finite number"),
        ({"E": np.zeros(30, np.int64)}, "'E' is int64"),
        ({"E": None}, "no array 'E'"),
        ({"R": frames(30)["R"][:, :, :2]}, "'R'"),
        ({"z": np.array([6, 6, 8, 1, 1, 1, 1, 1, 200])}, "atomic number 200"),
        ({"z": ETHANOL[None]}, "'z' must be a list"),
        ({"z": np.array([], np.int64)}, "'z' must be a list"),
        ({"R": np.empty((0, 9, 3)), "E": np.empty((0, 1)), "F": np.empty((0, 9, 3))}, "no frames"),
        ({"E": np.full((30, 1), None)}, "pickled"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, words):
    path = md17(tmp_path / "md17_ethanol.npz", **change)
    with pytest.raises(InputError, match=words) as error:
        MD17.open(path, {})
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)


def test_a_cut_file_is_refused(tmp_path):
    path = md17(tmp_path / "md17_ethanol.npz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"not an \.npz file"):
        MD17.open(path, {})


def test_folder_with_several_molecules(tmp_path):
    inside = tmp_path / "npz_data"
    inside.mkdir()
    rmd17(inside / "rmd17_ethanol.npz")
    assert RMD17.open(tmp_path, {}).metadata.notes["molecule"] == "ethanol"
    rmd17(inside / "rmd17_aspirin.npz")
    with pytest.raises(SettingError, match=r"molecule=..., one of: aspirin, ethanol"):
        RMD17.open(tmp_path, {})
    assert RMD17.open(tmp_path, {"molecule": "ethanol"}).metadata.notes["molecule"] == "ethanol"
    with pytest.raises(NotFoundError, match=r"no file rmd17_uracil\.npz"):
        RMD17.open(tmp_path, {"molecule": "uracil"})
    with pytest.raises(NotFoundError, match=r"no file md17_<molecule>\.npz"):
        MD17.open(tmp_path, {})


def test_benzene_is_called_so_although_its_file_is_not(tmp_path):
    md17(tmp_path / "md17_benzene2017.npz", 12)
    opened = MD17.open(tmp_path, {"molecule": "benzene"})
    assert opened.expected == 627_983
    assert next(opened.candidates(3)).name == "benzene frame 3"


def test_energies_that_are_all_missing(tmp_path):
    """No warning of numpy, and every frame is named."""
    path = md17(tmp_path / "md17_ethanol.npz", 5, E=np.full(5, np.nan))
    with pytest.raises(FormatError, match="none of 5 records is good"):
        prepare("md17", path, tmp_path / "e.arrow", show=False)


def test_the_packed_release_has_to_be_unpacked(tmp_path):
    (tmp_path / "rmd17.tar.bz2").write_bytes(b"BZh9")
    with pytest.raises(FormatError, match="unpack this archive first"):
        RMD17.open(tmp_path / "rmd17.tar.bz2", {})
    with pytest.raises(NotFoundError, match="unpack archives first"):
        RMD17.open(tmp_path, {})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([1, 6, 7, 8, 9, 16, 17]), min_size=2, max_size=30), st.floats(-0.1, 0.1))
def test_total_energies_are_recognised_in_any_unit(numbers, error):
    numbers = np.array(numbers)
    atoms = {1: -0.5, 6: -37.8, 7: -54.6, 8: -75.1, 9: -99.7, 16: -398.1, 17: -460.1}  # exact, Hartree
    exact = sum(atoms[number] for number in numbers.tolist())
    assert total_energy(numbers) == pytest.approx(exact, rel=0.21)
    rng = np.random.default_rng(0)
    labels = {"positions": np.zeros((3, len(numbers), 3)), "forces": rng.normal(0, 25, (3, len(numbers), 3))}
    check_labels(numbers, energies=np.full(3, exact * 627.51 * (1 + error)), **labels)
    for unit, factor in {"Hartree": 1.0, "eV": 27.211}.items():
        with pytest.raises(UnitError, match=re.escape(f"seem to be in {unit};")):
            check_labels(numbers, energies=np.full(3, exact * factor * (1 + error)), **labels)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared subset of MD17 is not there")
@pytest.mark.parametrize(
    ("molecule", "identity"),
    [("aspirin", "BSYNRYMUTXBXSQ"), ("benzene", "UHOVQNZJYSORNB"), ("malonaldehyde", "WSMYVTOQOOLQHP")],
)
def test_the_shared_subset(tmp_path, molecule, identity):
    options = {"molecule": molecule, "labels": "revised"}
    report = prepare(MD17, SHARED, tmp_path / "out.arrow", options=options, limit=300, show=False)
    store = Store(tmp_path / "out.arrow")
    with np.load(SHARED / f"md17_{molecule}.npz") as raw:
        assert report.total == len(raw["R"]) == 2000
        assert store.column("energy") == pytest.approx(raw["E_revised"].ravel()[:300], abs=1e-9)
        assert store.molecule(5).name == f"{molecule} frame {raw['frame'][5]}"
    assert len(store) == 300
    assert set(store.identities) == {identity}
    assert report.expected is None
    saved = json.loads((tmp_path / "out.arrow.report.json").read_text(encoding="utf-8"))
    assert saved["options"] == options
