import numpy as np
import pytest
import torch

from molspectra.errors import MismatchError, NotFoundError, SettingError, ValueRangeError
from molspectra.evaluation.retrieval import Gallery, embed_spectra, figures_of, retrieve
from molspectra.models.model import ModelConfig, MolSpectra


@pytest.fixture(scope="module")
def model(tiny):
    torch.manual_seed(0)
    return MolSpectra(tiny.pretrain_model).eval()


@pytest.fixture
def store(tiny):
    return tiny.store


def test_embeddings_do_not_depend_on_the_batch(model, store):
    rows = np.arange(9)
    together, alone = (Gallery.of(model, store, chosen).embeddings for chosen in (rows, rows[4:5]))
    torch.testing.assert_close(together[4:5], alone, rtol=1e-4, atol=1e-5)
    together, alone = embed_spectra(model, store, rows, None, 4), embed_spectra(model, store, rows[4:5])
    torch.testing.assert_close(together[4:5], alone, rtol=1e-4, atol=1e-5)
    assert together.dtype == torch.float64


def test_a_molecule_without_the_spectrum_has_no_embedding(model, store, tiny):
    water = tiny.row("water")
    rows = np.array([water, water + 1])
    alone = embed_spectra(model, store, rows, ["raman"])
    assert bool(alone[0].isnan().all())
    assert bool(alone[1].isfinite().all())
    assert bool(embed_spectra(model, store, rows).isfinite().all())  # its other spectra are used


@pytest.mark.parametrize("modalities", [("raman",), ("ir", "uv_vis"), None])
def test_ranks_equal_a_loop_over_the_molecules(model, store, modalities):
    queries, rows = np.arange(5, 20), np.arange(40)
    result = retrieve(model, store, queries, Gallery.of(model, store, rows, 16), modalities, batch_size=7)
    structures = Gallery.of(model, store, rows).embeddings.numpy()
    spectra = embed_spectra(model, store, queries, modalities).numpy()
    identities = store.identities
    formulas = [store.molecule(row).formula for row in range(40)]
    for query, row in enumerate(queries):
        score = {}
        for entry in rows:
            cosine = float(
                spectra[query] @ structures[entry]
                / np.linalg.norm(spectra[query]) / np.linalg.norm(structures[entry])
            )  # fmt: skip
            score[identities[entry]] = max(score.get(identities[entry], -2), cosine)
        own = score[identities[row]]
        others = [value for identity, value in score.items() if identity != identities[row]]
        assert int(result.rank[query]) == 1 + sum(value >= own - 1e-6 for value in others)
        isomers = {identities[entry] for entry in rows if formulas[entry] == formulas[row]}
        assert int(result.isomers[query]) == len(isomers)
        ahead = [score[isomer] >= own - 1e-6 for isomer in isomers - {identities[row]}]
        assert int(result.isomer_rank[query]) == 1 + sum(ahead)
        assert result.own_score[query] == pytest.approx(own, abs=1e-6)
    assert result.gallery_size == 39  # ethanol is there twice
    assert result.figures().queries == 15
    assert figures_of(result.among)["isomers"]["queries"] == int((result.isomers > 1).sum())


def test_a_model_that_tells_nothing_apart_comes_last(model, store, monkeypatch):
    one = torch.ones(1, model.encoder.channels)
    monkeypatch.setattr(type(model), "embed", lambda self, batch: one.expand(len(batch), -1))
    rows = np.arange(10)
    result = retrieve(model, store, rows, Gallery.of(model, store, rows))
    assert result.rank.tolist() == [10] * 10


def test_queries_without_spectra_are_counted_and_left_out(model, store, tiny):
    rows = np.arange(40)
    result = retrieve(model, store, rows, Gallery.of(model, store, rows), ["raman"])
    assert result.without_spectrum == 1
    assert tiny.row("water") not in result.rows
    with pytest.raises(NotFoundError, match="raman"):
        retrieve(model, store, rows[[tiny.row("water")]], Gallery.of(model, store, rows), ["raman"])


def test_what_cannot_be_searched_is_refused(model, store, tiny):
    gallery = Gallery.of(model, store, np.arange(5))
    with pytest.raises(NotFoundError, match="is not in the gallery"):
        retrieve(model, store, np.arange(4, 8), gallery)
    with pytest.raises(SettingError, match="'euclid'"):
        retrieve(model, store, np.arange(2), gallery, similarity="euclid")
    with pytest.raises(NotFoundError, match="not 'nmr'"):
        retrieve(model, store, np.arange(2), gallery, ["nmr"])
    with pytest.raises(ValueRangeError, match="gallery is empty"):
        Gallery.of(model, store, np.array([], np.int64))
    without = MolSpectra(ModelConfig(tiny.pretrain_model.encoder))
    with pytest.raises(MismatchError, match="no spectrum encoder"):
        embed_spectra(without, store, np.arange(2))
