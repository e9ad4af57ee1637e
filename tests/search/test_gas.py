"""Small molecules are compared with a measured spectrum as the gases they are."""

import numpy as np
import pytest

from molspectra.data.store.bundled import bundled
from molspectra.data.store.store import write_store
from molspectra.search.gas import gas_arrays, small_rows
from molspectra.search.library import Library
from molspectra.spectra.files.measured import MeasuredSpectrum
from molspectra.spectra.modality import IR
from molspectra.spectra.rotation import branch_distance, with_branches


@pytest.fixture(scope="module")
def library(run, tmp_path_factory):
    store = bundled("bundled-library")
    smiles = [store.molecule(row).smiles for row in range(len(store))]
    rows = [smiles.index("N"), *range(0, 1200, 12)]
    path = tmp_path_factory.mktemp("gas") / "some.arrow"
    write_store(path, [store.row(row) for row in rows], store.metadata)
    return Library.build(tmp_path_factory.mktemp("gas") / "index", path, run)


def test_only_small_molecules_have_wide_branches(library):
    rows, distances = small_rows(library.table)
    assert rows.tolist()[0] == 0
    assert 0 < len(rows) < len(library) / 5
    assert min(distances) >= 30
    samples = np.asarray(library.segments[0].arrays["samples-ir"][rows], np.float32)
    changed = gas_arrays(samples, distances)["samples-ir"]
    assert np.linalg.norm(changed, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.abs(gas_arrays(samples, [1.0] * len(rows))["samples-ir"] - samples).max() < 1e-3


@pytest.mark.parametrize("way", ["match", "shape", "cosine", "sid"])
def test_gaseous_ammonia_is_found_by_its_branches(library, way):
    ammonia, table = library.molecule(0), library.table
    (lines,) = [bundled("bundled-library").spectrum(row, "ir") for row in _rows_of("N")]
    curve = with_branches(lines.broadened().values, IR.step, branch_distance(ammonia))
    measured = MeasuredSpectrum(IR.axis(), curve / curve.max(), "cm⁻¹", "absorbance", "ir")
    found = library.search({"ir": measured}, by=way, top=1).table.to_pylist()[0]
    assert found["row"] == 0
    assert found["score"] > 0.8
    as_filtered = library.search({"ir": measured}, by=way, formula=table["formula"][0].as_py())
    assert as_filtered.table["score"].to_pylist()[0] == pytest.approx(found["score"], abs=1e-6)
    assert len(library.search({"ir": measured}, by=way, contains=["O"], top=200)) < len(library)
    computed = library.search({"ir": lines}, by=way, top=1).table.to_pylist()[0]
    assert (computed["row"], computed["score"]) == (0, pytest.approx(1, abs=0.02))


def _rows_of(smiles):
    store = bundled("bundled-library")
    return [row for row in range(len(store)) if store.molecule(row).smiles == smiles]
