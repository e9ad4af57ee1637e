"""Work in shares on the workers of an executor: each share writes a file of its own, read while it grows."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from molspectra.errors import InputError, LostProcessError, MolspectraError
from molspectra.workers.executors import Executor, LostWorkerError

DEATHS = 3
"""Number of times that an item may end its process, the last time alone in it, before it is given up."""

SHORT = 20.0
"""Seconds that a share takes at least, if so much is left: a worker takes some to start."""

POLL = 0.5
"""Seconds between two looks at the files."""

LEASE = 120.0
"""Seconds without a sign of life of the process that shares out after which its workers end."""


@dataclass
class _Share:
    """Keys that one worker computes, in its order; `left` are those whose result has not been seen."""

    keys: Sequence[str]
    file: Path
    left: dict[str, None] = field(init=False)

    def __post_init__(self) -> None:
        self.left = dict.fromkeys(self.keys)


class GrowingLines:
    """Reader of a file of lines that another process writes.

    Args:
        path: the file, which may not exist yet.
    """

    def __init__(self, path: Path):
        self._path, self._end = path, 0

    def new_lines(self) -> list[bytes]:
        """Return the lines that are complete now and have not been returned before.

        Raises:
            InputError: the file cannot be read.
        """
        lines: list[bytes] = []
        try:
            with open(self._path, "rb") as file:  # opened anew, else a network file system shows what it was
                file.seek(self._end)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    lines.append(line)
                    self._end += len(line)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise InputError(f"cannot read {self._path}: {error.strerror}") from None
        return lines


def share_out(
    executor: Executor,
    folder: Path,
    keys: Iterable[str],
    call: Callable[[Sequence[str], Path], tuple[Callable[..., Any], tuple[Any, ...]]],
    collect: Callable[[Path], Iterable[str]],
    give_up: Callable[[str, str], None],
) -> None:
    """Compute every key once on the executor's workers.

    What a worker was computing when it ended is computed again, each item alone; what it had not begun goes
    to others. When this ends, in whatever way, all workers end; the folder is removed if all is done.

    Args:
        executor: the workers; each computes `executor.processes` items at once, in the order of its share,
            which is that of `keys`.
        folder: of the files of the shares; all workers see it. It must not exist.
        keys: what to compute.
        call: from keys and the file that their results go to, the function and arguments that compute them.
        collect: takes the new results from the file (or folder, or nothing yet) of a share; returns the keys.
        give_up: told key and reason of an item that ended its worker `DEATHS` times.

    Raises:
        LostProcessError: workers end before they begin.
        MolspectraError: they fail as a whole, with the reason.
    """
    folder = folder.absolute()
    place = {key: number for number, key in enumerate(keys)}
    waiting, alone, deaths = deque(place), deque[str](), Counter[str]()
    running: dict[Future[Any], _Share] = {}
    unstarted = number = done = 0
    since = time.monotonic()
    with executor.pool() as submit, _sign_of_life(folder) as sign:
        while waiting or alone or running:
            while len(running) < executor.workers and (waiting or alone):
                fast = int(SHORT * done / (executor.workers * max(1.0, time.monotonic() - since)))
                size = max(fast, len(waiting) // (2 * executor.workers), executor.processes)
                # what several lost workers left may wait in any order
                share = _Share(
                    sorted(_next(waiting, alone, size), key=place.__getitem__),
                    folder / f"{sign.name}-{number}",
                )
                number += 1
                running[submit(work, sign, *call(share.keys, share.file))] = share
            wait(running, timeout=POLL, return_when=FIRST_COMPLETED)
            os.utime(sign)
            for future, share in list(running.items()):
                ended = future.done()  # asked before its file is read, which is then complete
                for key in collect(share.file):
                    del share.left[key]
                    done, unstarted = done + 1, 0
                if not ended:
                    continue
                del running[future]
                _check(future)
                begun = len(share.left) and share.file.exists()
                suspects = list(share.left)[: executor.processes if begun else 0]
                waiting.extendleft(reversed(list(share.left)[len(suspects) :]))
                for key in suspects:
                    deaths[key] += 1
                    if deaths[key] >= DEATHS and len(share.keys) == 1:
                        give_up(key, f"its worker ended {deaths[key]} times")
                    else:
                        alone.append(key)
                unstarted += bool(share.left) and not begun
                if unstarted >= DEATHS * executor.workers:
                    raise LostProcessError(
                        f"{unstarted} workers ({executor.kind}) in a row ended before they began; see their "
                        "output, and whether they find this Python environment and this folder"
                    )
    shutil.rmtree(folder)


def _next(waiting: deque[str], alone: deque[str], size: int) -> list[str]:
    """Take the keys of the next share: one that must be alone, or the next of what waits."""
    if alone:
        return [alone.popleft()]
    return [waiting.popleft() for _ in range(min(size, len(waiting)))]


def _check(future: Future[Any]) -> None:
    """Raise if a worker failed as a whole, as all would; one that was lost does not count."""
    error = future.exception()
    if isinstance(error, MolspectraError):
        raise error
    if error is not None and not isinstance(error, LostWorkerError):
        raise MolspectraError(f"a worker failed: {type(error).__name__}: {error}") from error


@contextmanager
def _sign_of_life(folder: Path) -> Iterator[Path]:
    """Make the folder with a file in it without which the workers end; removed when the block ends."""
    folder.mkdir(parents=True)
    sign = folder / secrets.token_hex(4)
    sign.touch()
    try:
        yield sign
    finally:
        sign.unlink(missing_ok=True)


def work(sign: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Body of a worker: call the function; the process ends when the sign of life ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # multiprocessing unblocks it when it starts a process
    if not sign.exists():  # it began after the work was broken off
        os._exit(1)
    threading.Thread(target=_end_without, args=(sign,), daemon=True).start()
    function(*arguments)


def _end_without(sign: Path) -> None:
    """End this process when the sign is gone, or is not renewed; by this machine's clock, not the file's."""
    seen, since = 0, time.monotonic()
    while time.monotonic() - since < LEASE:
        try:
            renewed = sign.stat().st_mtime_ns
        except FileNotFoundError:
            break
        except OSError:  # a file system on the network may be away for a while
            renewed = seen
        if renewed != seen:
            seen, since = renewed, time.monotonic()
        time.sleep(1)
    os._exit(1)
