"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from molspectra.errors import InputError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an operating system's complaint inside the block into one line that names the file.

    Raises:
        InputError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a new file beside `path`, which takes its place at the end, flushed to the disk.

    If the block raises, the new file vanishes and `path` is as before.

    Raises:
        InputError: if the file cannot be made or moved into place.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with naming(path):
            file = temporary.open("xb")
        try:
            yield file
            with naming(path):
                file.flush()
                os.fsync(file.fileno())
        finally:
            with naming(path):  # what is left in the buffer may not fit on the disk
                file.close()
        with naming(path):
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
