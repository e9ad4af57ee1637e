"""Simulate many molecules, in spawned processes or on an executor; or one that can be ended at any time."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

from molspectra.chem.molecule import Molecule
from molspectra.errors import MolspectraError, SimulationError, ValueRangeError
from molspectra.printable import printable
from molspectra.simulation.api import (
    DEFAULT_MODALITIES,
    Geometry,
    Level,
    Simulation,
    levels_of_theory,
    simulate,
)
from molspectra.simulation.records import (
    GrowingJournal,
    Journal,
    Record,
    key_of,
    read_journal,
    records_at,
)
from molspectra.workers.executors import Executor
from molspectra.workers.shares import DEATHS, share_out

TIMEOUT = 1800.0
"""Time limit per molecule, s, after which its process is killed."""

Task = Callable[[Molecule], Any]
"""Calculation of one molecule; it and its result are pickled for the child processes."""

GRACE = 5.0
"""Seconds after its time limit when a process is killed though nobody asks for its result."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class RunResult:
    """Outcome of a run over many molecules; the results are read from the journal on demand.

    Attributes:
        journal: path of the journal.
        offsets: byte offset in the journal of each distinct molecule's record, in the order of the input.
        failures: records of the molecules that failed, each with its reason, in the order of the input.
        computed: number of molecules computed in this run, failures included.
        reused: number of molecules taken from the journal.
        repeated: number of inputs skipped because an earlier one had the same key.
    """

    journal: Path
    offsets: list[int]
    failures: list[Record]
    computed: int
    reused: int
    repeated: int

    def simulations(self) -> Iterator[Simulation]:
        """Yield the results of the molecules that succeeded, in the order of the input."""
        for record in records_at(self.journal, self.offsets):
            if record.simulation is not None:
                yield record.simulation


@dataclass
class _Worker:
    """One child process, its pipe, and key and start time of its current molecule (key None: idle)."""

    process: BaseProcess
    pipe: Connection
    key: str | None = None
    since: float = 0.0


def simulate_many(
    molecules: Iterable[Molecule],
    journal: str | Path,
    modalities: Sequence[str] = DEFAULT_MODALITIES,
    *,
    geometry: Geometry = "optimised",
    level: Level = "gfn2",
    processes: int | None = None,
    executor: Executor | None = None,
    timeout: float = TIMEOUT,
    by_geometry: bool = True,
    retry_failed: bool = False,
    progress: bool = True,
) -> RunResult:
    """Simulate every molecule once and write each result to a journal, so that an interrupted run continues.

    A molecule that fails or exceeds `timeout` becomes a record with the reason, and the run goes on; so does
    one whose process dies, when that has happened three times. On Ctrl-C all processes end; finished
    molecules stay. The workers of an executor write journals of their own, in a folder beside `journal`
    (named after it, with ".workers") that they must see. They are merged while they grow, and at the next
    start if this process is killed.

    Args:
        molecules: start structures.
        journal: path of the journal; molecules that it holds at this level of theory are not computed again.
        modalities: see `simulate`.
        geometry: see `simulate`.
        level: see `simulate`.
        processes: number of child processes; None takes one per usable core.
        executor: computes on its workers instead, which have their own number of processes.
        timeout: seconds per molecule.
        by_geometry: treat another conformer of the same identity as another molecule.
        retry_failed: compute the failures of the journal again.
        progress: show a progress bar with rate and time left.

    Raises:
        InputError: unknown modality, missing extra, or a journal that cannot be used.
        SimulationError: the workers of the executor do not start, or fail as a whole.
    """
    levels = levels_of_theory(modalities, geometry, level)
    task = partial(simulate, modalities=tuple(modalities), geometry=geometry, level=level)
    if processes is not None and processes < 1:
        raise ValueRangeError(f"the number of processes must be at least 1, not {processes}")
    by_key: dict[str, Molecule] = {}
    total = 0
    for molecule in molecules:
        total += 1
        by_key.setdefault(key_of(molecule, levels, by_geometry), molecule)
    with Journal(journal) as store:
        folder = store.path.with_name(store.path.name + ".workers")
        _take_over(store, folder)
        todo = deque(
            key for key in by_key if key not in store.offsets or (retry_failed and key in store.failed)
        )
        computed = len(todo)
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        count = min(processes or usable or 1, computed)
        if count:
            with _progress(computed, progress) as advance:

                def finish(record: Record) -> None:
                    store.append(record)
                    advance(record)

                if executor is None:
                    with _pool(count, task) as workers:
                        _work(workers, todo, by_key, finish, timeout, task)
                else:
                    share = partial(
                        simulate_many,
                        modalities=tuple(modalities),
                        geometry=geometry,
                        level=level,
                        processes=executor.processes,
                        timeout=timeout,
                        by_geometry=by_geometry,
                        progress=False,
                    )
                    _work_in_shares(executor, folder, todo, by_key, finish, share)
    offsets = [store.offsets[key] for key in by_key]
    failed = list(records_at(store.path, (store.offsets[key] for key in by_key if key in store.failed)))
    return RunResult(store.path, offsets, failed, computed, len(by_key) - computed, total - len(by_key))


