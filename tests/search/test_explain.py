"""Why an answer was given: matched bands, motions, groups, and what is said where something is missing."""

import re
from functools import lru_cache

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from molspectra.chem.identity import parsed_smiles
from molspectra.data.store.bundled import bundled
from molspectra.errors import (
    ExistsError,
    FormatError,
    MissingExtraError,
    SettingError,
    SimulationError,
    ValueRangeError,
)
from molspectra.search import explain as module
from molspectra.search.explain import explain, write_bands
from molspectra.search.groups import DEMANDS, GROUPS, evidence
from molspectra.search.library import Library
from molspectra.search.pipeline import Pipeline
from molspectra.search.query import prepare
from molspectra.spectra.files.measured import MeasuredSpectrum
from molspectra.spectra.modality import IR
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

SMILES = ("CC(C)=O", "CCCC", "O", "O=C=O", "C#N")
ACETONE = {"formula": "C3H6O", "top": 1}


@pytest.fixture(scope="module")
def store(part_of_library):
    return part_of_library(*SMILES)


@pytest.fixture(scope="module")
def library(run, store, tmp_path_factory):
    return Library.build(tmp_path_factory.mktemp("explain") / "index", store, run)


@lru_cache
def curve_of(smiles):
    everything = bundled("bundled-library")
    row = next(row for row in range(len(everything)) if everything.molecule(row).smiles == smiles)
    return everything.spectrum(row, "ir").broadened().values


def measured(*extra, low=500.0, high=4000.0, scale=1.0):
    """The acetone of the library as an instrument would write it, with bands (place, height) added."""
    axis, values = IR.axis(), curve_of("CC(C)=O")
    values = np.interp(axis, axis * scale, values / values.max())
    for place, height in extra:
        values = values + height * np.exp(-2.77 * ((axis - place) / 14) ** 2)
    inside = (axis >= low) & (axis <= high)
    return MeasuredSpectrum(axis[inside], values[inside], "cm⁻¹", "absorbance", "ir")


def acetone(library, spectrum, **options):
    pytest.importorskip("tblite")
    hits = library.search({"ir": spectrum}, **ACETONE)
    (found,) = explain(library, hits, {"ir": spectrum}, **options)
    return found


def verdicts(explanation):
    return {each.group: (each.verdict, each.present) for each in explanation.groups}


def test_a_spectrum_of_the_library_has_all_its_bands(library):
    found = acetone(library, measured())
    assert (found.rank, found.smiles, found.formula, found.scale) == (1, "CC(C)=O", "C3H6O", 1.0)
    assert found.confidence is None
    assert found.query.max() == pytest.approx(1)
    assert found.candidate.max() == pytest.approx(1)
    assert found.axis.shape == found.query.shape == found.candidate.shape == found.known.shape
    strong = [band for band in found.bands if max(band.measured_height or 0, band.computed_height or 0) > 0.1]
    assert {band.status for band in strong} == {"matched"}
    assert all(abs(band.measured - band.computed) < 5 for band in strong)
    highest = max(strong, key=lambda band: band.measured_height)
    assert 1650 < highest.measured < 1800
    assert highest.motion.startswith("C=O stretch ")
    assert [found.molecule.symbols[atom] for atom in highest.atoms] == ["C", "O"]
    assert all(similarity > 0.9 for _, _, similarity in found.regions)
    assert len(found.regions) == 5
    assert verdicts(found)["C=O, ketone"] == ("supported", True)
    assert "contradicted" not in {each.verdict for each in found.groups}
    assert not any("rotational lines" in remark for remark in found.remarks)


def test_a_band_that_the_candidate_lacks_is_extra(library):
    found = acetone(library, measured((2250, 0.6)))
    (extra,) = [band for band in found.bands if band.status == "extra" and band.measured_height > 0.3]
    assert extra.measured == pytest.approx(2250, abs=3)
    assert (extra.computed, extra.motion, extra.atoms) == (None, "", ())
    assert verdicts(found)["triple or cumulated bond"] == ("contradicted", False)
    similarity = {round(low): value for low, _, value in found.regions}
    assert similarity[1900] < 0.5 < similarity[1500]


def test_a_wrong_candidate_is_contradicted(library):
    pytest.importorskip("tblite")
    hits = library.search({"ir": measured()}, formula="C4H10")
    (found,) = explain(library, hits, {"ir": measured()})
    assert verdicts(found)["C=O"] == ("contradicted", False)
    (carbonyl,) = [band for band in found.bands if 1650 < (band.measured or 0) < 1800]
    assert carbonyl.status == "extra"


def test_what_was_not_measured_is_not_missing(library):
    found = acetone(library, measured(low=600, high=1650))
    assert not found.query[~found.known].any()
    assert all(600 < (band.measured or band.computed) < 1650 for band in found.bands)
    assert verdicts(found)["C=O, ketone"][0] == "open"
    assert any("nothing was measured" in remark for remark in found.remarks)
    assert max(high for _, high, _ in found.regions) < 1660


