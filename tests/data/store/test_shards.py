"""A store in shards holds, gives and hashes what one file does, and survives what happens to its folder."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molspectra.data.store.export import export_parquet
from molspectra.data.store.shard_writer import write_shards
from molspectra.data.store.store import Store, write_store
from molspectra.errors import (
    DamagedError,
    ExistsError,
    FormatError,
    InputError,
    MismatchError,
    NewerFormatError,
    NotFoundError,
    SettingError,
)

N = 24


@pytest.fixture(scope="module")
def rows(make_row):
    return [make_row(i) for i in range(N)]


@pytest.fixture(scope="module")
def single(tmp_path_factory, rows, metadata):
    path = tmp_path_factory.mktemp("single") / "store.arrow"
    write_store(path, rows, metadata)
    return Store(path)


@pytest.fixture
def folder(tmp_path, rows, metadata):
    write_shards(tmp_path / "store", rows, metadata, shard_rows=10)
    return tmp_path / "store"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same(batch, other):
    for name in ("numbers", "positions", "ptr", "molecule", "row", "geometry_id"):
        assert torch.equal(getattr(batch, name), getattr(other, name))
    for mine, theirs in ((batch.spectra, other.spectra), (batch.present, other.present)):
        assert list(mine) == list(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    for name, values in batch.targets.items():
        assert torch.equal(values.isnan(), other.targets[name].isnan())
        assert torch.equal(values.nan_to_num(), other.targets[name].nan_to_num())


@settings(max_examples=25)
@given(
    cuts=st.sets(st.integers(1, N - 1)),
    chunk_rows=st.integers(1, 9),
    chosen=st.lists(st.integers(0, N - 1), min_size=1, max_size=40),
)
def test_any_shards_in_any_order_give_what_one_file_gives(
    tmp_path_factory, single, rows, metadata, cuts, chunk_rows, chosen
):
    path = tmp_path_factory.mktemp("shards") / "store"
    bounds = [0, *sorted(cuts), N]
    for start, stop in pairwise(bounds):
        part = rows[start:stop]
        write_shards(path, part, metadata, append=start > 0, shard_rows=N, chunk_rows=chunk_rows)
    store = Store(path)
    asked = {"modalities": metadata.modalities, "targets": metadata.targets}
    assert len(list(path.glob("*.arrow"))) == len(bounds) - 1
    assert (store.hash, len(store), store.metadata) == (single.hash, N, single.metadata)
    assert_same(store.batch(chosen, **asked), single.batch(chosen, **asked))
    assert_same(store.batch(range(N), **asked), single.batch(range(N), **asked))
    store.verify()


def test_all_ways_into_a_store(folder, single, tmp_path):
    store = Store(folder)
    assert store.identities == single.identities
    assert store.smiles == single.smiles
    assert np.array_equal(store.atom_counts, single.atom_counts)
    assert np.array_equal(store.geometry_ids, single.geometry_ids)
    for name in ("ir", "uv_vis", "gap", "forces"):
        assert np.array_equal(store.has(name), single.has(name))
    assert np.array_equal(store.column("gap"), single.column("gap"), equal_nan=True)
    assert store.to_pandas().equals(single.to_pandas())
    for row in (0, 9, 10, N - 1):
        assert repr(Store(folder).row(row)) == repr(single.row(row))  # each opened anew, by this row
        assert Store(folder).molecule(row).name == single.molecule(row).name
    assert store.unusable_spectra(np.arange(N), "ir") == single.unusable_spectra(np.arange(N), "ir")
    for each, name in ((store, "shards"), (single, "single")):
        export_parquet(each, tmp_path / f"{name}.parquet")
    assert pq.read_table(tmp_path / "shards.parquet").equals(pq.read_table(tmp_path / "single.parquet"))
    assert write_store(tmp_path / "copy.arrow", store, store.metadata).hash == single.hash


def test_every_shard_is_a_store(folder, rows):
    shard = Store(folder / "00001.arrow")
    shard.verify()
    assert shard.identities == [row.identity for row in rows[10:20]]


def test_opening_touches_no_shard(folder, single):
    shutil.move(folder / "00002.arrow", folder.parent / "away.arrow")
    store = Store(folder)
    assert len(store) == N
    assert torch.equal(store.batch([19, 3]).positions, single.batch([19, 3]).positions)
    with pytest.raises(NotFoundError, match=r"store/00002\.arrow: no such file$"):
        store.batch([20])
    shutil.move(folder.parent / "away.arrow", folder / "00002.arrow")
    assert torch.equal(store.batch([20]).positions, single.batch([20]).positions)


def test_threads_open_shards_at_once(tmp_path, rows, metadata, single):
    write_shards(tmp_path / "store", rows, metadata, shard_rows=1)
    for _ in range(5):
        store = Store(tmp_path / "store")
        with ThreadPoolExecutor(8) as pool:
            found = list(
                pool.map(lambda start, store=store: store.batch(range(start, N)), [0, 3, 0, 5, 1, 0])
            )
        assert all(torch.equal(found[k].positions, single.batch(range(N)).positions) for k in (0, 2, 5))


def test_files_are_not_kept_open(folder):
    store = Store(folder)
    if not Path("/proc/self/fd").exists():
        pytest.skip("only Linux tells which files are open")
    store.batch(range(N))
    held = [
        os.readlink(f"/proc/self/fd/{name}")
        for name in os.listdir("/proc/self/fd")
        if name.isdigit() and os.path.lexists(f"/proc/self/fd/{name}")
    ]
    assert not [name for name in held if name.startswith(str(folder))]


def test_a_store_pickles_as_its_folder(folder, rows, metadata):
    store = Store(folder)
    store.batch(range(N))
    data = pickle.dumps(store)
    assert len(data) < 1000
    assert_same(pickle.loads(data).batch([5, 21, 2]), store.batch([5, 21, 2]))
    write_shards(folder, rows[:1], metadata, append=True)
    assert len(store) == N  # whoever has it open goes on with the rows that it had
    store.verify()
    with pytest.raises(MismatchError, match="store has changed"):
        pickle.loads(data)


def test_appending_leaves_old_shards_alone(folder, rows, metadata, make_row, tmp_path):
    before = contents(folder)
    more = [make_row(i) for i in range(N, N + 7)]
    written = write_shards(folder, more, metadata, append=True, shard_rows=4)
    after = contents(folder)
    assert written.rows == len(Store(folder)) == N + 7
    assert set(after) - set(before) == {"00003.arrow", "00004.arrow"}
    assert all(after[name] == data for name, data in before.items() if name != "manifest.json")
    assert written.hash == write_store(tmp_path / "whole.arrow", [*rows, *more], metadata).hash
    Store(folder).verify()


def test_what_cannot_be_appended(folder, rows, metadata, tmp_path):
    before = contents(folder)
    with pytest.raises(MismatchError, match=r"store: .*other columns"):
        write_shards(folder, rows[:1], replace(metadata, level="another"), append=True)
    with pytest.raises(InputError, match=r"row 1 .*no property 'mu'"):
        write_shards(
            folder, [rows[0], replace(rows[1], properties={"mu": 1.0})], metadata, append=True, shard_rows=1
        )
    with pytest.raises(FormatError, match="no rows"):
        write_shards(folder, [], metadata, append=True)
    with pytest.raises(SettingError, match="at least 1 row"):
        write_shards(folder, rows[:1], metadata, append=True, shard_rows=0)
    with pytest.raises(NotFoundError, match=r"nothing/manifest\.json"):
        write_shards(tmp_path / "nothing", rows, metadata, append=True)
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(ExistsError, match="store exists already"):
        write_shards(folder, rows, metadata)
    assert contents(folder) == before


KILLED = """
import os, pickle, signal, sys
from molspectra.data.store import shard_writer
from molspectra.data.store.store import Store

