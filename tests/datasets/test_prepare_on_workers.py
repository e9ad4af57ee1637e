"""Preparing on the workers of an executor: the same store and report as in one process."""

import json
import os
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from made_up_waters import Waters, ends_its_process, raising, water
from worker_processes import interrupted

from molspectra.apps.cli import main
from molspectra.data.store.store import Store
from molspectra.datasets.importer import Excluded
from molspectra.datasets.prepare import prepare
from molspectra.errors import InputError, LostProcessError, MismatchError, SettingError, UnitError
from molspectra.simulation.units import BOHR
from molspectra.workers.executors import Executor

TWO = Executor("node", 2)

MIXED = {
    3: raising(InputError("bad")),
    12: partial(water, 5),  # of an earlier part
    13: raising(Excluded("odd")),
    22: partial(water, 21),  # of this part
    31: partial(water, 12),  # whose own record was left out
    38: partial(water, 31),
    44: partial(water, 12),  # of an earlier part, in which it is no record 12
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`prepare` in parts of ten; skipped without executorlib, whose workers find these modules."""
    pytest.importorskip("executorlib", reason="needs executorlib (extra cluster)")
    source = Path(sys.modules["molspectra"].__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(source), str(Path(__file__).parent)]))
    (tmp_path / "raw").write_text("x")
    return partial(prepare, raw=tmp_path / "raw", out=tmp_path / "a.arrow", show=False, part_records=10)


def facts(out):
    """The report without its times, its memory and the name of the store; and the listing of rejections."""
    report = json.loads(out.with_name(out.name + ".report.json").read_text())
    for name in ("out", "peak_mebibytes", "resumed"):
        del report[name]
    for name in ("seconds", "cpu_seconds"):
        del report["tally"][name]
    listing = out.with_name(out.name + ".rejected.jsonl")
    return report, listing.read_text() if listing.exists() else None


def assert_same(one, other):
    assert other.read_bytes() == one.read_bytes()
    assert facts(other) == facts(one)
    assert not [path for path in one.parent.iterdir() if path.name.endswith(".parts")]


@pytest.mark.parametrize(
    ("total", "said", "limit"),
    [(40, -1, None), (47, 12, None), (45, 88, 40), (45, -1, 44)],
    ids=["unknown, full parts", "too few expected", "a full part is the limit", "limit"],
)
def test_the_same_bytes_and_report(run, tmp_path, total, said, limit):
    here = run(Waters(total, MIXED, said=said), out=tmp_path / "here.arrow", limit=limit)
    report = run(Waters(total, MIXED, said=said), limit=limit, executor=TWO)
    assert_same(tmp_path / "here.arrow", tmp_path / "a.arrow")
    assert report.hash == here.hash
    assert report.resumed == 0
    assert here.tally.repeated == (3 if total == 47 else 2)


def test_shards_and_a_worker_killed_amid_a_part(run, tmp_path):
    sharded = partial(run, shard_rows=10)
    sharded(Waters(47, MIXED), out=tmp_path / "here")
    once = tmp_path / "killed"
    sharded(
        Waters(47, {**MIXED, 25: partial(ends_its_process, 25, once)}), out=tmp_path / "there", executor=TWO
    )
    assert once.exists()
    assert facts(tmp_path / "there") == facts(tmp_path / "here")
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("here", "there")]
    assert files[0] == files[1] == [*(f"0000{part}.arrow" for part in range(5)), "manifest.json"]
    for name in files[0]:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    Store(tmp_path / "there").verify()


def test_a_part_that_ends_its_workers_is_named_and_the_others_are_kept(run, tmp_path):
    run(Waters(47, MIXED), out=tmp_path / "here.arrow")
    with pytest.raises(LostProcessError, match=r"raw: records 20 to 29 cannot be read: .* 3 times"):
        run(Waters(47, {**MIXED, 25: partial(ends_its_process, 25)}), executor=TWO)
    assert not (tmp_path / "a.arrow").exists()
    parts = tmp_path / "a.arrow.parts"
    assert not (parts / "workers").exists()
    finished = len(list(parts.glob("*.unchecked.json")))
    assert finished >= 2
    report = run(Waters(47, MIXED))
    assert report.resumed == finished
    assert_same(tmp_path / "here.arrow", tmp_path / "a.arrow")


def test_workers_continue_what_one_process_began(run, tmp_path):
    run(Waters(47, MIXED), out=tmp_path / "here.arrow")
    with pytest.raises(KeyboardInterrupt):
        run(Waters(47, MIXED, stop=25))
    assert run(Waters(47, MIXED), executor=TWO).resumed == 2
    assert_same(tmp_path / "here.arrow", tmp_path / "a.arrow")


def test_parts_of_other_settings_are_refused_though_the_first_is_missing(run, tmp_path):
    with pytest.raises(LostProcessError, match="records 0 to 9 "):
        run(Waters(47, {5: partial(ends_its_process, 5)}), executor=TWO)
    with pytest.raises(MismatchError, match=r"unfinished preparation with limit .* remove that folder"):
        run(Waters(47), limit=20)


LONG = """
import signal, sys
from functools import partial
from made_up_waters import Waters, slow
from molspectra.datasets.prepare import prepare
from molspectra.workers.executors import Executor
signal.signal(signal.SIGINT, signal.default_int_handler)
raw, out = sys.argv[1:]
waters = Waters(900, {i: partial(slow, i) for i in range(900)})
try:
    prepare(waters, raw, out, part_records=10, executor=Executor("node", 2))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_an_interrupt_keeps_the_finished_parts(run, tmp_path):
    out, parts = tmp_path / "a.arrow", tmp_path / "a.arrow.parts"
    command = [sys.executable, "-c", LONG, str(tmp_path / "raw"), str(out)]
    interrupted(command, lambda: list(parts.glob("*.unchecked.json")))
    finished = len(list(parts.glob("*.unchecked.json")))
    assert finished
    assert sorted(path.name for path in parts.iterdir() if path.is_dir()) == []
    run(Waters(900), out=tmp_path / "here.arrow")
    assert run(Waters(900)).resumed == finished
    assert_same(tmp_path / "here.arrow", out)


def test_a_dataset_in_bohr_or_a_bad_record_is_refused_and_leaves_nothing(run, tmp_path):
    bohr = {i: partial(water, i, 1 / BOHR) for i in range(10)}
    with pytest.raises(UnitError, match="10 of the first 10 structures seem to be in bohr"):
        run(Waters(30, bohr), executor=TWO)
    with pytest.raises(InputError, match=r"record 3 \(w3\): bad"):
        run(Waters(30, {3: MIXED[3]}), executor=TWO, on_error="raise")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_an_importer_that_cannot_be_pickled_is_refused(run, tmp_path):
    waters = Waters(30)
    waters.lock = threading.Lock()
    with pytest.raises(SettingError, match=r"the importer cannot be sent to workers: .*lock"):
        run(waters, executor=TWO)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_command_with_relative_paths(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    frames = [f"2\nenergy={n}\nO 0 0 0\nH 0 0 {0.95 + n / 100}\n" for n in range(7)]
    (tmp_path / "raw.extxyz").write_text("".join([*frames, frames[0], "2\nenergy=1\nO 0 0 0\nH 0 0 nan\n"]))
    command = ["prepare", "extxyz", "--raw", "raw.extxyz", "--option", "unit.energy=eV", "--shard-rows", "2"]
    assert main([*command, "--out", "here", "--quiet"]) == 0
    assert main([*command, "--out", "there", "--executor", "node", "--workers", "2"]) == 0
    shown = capsys.readouterr()
    assert "7 rows in there; 1 records rejected, 1 repeated" in shown.out
    assert "2 workers: 9 of 9 records" in shown.err
    assert facts(tmp_path / "there") == facts(tmp_path / "here")
    assert main([*command, "--out", "third", "--executor", "node"]) == 2
    assert "--workers" in capsys.readouterr().err
