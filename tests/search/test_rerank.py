"""Answers ranked again by spectra of another level of theory."""

import numpy as np
import pytest

from molspectra.errors import SettingError, ValueRangeError, WriteError
from molspectra.search.library import Library
from molspectra.search.rerank import JOURNAL, rerank
from molspectra.simulation.api import Simulation
from molspectra.simulation.records import Journal, Record, records_at
from molspectra.simulation.runner import RunResult


@pytest.fixture
def library(index):
    return Library(index)


@pytest.fixture
def smallest(library):
    """Rows of the three smallest molecules with an infrared spectrum."""
    sizes = [len(numbers) for numbers in library.table["numbers"].to_pylist()]
    has = np.asarray(library.segments[0].arrays["samples-ir"]).any(1)
    return [row for row in np.argsort(sizes, kind="stable").tolist() if has[row]][:3]


def test_the_same_level_finds_the_same_molecule_first_and_is_not_computed_twice(library, small, smallest):
    formulas = library.table["formula"].to_pylist()
    lines = small.row(smallest[0]).spectra["ir"]
    hits = library.search({"ir": lines}, by=["shape", "cosine"], formula=formulas[smallest[0]], top=2)
    again = rerank(library, hits, {"ir": lines}, count=2, level="gfn2", processes=1, progress=False)
    first = again.table.to_pylist()[0]
    assert first["row"] == smallest[0]
    assert first["rank_before"] == 1
    assert first["shape"] > 0.98
    assert first["cosine"] > 0.98
    assert again.table["confidence"].null_count == len(again)
    assert any("gfn2" in remark for remark in again.remarks)
    journal = (library.path / JOURNAL).read_bytes()
    assert len(journal.splitlines()) == len(again)
    once_more = rerank(library, hits, {"ir": lines}, count=2, level="gfn2", progress=False)
    assert once_more.table.equals(again.table)
    assert (library.path / JOURNAL).read_bytes() == journal


def test_results_need_a_folder_to_write_to(library, small, smallest, monkeypatch):
    spectra = {"ir": small.row(smallest[0]).spectra["ir"]}
    monkeypatch.setattr("molspectra.search.rerank.JOURNAL", ".")  # a folder, that cannot be opened as a file
    with pytest.raises(WriteError, match="copy the index"):
        rerank(library, library.search(spectra, top=1), spectra, count=1, progress=False)


def test_a_molecule_that_cannot_be_simulated_comes_last(library, small, smallest, monkeypatch, tmp_path):
    lines = small.row(smallest[0]).spectra["ir"]
    hits = library.search({"ir": lines}, top=2)

    def simulated(molecules, journal, names, **options):
        """The first fails, the second has the spectrum that is searched for."""
        found = [None, Simulation(molecules[1], {"ir": lines}, {}, {"ir": lines.level})]
        with Journal(journal) as store:
            for number, result in enumerate(found):
                error = None if result else "did not converge"
                store.append(Record(str(number), str(number), None, None, 0.0, result, error))
            offsets = [store.offsets[str(number)] for number in range(2)]
        failures = list(records_at(journal, offsets[:1]))
        return RunResult(journal, offsets, failures, computed=2, reused=0, repeated=0)

    monkeypatch.setattr("molspectra.search.rerank.simulate_many", simulated)
    again = rerank(library, hits, {"ir": lines}, count=2, journal=tmp_path / "simulated.jsonl")
    assert again.table["rank_before"].to_pylist() == [2, 1]
    assert again.table["score"].to_pylist()[1] is None
    assert any("did not converge" in remark for remark in again.remarks)


def test_what_cannot_be_ranked_again_is_refused(library, small, smallest):
    spectra = small.row(smallest[0]).spectra
    by_model = library.search({"ir": spectra["ir"]}, by="embedding", top=2)
    with pytest.raises(SettingError, match="embedding"):
        rerank(library, by_model, {"ir": spectra["ir"]})
    hits = library.search({"raman": spectra["raman"]}, top=2)
    with pytest.raises(SettingError, match="raman"):
        rerank(library, hits, {"raman": spectra["raman"]}, level="dft")
    with pytest.raises(ValueRangeError):
        rerank(library, hits, {"raman": spectra["raman"]}, count=0)
    with pytest.raises(SettingError, match="scaled"):
        rerank(library, hits, {"raman": spectra["raman"]}, level="scalde")