folder, source, place = sys.argv[1:]
source = Store(source)

def rows():
    for number, row in enumerate(source):
        if number == int(place):
            os.kill(os.getpid(), signal.SIGKILL)
        yield row

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if int(place) < 0:
    shard_writer.Manifest.write = die
shard_writer.write_shards(folder, rows(), source.metadata, append=True, shard_rows=5)
"""


@pytest.mark.parametrize("place", [0, 7, 20, -1])
def test_killed_while_appending(folder, single, place, tmp_path):
    before = contents(folder)
    (tmp_path / "killed.py").write_text(KILLED)
    command = [sys.executable, tmp_path / "killed.py", folder, single.path, str(place)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (folder / ".00003.arrow.0a1b2c3d.part").write_bytes(b"ARROW1 half")
    left = contents(folder)
    assert left.items() >= before.items()
    store = Store(folder)
    assert store.hash == single.hash
    store.verify()
    write_shards(folder, single, single.metadata, append=True)  # and over what was left
    assert len(Store(folder)) == 2 * N
    Store(folder).verify()
    assert not list(folder.glob("*.part"))
    assert not list(folder.glob(".*.part"))


def test_a_new_store_that_was_killed_is_begun_again(tmp_path, rows, metadata, single):
    folder = tmp_path / "store"
    write_shards(folder, rows, metadata, shard_rows=5)
    (folder / "manifest.json").unlink()
    with pytest.raises(NotFoundError, match="no store"):
        Store(folder)
    assert write_shards(folder, rows, metadata).hash == single.hash
    Store(folder).verify()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(ExistsError, match="home exists"):
        write_shards(tmp_path / "home", rows, metadata)


WRITER = """
import sys
from molspectra.data.store.shard_writer import write_shards
from molspectra.data.store.store import Store

