"""Files that are written completely or not at all, and locks between processes."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from molspectra.errors import ExistsError, WriteError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into one line that names the file.

    Raises:
        WriteError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}") from error


def flush(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk.

    Raises:
        OSError: the disk is full or broken; folders that a system cannot flush are let be.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not path.is_dir() or error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; at the end it is flushed to the disk and renamed to `path`.

    The folder is flushed too: after a power cut the file is there under its name.

    If the block raises, the temporary file is removed and `path` is as before.

    Raises:
        WriteError: if the file cannot be created, written or renamed.
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
            with naming(path):  # closing flushes the buffer, which may not fit on the disk
                file.close()
        with naming(path):
            temporary.replace(path)
            flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def exclusive_lock(path: Path, work: str = "") -> Iterator[None]:
    """Hold the lock of an existing file or folder during the block; it ends with the process at the latest.

    Where the system or file system has no such locks, the block runs without one.

    Args:
        path: of the file or folder.
        work: what a process that holds the lock is doing, such as "preparing this store"; if it is empty,
            wait for the lock instead of raising.

    Raises:
        ExistsError: another process holds the lock, and `work` is given.
        WriteError: the path cannot be opened.
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
            raise ExistsError(f"{path}: another process is {work}") from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)
