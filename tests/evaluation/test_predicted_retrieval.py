"""Finding molecules against predicted spectra: what is compared, and ranks that are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from molspectra.data.store.bundled import bundled
from molspectra.data.store.store import Store, write_store
from molspectra.evaluation.predicted_retrieval import comparable, retrieve_by_prediction
from molspectra.evaluation.retrieval import Gallery, figures_of
from molspectra.spectra.modality import modality

IR = modality("ir")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Twelve molecules; the last two have no Raman spectrum."""
    source, path = bundled(), tmp_path_factory.mktemp("predicted") / "twelve.arrow"
    rows = [source.row(row) for row in range(12)]
    for index in (10, 11):
        spectra = {name: lines for name, lines in rows[index].spectra.items() if name != "raman"}
        rows[index] = replace(rows[index], spectra=spectra)
    write_store(path, rows, source.metadata)
    return Store(path)


def gallery_of(store):
    rows = np.arange(len(store))
    identities = store.identities
    formulas = tuple(store.molecule(int(row)).formula for row in rows)
    nothing, masses = torch.zeros(len(rows), 1), torch.ones(len(rows))
    return Gallery(rows, nothing, torch.arange(len(rows)), tuple(identities), formulas, masses, rows)


def search(library, store, modalities):
    found = retrieve_by_prediction(library, store, np.arange(12), gallery_of(store), modalities)
    return {name: figures_of(among) for name, among in found.items()}


def library_of(store):
    batch = store.batch(np.arange(len(store)), modalities=("ir", "raman"))
    return {name: comparable(spectra, modality(name)) for name, spectra in batch.spectra.items()}


def test_comparable_by_hand():
    """Bins of 4 cm⁻¹; strength and what is negative do not matter."""
    spectra = torch.zeros(2, IR.points)
    spectra[0, 4:8] = torch.tensor([1.0, 2.0, 3.0, 2.0])
    spectra[0, 100] = 4.0
    spectra[0, 200] = -1.0
    found = comparable(spectra, IR)
    assert found.shape == (2, IR.points // 4)
    first, second = 2.0**0.3, 1.0
    length = float(np.hypot(first, second))
    assert found[0, 1].item() == pytest.approx(first / length)
    assert found[0, 25].item() == pytest.approx(second / length)
    assert int((found != 0).sum()) == 2
    assert torch.allclose(comparable(7 * spectra, IR), found)


def test_a_perfect_prediction_finds_everything(store):
    found = search(library_of(store), store, ("ir", "raman"))
    assert {name: each["queries"] for name, each in found.items()} == {
        "ir": 12,
        "raman": 10,
        "ir + raman": 10,
    }
    assert all(each["recall"][1] == each["mrr"] == 1.0 for each in found.values())


def test_a_wrong_prediction_is_ranked_behind(store):
    """With the predictions of two molecules exchanged, only these two are not found first."""
    library = library_of(store)
    order = torch.tensor([1, 0, *range(2, 12)])
    library = {name: spectra[order] for name, spectra in library.items()}
    found = search(library, store, ("ir",))
    assert found["ir"]["recall"][1] == pytest.approx(10 / 12)


def test_the_same_prediction_for_all_is_no_find(store):
    library = {name: spectra[:1].expand(12, -1) for name, spectra in library_of(store).items()}
    found = search(library, store, ("ir",))
    assert found["ir"]["median_rank"] == 12
