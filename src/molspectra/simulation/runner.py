"""Simulate many molecules on the cores of this machine, one spawned process per core."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from molspectra.chem.molecule import Molecule
from molspectra.errors import InputError, MolspectraError
from molspectra.simulation.api import DEFAULT_MODALITIES, Simulation, levels_of_theory, simulate
from molspectra.simulation.records import Journal, Record, key_of, records_at

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

TIMEOUT = 1800.0
"""Seconds that one molecule may take before its process is ended."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class RunResult:
    """Outcome of a run over many molecules; the results stay in the journal and are read on demand.

    Attributes:
        journal: path of the journal.
        offsets: byte offset in the journal of each distinct molecule's record, in the order of the input.
        failures: records of the molecules that failed, each with its reason, in the order of the input.
        computed: how many were computed now, failures included.
        reused: how many came from the journal.
        repeated: how many inputs were left out because an earlier one had the same key.
    """

    journal: Path
    offsets: list[int]
    failures: list[Record]
    computed: int
    reused: int
    repeated: int

    def simulations(self) -> Iterator[Simulation]:
        """Results of the molecules that succeeded, in the order of the input."""
        for record in records_at(self.journal, self.offsets):
            if record.simulation is not None:
                yield record.simulation


@dataclass
class _Worker:
    """One child process, its pipe, and what it is computing since when."""

    process: BaseProcess
    pipe: Connection
    key: str | None = None
    since: float = 0.0


def simulate_many(
    molecules: Iterable[Molecule],
    journal: str | Path,
    modalities: Sequence[str] = DEFAULT_MODALITIES,
    *,
    processes: int | None = None,
    timeout: float = TIMEOUT,
    by_geometry: bool = True,
    retry_failed: bool = False,
    progress: bool = True,
) -> RunResult:
    """Simulate every molecule once and keep each result in a journal, so that an interrupted run continues.

    A molecule that fails, that exceeds `timeout` or whose process dies becomes a record with the reason, and
    the others go on. On Ctrl-C the children are ended and everything finished so far stays in the journal.

    Args:
        molecules: start structures.
        journal: path of the journal; molecules that it holds at this level of theory are not computed again.
        modalities: any of `ir`, `raman`, `uv_vis`.
        processes: number of child processes; None takes one per usable core.
        timeout: seconds per molecule.
        by_geometry: treat another conformer of the same identity as another molecule.
        retry_failed: compute the failures of the journal again.
        progress: show a progress bar with rate and time left.

    Raises:
        InputError: unknown modality, missing extra, or a journal that cannot be used.
    """
    levels = levels_of_theory(modalities)
    if processes is not None and processes < 1:
        raise InputError(f"the number of processes must be at least 1, not {processes}")
    wanted: dict[str, Molecule] = {}
    total = 0
    for molecule in molecules:
        total += 1
        wanted.setdefault(key_of(molecule, levels, by_geometry), molecule)
    with Journal(journal) as store:
        todo = deque(
            key for key in wanted if key not in store.offsets or (retry_failed and key in store.failed)
        )
        computed = len(todo)
        count = min(processes or usable_cores(), computed)
        if count:
            with _progress(computed, progress) as bar, _pool(count, modalities) as workers:
                _work(workers, todo, wanted, store, timeout, modalities, bar)
    offsets = [store.offsets[key] for key in wanted]
    failed = list(records_at(store.path, (store.offsets[key] for key in wanted if key in store.failed)))
    return RunResult(store.path, offsets, failed, computed, len(wanted) - computed, total - len(wanted))


def usable_cores() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _work(
    workers: list[_Worker],
    todo: deque[str],
    wanted: dict[str, Molecule],
    store: Journal,
    timeout: float,
    modalities: Sequence[str],
    bar: _Bar,
) -> None:
    """Hand out molecules until none is left and every worker is idle."""
    for worker in workers:
        _hand_out(worker, todo, wanted)
    while any(worker.key for worker in workers):
        busy = [worker for worker in workers if worker.key]
        ready = wait([worker.pipe for worker in busy], timeout=_patience(busy, timeout))
        for worker in busy:
            key = worker.key
            if key is None or (worker.pipe not in ready and time.monotonic() - worker.since < timeout):
                continue
            record = _outcome(worker, worker.pipe in ready, wanted[key], key, timeout)
            store.append(record)
            bar.advance(record)
            worker.key = None
            if not worker.process.is_alive() and todo:
                workers[workers.index(worker)] = worker = _start(modalities)
            _hand_out(worker, todo, wanted)


