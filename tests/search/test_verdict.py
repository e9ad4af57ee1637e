"""What a search tells of its confidences: groups of near-ties, and molecules that are probably missing."""

import json
from dataclasses import replace

import pytest

from molspectra.errors import DamagedError
from molspectra.search.calibrate import key
from molspectra.search.library import Library
from molspectra.search.pipeline import Pipeline


def with_calibration(folder, **changes):
    """An index with other values in its calibration."""
    path = folder / "library.json"
    content = json.loads(path.read_text())
    content["calibration"] |= changes
    path.write_text(json.dumps(content))
    return Library(folder)


def test_answers_that_are_about_as_probable_share_a_group(made, small):
    library = Library(made)
    hits = library.search({"ir": small.spectrum(3, "ir")}, top=30)
    confidence, group = (hits.table[name].to_pylist() for name in ("confidence", "group"))
    assert group[0] == 1
    for before, after in zip(range(29), range(1, 30), strict=True):
        first = confidence[group.index(group[before])]
        assert group[after] == group[before] + (2 * confidence[after] < first)
    assert "group" in hits.text().splitlines()[0].split()
    combined = library.search({"ir": small.spectrum(3, "ir")}, by=["shape", "cosine"])
    assert combined.table["group"].null_count == 0


def test_nothing_is_claimed_without_a_calibration(index, small):
    path = index / "library.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"calibration": None}))
    molecule, spectra = small.molecule(3), {"ir": small.spectrum(3, "ir")}
    hits = Library(index).search(spectra, formula=molecule.formula)
    assert set(hits.table["confidence"].to_pylist()) == {None} == set(hits.table["group"].to_pylist())
    assert not any("not in this library" in remark for remark in hits.remarks)


def test_nothing_is_claimed_of_a_part_of_the_axis(made, small):
    library, spectra = Library(made), {"ir": small.spectrum(3, "ir")}
    for window, is_enough in (((700, 4000), True), ((900, 1800), False)):
        hits = library.search(spectra, pipeline=Pipeline(window={"ir": window}))
        assert (hits.table["confidence"].null_count == 0) == is_enough
        assert any("no confidences: 26%" in remark for remark in hits.remarks) != is_enough


def test_the_verdict_is_told_of_searches_of_one_formula(index, small):
    molecule, spectra = small.molecule(3), {"ir": small.spectrum(3, "ir")}
    name = key("match", ("ir",))

    def told(library, **filters):
        remarks = library.search(spectra, **filters).remarks
        return [remark for remark in remarks if "not in this library" in remark]

    strict = with_calibration(index, missing={name: (0.9, 0.62)})
    (remark,) = told(strict, formula=molecule.formula)
    assert "62%" in remark
    assert "10%" in remark
    assert told(strict, mass=strict.table["mass"][3].as_py()) == [remark]
    assert not told(strict)  # of all molecules some other always fits
    assert not told(strict, elements=["C", "H", "O", "N", "F"])
    assert not told(with_calibration(index, missing={name: (-0.9, 0.62)}), formula=molecule.formula)
    assert not told(with_calibration(index, missing={}), formula=molecule.formula)


def test_a_calibration_of_an_index_made_before_is_read(index, small):
    calibration = Library(index).manifest.calibration
    library = with_calibration(index, absent={"shape:ir": [0.9, 0.1]}, mixture={}, missing={})
    assert library.manifest.calibration == replace(calibration, mixture={}, missing={})
    assert library.search({"ir": small.spectrum(3, "ir")}).table["confidence"].null_count == 0


@pytest.mark.parametrize(
    "change",
    [{"mixture": {"shape:ir": [0.5, 1, 0, 0]}}, {"mixture": {"shape:ir": [0.5]}}, {"missing": {"a": [0.1]}}],
)
def test_a_strange_calibration_is_refused(index, change):
    with pytest.raises(DamagedError, match=r"library\.json"):
        with_calibration(index, **change)
