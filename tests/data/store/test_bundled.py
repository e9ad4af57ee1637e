"""The stores that come with the package: complete, as their manifests say, and physically sound."""

import hashlib
import json

import numpy as np
import pytest

from molspectra.chem.molecule import Molecule
from molspectra.data.store.bundled import BUNDLED, bundled, bundled_path
from molspectra.data.store.store import Store, write_store
from molspectra.datasets.frames import frame_rows, trajectory_metadata
from molspectra.errors import NotFoundError
from molspectra.training.data import open_store

PATH = bundled_path("bundled-ethanol")


@pytest.fixture(scope="module")
def store():
    return bundled("bundled-ethanol")


@pytest.fixture(scope="module")
def manifest():
    return json.loads(PATH.with_suffix(".json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def frames(store):
    """Positions [T, 9, 3], energies [T] and forces [T, 9, 3]."""
    batch = store.batch(np.arange(len(store)), targets=("energy", "forces"))
    shape = (len(store), 9, 3)
    return (
        batch.positions.double().numpy().reshape(shape),
        batch.targets["energy"].numpy(),
        batch.targets["forces"].double().numpy().reshape(shape),
    )


def test_names():
    for name in BUNDLED:
        assert open_store(name).path == bundled_path(name)
    with pytest.raises(NotFoundError, match=r"'water'.*bundled, bundled-library, bundled-ethanol"):
        bundled("water")


def test_the_trajectory_is_what_its_manifest_says(store, manifest):
    store.verify()
    assert store.hash == manifest["content_sha256"]
    assert hashlib.sha256(PATH.read_bytes()).hexdigest() == manifest["file_sha256"]
    assert PATH.stat().st_size == manifest["bytes"] < 1_000_000
    assert len(store) == manifest["frames"] == 2000
    assert store.metadata.level == manifest["level"]
    assert store.metadata.forces.unit == "kcal/mol/Å"
    assert store.metadata.properties["energy"].unit == "kcal/mol"
    assert "not density functional theory" in store.metadata.notes["caution"]


def test_frames_are_ethanol_in_one_piece(store, frames):
    assert set(store.identities) == {"LFQSCWFLJHTTHZ"}
    assert store.molecule(len(store) - 1).name == f"ethanol frame {len(store) - 1}"
    positions = frames[0]
    bonds = [(0, 1), (1, 2), (0, 3), (0, 4), (0, 5), (1, 6), (1, 7), (2, 8)]
    for one, other in bonds:
        lengths = np.linalg.norm(positions[:, one] - positions[:, other], axis=-1)
        heavy = other < 3
        assert (1.2 if heavy else 0.8) < lengths.min()
        assert lengths.max() < (1.9 if heavy else 1.5)
    assert store.molecule(7).with_positions(positions[7]).identity == "LFQSCWFLJHTTHZ"


def test_frames_are_distinct_and_nearly_independent(store, frames, manifest):
    _, energies, _ = frames
    ids = store.batch(np.arange(len(store))).geometry_id
    assert len(set(ids.tolist())) == len(store)
    centred = energies - energies.mean()
    correlation = (centred[1:] * centred[:-1]).mean() / (centred**2).mean()
    stated = manifest["autocorrelation_one_frame_apart"]
    assert stated["energy"] == pytest.approx(correlation, abs=0.002)
    assert abs(correlation) < 0.3
    assert abs(stated["kinetic_temperature"]) < 0.3


def test_the_heat_is_right(frames, manifest):
    """Mean kinetic temperature within 2 %; potential energy spread as of 3N − 6 classical oscillators."""
    assert manifest["mean_kinetic_temperature_K"] == pytest.approx(500, rel=0.02)
    harmonic = 0.0019872 * 500 * np.sqrt(21 / 2)
    assert frames[1].std() == pytest.approx(harmonic, rel=0.35)


def test_forces_belong_to_the_energies(store, frames):
    """Recomputed for a few frames; the store's positions are single precision."""
    from molspectra.simulation.dynamics import XtbCalculator

    ase = pytest.importorskip("ase")
    pytest.importorskip("tblite")
    positions, energies, forces = frames
    calculator = XtbCalculator(store.molecule(0))

    def energy(at):
        atoms = ase.Atoms(numbers=store.molecule(0).numbers, positions=at)
        return calculator.get_potential_energy(atoms) * 23.060548

    assert np.abs(forces.sum(1)).max() < 1e-3
    for frame in (0, 777, len(store) - 1):
        assert energy(positions[frame]) == pytest.approx(energies[frame], abs=1e-3)
        for atom, axis in ((0, 0), (2, 1), (8, 2)):
            shift = np.zeros((9, 3))
            shift[atom, axis] = 1e-3
            slope = (energy(positions[frame] + shift) - energy(positions[frame] - shift)) / 2e-3
            assert forces[frame, atom, axis] == pytest.approx(-slope, abs=0.05)


def test_frames_as_rows(tmp_path):
    water = Molecule(
        np.array([8, 1, 1]), np.array([[0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5]]), "O", name="w"
    )
    rng = np.random.default_rng(0)
    positions = water.positions + rng.normal(0, 0.02, (4, 3, 3))
    forces = rng.normal(0, 20, (4, 3, 3))
    metadata = trajectory_metadata(source="test", licence="MIT", level="A", labels="B")
    write_store(tmp_path / "a.arrow", frame_rows(water, positions, np.arange(4.0), forces), metadata)
    store = Store(tmp_path / "a.arrow")
    assert store.metadata.level == "A"
    assert store.metadata.forces.level == store.metadata.properties["energy"].level == "B"
    row = store.row(2)
    assert row.molecule.name == "w frame 2"
    assert row.identity == "XLYOFNOQVPJJNP"
    assert row.forces == pytest.approx(forces[2], abs=1e-5)
    assert row.properties == {"energy": 2.0}
    assert trajectory_metadata(source="", licence="", level="A").forces.level == "A"