def _patience(busy: list[_Worker], timeout: float) -> float:
    """Seconds until the first of these workers exceeds the timeout."""
    return max(0.0, min(worker.since for worker in busy) + timeout - time.monotonic())


def _hand_out(worker: _Worker, todo: deque[str], wanted: dict[str, Molecule]) -> None:
    """Send the next molecule to an idle worker."""
    if not todo:
        return
    worker.key, worker.since = todo.popleft(), time.monotonic()
    with suppress(OSError):  # a child that died while idle is noticed by the next wait
        worker.pipe.send(wanted[worker.key])


def _outcome(worker: _Worker, answered: bool, molecule: Molecule, key: str, timeout: float) -> Record:
    """The worker's answer, or a failure when it died or took too long; the process is gone in both cases."""
    result: Simulation | str
    if answered:
        try:
            result = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            result = f"the process died ({_reason(worker.process.exitcode)})"
    else:
        worker.process.kill()
        worker.process.join()
        result = f"took longer than {timeout:g} s"
    seconds = time.monotonic() - worker.since
    simulation, error = (None, result) if isinstance(result, str) else (result, None)
    return Record(key, molecule.identity, molecule.smiles, molecule.name, seconds, simulation, error)


def _reason(code: int | None) -> str:
    """What an exit code says: the signal for a negative one."""
    if code is not None and code < 0:
        return signal.Signals(-code).name + (", perhaps out of memory" if -code == signal.SIGKILL else "")
    return f"exit code {code}"


@contextmanager
def _pool(count: int, modalities: Sequence[str]) -> Iterator[list[_Worker]]:
    """Workers that are ended on the way out, whatever happens."""
    workers: list[_Worker] = []
    try:
        for _ in range(count):
            workers.append(_start(modalities))  # noqa: PERF401 - those started must be known if one fails
        yield workers
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()
            worker.pipe.close()


def _start(modalities: Sequence[str]) -> _Worker:
    """Spawn one child with one thread for every numerical library."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, tuple(modalities)), daemon=True)
    with _quiet_start():
        process.start()
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Environment for a child: one thread for libraries that read it when they are loaded, and no Ctrl-C."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    # Ctrl-C reaches the whole process group; a child that inherits "ignore" leaves it to us from its first
    # instruction
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection, modalities: Sequence[str]) -> None:
    """Body of a child: molecules in, simulations or reasons out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):  # the parent is gone or has no use for us
        while True:
            pipe.send(_attempt(pipe.recv(), modalities))


def _attempt(molecule: Molecule, modalities: Sequence[str]) -> Simulation | str:
    """The simulation, or why there is none; any error is a reason, since the other molecules must go on."""
    try:
        return simulate(molecule, modalities)
    except MolspectraError as error:
        return str(error)
    except Exception as error:
        return f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"


@dataclass
class _Bar:
    """Progress display; silent when there is none."""

    progress: Progress | None = None
    task: TaskID | None = None
    failed: int = 0

    def advance(self, record: Record) -> None:
        """Count one molecule and name it if it failed."""
        self.failed += record.error is not None
        if self.progress is None or self.task is None:
            return
        if record.error is not None:
            self.progress.console.print(
                f"failed: {record.label}: {record.error}", markup=False, highlight=False
            )
        self.progress.update(self.task, advance=1, failed=self.failed, rate=self._rate())

    def _rate(self) -> str:
        task = self.progress.tasks[0] if self.progress else None
        return f"{60 * (task.completed + 1) / task.elapsed:.1f}/min" if task and task.elapsed else ""


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[_Bar]:
    """A bar with count, rate, time left and number of failures."""
    if not shown:
        yield _Bar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("simulating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[failed]} failed"),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as progress:
        yield _Bar(progress, progress.add_task("", total=total, failed=0, rate=""))
