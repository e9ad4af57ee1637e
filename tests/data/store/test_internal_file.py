"""The side file with internal coordinates: made once, bound to its store, gathered as tensors of a batch."""

import os
import pickle
import shutil
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields

import numpy as np
import pyarrow as pa
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from molspectra.chem.internal import internal_coordinates
from molspectra.chem.molecule import Molecule
from molspectra.data.loader import batches
from molspectra.data.store import internal as module
from molspectra.data.store.internal import (
    internal_path,
    open_internal,
    prepare_internal,
    with_internal,
)
from molspectra.data.store.store import Metadata, Row, Store, write_store
from molspectra.errors import DamagedError, InputError, MismatchError, NotFoundError

SMILES = ("CCCC", "O", "CC(=O)N", "Cc1ccccc1", "C#C", "OCC(C)CO", "C1CC1")
ORDER = [5, 0, 7, 3, 1, 5]


def rows(count=8):
    for number in range(count - 1):
        mol = Chem.AddHs(Chem.MolFromSmiles(SMILES[number % len(SMILES)]))
        AllChem.EmbedMolecule(mol, randomSeed=3)
        numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
        yield Row(Molecule(numbers, mol.GetConformer().GetPositions()), identity=f"ID{number}")
    yield Row(Molecule([18], [[0.0, 0.0, 0.0]]), identity="argon")


def make(path, count=8, chunk_rows=3):
    metadata = Metadata(source="made up", licence="CC0-1.0", position_dtype="float64")
    write_store(path, rows(count), metadata, chunk_rows=chunk_rows, overwrite=True)
    return Store(path)


@pytest.fixture
def store(tmp_path):
    return make(tmp_path / "some.arrow")


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "PART_ROWS", 3)


def contents(store):
    """What the file holds of each row, by a gather of that row alone."""
    file = open_internal(store)
    counts = store.atom_counts
    return [file.batch(torch.tensor([row]), torch.tensor([0, counts[row]])) for row in range(len(store))]


def same(one, other):
    """Whether two batches of coordinates are equal, field by field."""
    for each in fields(one):
        left, right = getattr(one, each.name), getattr(other, each.name)
        if isinstance(left, torch.Tensor):
            if not torch.equal(left, right):
                return False
        elif isinstance(left, tuple):
            if left != right:
                return False
        elif not same(left, right):
            return False
    return True


def test_the_file_holds_what_the_molecules_have(store, small_parts):
    done = prepare_internal(store, show=False)
    assert (done.path, done.unperceived()) == (store.path.with_name("some.internal.arrow"), 0)
    for row, found in enumerate(contents(store)):
        expected = internal_coordinates(store.molecule(row))
        np.testing.assert_array_equal(found.bonds.atoms.numpy(), expected.bonds)
        np.testing.assert_array_equal(found.bonds.sigma.numpy(), expected.bond_sigma)
        np.testing.assert_array_equal(found.angles.atoms.numpy(), expected.angles[:, :3])
        np.testing.assert_array_equal(found.angles.sigma.numpy(), expected.angle_sigma)
        torsions = [
            [first, *expected.bonds[bond].tolist(), last] for first, bond, last in expected.torsions.tolist()
        ]
        assert found.torsions.atoms.tolist() == torsions
        np.testing.assert_array_equal(found.rotatable.numpy(), np.flatnonzero(expected.rotatable))
        assert int(found.rotatable_counts) == expected.rotatable.sum()
        assert bool(found.moves) == bool(len(expected.bonds))
    assert open_internal(store).unperceived() == 0


def test_a_batch_counts_atoms_and_terms_from_its_own_start(store):
    batch = with_internal(store, show=False).batch(ORDER)
    alone = [with_internal(store, show=False).batch([row]) for row in ORDER]
    found = batch.internal
    for name, shift in (("bonds", "atoms"), ("angles", "atoms"), ("torsions", "atoms")):
        terms = getattr(found, name)
        pieces = terms.atoms.split(terms.counts.tolist())
        for place, (piece, single) in enumerate(zip(pieces, alone, strict=True)):
            expected = getattr(getattr(single.internal, name), shift) + batch.ptr[place]
            assert torch.equal(piece, expected)
    assert torch.equal(found.side_ptr[-1], torch.tensor(len(found.side_bond)))
    flat = torch.cat([each.atoms.flatten() for each in (found.bonds, found.angles, found.torsions)])
    owner = torch.repeat_interleave(found.slot_ptr.diff())
    assert torch.equal(flat[found.slot_order], owner)


