"""What the tab of one molecule computes and shows, without a browser."""

import multiprocessing

import numpy as np
import pytest
from frame_data import data_of, document_of

from molspectra.apps.explorer import molecule as tab
from molspectra.apps.explorer.frames import frame
from molspectra.apps.explorer.site import Site
from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import from_smiles
from molspectra.errors import InputError, SimulationError
from molspectra.search.build import build

HOSTILE = "</script><img src=x onerror=alert(1)>{{0}}${1}"


@pytest.fixture(scope="module")
def site(use_store, use_runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("molecule")
    build(folder / "index", use_store, use_runs["stage2"])
    return Site(folder / "index", "base", folder / "runs", folder)


@pytest.mark.parametrize("text", ["", None, "C1CC", "<b>C</b>", "C" * 2000, "CC.O", "{{x}}"])
def test_what_is_no_molecule_is_refused_in_one_line(text):
    with pytest.raises(InputError) as caught:
        tab.read(text)
    assert "\n" not in str(caught.value)


def test_a_hostile_name_is_only_text(site):
    water = from_smiles("O", name=HOSTILE)
    shown = tab.look(site, water)
    for markup in (tab.told(shown), tab.drawn(shown), tab.captions(shown)):
        assert "<img" not in markup
        assert not set("{}$") & set(markup)
    document = document_of(tab.drawn(shown))
    assert "<img" not in document
    assert data_of(tab.drawn(shown))["name"] == shown.title


def test_base_predicts_spectra_and_says_how_to_get_properties(site):
    shown = tab.look(site, tab.read("CCO"))
    assert list(shown.predicted) == ["uv_vis", "ir", "raman"]
    assert shown.properties == ()
    assert "--model RUN" in " ".join(shown.remarks)
    panels = data_of(tab.drawn(shown))["panels"]
    assert [panel["name"] for panel in panels] == ["ir", "raman", "uv_vis"]
    assert panels[0]["range"] == [4000, 500]
    assert all(max(curve["values"]) == 1 for panel in panels for curve in panel["curves"])
    assert "not a calculation" in tab.captions(shown)


def test_an_element_that_the_model_does_not_know_is_shown_without_spectra(site):
    silane = tab.read("[SiH4]")
    shown = tab.look(site, silane)
    assert shown.predicted == {}
    assert "Si" in " ".join(shown.remarks)
    assert data_of(tab.drawn(shown))["structure"]["symbols"] == silane.symbols
    with pytest.raises(InputError, match="Si"):
        tab.nearest(site, silane)


def test_a_fine_tuned_run_predicts_its_property_with_unit_and_level(site, use_runs):
    tuned = Site(site.index, str(use_runs["gap"]), site.runs, site.temporary)
    shown = tab.look(tuned, tab.read("CCO"))
    (line,) = shown.properties
    assert line.startswith("gap: ")
    assert " eV" in line
    assert "made-up level" in line


def test_a_model_that_is_not_there_is_a_remark(site, tmp_path):
    shown = tab.look(Site(site.index, str(tmp_path / "none"), site.runs, tmp_path), tab.read("C"))
    assert shown.remarks
    assert not shown.predicted


@pytest.mark.parametrize("row", [0, 8, 21])
def test_the_nearest_of_a_library_molecule_is_itself(site, row):
    one = tab.of_library(site, str(row))
    found = tab.nearest(site, one)
    hits = list(found)
    assert len(hits) == tab.NEAREST
    assert hits[0]["row"] == row
    assert hits[0]["score"] == pytest.approx(1, abs=1e-3)
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert f'data-choice="{row}"' in tab.listed(found)


@pytest.mark.parametrize("row", ["-1", "22", "x", None, "1e3"])
def test_a_row_that_is_not_in_the_library_is_refused(site, row):
    with pytest.raises(InputError, match="no such molecule"):
        tab.of_library(site, row)


def test_too_large_a_molecule_is_not_simulated():
    pytest.importorskip("tblite")
    with pytest.raises(InputError, match=f"{tab.MOST_ATOMS}"):
        next(tab.simulated(tab.read("C" * 20), ["ir"], "gfn2"))


@pytest.mark.parametrize(
    ("kinds", "level"), [([], "gfn2"), (["raman"], "dft"), (["uv_vis"], "scaled"), (["ir"], "x")]
)
def test_what_no_level_has_is_refused(kinds, level):
    pytest.importorskip("tblite")
    with pytest.raises(InputError):
        next(tab.simulated(from_smiles("O"), kinds, level))


def test_a_simulation_stands_beside_the_prediction_and_its_lines_move(site):
    pytest.importorskip("tblite")
    shown = tab.look(site, tab.read("O"))
    *_, (told, result) = tab.simulated(shown.molecule, ["ir", "raman", "uv_vis"], "scaled")
    assert told.startswith("Simulated")
    assert multiprocessing.active_children() == []
    data = data_of(tab.drawn(shown, result))
    assert len(data["vibrations"]) == 3
    assert all(np.linalg.norm(each["moves"], axis=1).max() == pytest.approx(1, abs=0.01)
               for each in data["vibrations"])  # fmt: skip
    for panel in data["panels"]:
        assert [curve["dash"] for curve in panel["curves"]] == ["dash", "solid"]
        assert panel["lines"]
    infrared = data["panels"][0]["lines"]
    assert {line["vibration"] for line in infrared} == {0, 1, 2}
    for line in infrared:
        assert data["vibrations"][line["vibration"]]["label"].split()[0] == line["label"].split()[0]
    caption = tab.captions(shown, result)
    assert "scaled valence force field" in caption
    assert "B3LYP" in caption


def test_a_simulation_that_is_closed_or_too_long_leaves_no_process():
    pytest.importorskip("tblite")
    closed = tab.simulated(from_smiles("CCO"), ["ir"], "dft")
    next(closed)
    assert multiprocessing.active_children()
    closed.close()
    assert multiprocessing.active_children() == []
    with pytest.raises(SimulationError, match="longer than"):
        list(tab.simulated(from_smiles("CCO"), ["ir"], "dft", limit=0.7))
    assert multiprocessing.active_children() == []


def test_a_radical_is_refused_before_a_process_starts():
    pytest.importorskip("tblite")
    with pytest.raises(InputError, match="electrons"):
        next(tab.simulated(Molecule(np.array([1]), np.zeros((1, 3))), ["ir"], "gfn2"))


def test_the_sketch_is_a_module():
    assert "type=&quot;module&quot; src=&quot;/frames/sketch.js" in frame("sketch", {}, "drawing", 300)
