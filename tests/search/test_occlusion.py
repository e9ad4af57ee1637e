"""Which bands carry an answer: textbook groups, what speaks against it, and that nothing hidden is read."""

from dataclasses import replace

import numpy as np
import pyarrow.csv
import pytest

from molspectra.data.store.store import Store, write_store
from molspectra.evaluation.attention import attention_of
from molspectra.search.explain import explain, write_bands
from molspectra.search.figure import figure, weight
from molspectra.search.library import Library
from molspectra.search.occlusion import SCALED, Loss, Occlusion, hidden, moved
from molspectra.search.page import write_page
from molspectra.search.pipeline import DEFAULT, Pipeline
from molspectra.search.query import prepare
from molspectra.spectra.files.measured import MeasuredSpectrum
from molspectra.spectra.modality import IR

SMILES = ("CC(C)=O", "CC#N", "CCO", "CO", "CC", "CCC", "CCCC", "CC(C)C", "COC", "CCOC", "CCC=O", "C=C(C)C")


@pytest.fixture(scope="module")
def store(part_of_library):
    return part_of_library(*SMILES)


@pytest.fixture(scope="module")
def library(store, tmp_path_factory):
    return Library.build(tmp_path_factory.mktemp("relatives") / "index", store)


def explained(library, spectrum, smiles, by=None, **options):
    hits = library.search({"ir": spectrum}, by=by, **options)
    place = hits.table["smiles"].to_pylist().index(smiles)
    pipeline = options.get("pipeline", DEFAULT)
    return explain(library, hits, {"ir": spectrum}, count=place + 1, pipeline=pipeline)[place]


def by_weight(explanation):
    return sorted(explanation.bands, key=lambda band: -band.weight)


def atoms(explanation, band):
    return sorted(explanation.molecule.symbols[atom] for atom in band.atoms)


@pytest.mark.parametrize("by", ["match", "shape"])
@pytest.mark.parametrize(
    ("smiles", "motion", "moving"), [("CC(C)=O", "C=O stretch", "CO"), ("CC#N", "C≡N stretch", "CN")]
)
def test_the_group_that_relatives_lack_carries_the_answer(library, store, by, smiles, motion, moving):
    pytest.importorskip("tblite")
    spectrum = store.spectrum(SMILES.index(smiles), "ir")
    found = explained(library, spectrum, smiles, by)
    first, second, *_ = by_weight(found)
    assert first.motion.startswith(motion)
    assert atoms(found, first) == list(moving)
    assert first.weight > max(0.03, 1.3 * second.weight)
    assert first.window[0] < first.measured < first.window[1]


@pytest.mark.parametrize("smiles", ["CO", "CCO"])
def test_alcohols_are_carried_by_their_hydroxyl(library, store, smiles):
    pytest.importorskip("tblite")
    spectrum = store.spectrum(SMILES.index(smiles), "ir")
    found = explained(library, spectrum, smiles, "shape")
    first, second, *_ = by_weight(found)
    assert first.motion.startswith("O-H stretch")
    assert atoms(found, first) == ["H"]
    assert 1000 < second.measured < 1100  # C-O, which ethers have too
    # the network reads heights as well, so that the strongest band, C-O, counts as much
    places = sorted(band.measured for band in by_weight(explained(library, spectrum, smiles, "match"))[:2])
    assert 1000 < places[0] < 1100
    assert places[1] > 3600


def test_a_lead_tells_an_answer_from_the_next_and_a_weight_from_the_library(library, store):
    spectrum = store.spectrum(SMILES.index("CC(C)=O"), "ir")
    found = explained(library, spectrum, "CC(C)=O", formula="C3H6O")  # against propanal, which has C=O too
    carbonyl = max(found.bands, key=lambda band: band.measured_height or 0)
    assert 1700 < carbonyl.measured < 1800
    assert carbonyl.weight == max(band.weight for band in found.bands)
    assert max(band.lead for band in found.bands) > 3 * abs(carbonyl.lead)
    other = explained(library, spectrum, "CCC=O", formula="C3H6O")
    (own,) = [band for band in other.bands if band.status == "extra" and 1300 < band.measured < 1400]
    assert own.lead < 0  # without the methyl ketone's own band, propanal fits better


