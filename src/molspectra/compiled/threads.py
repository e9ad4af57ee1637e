"""Threads that run compiled kernels: as many as torch uses, idle while they wait.

Kernels release the interpreter's lock. They are cut into tasks whose results do not depend on the thread, so
the outcome is the same for any number of threads.
"""

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)
_ready: set[Any] = set()  # kernels that are compiled

PIECES = 4
"""Pieces of work per thread, so that other threads take over from a delayed one."""


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="molspectra")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


def _compile(kernel: Any, arguments: tuple[Any, ...]) -> None:
    """Compile a kernel, or read it from the cache, by running it on no tasks."""
    start = time.perf_counter()
    kernel(0, 0, *arguments)
    seconds = time.perf_counter() - start
    _ready.add(kernel)
    if sum(kernel.stats.cache_misses.values()):
        name = f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}"
        log.info("compiled %s in %.1f s, cached for the next time", name, seconds)


def run(kernel: Any, tasks: int, *arguments: Any, small: bool = False) -> None:
    """Call `kernel(first, last, *arguments)` so that every task in range(tasks) is done once.

    Tensors are passed as addresses of their numbers, which is the cheapest way; tensors that a kernel writes
    to must be contiguous. `small` work stays in this thread: waking another costs some 0.1 ms.
    """
    # the list keeps the tensors alive while kernels use their addresses
    contiguous = [value.contiguous() if isinstance(value, Tensor) else value for value in arguments]
    arguments = tuple(value.data_ptr() if isinstance(value, Tensor) else value for value in contiguous)
    if kernel not in _ready:
        _compile(kernel, arguments)
    threads = 1 if small else min(torch.get_num_threads(), tasks)
    if threads < 2:
        kernel(0, tasks, *arguments)
        return
    pieces = min(tasks, threads * PIECES)
    bounds = [tasks * piece // pieces for piece in range(pieces + 1)]
    waiting = pairwise(bounds)

    def work() -> None:
        while (piece := next(waiting, None)) is not None:
            kernel(*piece, *arguments)

    helpers: list[Future[None]] = []
    try:
        helpers.extend(_pool(threads - 1).submit(work) for _ in range(threads - 1))
        work()
    finally:
        for _ in waiting:  # where this thread was interrupted, no thread begins another piece
            pass
        _wait(helpers)
    for helper in helpers:
        helper.result()


def _wait(helpers: Sequence[Future[None]]) -> None:
    """Return when all are done, even if interrupted meanwhile: they write to memory that is freed then."""
    interrupted = None
    while not all(helper.done() for helper in helpers):
        try:
            wait(helpers)
        except KeyboardInterrupt as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted
