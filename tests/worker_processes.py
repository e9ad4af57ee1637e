"""Processes of an executor's workers, for tests of several packages that kill them."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest


@pytest.fixture
def library(monkeypatch):
    """The tests that need it are skipped without executorlib; its workers find this package."""
    pytest.importorskip("executorlib", reason="needs executorlib (extra cluster)")
    monkeypatch.setenv("PYTHONPATH", str(Path(sys.modules["molspectra"].__file__).parents[1]))


def processes():
    """Number and words of the command of every process of this machine."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(entry.name)] = (parent, (entry / "cmdline").read_bytes().split(b"\0"))
    return found


def workers_of(parent):
    """Processes of executorlib that a process has started."""
    return [
        number
        for number, (its_parent, words) in processes().items()
        if its_parent == parent and any(b"interactive_serial" in word for word in words)
    ]


def kill_a_worker(ready):
    """Kill the first worker that there is when `ready()`, from a thread, which is returned."""

    def kill():
        while not (ready() and (found := workers_of(os.getpid()))):
            time.sleep(0.001)
        os.kill(found[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    return killer


def interrupted(command, has_begun):
    """Start a command, press Ctrl-C when `has_begun()`, and check its end; its processes at that moment."""
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
    try:
        while not has_begun():
            assert process.poll() is None
            time.sleep(0.02)
        started = [process.pid, *workers_of(process.pid)]
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"Traceback" not in errors
    return started