def test_a_foreign_band_speaks_against_the_answer(library, store):
    axis, values = IR.axis(), store.spectrum(SMILES.index("CC(C)=O"), "ir").broadened().values
    values = values / values.max() + 0.6 * np.exp(-2.77 * ((axis - 2250) / 14) ** 2)
    spectrum = MeasuredSpectrum(axis, values, "cm⁻¹", "absorbance", "ir")
    found = explained(library, spectrum, "CC(C)=O")
    (foreign,) = [band for band in found.bands if 2200 < (band.measured or 0) < 2300]
    assert foreign.status == "extra"
    assert foreign.weight == min(band.weight for band in found.bands) < -0.02
    assert foreign.lead < 0


def test_without_others_nothing_is_told(library, store, tmp_path):
    row = SMILES.index("CC(C)=O")
    spectrum = store.spectrum(row, "ir")
    alone = explained(library, spectrum, "CC(C)=O", top=1)
    assert {band.lead for band in alone.bands} == {None}
    assert None not in {band.weight for band in alone.bands}
    write_store(tmp_path / "one.arrow", [store.row(row)], store.metadata)
    only = Library.build(tmp_path / "index", Store(tmp_path / "one.arrow"))
    assert {band.weight for band in explained(only, spectrum, "CC(C)=O").bands} == {None}


@pytest.mark.parametrize("ways", ["match", "embedding", "cosine", {"shape": 1.0, "embedding": 2.0}])
@pytest.mark.parametrize("scale", [1.0, 0.97])
def test_what_is_hidden_is_not_read(library, store, ways, scale):
    spectrum = store.spectrum(SMILES.index("CC(C)=O"), "ir")
    hits = library.search({"ir": spectrum}, by=ways)
    row, window = hits.table["row"][0].as_py(), (1650.0, 1850.0)
    axis = IR.axis()
    inside = (axis >= window[0]) & (axis <= window[1])
    plain = prepare(spectrum, "ir")
    other = replace(
        plain,
        values=np.where(inside, 1e3 * plain.values.max() * (axis % 7), plain.values),
        signed=np.where(inside, -1e3 * plain.values.max() * (axis % 5), plain.signed),
    )
    first, second = (
        Occlusion(library, hits, row, {"ir": hidden(each, IR, window)}, {"ir": scale}, DEFAULT)._margins(
            {"ir": hidden(each, IR, window)}
        )
        for each in (plain, other)
    )
    assert first == pytest.approx(second, abs=1e-6)
    whole = Occlusion(library, hits, row, {"ir": plain}, {"ir": scale}, DEFAULT)
    (loss,) = whole.losses("ir", [window])
    assert loss.weight == pytest.approx(whole._margins({"ir": plain}).weight - first.weight)
    assert abs(loss.weight) > 1e-4
    assert whole.losses("ir", [(0.0, 1e5), None]) == [Loss(), Loss()]  # all of it, and no window


@pytest.mark.parametrize("pipeline", [DEFAULT, Pipeline(scale=0.96)])
def test_the_factor_of_the_answer_is_kept(library, store, pipeline):
    axis, values = IR.axis(), store.spectrum(SMILES.index("CC(C)=O"), "ir").broadened().values
    values = np.interp(axis, 0.96 * axis, values / values.max())
    spectrum = MeasuredSpectrum(axis, values, "cm⁻¹", "absorbance", "ir")
    found = explained(library, spectrum, "CC(C)=O", pipeline=pipeline)
    assert found.scale == pytest.approx(0.96)
    assert 1650 < by_weight(found)[0].measured < 1700
    prepared = prepare(spectrum, "ir")
    again = moved(moved(prepared, IR, 0.96), IR, 1 / 0.96)
    assert np.abs(again.values - prepared.values)[again.known].max() < 0.02
    assert "match" in SCALED


