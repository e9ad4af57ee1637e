import os
import signal
import sys
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import chain

import numpy as np
import pytest
from worker_processes import interrupted, kill_a_worker, processes

from molspectra.apps.cli import main
from molspectra.chem.molecule import Molecule
from molspectra.data.store.store import Store
from molspectra.errors import (
    LostProcessError,
    MissingExtraError,
    MolspectraError,
    SettingError,
    ValueRangeError,
)
from molspectra.simulation.records import GrowingJournal, Journal, read_journal, to_json
from molspectra.simulation.runner import simulate_many
from molspectra.workers.executors import Executor, LostWorkerError
from molspectra.workers.shares import share_out

SMILES = ["[H][H]", "F", "Cl", "O", "S", "N", "C", "C#N", "C=O", "O=C=O", "C#C", "CF"]


def molecule(distance=0.92, name="fluoride"):
    return Molecule(np.array([1, 9]), np.array([[0, 0, 0], [0, 0, distance]]), name=name)


def simulate(tmp_path, name, *options):
    out = tmp_path / name
    arguments = [
        "simulate",
        "--smiles",
        *SMILES,
        "--modalities",
        "ir",
        "--quiet",
        "--out",
        str(out),
        *options,
    ]
    assert main(arguments) == 0
    return Store(out).hash


def test_a_killed_worker_changes_nothing_in_the_store(tmp_path, library):
    plain = simulate(tmp_path, "plain.arrow", "--processes", "2")
    folder = tmp_path / "other.arrow.journal.jsonl.workers"
    killer = kill_a_worker(lambda: any(path.stat().st_size for path in folder.glob("*-*")))
    other = simulate(tmp_path, "other.arrow", "--executor", "node", "--workers", "2")
    killer.join()
    assert other == plain
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.arrow", "plain.arrow"]


def test_a_worker_killed_before_it_has_connected_is_replaced(tmp_path, library):
    killer = kill_a_worker(lambda: True)
    result = simulate_many(
        [molecule()], tmp_path / "j", ("ir",), executor=Executor("node", 1), progress=False
    )
    killer.join()
    assert [each.molecule.name for each in result.simulations()] == ["fluoride"]


