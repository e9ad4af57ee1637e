"""Signals that ask a run to stop: it stops between two steps, instead of in the middle of one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from molspectra.data.signals import STOPPING
from molspectra.errors import MolspectraError


class Interrupted(MolspectraError):
    """A run was asked to stop, by a signal of `STOPPING`, and has saved; the command exits with code 130."""

    interrupted = True


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Yield an event that the first signal of `STOPPING` sets; a second Ctrl-C raises KeyboardInterrupt.

    Outside the main thread, where Python handles no signals, the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, request) for number in STOPPING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