def test_moves_are_the_sides_of_the_bonds_in_steps(store):
    """Every step moves no atom twice; all steps together hold every term once, with its side."""
    found = with_internal(store, show=False).batch(ORDER).internal
    side_atom = torch.repeat_interleave(found.side_ptr.diff())
    sides = {bond: set(side_atom[found.side_bond == bond].tolist()) for bond in range(len(found.bonds.sigma))}
    ends = {tuple(atoms): bond for bond, atoms in enumerate(found.bonds.atoms.tolist())}
    for name in ("turns", "twists", "bends"):
        moves = getattr(found, name)
        assert sum(moves.terms) == len(moves.term)
        assert sum(moves.atoms) == len(moves.atom) == len(moves.owner)
        seen = []
        steps = zip(
            moves.term.split(moves.terms),
            moves.atom.split(moves.atoms),
            moves.owner.split(moves.atoms),
            strict=True,
        )
        for term, atom, owner in steps:
            assert len(set(atom.tolist())) == len(atom)
            for place, each in enumerate(term.tolist()):
                seen.append(each)
                moved = set(atom[owner == place].tolist())
                if name == "turns":
                    bond = int(found.rotatable[each])
                elif name == "twists":
                    bond = ends[tuple(found.torsions.atoms[each, 1:3].tolist())]
                else:
                    fixed, centre, end = found.angles.atoms[each].tolist()
                    bond = ends.get((centre, end), ends.get((fixed, centre)))
                    assert end in moved
                    assert fixed not in moved
                assert moved == sides[bond]
        assert sorted(seen) == list(range(len(moves.term)))


def test_a_batch_travels_with_its_coordinates(store):
    batch = with_internal(store, show=False).batch(ORDER)
    again = pickle.loads(pickle.dumps(batch))
    assert same(again.internal, batch.internal)
    moved = batch.to("cpu", torch.float64)
    assert moved.positions.dtype == torch.float64
    assert same(moved.internal, batch.internal)  # numbers keep their types
    assert batch.with_positions(batch.positions + 1).internal is batch.internal
    assert store.batch(ORDER).internal is None


def test_a_store_pickles_with_its_coordinates(store, monkeypatch):
    """By paths alone: nothing is made again where it is unpickled."""
    opened = with_internal(store, show=False)
    data = pickle.dumps(opened)
    assert len(data) < 1000
    monkeypatch.setattr(module, "prepare_internal", lambda *_, **__: pytest.fail("made again"))
    again = pickle.loads(data)
    assert same(again.batch(ORDER).internal, opened.batch(ORDER).internal)
    internal_path(store).unlink()
    with pytest.raises(NotFoundError, match=r"some\.internal\.arrow"):
        pickle.loads(data)


class Make:
    """The batch of a step, for workers."""

    def __init__(self, store):
        self.store = store

    def __call__(self, step):
        return self.store.batch([step, 0])


@pytest.mark.slow
def test_workers_make_the_same_batches(store):
    maker = Make(with_internal(store, show=False))
    here = list(batches(maker, 0, 2))
    there = list(batches(maker, 0, 2, workers=1))
    assert all(same(one.internal, two.internal) for one, two in zip(here, there, strict=True))


def test_it_is_made_once_and_again_for_another_content(store, monkeypatch):
    with_internal(store, show=False)
    before = internal_path(store).stat().st_mtime_ns
    monkeypatch.setattr(module, "prepare_internal", lambda *_, **__: pytest.fail("made again"))
    with_internal(store, show=False)
    assert internal_path(store).stat().st_mtime_ns == before
    monkeypatch.undo()
    other = make(store.path, count=6)
    with pytest.raises(MismatchError, match=r"some\.internal\.arrow.*another store.*prepare-internal"):
        open_internal(other)
    with_internal(other, show=False)
    assert len(contents(other)) == 6