def test_the_factor_that_fits(library):
    spectrum = measured(scale=0.97)
    place = 0.97 * IR.axis()[curve_of("CC(C)=O").argmax()]
    free = acetone(library, spectrum)
    given = acetone(library, spectrum, pipeline=Pipeline(scale=0.97))
    done = acetone(library, prepare(spectrum, "ir", pipeline=(steps := Pipeline(scale=0.97))), pipeline=steps)
    for found in (free, given, done):
        assert found.scale == pytest.approx(0.97)
        highest = max(found.bands, key=lambda band: band.measured_height or 0)
        assert highest.measured == pytest.approx(place, abs=5)
        assert highest.computed == pytest.approx(highest.measured, abs=5)


def test_lines_of_another_level_keep_their_order():
    own = LineSpectrum("ir", np.array([1000.0, 1022, 1038, 1060]), np.array([100.0, 1, 1, 100]), "one")
    stored = LineSpectrum("ir", np.array([1020.0, 1040]), np.array([100.0, 100]), "another")
    moved = module._aligned(own, own.broadened().values, stored.broadened().values, IR)
    assert moved.position[[0, 3]] == pytest.approx([1020, 1040], abs=3)


def test_bands_of_a_library_at_another_level_have_motions(library, store):
    pytest.importorskip("tblite")
    row = SMILES.index("CCCC")  # B3LYP, where the motions are told by a scaled force field
    assert store.row(row).properties["b3lyp"] == 1
    spectrum = store.spectrum(row, "ir").broadened()
    found = explain(library, library.search({"ir": spectrum}, formula="C4H10"), {"ir": spectrum})[0]
    strong = [band for band in found.bands if (band.measured_height or band.computed_height) > 0.1]
    assert len(strong) >= 3
    assert all(band.status == "matched" and band.motion for band in strong)
    assert all("C-H stretch" in band.motion for band in strong if band.measured > 2500)


def test_without_the_extra_there_are_bands_but_no_motions(library, monkeypatch):
    def missing(*_, **__):
        raise MissingExtraError("simulation needs tblite")

    monkeypatch.setattr(module, "levels_of_theory", missing)
    spectra = {"ir": measured()}
    first, second = explain(library, library.search(spectra, top=5), spectra, count=2)
    assert first.smiles == "CC(C)=O"
    assert any("tblite" in remark for remark in first.remarks)
    strong = [band for band in first.bands if (band.measured_height or 0) > 0.1]
    assert {band.status for band in strong} == {"matched"}
    assert {band.motion for band in first.bands + second.bands} == {""}


def test_a_molecule_that_cannot_be_computed_stops_no_other(library, monkeypatch):
    pytest.importorskip("tblite")

    def failing(*_, **__):
        raise SimulationError("no minimum")

    monkeypatch.setattr(module, "assign", failing)
    spectra = {"ir": measured()}
    found = explain(library, library.search(spectra, top=5), spectra, count=5)
    assert len(found) == 5
    assert all(any("no minimum" in remark for remark in each.remarks) for each in found)
    with pytest.raises(SettingError, match="level"):
        explain(library, library.search(spectra, top=1), spectra, level="exact")


def test_tails_of_bands_elsewhere_are_no_bands(library):
    pytest.importorskip("tblite")
    spectra = {"ir": measured((2250, 0.6), low=1900, high=2500)}
    (found,) = explain(library, library.search(spectra, formula="H2O"), spectra)
    assert [band.status for band in found.bands] == ["extra"]
    assert found.candidate[found.known].max() < 0.5


def test_water_and_linear_molecules(library):
    pytest.importorskip("tblite")
    spectra = {"ir": measured()}
    for formula in ("H2O", "CO2", "CHN"):
        (found,) = explain(library, library.search(spectra, formula=formula), spectra)
        assert found.formula == formula
        assert found.bands


def test_several_modalities_and_a_way_without_spectra(made, small, monkeypatch):
    def missing(*_, **__):
        raise MissingExtraError("simulation needs tblite")

    monkeypatch.setattr(module, "levels_of_theory", missing)
    library = Library(made)
    spectra = {name: small.spectrum(3, name) for name in ("raman", "ir", "uv_vis")}
    hits = library.search(spectra, by="embedding", top=2)
    found = explain(library, hits, spectra, count=9)
    assert [(each.rank, each.modality) for each in found] == [
        (rank, name) for rank in (1, 2) for name in ("uv_vis", "ir", "raman")
    ]
    electronic = found[0]
    assert not electronic.groups
    assert len(electronic.regions) == 1
    assert all(1 <= (band.measured or band.computed) <= 15 for band in electronic.bands)


def test_a_candidate_without_a_spectrum_is_said(library, monkeypatch):
    monkeypatch.setattr(Library, "stored", lambda *_: np.zeros((1, 875), np.float32))
    monkeypatch.setattr(module, "assign", lambda *_, **__: None)
    spectra = {"ir": measured()}
    (found,) = explain(library, library.search(spectra, **ACETONE), spectra)
    assert (found.bands, found.regions) == ((), ())
    assert not found.candidate.any()
    assert any("no spectrum of the candidate" in remark for remark in found.remarks)


