"""Signs of life between the processes of a run: who waits for a dead one would else wait for half an hour."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from torch.distributed import Store

from molspectra.errors import LostProcessError
from molspectra.printable import say

EVERY, SILENCE = 5.0, 30.0
"""Seconds between two signs of life, and without one after which a process counts as dead."""

LEFT = "left"
_LOST = "molspectra/lost"


def _key(rank: int) -> str:
    return f"molspectra/alive/{rank}"


class Heartbeat:
    """Says in the store of the processes that this one lives, and ends it when another falls silent.

    The first process listens to all others and tells them who is lost; the others listen to it. So the store
    serves a few requests per process. One thread talks to the store, which may block where a machine is gone,
    the other looks at the clock. Clocks of machines are never compared.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        world: int,
        lost: Callable[[str], str],
        end: Callable[[str], None] | None = None,
        every: float = EVERY,
        silence: float = SILENCE,
    ) -> None:
        """Prepare; it begins when the context is entered.

        Args:
            store: of the processes; used by this object alone (a clone).
            rank: number of this process.
            world: number of processes.
            lost: makes the message from a reason.
            end: what to do with the message; without it, it is printed and the process ends.
            every: seconds between two signs of life.
            silence: seconds without one after which a process counts as dead.
        """
        self._store, self._rank, self._lost, self._end = store, rank, lost, end or _end_process
        self._others = range(1, world) if rank == 0 else range(1)
        self._every, self._silence = every, silence
        self._over = threading.Event()
        self._last: dict[int, tuple[str, float]] = {}

    def __enter__(self) -> Self:
        """Begin."""
        self._last = {other: ("", time.monotonic()) for other in self._others}
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._talk, self._watch)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; without an error the others do not wait for more."""
        self._over.set()
        self._threads[0].join(self._every)
        if kind is None and not self._threads[0].is_alive():
            self._try(lambda: self._store.set(_key(self._rank), LEFT))

    def _try(self, exchange: Callable[[], None]) -> None:
        """Exchange something; a store that fails is as silent as its process, and is asked again."""
        with suppress(RuntimeError):
            exchange()

    def _talk(self) -> None:
        beat = 0
        while not self._over.is_set():
            beat += 1
            self._try(lambda: self._exchange(str(beat)))  # noqa: B023  # called at once
            self._over.wait(self._every)

    def _exchange(self, beat: str) -> None:
        self._store.set(_key(self._rank), beat)
        for other in self._others:
            if self._store.check([_key(other)]):
                value = self._store.get(_key(other)).decode()
                if value != self._last[other][0]:
                    self._last[other] = value, time.monotonic()
        if self._rank and self._store.check([_LOST]):
            self._finish(int(self._store.get(_LOST)))

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            now = time.monotonic()
            for other, (value, since) in list(self._last.items()):
                if value != LEFT and now - since > self._silence:
                    if self._rank == 0:
                        threading.Thread(target=self._tell, args=(other,), daemon=True).start()
                        self._over.wait(2 * self._every)  # until the others have asked
                    self._finish(other)
                    return

    def _tell(self, other: int) -> None:
        self._try(lambda: self._store.set(_LOST, str(other)))

    def _finish(self, other: int) -> None:
        if not self._over.is_set():
            self._over.set()
            self._end(self._lost(f"rank {other} has given no sign of life for {self._silence:.0f} s"))


def _end_process(message: str) -> None:
    """Say why and leave: the main thread may be waiting inside a library for good."""
    say(f"molspectra: error: {message}", error=True)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(LostProcessError.exit_code)