def test_an_interrupted_preparation_goes_on(store, small_parts, monkeypatch):
    done = []
    real = internal_coordinates

    def until_the_fifth(molecule):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(molecule)
        return real(molecule)

    monkeypatch.setattr(module, "internal_coordinates", until_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        prepare_internal(store, show=False)
    assert not internal_path(store).exists()
    with pytest.raises(NotFoundError, match="run `molspectra prepare-internal"):
        open_internal(store)
    counted = []
    monkeypatch.setattr(module, "internal_coordinates", lambda each: counted.append(each) or real(each))
    prepare_internal(store, show=False)
    assert len(counted) == 5  # the first part of three was whole
    assert sorted(path.name for path in store.path.parent.iterdir()) == ["some.arrow", "some.internal.arrow"]


@pytest.mark.slow
def test_any_number_of_processes_and_parts_gives_the_same(store, tmp_path, monkeypatch):
    prepare_internal(store, show=False)
    whole = contents(store)
    monkeypatch.setattr(module, "PART_ROWS", 3)
    prepare_internal(store, processes=2, show=False)
    assert all(same(one, other) for one, other in zip(whole, contents(store), strict=True))


def test_two_runs_may_make_it_at_once(store, monkeypatch):
    """The other run finishes first, and takes the parts away."""

    def overtaken(*_, **__):
        monkeypatch.undo()
        prepare_internal(store, show=False)
        raise InputError("parts: No such file or directory")

    monkeypatch.setattr(module, "prepare_internal", overtaken)
    with_internal(store, show=False)
    assert open_internal(store).unperceived() == 0


def test_why_it_cannot_be_made_is_told(store, monkeypatch):
    def failing(*_, **__):
        raise InputError("no space left")

    monkeypatch.setattr(module, "prepare_internal", failing)
    with pytest.raises(InputError, match="no space left"):
        with_internal(store, show=False)


def test_a_folder_that_cannot_be_written_sends_it_to_the_cache(store, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert internal_path(store).parent == store.path.parent
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert internal_path(store).parent == tmp_path / "cache" / "molspectra"
    assert store.hash[:16] in internal_path(store).name
    with_internal(store, show=False)
    assert len(contents(store)) == 8


def test_damage_is_told(store):
    prepare_internal(store, show=False)
    path = internal_path(store)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedError, match="cut short"):
        open_internal(store)
    shutil.copy(store.path, path)
    with pytest.raises(MismatchError, match="another store"):
        open_internal(store)


@pytest.mark.parametrize("column", ["bonds", "sides", "angles", "torsions"])
def test_numbers_beyond_the_molecule_are_refused(store, column):
    prepare_internal(store, show=False)
    path = internal_path(store)
    with pa.OSFile(str(path)) as source:
        file = pa.ipc.open_file(source)
        table = [file.get_batch(k) for k in range(file.num_record_batches)]
    position = table[0].schema.get_field_index(column)
    array = table[0].column(position)
    flat = array.values.values if column != "sides" else array.values
    values = flat.to_numpy().copy()
    values[0] = 99
    item = array.type.value_type
    child = pa.array(values, pa.int16())
    inner = pa.FixedSizeListArray.from_arrays(child, type=item) if column != "sides" else child
    changed = pa.LargeListArray.from_arrays(array.offsets, inner, type=array.type)
    columns = [changed if k == position else each for k, each in enumerate(table[0].columns)]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table[0].schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=table[0].schema))
    file = open_internal(store)
    ptr = torch.tensor([0, store.atom_counts[0]])
    with pytest.raises(DamagedError, match=r"some\.internal\.arrow"):
        file.batch(torch.tensor([0]), ptr)


@pytest.mark.usefixtures("small_parts")
def test_a_killed_process_gives_one_line(store, monkeypatch):
    class Pool:
        def __init__(self, *arguments, **options):
            pass

        def submit(self, *arguments):
            future = Future()
            future.set_exception(BrokenProcessPool("a child process terminated abruptly"))
            return future

        def shutdown(self, **options):
            pass

    monkeypatch.setattr(module, "ProcessPoolExecutor", Pool)
    with pytest.raises(InputError, match="a process was killed"):
        prepare_internal(store, processes=2, show=False)