def test_bands_are_written(library, tmp_path):
    found = acetone(library, measured((2250, 0.6)))
    for suffix, read in ((".csv", pyarrow.csv.read_csv), (".parquet", pyarrow.parquet.read_table)):
        path = tmp_path / f"bands{suffix}"
        write_bands(path, [found])
        table = read(path)
        assert len(table) == len(found.bands)
        assert {"rank", "name", "smiles", "status", "measured", "computed", "motion", "atoms"} <= set(
            table.column_names
        )
        with pytest.raises(ExistsError):
            write_bands(path, [found])
        if suffix == ".csv":
            assert all(
                len(number) <= 8 for number in re.findall(r"\d+\.\d+", path.read_text(encoding="utf-8"))
            )
        write_bands(path, [], overwrite=True)
    with pytest.raises(FormatError):
        write_bands(tmp_path / "bands.xlsx", [found])


def test_counts_below_one_are_refused(library):
    hits = library.search({"ir": measured()}, top=1)
    with pytest.raises(ValueRangeError, match="0"):
        explain(library, hits, {"ir": measured()}, count=0)


@pytest.mark.parametrize(
    ("smiles", "groups"),
    [
        ("CCO", {"C-H, alkyl", "O-H, alcohol, phenol or oxime", "C-O, alcohol"}),
        ("CC(=O)OC", {"C-H, alkyl", "C=O, ester", "C-O, ester or acid"}),
        ("CC(=O)N", {"C-H, alkyl", "C=O, amide", "N-H"}),
        ("CC(=O)O", {"C-H, alkyl", "C=O, carboxylic acid", "O-H, carboxylic acid", "C-O, ester or acid"}),
        ("CC(=O)OC(C)=O", {"C-H, alkyl", "C=O, anhydride", "C-O, ester or acid"}),
        ("C[N+](=O)[O-]", {"C-H, alkyl", "NO2, nitro"}),
        ("C#CC#N", {"C-H, alkyne", "C≡C, alkyne", "C≡N, nitrile"}),
        ("Cc1ccccc1", {"C-H, alkyl", "C-H, aromatic or alkene", "C=C, aromatic ring"}),
        ("CS(C)=O", {"C-H, alkyl", "S=O, sulfoxide"}),
        ("FC(F)(F)Cl", {"C-F", "C-Cl"}),
    ],
)
def test_groups_of_molecules(smiles, groups):
    axis = IR.axis()
    blank = np.zeros(len(axis))
    found = evidence(parsed_smiles(smiles), axis, blank, blank > 0, [])
    assert {each.group for each in found} == groups
    assert {each.verdict for each in found} == {"open"}


def test_ranges_ascend_on_the_axis():
    for entry in (*GROUPS, *DEMANDS):
        assert IR.start <= entry.low < entry.high <= IR.stop


def test_a_strong_group_without_its_band_is_contradicted():
    axis = IR.axis()
    everywhere = np.ones(len(axis), bool)
    ketone = parsed_smiles("CC(C)=O")
    for peaks, expected in (
        ([(2950.0, 1.0)], "contradicted"),
        ([(2950.0, 1.0), (1715.0, 0.9)], "supported"),
        ([(2950.0, 1.0), (1715.0, 0.04)], "open"),
    ):
        query = sum(height * np.exp(-(((axis - place) / 10) ** 2)) for place, height in peaks)
        found = {each.group: each for each in evidence(ketone, axis, query, everywhere, peaks)}
        assert found["C=O, ketone"].verdict == expected
        raman = {
            each.group: each for each in evidence(ketone, axis, query, everywhere, peaks, infrared=False)
        }
        assert raman["C=O, ketone"].verdict in ("supported", "open")


def test_rotational_lines_of_a_small_gas_ask_for_nothing(library):
    pytest.importorskip("tblite")
    axis, places = IR.axis(), (1540.0, 1595.0, 1700.0, 1740.0, 3700.0)
    values = sum(np.exp(-(((axis - place) / 10) ** 2)) for place in places)
    spectra = {"ir": MeasuredSpectrum(axis, values, "cm⁻¹", "absorbance", "ir")}
    water, cyanide = (
        explain(library, library.search(spectra, formula=formula), spectra)[0] for formula in ("H2O", "CHN")
    )
    assert "C=O" not in verdicts(water)
    assert any("rotational lines" in remark for remark in water.remarks)
    assert verdicts(cyanide)["C=O"] == ("contradicted", False)


def test_sampled_and_line_spectra_are_queries_too(library, store):
    pytest.importorskip("tblite")
    lines = LineSpectrum("ir", [740.0, 2130.0, 3240.0], [60.0, 20.0, 25.0])
    sampled = SampledSpectrum("ir", lines.broadened().values, "measured")
    for spectrum in (lines, sampled):
        (found,) = explain(library, library.search({"ir": spectrum}, formula="CHN"), {"ir": spectrum})
        assert [band.status for band in found.bands][:1] == ["matched"]


def test_a_search_says_that_structures_are_compared(library):
    raman = {"raman": LineSpectrum("raman", np.array([1700.0]), np.array([1.0]), "one")}
    assert any("structures" in remark for remark in library.search(raman).remarks)
    assert not any("structures" in remark for remark in library.search(raman, by="embedding").remarks)
