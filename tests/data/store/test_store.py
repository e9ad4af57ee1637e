import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch

from molspectra.data.store.store import Broadening, Metadata, Store, write_store
from molspectra.errors import InputError, MismatchError, NotFoundError
from molspectra.spectra.broadening import broaden
from molspectra.spectra.modality import IR
from molspectra.spectra.spectrum import LineSpectrum

N = 30


@pytest.fixture(scope="module")
def rows(make_row):
    return [make_row(i) for i in range(N)]


@pytest.fixture(scope="module", params=[7, 1000])
def store(request, tmp_path_factory, rows, metadata):
    path = tmp_path_factory.mktemp("store") / "store.arrow"
    write_store(path, rows, metadata, chunk_rows=request.param)
    return Store(path)


def test_structures_and_spectra_come_back(store, rows, metadata):
    assert len(store) == N
    assert store.metadata == metadata
    assert store.identities == [row.identity for row in rows]
    assert store.atom_counts.tolist() == [len(row.molecule) for row in rows]
    for i, row in enumerate(rows):
        found = store.molecule(i)
        assert found.numbers.tolist() == row.molecule.numbers.tolist()
        assert np.array_equal(found.positions, row.molecule.positions.astype(np.float32))
        for name in ("smiles", "name", "charge"):
            assert getattr(found, name) == getattr(row.molecule, name)
        for name in metadata.modalities:
            spectrum, given = store.spectrum(i, name), row.spectra.get(name)
            assert (spectrum is None) == (given is None)
            if isinstance(given, LineSpectrum):
                assert np.array_equal(spectrum.position, given.position.astype(np.float32))
                assert np.array_equal(spectrum.intensity, given.intensity.astype(np.float32))
                assert spectrum.level == "harmonic"
            elif given is not None:
                assert np.array_equal(spectrum.values, given.values.astype(np.float32))
                assert spectrum.source == "detector"


def test_batches_hold_what_the_rows_held(store, rows):
    chosen = [23, 4, 4, 0, 29, 17]
    names = ("raman", "uv_vis", "ir")
    batch = store.batch(chosen, modalities=names, targets=("gap", "U0", "forces"))
    assert len(batch) == len(chosen)
    assert batch.row.tolist() == chosen
    assert list(batch.spectra) == list(names)
    assert batch.edges is None
    for b, i in enumerate(chosen):
        row = rows[i]
        atoms = slice(int(batch.ptr[b]), int(batch.ptr[b + 1]))
        assert batch.numbers[atoms].tolist() == row.molecule.numbers.tolist()
        assert np.array_equal(batch.positions[atoms].numpy(), row.molecule.positions.astype(np.float32))
        assert batch.molecule[atoms].tolist() == [b] * len(row.molecule)
        assert int(batch.geometry_id[b]) == store.molecule(i).geometry_id
        for name in ("gap", "U0"):
            value, given = float(batch.targets[name][b]), row.properties.get(name)
            assert np.isnan(value) if given is None else value == given
        forces = batch.targets["forces"][atoms]
        assert (
            torch.equal(forces, torch.tensor(row.forces).float())
            if row.forces is not None
            else (forces.isnan().all())
        )
        for name in names:
            given = row.spectra.get(name)
            assert bool(batch.present[name][b]) == (given is not None)
            if given is None:
                expected = torch.zeros_like(batch.spectra[name][b])
            elif isinstance(given, LineSpectrum):
                expected = torch.tensor(given.broadened().values).float()
            else:
                expected = torch.tensor(given.values).float()
            peak = max(float(expected.max()), 1e-3)
            assert (batch.spectra[name][b] - expected).abs().max() < 2e-4 * peak
    for tensor in (batch.numbers, batch.ptr, batch.molecule, batch.row, batch.geometry_id):
        assert tensor.dtype == torch.int64
    assert batch.targets["gap"].dtype == torch.float64
    assert batch.positions.dtype == batch.spectra["ir"].dtype == torch.float32


def test_a_batch_does_not_depend_on_the_size_of_record_batches(tmp_path, rows, metadata):
    batches = []
    for chunk in (1, 13, 30):
        write_store(tmp_path / f"{chunk}.arrow", rows, metadata, chunk_rows=chunk)
        store = Store(tmp_path / f"{chunk}.arrow")
        batches.append(store.batch(range(N), modalities=("uv_vis",), targets=("gap", "forces")))
    for other in batches[1:]:
        for name in ("numbers", "positions", "ptr", "geometry_id"):
            assert torch.equal(getattr(other, name), getattr(batches[0], name))
        assert torch.equal(other.spectra["uv_vis"], batches[0].spectra["uv_vis"])
        assert torch.equal(other.targets["forces"].nan_to_num(), batches[0].targets["forces"].nan_to_num())


def test_width_shape_and_scale_are_passed_on(store):
    rows = [i for i in range(N) if store.spectrum(i, "ir") is not None][:3]
    options = Broadening("gaussian", 30.0, 0.965)
    batch = store.batch(rows, modalities=("ir",), broadening={"ir": options})
    lines = [store.spectrum(i, "ir") for i in rows]
    expected = broaden(
        torch.from_numpy(np.concatenate([each.position for each in lines])).float(),
        torch.from_numpy(np.concatenate([each.intensity for each in lines])).float(),
        torch.tensor(np.cumsum([0, *(len(each) for each in lines)])),
        IR,
        shape="gaussian",
        fwhm=30.0,
        scale=0.965,
    )
    assert torch.equal(batch.spectra["ir"], expected)
    with pytest.raises(InputError, match="shape"):
        store.batch(rows, modalities=("ir",), broadening={"ir": Broadening("triangle")})


