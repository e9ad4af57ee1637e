import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from molspectra.chem.molecule import Molecule
from molspectra.errors import SimulationError, ValueRangeError
from molspectra.simulation.api import simulate
from molspectra.simulation.records import read_journal, to_json
from molspectra.simulation.runner import Calculation, simulate_many


def atom(number, name):
    return Molecule(np.array([number]), np.zeros((1, 3)), name=name)


def diatomic(first, second, distance, name):
    return Molecule(np.array([first, second]), np.array([[0, 0, 0], [0, 0, distance]]), name=name)


HYDROGEN = diatomic(1, 1, 0.74, "hydrogen")
FLUORIDE = diatomic(1, 9, 0.92, "hydrogen fluoride")
OXIDE = diatomic(7, 8, 1.15, "nitric oxide")
HELIUM, NEON, ARGON = atom(2, "helium"), atom(10, "neon"), atom(18, "argon")


def run(molecules, path, **options):
    options = {"processes": 1, "progress": False} | options
    return simulate_many(molecules, path, ("ir",), **options)


def names(records):
    return [record.label for record in records]


def test_results_failures_repeats_and_resume(tmp_path):
    path = tmp_path / "journal.jsonl"
    first = run([HYDROGEN, OXIDE, HYDROGEN, HELIUM], path, processes=2)
    assert (first.computed, first.reused, first.repeated) == (3, 0, 1)
    assert names(first.failures) == ["nitric oxide"]
    assert "15 electrons" in first.failures[0].error
    assert [each.molecule.name for each in first.simulations()] == ["hydrogen", "helium"]
    here = simulate(HYDROGEN, ("ir",))
    there = next(first.simulations())
    assert np.array_equal(here.lines["ir"].position, there.lines["ir"].position)
    assert np.array_equal(here.molecule.positions, there.molecule.positions)
    assert here.properties == there.properties

    before = path.read_bytes()
    again = run([HELIUM, OXIDE, HYDROGEN], path)
    assert (again.computed, again.reused) == (0, 3)
    assert [each.molecule.name for each in again.simulations()] == ["helium", "hydrogen"]
    assert names(again.failures) == ["nitric oxide"]
    assert path.read_bytes() == before

    more = run([HELIUM, NEON, OXIDE], path, retry_failed=True)
    assert (more.computed, more.reused) == (2, 1)
    assert names(read_journal(path))[-2:] == ["neon", "nitric oxide"]


def test_torn_record_is_computed_again(tmp_path):
    path = tmp_path / "journal.jsonl"
    run([HELIUM, NEON], path)
    whole = [to_json(record) for record in read_journal(path)]
    path.write_text(whole[0] + "\n" + whole[1][:50], encoding="utf-8")
    result = run([HELIUM, NEON], path)
    assert (result.computed, result.reused) == (1, 1)
    assert names(read_journal(path)) == ["helium", "neon"]


@pytest.mark.parametrize("times", [1, 3])
def test_a_molecule_whose_process_is_killed_is_tried_three_times(tmp_path, times):
    before = multiprocessing.active_children()  # of other tests
    killed = []

    def kill_children():
        while len(killed) < times:
            for one in multiprocessing.active_children():
                if one not in before and one.pid not in killed:
                    os.kill(one.pid, signal.SIGKILL)
                    killed.append(one.pid)
                    break
            time.sleep(0.01)

    killer = threading.Thread(target=kill_children)
    killer.start()
    result = run([FLUORIDE, HELIUM, NEON], tmp_path / "journal.jsonl")
    killer.join()
    failed = ["hydrogen fluoride"] if times == 3 else []
    assert names(result.failures) == failed
    assert all("process died (SIGKILL" in failure.error for failure in result.failures)
    expected = ["hydrogen fluoride", "helium", "neon"][len(failed) :]
    assert [each.molecule.name for each in result.simulations()] == expected


def test_a_molecule_that_takes_too_long_is_given_up(tmp_path):
    result = run([FLUORIDE, HELIUM], tmp_path / "journal.jsonl", timeout=0.05)
    assert names(result.failures) == ["hydrogen fluoride", "helium"]
    assert result.failures[0].error == "took longer than 0.05 s"
    assert not multiprocessing.active_children()


def test_children_use_one_thread_and_the_environment_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    seen = {}

    def look():
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        with open(f"/proc/{children[0].pid}/environ", "rb") as file:
            seen.update(pair.split(b"=", 1) for pair in file.read().split(b"\0") if b"=" in pair)

    watcher = threading.Thread(target=look)
    watcher.start()
    run([HELIUM], tmp_path / "journal.jsonl")
    watcher.join()
    assert seen[b"OMP_NUM_THREADS"] == seen[b"OPENBLAS_NUM_THREADS"] == b"1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "OPENBLAS_NUM_THREADS" not in os.environ


ENDLESS = """
import signal, sys, numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without it
from molspectra.chem.molecule import Molecule
from molspectra.simulation.runner import Calculation, simulate_many
molecules = [Molecule(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 0.5 + i / 1e4]])) for i in range(300)]
try:
    simulate_many(molecules, sys.argv[1], ("ir",), processes=2)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_interrupt_ends_the_children_and_keeps_what_is_done(tmp_path):
    path = tmp_path / "journal.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(path)], start_new_session=True, stderr=subprocess.PIPE
    )
    try:
        while not (path.exists() and path.stat().st_size):
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"Traceback" not in errors
    done = len(list(read_journal(path)))
    assert done >= 1
    deadline = time.monotonic() + 30
    while living := processes_of_group(process.pid):
        assert time.monotonic() < deadline, living
        time.sleep(0.05)


def processes_of_group(group):
    """Processes of a process group that still run; one that nobody has waited for (Z) does not."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = entry.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(entry.parent.name)
    return found


def test_progress_is_shown_and_names_failures(tmp_path, capsys):
    run([HELIUM, OXIDE], tmp_path / "journal.jsonl", progress=True)
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "1 failed" in shown
    assert "failed: nitric oxide: NO with charge +0 has 15 electrons" in " ".join(shown.split())


def test_bad_options(tmp_path):
    with pytest.raises(ValueRangeError, match="at least 1"):
        run([HELIUM], tmp_path / "journal.jsonl", processes=0)
    assert not (tmp_path / "journal.jsonl").exists()
    result = run([], tmp_path / "journal.jsonl")
    assert (result.computed, list(result.simulations())) == (0, [])


def _sleep(molecule):
    time.sleep(600)


def _processes():
    return {process.pid for process in multiprocessing.active_children()}


def _result(running):
    found = None
    while found is None:
        found = running.result(0.2)
    return found


def test_one_calculation_gives_its_result_or_the_reason():
    with Calculation(partial(simulate, modalities=("ir",)), HYDROGEN) as running:
        assert _result(running).molecule.name == "hydrogen"
    with (
        Calculation(partial(simulate, modalities=("ir",)), OXIDE) as running,
        pytest.raises(SimulationError, match="15 electrons"),
    ):
        _result(running)


def test_one_calculation_is_killed_at_its_limit_and_at_the_end_of_its_block():
    before = _processes()
    with Calculation(_sleep, HELIUM, timeout=0.2) as running:
        with pytest.raises(SimulationError, match="longer"):
            _result(running)
        assert _processes() == before
    with Calculation(_sleep, HELIUM) as running:
        assert running.result(0.1) is None
        assert _processes() > before
    assert _processes() == before