def _take_over(store: Journal, folder: Path) -> None:
    """Merge what the workers of an interrupted run have finished, and remove their journals."""
    if not folder.is_dir():
        return
    for path in sorted(folder.glob("*-*")):
        for record in read_journal(path):
            if record.key not in store.offsets or (record.key in store.failed and record.error is None):
                store.append(record)
    shutil.rmtree(folder)


def _work_in_shares(
    executor: Executor,
    folder: Path,
    todo: Iterable[str],
    by_key: dict[str, Molecule],
    finish: Callable[[Record], None],
    share: Callable[[Sequence[Molecule], Path], RunResult],
) -> None:
    """Compute molecules on an executor, each share with a journal of its own; pass on the results."""
    journals: dict[Path, GrowingJournal] = {}

    def collect(path: Path) -> Iterator[str]:
        for record in journals.setdefault(path, GrowingJournal(path)).new_records():
            finish(record)
            yield record.key

    def give_up(key: str, reason: str) -> None:
        molecule = by_key[key]
        finish(Record(key, molecule.identity, molecule.smiles, molecule.name, 0.0, None, reason))

    share_out(
        executor,
        folder,
        todo,
        lambda keys, path: (share, ([by_key[key] for key in keys], path)),
        collect,
        give_up,
    )


def _work(
    workers: list[_Worker],
    todo: deque[str],
    by_key: dict[str, Molecule],
    finish: Callable[[Record], None],
    timeout: float,
    task: Task,
) -> None:
    """Send molecules to idle workers and pass on their results, until all are done."""
    deaths = Counter[str]()
    for worker in workers:
        _hand_out(worker, todo, by_key)
    while any(worker.key for worker in workers):
        busy = [worker for worker in workers if worker.key]
        time_left = min(worker.since for worker in busy) + timeout - time.monotonic()
        ready = wait([worker.pipe for worker in busy], timeout=max(0.0, time_left))
        for worker in busy:
            key = worker.key
            if key is None or (worker.pipe not in ready and time.monotonic() - worker.since < timeout):
                continue
            answered = worker.pipe in ready
            record = _outcome(worker, answered, by_key[key], key, timeout)
            worker.key = None
            if answered and record.error is not None and not worker.process.is_alive():
                deaths[key] += 1
            if 0 < deaths[key] < DEATHS and record.error is not None:
                todo.appendleft(key)
            else:
                finish(record)
            if not worker.process.is_alive() and todo:
                workers[workers.index(worker)] = worker = _start(task)
            _hand_out(worker, todo, by_key)


def _hand_out(worker: _Worker, todo: deque[str], by_key: dict[str, Molecule]) -> None:
    """Send the next molecule to an idle worker."""
    if not todo:
        return
    worker.key, worker.since = todo.popleft(), time.monotonic()
    with suppress(OSError):  # a child that died while idle is noticed by the next wait
        worker.pipe.send(by_key[worker.key])


def _outcome(worker: _Worker, answered: bool, molecule: Molecule, key: str, timeout: float) -> Record:
    """Return the record of a worker's answer, or of a failure if it died or took too long and was killed."""
    result = _answer(worker, answered, timeout)
    seconds = time.monotonic() - worker.since
    simulation, error = (None, result) if isinstance(result, str) else (result, None)
    return Record(key, molecule.identity, molecule.smiles, molecule.name, seconds, simulation, error)


