"""Signals that ask a run to stop: it stops between two steps, instead of in the middle of one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from molspectra.data.signals import STOPPING
from molspectra.errors import MolspectraError


class Interrupted(MolspectraError):
    """A run was asked to stop, by a signal of `STOPPING`, and has saved; the command exits with code 130."""

    exit_code = 130


@contextmanager
def stop_requests(*, alone: bool = True) -> Iterator[threading.Event]:
    """Yield an event that the first signal of `STOPPING` sets; a second Ctrl-C raises KeyboardInterrupt.

    Outside the main thread, where Python handles no signals, the event is never set.

    Args:
        alone: no other processes belong to this one. Else SIGTERM is ignored after an error: a launcher sends
            it as soon as the first process has ended, and the others are still writing why.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before: dict[int, Any] = {number: signal.signal(number, request) for number in STOPPING}
    try:
        yield stop
    except BaseException:
        if not alone:
            before[signal.SIGTERM] = signal.SIG_IGN
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
