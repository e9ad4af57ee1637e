import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molspectra.chem.molecule import Molecule
from molspectra.errors import ExistsError, FormatError, InputError, WriteError
from molspectra.simulation.api import Property, Simulation
from molspectra.simulation.records import (
    Journal,
    Record,
    from_json,
    key_of,
    read_journal,
    records_at,
    to_json,
)
from molspectra.spectra.spectrum import LineSpectrum

FINITE = st.floats(min_value=-1e300, max_value=1e300)


def record(key="a", positions=((0.0, 0.0, 0.1), (0.0, 0.0, 0.84)), lines=(4161.0,), value=0.25):
    molecule = Molecule(np.array([1, 1]), np.array(positions), smiles="[H][H]", name="hydrogen")
    line = LineSpectrum("ir", np.sort(np.array(lines)), np.abs(np.array(lines)), "level")
    simulation = Simulation(molecule, {"ir": line}, {"zpve": Property(value, "eV", "level")}, {"ir": "level"})
    return Record(key, molecule.identity, molecule.smiles, molecule.name, 1.5, simulation)


def failure(key="b"):
    return Record(key, "AAAAAAAAAAAAAA", None, None, 0.5, error="SCF failed: no reason")


@given(st.lists(FINITE, max_size=5), FINITE, st.floats(0.3, 1e4))
def test_records_read_back_exactly(lines, value, distance):
    before = record(positions=((0, 0, 0), (0, 0, distance)), lines=lines, value=value)
    after = from_json(to_json(before))
    assert to_json(after) == to_json(before)
    a, b = before.simulation, after.simulation
    assert np.array_equal(a.molecule.positions, b.molecule.positions)
    assert np.array_equal(a.molecule.numbers, b.molecule.numbers)
    assert (a.molecule.smiles, a.molecule.name, a.molecule.charge) == (
        "[H][H]",
        "hydrogen",
        b.molecule.charge,
    )
    assert np.array_equal(a.lines["ir"].position, b.lines["ir"].position)
    assert np.array_equal(a.lines["ir"].intensity, b.lines["ir"].intensity)
    assert (a.properties, a.levels) == (b.properties, b.levels)


def test_failures_read_back():
    assert from_json(to_json(failure())) == failure()


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", '{"key": 1}', "{", '"key"'])
def test_what_is_not_a_record_is_refused(text):
    with pytest.raises(FormatError, match="not a simulation record"):
        from_json(text)


def test_journal_keeps_records_over_sessions(tmp_path):
    path = tmp_path / "new" / "folder" / "journal.jsonl"
    with Journal(path) as journal:
        journal.append(record("a"))
        journal.append(failure("b"))
    with Journal(path) as journal:
        assert set(journal.offsets) == {"a", "b"}
        assert journal.failed == {"b"}
        journal.append(record("c"))
        order = [journal.offsets[key] for key in ("c", "a")]
    assert [each.key for each in read_journal(path)] == ["a", "b", "c"]
    assert [each.key for each in records_at(path, order)] == ["c", "a"]


def test_newest_record_of_a_key_counts(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append(failure("a"))
        journal.append(record("a"))
        assert journal.failed == set()
    with Journal(path) as journal:
        assert journal.failed == set()
        assert next(records_at(path, [journal.offsets["a"]])).error is None


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_torn_last_line_is_cut_off_and_written_anew(tmp_path, cut):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append(record("a"))
        journal.append(record("b"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert [each.key for each in read_journal(path)] == ["a"]
    with Journal(path) as journal:
        assert set(journal.offsets) == {"a"}
        journal.append(record("b"))
    assert path.read_bytes() == whole


def test_a_journal_of_one_torn_line_is_empty(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"key": "a", "ident')
    with Journal(path) as journal:
        assert journal.offsets == {}
    assert path.read_bytes() == b""


def test_damage_inside_is_named_and_left_alone(tmp_path):
    path = tmp_path / "journal.jsonl"
    text = to_json(record("a")) + "\nnonsense\n" + to_json(record("b")) + "\n"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=r"journal\.jsonl, line 2: not a simulation record"):
        Journal(path)
    assert path.read_text(encoding="utf-8") == text


def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("smiles,name\nO,water\n")
    with pytest.raises(FormatError, match="line 1"):
        Journal(path)
    assert path.read_text() == "smiles,name\nO,water\n"


def test_two_writers_at_once_are_refused(tmp_path):
    pytest.importorskip("fcntl")
    path = tmp_path / "journal.jsonl"
    with Journal(path), pytest.raises(ExistsError, match="another process"):
        Journal(path)
    Journal(path).close()


def test_a_folder_or_a_missing_file_cannot_be_read(tmp_path):
    with pytest.raises(WriteError, match="cannot write the journal"):
        Journal(tmp_path)
    with pytest.raises(InputError, match="cannot read the journal"):
        list(read_journal(tmp_path / "none.jsonl"))


def test_non_finite_numbers_cannot_enter():
    bad = record(value=float("nan"))
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json(bad)


def test_keys_tell_molecules_levels_and_geometries_apart():
    molecule = record().simulation.molecule
    moved = molecule.with_positions(molecule.positions * 1.01)
    levels = {"ir": "GFN2", "geometry": "GFN2"}
    assert key_of(molecule, levels) != key_of(moved, levels)
    assert key_of(molecule, levels, by_geometry=False) == key_of(moved, levels, by_geometry=False)
    assert key_of(molecule, levels) != key_of(molecule, {"ir": "GFN1", "geometry": "GFN2"})
    assert key_of(molecule, levels) == key_of(molecule, dict(reversed(levels.items())))
    ion = Molecule(molecule.numbers, molecule.positions, smiles="[H][H]", charge=2)
    assert key_of(molecule, levels) != key_of(ion, levels)
    assert json.dumps(key_of(molecule, levels))