LONG = """
import signal, sys, numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)
from molspectra.chem.molecule import Molecule
from molspectra.workers.executors import Executor
from molspectra.simulation.runner import simulate_many
molecules = [Molecule(np.array([1, 9]), np.array([[0, 0, 0], [0, 0, 0.8 + i / 1e4]])) for i in range(900)]
try:
    simulate_many(molecules, sys.argv[1], ("ir",), executor=Executor("node", 2))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_an_interrupt_ends_the_workers_and_the_next_run_takes_over_what_they_have(tmp_path, library):
    path = tmp_path / "journal.jsonl"
    command = [sys.executable, "-c", LONG, str(path)]
    started = interrupted(command, lambda: path.exists() and path.stat().st_size)
    assert len(started) > 1
    assert not set(started) & set(processes())
    folder = tmp_path / "journal.jsonl.workers"
    merged = [record.key for record in read_journal(path)]
    found = {record.key for file in folder.glob("*-*") for record in read_journal(file)}
    assert set(merged) <= found
    simulate_many([], path, ("ir",))
    assert {record.key for record in read_journal(path)} == found
    assert not folder.exists()


def run_shares(tmp_path, function, keys):
    seen, given_up, shares = {}, [], []

    def collect(path):
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        new, seen[path] = lines[len(seen.get(path, [])) :], lines
        return new

    def call(keys, file):
        shares.append(list(keys))
        return function, (keys, file)

    def give_up(key, reason):
        given_up.append((key, reason))

    executor = Executor("node", 1)
    share_out(executor, tmp_path / "w", keys, call, collect, give_up)
    return [key for lines in seen.values() for key in lines], given_up, shares


def test_an_item_is_given_up_when_it_has_ended_its_own_worker(tmp_path, library):
    def die_of_one(keys, file):  # as of a fault in a library
        with open(file, "a", encoding="utf-8") as out:
            for key in keys:
                if key == "bad":
                    os.kill(os.getpid(), signal.SIGKILL)
                out.write(f"{key}\n")
                out.flush()

    done, given_up, shares = run_shares(tmp_path, die_of_one, ["a", "bad", "b", "c"])
    assert sorted(done) == ["a", "b", "c"]
    assert shares[0] == ["a", "bad"]
    assert given_up == [("bad", "its worker ended 3 times")]
    assert shares.count(["bad"]) == 2


class TwoLost:
    """Two workers in this process, both of which are lost with their first share."""

    kind, workers, processes = "node", 2, 1

    @contextmanager
    def pool(self):
        started = []

        def submit(_, sign, function, arguments):
            future = Future()
            started.append(future)
            if len(started) <= 2:
                future.set_exception(LostWorkerError("its process ended"))
            else:
                future.set_result(function(*arguments))
            return future

        yield submit


def test_every_share_is_in_the_order_of_all_though_two_workers_end_at_once(tmp_path):
    """A worker that prepares a dataset knows the rows of its earlier parts, which must be those before."""
    results, shares = {}, []

    def call(keys, file):
        shares.append(list(map(int, keys)))
        return results.__setitem__, (file, keys)

    share_out(
        TwoLost(), tmp_path / "w", map(str, range(18)), call, lambda file: results.pop(file, ()), pytest.fail
    )
    assert shares[:2] == [[0, 1, 2, 3], [4, 5, 6]]
    assert sorted(chain(*shares[2:])) == list(range(18))
    assert all(share == sorted(share) for share in shares)


def test_workers_that_cannot_work_end_the_run_with_the_reason(tmp_path, library):
    def die_at_once(keys, file):
        os._exit(1)

    def fail(keys, file):
        raise OSError("no space left")

    with pytest.raises(LostProcessError, match=r"3 workers .* before they began"):
        run_shares(tmp_path / "one", die_at_once, ["a"])
    with pytest.raises(MolspectraError, match="OSError: no space left"):
        run_shares(tmp_path / "two", fail, ["a"])


SRUN = """#!/bin/sh
printf '%s\\n' "$*" >> "$SRUN_LOG"
while [ "${1#-}" != "$1" ]; do case "$1" in -n|-N) shift 2;; *) shift;; esac; done
exec "$@"
"""


def test_in_slurm_each_share_is_a_step_of_one_worker(tmp_path, library, monkeypatch):
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SRUN, encoding="utf-8")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SRUN_LOG", str(tmp_path / "log"))
    result = simulate_many(
        [molecule()], tmp_path / "j", ("ir",), executor=Executor("slurm", 1, 3), progress=False
    )
    assert [each.molecule.name for each in result.simulations()] == ["fluoride"]
    steps = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert [step.split()[:6] for step in steps] == [["-n", "1", "-N", "1", "--cpus-per-task=3", "--exact"]]

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingError, match="no srun"):
        simulate_many([molecule(0.9)], tmp_path / "j", ("ir",), executor=Executor("slurm", 1), progress=False)


def test_bad_settings(tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueRangeError, match="workers must be at least 1"):
        Executor("node", 0)
    with pytest.raises(SettingError, match="choose from node, slurm, flux"):
        Executor("cloud", 1)
    arguments = ["simulate", "--smiles", "F", "--modalities", "ir", "--out", str(tmp_path / "f.arrow")]
    assert main([*arguments, "--executor", "slurm"]) == 2
    assert "--workers" in capsys.readouterr().err
    assert main([*arguments, "--workers", "2"]) == 2
    assert "--executor" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "executorlib", None)
    with pytest.raises(MissingExtraError, match=r"molspectra\[cluster\]"):
        simulate_many([molecule()], tmp_path / "j", ("ir",), executor=Executor("node", 1), progress=False)
    assert not (tmp_path / "j.workers").exists()


def test_a_growing_journal_gives_each_complete_record_once(tmp_path):
    whole = tmp_path / "whole"
    simulate_many([molecule(), molecule(0.93)], whole, ("ir",), processes=1, progress=False)
    first, second = (to_json(record).encode() + b"\n" for record in read_journal(whole))
    growing, path = GrowingJournal(tmp_path / "part"), tmp_path / "part"
    assert growing.new_records() == []
    for text, expected in ((first[:40], 0), (first[40:] + second[:9], 1), (second[9:], 1), (b"", 0)):
        with open(path, "ab") as file:
            file.write(text)
        assert len(growing.new_records()) == expected
    with Journal(path) as journal:
        assert len(journal.offsets) == 2
