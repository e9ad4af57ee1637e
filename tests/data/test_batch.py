import dataclasses

import pytest
import torch

from molspectra.chem.molecule import Molecule
from molspectra.data.batch import Batch, batch_of
from molspectra.data.neighbours import Edges, offsets_of
from molspectra.data.store.bundled import bundled, bundled_path
from molspectra.data.store.store import Store, write_store
from molspectra.datasets.simulated import simulated_metadata, simulated_row
from molspectra.errors import NotFoundError


@pytest.fixture
def batch():
    water = Molecule([8, 1, 1], [[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]])
    hydrogen = Molecule([1, 1], [[0, 0, 0], [0, 0, 0.74]])
    made = batch_of([water, hydrogen, water])
    extra = {"spectra": {"ir": torch.ones(3, 5)}, "present": {"ir": torch.tensor([True, False, True])}}
    targets = {"U0": torch.tensor([-76.00000001, -1.0, -76.00000001], dtype=torch.float64)}
    return dataclasses.replace(made, **extra, targets=targets)


def test_molecules_become_one_batch(batch):
    assert len(batch) == 3
    assert batch.numbers.tolist() == [8, 1, 1, 1, 1, 8, 1, 1]
    assert batch.ptr.tolist() == [0, 3, 5, 8]
    assert batch.molecule.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert batch.row.tolist() == [-1, -1, -1]
    assert batch.geometry_id[0] == batch.geometry_id[2] != batch.geometry_id[1]
    assert batch.positions.dtype == torch.float32
    assert batch_of([Molecule([2], [[1, 2, 3]])], torch.float64).positions.tolist() == [[1, 2, 3]]
    with pytest.raises(ValueError, match="at least one"):
        batch_of([])


def test_edges_stay_inside_molecules_and_go_with_the_positions(batch):
    edged = batch.with_edges(5.0)
    assert len(edged.edges) == 9 + 4 + 9
    assert torch.equal(batch.molecule[edged.edges.source], batch.molecule[edged.edges.target])
    assert edged.with_edges(0.1).edges.source.tolist() == list(range(8))
    moved = edged.with_positions(edged.positions + 1)
    assert moved.edges is None
    assert torch.equal(moved.positions, batch.positions + 1)
    assert batch.edges is None
    assert batch.with_edge_list(edged.edges).edges is edged.edges
    with pytest.raises(ValueError, match="positions"):
        batch.with_positions(torch.zeros(3, 3))


def test_to_changes_positions_and_spectra_but_not_targets_or_indices(batch):
    double = batch.with_edges(5.0).to("cpu", torch.float64)
    assert double.positions.dtype == double.spectra["ir"].dtype == torch.float64
    half = batch.to(dtype=torch.float32)
    assert half.targets["U0"].dtype == torch.float64
    assert half.present["ir"].dtype == torch.bool
    assert half.numbers.dtype == double.edges.reverse.dtype == torch.int64


def test_to_moves_every_tensor_but_what_is_asked_of_the_host(batch):
    meta = batch.with_edges(5.0).to("meta")
    assert meta.present["ir"].device.type == "cpu"
    meta = dataclasses.replace(meta, present={})

    def devices(value):
        if isinstance(value, torch.Tensor):
            yield value.device.type
        elif isinstance(value, dict):
            for each in value.values():
                yield from devices(each)
        elif isinstance(value, Batch | Edges):
            for each in dataclasses.fields(value):
                yield from devices(getattr(value, each.name))

    found = list(devices(meta))
    assert set(found) == {"meta"}
    assert len(found) == 6 + 2 + len(dataclasses.fields(Edges))


def test_offsets():
    assert offsets_of(torch.tensor([2, 0, 3])).tolist() == [0, 2, 2, 5]
    assert offsets_of(torch.tensor([], dtype=torch.int64)).tolist() == [0]


def test_simulations_become_rows(tmp_path):
    from molspectra.simulation.api import Property, Simulation
    from molspectra.spectra.spectrum import LineSpectrum

    def simulation(gap, level="DFT"):
        molecule = Molecule([1, 1], [[0, 0, 0], [0, 0, 0.74]], smiles="[H][H]", name="hydrogen")
        lines = {"ir": LineSpectrum("ir", [3900.0], [1.5], "tight-binding")}
        return Simulation(
            molecule, lines, {"gap": Property(gap, "eV", level)}, {"geometry": "GFN2", "ir": "tight-binding"}
        )

    made = simulation(10.0)
    metadata = simulated_metadata(made, source="made up", licence="CC0", notes={"seed": "0"})
    rows = (simulated_row(each) for each in (made, simulation(11.0)))
    write_store(tmp_path / "a.arrow", rows, metadata)
    store = Store(tmp_path / "a.arrow")
    assert store.column("gap").tolist() == [10.0, 11.0]
    assert store.metadata.level == "GFN2"
    assert store.metadata.properties["gap"].level == "DFT"
    assert store.spectrum(1, "ir").level == "tight-binding"
    assert store.spectrum(1, "ir").position.tolist() == [3900.0]
    assert store.identities == ["UFHFLCQGNIYNRP"] * 2


def test_bundled_store_is_there_or_says_what_to_do(monkeypatch, tmp_path):
    if bundled_path().is_file():
        store = bundled()
        assert store.metadata.modalities == ("uv_vis", "ir", "raman")
        assert bundled_path().stat().st_size <= 8 << 20
        store.verify()
    monkeypatch.setattr("molspectra.data.store.bundled.bundled_path", lambda _: tmp_path / "molecules.arrow")
    with pytest.raises(NotFoundError, match="missing"):
        bundled()