def test_margins_are_those_of_the_search(library, store):
    spectrum = store.spectrum(SMILES.index("CO"), "ir")
    for ways in ("shape", ["shape", "cosine"]):
        hits = library.search({"ir": spectrum}, by=ways, pipeline=(fixed := Pipeline(scale=1.0)))
        prepared = {"ir": prepare(spectrum, "ir")}
        occlusion = Occlusion(library, hits, hits.table["row"][0].as_py(), prepared, {"ir": 1.0}, fixed)
        scores = hits.table["score"].to_numpy()
        assert occlusion._margins(prepared) == pytest.approx(
            (scores[0] - scores[1:].mean(), scores[0] - scores[1]), abs=1e-5
        )


def test_weights_are_shown(library, store, tmp_path):
    spectra = {"ir": store.spectrum(SMILES.index("CC(C)=O"), "ir")}
    hits = library.search(spectra)
    found = explain(library, hits, spectra, count=1)
    bands = found[0].bands
    write_bands(tmp_path / "bands.csv", found)
    table = pyarrow.csv.read_csv(tmp_path / "bands.csv")
    for name in ("weight", "lead"):
        expected = [getattr(band, name) for band in bands]
        assert table[name].to_pylist() == pytest.approx(expected, abs=1e-6)
    write_page(tmp_path / "why.html", hits, found, {"ir": "acetone.csv"})
    page = (tmp_path / "why.html").read_text(encoding="utf-8")
    assert all(weight(number) in page for band in bands for number in (band.weight, band.lead))
    drawn = figure(found)
    (axes,) = drawn.axes
    largest = by_weight(found[0])[0]
    assert any(f"({weight(largest.weight)})" in text.get_text() for text in axes.texts)
    told = {text.get_text() for legend in drawn.legends for text in legend.get_texts()}
    assert {"carries the answer", "speaks against it"} <= told
    unknown = [replace(found[0], bands=tuple(replace(band, weight=None, lead=None) for band in bands))]
    told = {text.get_text() for legend in figure(unknown).legends for text in legend.get_texts()}
    assert "carries the answer" not in told
    assert [weight(each) for each in (None, -0.0001, 0.0126, -0.5)] == ["–", "+0.000", "+0.013", "−0.500"]


def test_attention_is_shown_where_embeddings_were_compared(library, store, tmp_path):
    spectra = {"ir": store.spectrum(SMILES.index("CC(C)=O"), "ir")}
    (seen,) = explain(library, library.search(spectra, by="embedding"), spectra, count=1)
    (other,) = explain(library, library.search(spectra, by="shape"), spectra, count=1)
    assert other.attention is None
    assert {band.attention for band in other.bands} == {None}
    (alone,) = explain(library, library.search(spectra, by="learned"), spectra, count=1)
    np.testing.assert_allclose(alone.attention, seen.attention)  # one spectrum alone is all together
    query = library.query(spectra, ["embedding"])
    direct = attention_of(library.model.model.spectrum_encoder, {"ir": query.embedded["ir"][0]})
    np.testing.assert_allclose(seen.attention, direct["ir"], rtol=1e-6)
    for band in seen.bands:
        inside = (seen.axis >= band.window[0]) & (seen.axis <= band.window[1]) & seen.known
        assert band.attention == pytest.approx(seen.attention[inside].mean())
    for each, is_shown in ((seen, True), (other, False)):
        write_bands(tmp_path / "bands.csv", [each], overwrite=True)
        table = pyarrow.csv.read_csv(tmp_path / "bands.csv")
        assert (table["attention"].null_count == 0) == is_shown
        told = {text.get_text() for legend in figure([each]).legends for text in legend.get_texts()}
        assert ("attention, largest 1" in told) == is_shown
        hits = library.search(spectra)
        page = write_page(tmp_path / "why.html", hits, [each], {"ir": "acetone.csv"}, overwrite=True)
        assert (">attention</th>" in page.read_text(encoding="utf-8")) == is_shown
