"""The network that compares infrared spectra, and the score that it has a share in."""

import json
import shutil

import numpy as np
import pytest

from molspectra.data.store.bundled import bundled
from molspectra.errors import NotFoundError
from molspectra.search import network
from molspectra.search.calibrate import measured_like
from molspectra.search.library import Library
from molspectra.search.vectors import coarse
from molspectra.spectra.modality import IR


@pytest.fixture(scope="module")
def computed():
    store = bundled("bundled-library")
    return np.stack([store.spectrum(row, "ir").broadened().values for row in range(0, 1200, 20)])


def test_vectors_have_length_one_and_do_not_depend_on_the_scale(computed):
    samples = coarse(computed, IR)
    found = network.vectors(samples)
    assert found.shape == (60, network.WIDTH)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert network.vectors(1e-4 * samples) == pytest.approx(found, abs=1e-4)
    samples[7] = 0
    assert not network.vectors(samples)[7].any()
    assert network.vectors(samples)[8] == pytest.approx(found[8], abs=1e-5)


def test_a_disturbed_spectrum_is_nearest_to_its_own(computed):
    queries = np.maximum(measured_like(computed.astype(np.float32), "ir", seed=3), 0)
    alike = network.similarities(network.vectors(coarse(computed, IR)), network.stretched(queries, (1.0,)))
    assert np.mean(alike.argmax(0) == np.arange(60)) > 0.7  # by chance 0.02
    assert alike.max() <= 1 + 1e-5


def test_a_factor_on_the_axis_is_found(computed):
    moved = np.stack([np.interp(IR.axis() / 0.98, IR.axis(), row) for row in computed[:10]])
    entries = network.vectors(coarse(computed[:10], IR))
    alike = network.similarities(entries, network.stretched(moved, (0.98, 1.0)))
    assert np.diagonal(alike) == pytest.approx(1, abs=0.02)


def test_match_is_the_weighted_mean_of_shape_and_network(made, small):
    library, lines = Library(made), small.row(5).spectra["ir"]
    by_match, by_shape = (library.search({"ir": lines}, by=way, top=60).table for way in ("match", "shape"))
    assert library.search({"ir": lines}).ways == {"match": 1.0}
    assert library.search({"raman": small.row(5).spectra["raman"]}).ways == {"shape": 1.0}
    query = library.query({"ir": lines}, ["match"]).network
    alike = network.similarities(library.segments[0].arrays[network.ARRAY].astype(np.float32), query)[:, 0]
    shapes = dict(zip(by_shape["row"].to_pylist(), by_shape["score"].to_pylist(), strict=True))
    for row, score in zip(by_match["row"].to_pylist(), by_match["score"].to_pylist(), strict=True):
        expected = (1 - network.WEIGHT) * shapes[row] + network.WEIGHT * alike[row]
        assert score == pytest.approx(expected, abs=2e-3)


def test_an_index_without_vectors_is_searched_by_shape(made, small, others, tmp_path):
    shutil.copytree(made, tmp_path / "old")
    manifest = json.loads((tmp_path / "old" / "library.json").read_text())
    (segment,) = manifest["segments"]
    (tmp_path / "old" / segment["name"] / f"{network.ARRAY}.npy").unlink()
    del segment["files"][f"{network.ARRAY}.npy"]
    (tmp_path / "old" / "library.json").write_text(json.dumps(manifest))
    library, lines = Library(tmp_path / "old"), small.row(5).spectra["ir"]
    assert library.search({"ir": lines}).ways == {"shape": 1.0}
    with pytest.raises(NotFoundError, match="index again"):
        library.search({"ir": lines}, by="match")
    library.append(others)
    assert len(library) > len(small)
    assert library.search({"ir": lines}).ways == {"shape": 1.0}
    assert library.search({"ir": lines}).table["row"].to_pylist()[0] == 5