def test_dtype_of_positions(store, metadata):
    batch = store.batch([3], modalities=("uv_vis",), dtype=torch.float64)
    assert batch.positions.dtype == torch.float64
    assert batch.spectra["uv_vis"].dtype == torch.float32


def test_presence_and_columns(store, rows):
    assert store.has("ir").tolist() == ["ir" in row.spectra for row in rows]
    assert store.has("uv_vis").tolist() == ["uv_vis" in row.spectra for row in rows]
    assert store.has("gap").tolist() == ["gap" in row.properties for row in rows]
    assert store.has("forces").tolist() == [row.forces is not None for row in rows]
    expected = [row.properties.get("U0", np.nan) for row in rows]
    assert np.array_equal(store.column("U0"), expected, equal_nan=True)


def test_rows_can_be_written_again(store, rows, tmp_path):
    written = write_store(tmp_path / "copy.arrow", (store.row(i) for i in range(N)), store.metadata)
    assert written.hash == store.hash
    Store(tmp_path / "copy.arrow").verify()


def test_a_store_pickles_as_its_path(store, tmp_path):
    data = pickle.dumps(store)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert again.path == store.path
    assert torch.equal(again.batch([5, 2]).positions, store.batch([5, 2]).positions)


def test_a_pickled_store_notices_that_the_file_was_replaced(tmp_path, rows, metadata):
    path = tmp_path / "store.arrow"
    write_store(path, rows, metadata)
    data = pickle.dumps(Store(path))
    write_store(path, rows[1:], metadata, overwrite=True)
    with pytest.raises(MismatchError, match=r"store\.arrow has changed"):
        pickle.loads(data)


def test_a_relative_path_survives_another_working_directory(tmp_path, rows, metadata, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_store("store.arrow", rows, metadata)
    store = Store("store.arrow")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(pickle.loads(pickle.dumps(store))) == N


def test_gathers_do_not_alias_the_file(store):
    before = store.batch([4], modalities=("uv_vis",), targets=("gap",))
    for tensor in (before.positions, before.numbers, before.spectra["uv_vis"], before.targets["gap"]):
        tensor.zero_()
    store.verify()
    assert store.batch([4]).positions.abs().sum() > 0


def test_unknown_names_and_rows(store):
    with pytest.raises(InputError, match="did you mean"):
        store.batch([0], modalities=("rman",))
    with pytest.raises(NotFoundError, match=r"no property 'homo'.*gap, U0, forces"):
        store.batch([0], targets=("homo",))
    with pytest.raises(NotFoundError, match="'forces' is not a scalar"):
        store.column("forces")
    for rows in ([N], [-1], [], [[1, 2]], np.array([True, False]), [0.5]):
        with pytest.raises(IndexError, match="row"):
            store.batch(rows)
    for read in (store.molecule, lambda i: store.spectrum(i, "ir"), store.row):
        with pytest.raises(IndexError, match="row"):
            read(N)


def test_a_modality_that_the_store_lacks(tmp_path, rows):
    bare = Metadata("made up", "CC0-1.0")
    write_store(tmp_path / "bare.arrow", [type(rows[0])(row.molecule, identity="X") for row in rows], bare)
    store = Store(tmp_path / "bare.arrow")
    assert repr(store).endswith(f"{N} rows, no spectra)")
    with pytest.raises(NotFoundError, match=r"no ir spectra.*none"):
        store.batch([0], modalities=("ir",))
    with pytest.raises(NotFoundError, match=r"'gap'.*none"):
        store.batch([0], targets=("gap",))
    assert store.batch([0]).spectra == {}


def test_other_dtypes(tmp_path, rows, metadata):
    from dataclasses import replace

    fine = replace(metadata, position_dtype="float64", sample_dtype="float16")
    write_store(tmp_path / "fine.arrow", rows, fine)
    store = Store(tmp_path / "fine.arrow")
    assert store.metadata == fine
    for i in (0, 7, 20):
        assert np.array_equal(store.molecule(i).positions, rows[i].molecule.positions)
        assert store.molecule(i).geometry_id == rows[i].molecule.geometry_id
    batch = store.batch([6, 7], modalities=("uv_vis",), dtype=torch.float64)
    assert np.array_equal(batch.positions[:7].numpy(), rows[6].molecule.positions)
    assert np.array_equal(
        batch.spectra["uv_vis"][1].numpy(), rows[7].spectra["uv_vis"].values.astype(np.float16)
    )
    store.verify()


def test_other_programs_read_the_file(store, rows):
    table = pa.ipc.open_file(store.path).read_all()
    assert table.num_rows == N
    assert table.column("gap").to_pylist() == [row.properties.get("gap") for row in rows]
    assert table.schema.field("ir_position").metadata[b"unit"] == "cm⁻¹".encode()
    assert table.schema.field("gap").metadata == {b"kind": b"property", b"unit": b"eV", b"level": b"guess"}
    assert table.column("ir_position").to_pylist()[4] == ([] if "ir" in rows[4].spectra else None)
