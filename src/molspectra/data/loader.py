"""Making the batches of a run's steps, here or ahead of time in worker processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from molspectra.compiled import kernels, use
from molspectra.errors import MolspectraError

T = TypeVar("T")


@dataclass(frozen=True)
class _Failed:
    """An error on its way out of a worker, which would otherwise arrive with a traceback as its message."""

    error: MolspectraError


class _Steps(Dataset[T | _Failed]):
    """The batches of all steps, as something that worker processes can look up."""

    def __init__(self, make: Callable[[int], T]) -> None:
        self.make = make
        self.kernels = kernels()  # workers are new processes, which do not know what was chosen here

    def __getitem__(self, step: int) -> T | _Failed:
        try:
            with use(self.kernels):
                return self.make(step)
        except MolspectraError as error:
            return _Failed(error)


def batches(
    make: Callable[[int], T], start: int, stop: int, *, workers: int = 0, pin_memory: bool = False
) -> Iterator[T]:
    """Yield ``make(step)`` for each step from `start` to `stop`, exclusive, in order.

    Nothing is kept between steps, so the result is the same for any number of workers, and a run resumes by
    starting at its next step. With workers, `make` is pickled into spawned processes: let it hold a `Store`
    (which reopens its file there) and plain values.

    Args:
        make: a pure function of the step.
        start: first step.
        stop: step to end before.
        workers: processes that work ahead; 0 makes each batch when it is asked for.
        pin_memory: hand over page-locked memory, for asynchronous copies to a GPU.

    Raises:
        MolspectraError: what `make` raised, here or in a worker.
    """
    loader = DataLoader(
        _Steps(make),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else each pass would draw from the global generator
    )
    for made in loader:
        if isinstance(made, _Failed):
            raise made.error
        yield made
