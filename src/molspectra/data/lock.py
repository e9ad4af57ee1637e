"""Keeping other processes from the same work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from molspectra.data.atomic import naming
from molspectra.errors import InputError


@contextmanager
def alone(path: Path, work: str = "") -> Iterator[None]:
    """Hold the lock of an existing file or folder, as long as this process lives at most.

    Where the system or file system has no such locks, nothing is held.

    Args:
        path: of the file or folder.
        work: what another process that holds it is doing, as in "preparing this store"; without, it is
            waited for.

    Raises:
        InputError: another process holds it and is not waited for, or it cannot be opened.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with naming(path):
        handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if work else 0))
        except BlockingIOError as error:
            raise InputError(f"{path}: another process is {work}") from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)