source = Store(sys.argv[2])

def rows():
    yield source.row(0)
    print("writing", flush=True)
    input()
    yield source.row(1)

write_shards(sys.argv[1], rows(), source.metadata, append=True)
"""


def test_two_writers(folder, single, rows, metadata, tmp_path):
    (tmp_path / "writer.py").write_text(WRITER)
    command = [sys.executable, tmp_path / "writer.py", folder, single.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "writing\n"
        with pytest.raises(ExistsError, match=rf"another process is writing this store.*{other.pid}"):
            write_shards(folder, rows, metadata, append=True)
        assert len(Store(folder)) == N
        other.communicate("go on\n")
    assert other.returncode == 0
    assert len(Store(folder)) == N + 2
    assert write_shards(folder, rows, metadata, append=True).rows == 2 * N + 2
    Store(folder).verify()


def refused(folder, match, kind=DamagedError):
    for use in (lambda store: store.batch(range(N)), lambda store: store.identities, Store.verify):
        with pytest.raises(kind, match=match) as raised:
            use(Store(folder))
        assert "\n" not in str(raised.value)
        assert str(raised.value).count("store again") <= 1


def test_damaged_missing_and_foreign_shards(folder, tmp_path, rows, metadata):
    shard = folder / "00001.arrow"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    refused(folder, r"^\S*store/00001\.arrow: not a readable store: .*make the store again")
    shard.write_bytes(b"")
    refused(folder, r"^\S*store/00001\.arrow: .*not an Arrow file", FormatError)
    shutil.copy(folder / "00000.arrow", shard)
    refused(folder, r"^\S*store/00001\.arrow: .*not the shard that manifest\.json names")
    write_store(tmp_path / "other.arrow", rows[10:20], replace(metadata, level="another"))
    shutil.copy(tmp_path / "other.arrow", shard)
    refused(folder, r"^\S*store/00001\.arrow: .*not the shard")
    shard.unlink()
    refused(folder, r"^\S*store/00001\.arrow: no such file", NotFoundError)
    with pytest.raises(NotFoundError, match=r"00001\.arrow"):
        write_shards(folder, rows, metadata, append=True)


def test_a_changed_value_is_found_in_its_shard(folder, rows, metadata):
    shard = folder / "00001.arrow"
    value = np.float64(
        next(row.properties["gap"] for row in rows[10:20] if "gap" in row.properties)
    ).tobytes()
    assert value in shard.read_bytes()
    shard.write_bytes(shard.read_bytes().replace(value, np.float64(1.5).tobytes()))
    match = r"^\S*store/00001\.arrow: .*rows 0 to 9 are not what was written"
    with pytest.raises(DamagedError, match=match):
        Store(folder).verify()
    with pytest.raises(DamagedError, match=match):
        write_shards(folder, rows, metadata, append=True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("shards", 0, "file"), "../store/00000.arrow"),
        (("shards", 0, "file"), "manifest.json"),
        (("shards", 1, "rows"), []),
        (("shards", 1, "rows"), [0, 10]),
        (("shards", 1, "rows"), [2**62]),
        (("shards", 1, "rows"), None),
        (("shards",), []),
        (("metadata", "properties"), {"gap": 3}),
        (("metadata", "lines"), {"smell": ""}),
        (("metadata",), None),
    ],
)
def test_forged_manifests(folder, path, value):
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    inner = manifest
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refused(folder, r"^\S*store: not a readable store: manifest\.json is damaged; make the store again")


def test_manifests_that_do_not_fit(folder):
    text = (folder / "manifest.json").read_text(encoding="utf-8")
    for changed in (text[:-20], "", "[]"):
        (folder / "manifest.json").write_text(changed)
        refused(folder, r"manifest\.json is damaged")
    (folder / "manifest.json").write_text(text.replace('"format": 1', '"format": 2'))
    refused(folder, r"store: .*newer", NewerFormatError)
    manifest = json.loads(text)
    manifest["shards"][1]["rows"] = [11]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refused(folder, r"00001\.arrow: .*not the shard that manifest\.json names")
    (folder / "manifest.json").write_text(text.replace(manifest["hash"], "0" * 64))
    with pytest.raises(DamagedError, match=r"the hash in manifest\.json is not that of the shards"):
        Store(folder).verify()
