"""Batches of the steps of a run, made in this process or ahead of time in worker processes."""

import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from molspectra.compiled import kernels, use
from molspectra.data.signals import STOPPING
from molspectra.errors import MolspectraError

T = TypeVar("T")


@dataclass(frozen=True)
class _WorkerError:
    """An error returned from a worker; raised there, it would arrive with a traceback as its message."""

    error: MolspectraError


class _Steps(Dataset[T | _WorkerError]):
    """The batches of all steps as a map-style dataset, indexed by step."""

    def __init__(self, make: Callable[[int], T]) -> None:
        self.make = make
        self.kernels = kernels()  # the choice does not reach spawned processes by itself

    def __getitem__(self, step: int) -> T | _WorkerError:
        try:
            with use(self.kernels):
                return self.make(step)
        except MolspectraError as error:
            return _WorkerError(error)


def batches(make: Callable[[int], T], start: int, stop: int, *, workers: int = 0) -> Generator[T, None, None]:
    """Yield ``make(step)`` for each step from `start` to `stop`, exclusive, in order.

    No state is kept between steps, so the result is the same for any number of workers, and a run resumes by
    starting at its next step. With workers, `make` is pickled into spawned processes; it should hold only
    plain values and a `Store`, which reopens its file there.

    Args:
        make: a pure function of the step.
        start: first step.
        stop: last step, exclusive.
        workers: processes that work ahead; 0 makes each batch on demand in this process.

    Raises:
        MolspectraError: the error that `make` raised, here or in a worker.
    """
    if not workers:
        yield from map(make, range(start, stop))
        return
    loader = DataLoader(
        _Steps(make),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        multiprocessing_context="spawn",
        generator=torch.Generator(),  # else each pass would draw from the global generator
    )
    with ignore_signals_in_workers():
        source: Any = iter(loader)  # torch has no public way to end its workers
    try:
        for batch in source:
            if isinstance(batch, _WorkerError):
                raise batch.error
            yield batch
    finally:
        # Else they live as long as an error's traceback, and then hold up the exit: they hear no SIGTERM.
        source._shutdown_workers()
        for worker in source._workers:
            worker.kill()


@contextmanager
def ignore_signals_in_workers() -> Iterator[None]:
    """Let processes started inside the block ignore `STOPPING`: a worker must not die before its run saves.

    A terminal or a batch system sends these to all processes of a command; a new process inherits what its
    parent blocks.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        # Else the first spawned process would start it, which unblocks the others; it must hear none either.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
