"""The map of the library: places, colours, search, and what is shown of a molecule."""

from dataclasses import replace

import numpy as np
import pytest
from frame_data import data_of, document_of
from tiny_runs import MOLECULES

from molspectra.apps.explorer import library_map
from molspectra.apps.explorer.library_map import Matches, amounts, drawn, matching, molecule, with_group
from molspectra.data.store.store import Row, write_store
from molspectra.errors import DamagedError, SettingError, ValueRangeError
from molspectra.search.library import Library

pytest.importorskip("sklearn")

HOSTILE = '</script><img src=x onerror="alert(1)">{{constructor}}${x}'


@pytest.fixture(scope="module")
def library(tiny, runs, tmp_path_factory):
    """An index of the tiny store; methane has a hostile name, and ammonia is left out."""
    folder = tmp_path_factory.mktemp("map")
    rows = []
    for number, (name, _) in enumerate(MOLECULES):
        row = tiny.store.row(number)
        if name == "methane":
            row = replace(row, molecule=replace(row.molecule, name=HOSTILE))
        if name != "ammonia":
            rows.append(Row(row.molecule, row.spectra, {}))
    write_store(folder / "tiny.arrow", rows, replace(tiny.store.metadata, properties={}))
    return Library.build(folder / "index", folder / "tiny.arrow", runs["stage2"])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLSPECTRA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shown(library):
    """Places that are not computed."""
    rows = np.arange(len(library))
    places = np.random.default_rng(0).normal(size=(len(library), 2)).astype(np.float32)
    return library_map.LibraryMap(rows, places, ("as made",))


def row_of(library, name):
    return library.table["name"].to_pylist().index(name)


def refuse(*_):
    raise AssertionError("the map was computed again")


def test_the_map_is_the_same_each_time_and_kept(library, cache, monkeypatch):
    first = library_map.library_map(library)
    assert first.places.shape == (len(library), 2)
    assert np.isfinite(first.places).all()
    assert (first.places.std(0) > 0).all()
    (path,) = cache.iterdir()
    path.unlink()
    again = library_map.library_map(library)
    np.testing.assert_array_equal(again.places, first.places)
    monkeypatch.setattr(library_map, "_placed", refuse)
    np.testing.assert_array_equal(library_map.library_map(library).places, first.places)