def _answer(worker: _Worker, answered: bool, timeout: float) -> Any:
    """Return a worker's result, or the reason (text) why there is none; one that took too long is killed."""
    if not answered:
        worker.process.kill()
        worker.process.join()
        return f"took longer than {timeout:g} s"
    try:
        return worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        return f"the process died ({_exit_reason(worker.process.exitcode)})"


def _exit_reason(code: int | None) -> str:
    """Describe an exit code; a negative one is a signal."""
    if code is not None and code < 0:
        return signal.Signals(-code).name + (", perhaps out of memory" if -code == signal.SIGKILL else "")
    return f"exit code {code}"


class Calculation:
    """One calculation in a process of its own, which is killed when the block ends.

    It is killed also when its time is up, and ends when this process does.
    """

    def __init__(self, task: Task, molecule: Molecule, timeout: float = TIMEOUT) -> None:
        """Start it.

        Args:
            task: what to calculate.
            molecule: of which molecule.
            timeout: time limit in seconds, with the start of the process.
        """
        self._timeout, self._worker = timeout, _start(task)
        self._worker.since = time.monotonic()
        with suppress(OSError):  # a child that died is noticed when its result is asked for
            self._worker.pipe.send(molecule)
        self._limit = threading.Timer(timeout + GRACE, self._worker.process.kill)
        self._limit.daemon = True
        self._limit.start()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._worker.since

    def result(self, wait: float) -> Any:
        """The result, or None if there is none within `wait` seconds.

        Raises:
            SimulationError: it failed, its process died, or its time was up.
        """
        answered = self._worker.pipe.poll(max(0.0, min(wait, self._timeout - self.seconds)))
        if not answered and self.seconds < self._timeout:
            return None
        result = _answer(self._worker, answered, self._timeout)
        if isinstance(result, str):
            raise SimulationError(result)
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._limit.cancel()
        self._worker.process.kill()
        self._worker.process.join()
        self._worker.pipe.close()


@contextmanager
def _pool(count: int, task: Task) -> Iterator[list[_Worker]]:
    """Start workers; terminate them when the block ends, also on errors."""
    workers: list[_Worker] = []
    try:
        for _ in range(count):
            workers.append(_start(task))  # noqa: PERF401 - the list must be complete if one start fails
        yield workers
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()
            worker.pipe.close()


def _start(task: Task) -> _Worker:
    """Spawn one child process whose numerical libraries use one thread."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, task), daemon=True)
    with _child_environment():
        process.start()
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _child_environment() -> Iterator[None]:
    """Set what a child inherits: one thread for libraries that read the environment, Ctrl-C ignored."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    # Ctrl-C reaches the whole process group; a child that inherits "ignore" never handles it itself
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


def _serve(pipe: Connection, task: Task) -> None:
    """Body of a child process: receive molecules, send simulations or reasons, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):  # the parent is gone or has closed the pipe
        while True:
            pipe.send(_attempt(pipe.recv(), task))


def _end_with_parent() -> None:
    """End this process when its parent has ended in whatever way, also amid a calculation."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _attempt(molecule: Molecule, task: Task) -> Any:
    """Return the result, or the reason of its failure; no error may stop the other molecules."""
    try:
        return task(molecule)
    except MolspectraError as error:
        return str(error)
    except Exception as error:
        return f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[Record], None]]:
    """Yield a function that counts a record, on a bar with rate and time left, and prints its failure."""
    if not shown:
        yield lambda record: None
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
        task = progress.add_task("", total=total, failed=0, rate="")

        def advance(record: Record) -> None:
            state = progress.tasks[0]
            failed = state.fields["failed"]
            if record.error is not None:
                failed += 1
                reason = printable(f"failed: {record.label}: {record.error}")
                progress.console.print(reason, markup=False, highlight=False)
            rate = f"{60 * (state.completed + 1) / state.elapsed:.1f}/min" if state.elapsed else ""
            progress.update(task, advance=1, failed=failed, rate=rate)

        yield advance
