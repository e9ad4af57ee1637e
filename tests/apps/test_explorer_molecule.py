"""What the explorer computes of one molecule, without a browser."""

import html
import json
import multiprocessing
import re

import numpy as np
import pytest

pytest.importorskip("tblite")

from molspectra.apps.explorer import molecule
from molspectra.apps.explorer.site import Site
from molspectra.chem.smiles import from_smiles
from molspectra.errors import FormatError, NotFoundError, SettingError, ValueRangeError
from molspectra.search.build import build

HOSTILE = '<img src=x onerror="alert(1)"> {{7*7}} ${7*7}'


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explorer")
    smiles = ["CC(C)=O acetone", "CCC(C)=O butanone", "CCO ethanol", "CC#N acetonitrile", f"C {HOSTILE}"]
    (folder / "some.smi").write_text("\n".join(smiles), encoding="utf-8")
    build(folder / "index", folder / "some.smi", "small", calibration=None)
    return Site(folder / "index", "base", folder / "runs", folder)


def frame_data(markup):
    """The data of a drawing, as its script gets them."""
    (document,) = re.findall(r'srcdoc="([^"]*)"', html.unescape(markup.replace("&quot;", "&amp;quot;")))
    (text,) = re.findall(r'id="data">(.*?)</script>', html.unescape(html.unescape(document)), re.DOTALL)
    return json.loads(text)


@pytest.mark.parametrize(
    ("text", "error"), [("", SettingError), ("C1CC(", FormatError), ("C" * 1001, FormatError)]
)
def test_what_is_no_molecule_is_one_line(text, error):
    with pytest.raises(error) as caught:
        molecule.read(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", [None, "x", -1, 10**12, [0]])
def test_rows_that_the_library_lacks(site, row):
    with pytest.raises(NotFoundError):
        molecule.of_library(site, row)


def test_predictions_and_what_is_not_predicted(site):
    shown = molecule.look(site, molecule.read("CC(C)=O"))
    assert set(shown.predicted) == {"ir", "raman", "uv_vis"}
    assert shown.properties == ()
    assert any("--model" in remark for remark in shown.remarks)
    data = frame_data(molecule.drawn(shown))
    assert [panel["name"] for panel in data["panels"]] == ["ir", "raman", "uv_vis"]
    infrared = data["panels"][0]
    (curve,) = infrared["curves"]
    highest = infrared["axis"][int(np.argmax(curve["values"]))]
    kind = shown.predicted["ir"]
    assert highest == pytest.approx(kind.axis[kind.values.argmax()], abs=3)
    assert data["vibrations"] == []


def test_a_molecule_of_the_library_is_nearest_to_itself(site):
    for row in range(4):
        one = molecule.of_library(site, row)
        hits = list(molecule.nearest(site, one))
        assert hits[0]["row"] == row
        assert hits[0]["score"] == pytest.approx(1, abs=1e-4)
        assert hits[0]["score"] >= hits[1]["score"]


def test_names_are_escaped(site):
    one = molecule.of_library(site, 4)
    assert "onerror" in one.name
    shown = molecule.look(site, one)
    pages = [molecule.told(shown), molecule.listed(molecule.nearest(site, one)), molecule.drawn(shown)]
    for page in pages:
        assert "<img" not in page
        assert "{{" not in page
        assert "${" not in page
    assert frame_data(pages[2])["name"] == shown.title


def test_a_simulation_ends_with_lines_and_vibrations():
    water = from_smiles("O")
    steps = list(molecule.simulated(water, ["ir"], "scaled"))
    told, result = steps[-1]
    assert told.startswith("Simulated in")
    assert len(result.lines["ir"].position) == 3
    shown = molecule.Shown(water, "base")
    data = frame_data(molecule.drawn(shown, result))
    assert len(data["vibrations"]) == 3
    assert max(line["height"] for line in data["panels"][0]["lines"]) == 1
    assert "scaled" in molecule.captions(shown, result)


def test_what_cannot_be_simulated_is_refused_before_it_starts():
    with pytest.raises(ValueRangeError, match="atoms"):
        next(molecule.simulated(from_smiles("C" * 25), ["ir"], "gfn2"))
    with pytest.raises(SettingError):
        next(molecule.simulated(from_smiles("C"), [], "gfn2"))
    with pytest.raises(SettingError, match="ir alone"):
        next(molecule.simulated(from_smiles("C"), ["ir", "raman"], "dft"))


def test_a_simulation_that_is_not_wanted_any_more_leaves_no_process():
    before = set(multiprocessing.active_children())
    running = molecule.simulated(from_smiles("CCCCCC(=O)OCC"), ["ir"], "dft")
    next(running)
    (child,) = set(multiprocessing.active_children()) - before
    assert child.is_alive()
    running.close()
    assert not child.is_alive()