@pytest.mark.parametrize("damage", ["text", "cut", "pickle", "shape", "nan", "empty", "other"])
def test_a_damaged_cache_is_made_again(library, cache, monkeypatch, damage):
    made = np.ones((len(library), 2), np.float32)
    monkeypatch.setattr(library_map, "_placed", lambda *_: made)
    library_map.library_map(library)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    if damage in ("text", "cut", "empty"):
        path.write_bytes({"text": b"nothing", "cut": whole[:-40], "empty": b""}[damage])
    else:
        arrays = {
            "pickle": {"places": np.array([[{}, {}]] * len(library), object)},
            "shape": {"places": made[:-1]},
            "nan": {"places": np.full_like(made, np.nan)},
            "other": {"x": made},
        }
        with path.open("wb") as file:
            np.savez(file, **arrays[damage])
    np.testing.assert_array_equal(library_map.library_map(library).places, made)
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_told(library, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOLSPECTRA_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(library_map, "_placed", lambda _, rows: np.zeros((len(rows), 2), np.float32))
    assert any("cannot be written" in remark for remark in library_map.library_map(library).remarks)


def test_a_large_library_is_sampled(library, cache, monkeypatch):
    monkeypatch.setattr(library_map, "POINTS", 10)
    monkeypatch.setattr(library_map, "_placed", lambda _, rows: np.zeros((len(rows), 2), np.float32))
    one, other = library_map.library_map(library), library_map.library_map(library)
    assert len(one.rows) == 10
    assert (np.diff(one.rows) > 0).all()
    np.testing.assert_array_equal(one.rows, other.rows)
    assert any("sample" in remark for remark in one.remarks)
    away = int(np.setdiff1d(np.arange(len(library)), one.rows)[0])
    assert "1 are not in the sample" in library_map.told(library, one, Matches((away,), "x"))


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_few_or_equal_molecules_have_finite_places(library, count):
    assert np.isfinite(library_map._placed(library, np.arange(count))).all()
    assert np.isfinite(library_map._placed(library, np.zeros(count, np.int64))).all()


def test_embeddings_that_are_not_numbers_are_refused(library, monkeypatch):
    (segment,) = library.segments
    broken = np.array(segment.arrays["structure"])
    broken[3, 0] = np.nan
    monkeypatch.setitem(segment.arrays, "structure", broken)
    with pytest.raises(DamagedError, match="embeddings"):
        library_map._placed(library, np.arange(len(library)))


@pytest.mark.parametrize(
    ("group", "have", "lack"),
    [
        ("C=O, ketone", ["acetone"], ["acetaldehyde", "acetamide", "acetic acid", "ethanol"]),
        ("C=O, aldehyde", ["propanal", "formaldehyde"], ["acetone", "formic acid"]),
        ("O-H, alcohol, phenol or oxime", ["methanol", "ethanol b"], ["acetic acid", "furan", "water"]),
        ("C≡N, nitrile", ["acetonitrile", "hydrogen cyanide"], ["methylamine", "propyne"]),
        ("C=C, aromatic ring", ["benzene", "furan"], ["cyclopropane", "ethene"]),
    ],
)
def test_groups_of_known_molecules(library, shown, group, have, lack):
    present = with_group(library, shown.rows, group)
    assert all(present[row_of(library, name)] is True for name in have)
    assert all(present[row_of(library, name)] is False for name in lack)
    data = data_of(drawn(library, shown, group))
    assert data["present"] == present
    assert data["values"] is None


def test_amounts_of_known_molecules(library, shown):
    rows = np.array([row_of(library, "ethanol"), row_of(library, "acetonitrile")])
    count, mass, share = (amounts(library, rows, colour) for colour in library_map.AMOUNTS)
    np.testing.assert_array_equal(count, [3, 3])
    np.testing.assert_allclose(mass, [46.0419, 41.0265], atol=1e-3)
    np.testing.assert_allclose(share, [100 / 3, 100 / 3])
    data = data_of(drawn(library, shown, "exact mass"))
    assert data["unit"] == "Da"
    assert data["values"][rows[0]] == pytest.approx(46.04, abs=0.01)
    assert data["present"] is None


def test_unknown_colours_are_refused(library, shown):
    with pytest.raises(SettingError, match="listed"):
        drawn(library, shown, "<b>")


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("acetone", "acetone"),
        ("ETHANE", "ethane"),
        ("CC(=O)C", "acetone"),
        ("C6H6", "benzene"),
        ("nitrile", "acetonitrile"),
    ],
)
def test_molecules_are_found_by_name_smiles_and_formula(library, shown, text, first):
    found = matching(library, text)
    assert found.rows[0] == row_of(library, first)
    assert data_of(drawn(library, shown, "exact mass", found))["marked"] == sorted(found.rows)
    assert library_map.listed(library, found).count("data-choice") == min(len(found.rows), library_map.LISTED)


def test_isomers_are_all_found_by_their_formula(library):
    names = {library.table["name"][row].as_py() for row in matching(library, "C3H6O").rows}
    assert names >= {"acetone", "propanal"}


def test_nothing_found_and_long_texts_are_told(library, shown):
    assert "no name holds it" in library_map.told(library, shown, matching(library, "<unobtainium>"))
    assert matching(library, "  ") is library_map.NONE
    with pytest.raises(ValueRangeError, match="300"):
        matching(library, "C" * 301)


def test_hostile_names_stay_texts(library, shown):
    row = row_of(library, HOSTILE)
    assert data_of(drawn(library, shown, "exact mass"))["names"][row] == HOSTILE
    parts = (
        drawn(library, shown, "exact mass"),
        molecule(library, str(row)),
        library_map.listed(library, Matches((row,), HOSTILE)),
        library_map.told(library, shown, Matches((row,), HOSTILE)),
    )
    for part in parts:
        assert "<img" not in part
        assert "{" not in part
        assert "$" not in part
    assert "<img" not in document_of(parts[0])


def test_a_molecule_shows_its_structure_and_stored_spectrum(library):
    row = row_of(library, "acetone")
    markup = molecule(library, str(row))
    assert "CC(C)=O" in markup
    assert "58.0419 Da" in markup
    data = data_of(markup)
    assert sorted(data["structure"]["symbols"]) == ["C"] * 3 + ["H"] * 6 + ["O"]
    stored = library.stored("ir", np.array([row]))[0]
    assert data["spectrum"]["values"] == pytest.approx(stored / stored.max(), abs=1e-3)
    assert "Infrared" in data["spectrum"]["title"]


@pytest.mark.parametrize("choice", ["39", "-1", "1.5", "x", "", None, "9" * 30, "٣", {"row": 1}])
def test_choices_that_are_no_entries_are_refused(library, choice):
    with pytest.raises(SettingError, match="choose"):
        molecule(library, choice)
