"""Files that are written completely or not at all, and locks between processes."""

from __future__ import annotations

import errno
import os
import platform
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from molspectra.errors import ExistsError, WriteError

LOCK = ".lock"
"""Name of the lock file in a folder."""

_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


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
    with atomic_files(path) as (file,):
        yield file


@contextmanager
def atomic_files(*paths: Path) -> Iterator[list[BinaryIO]]:
    """Open files that belong together, as in `atomic_file`; all are on the disk before any is renamed.

    Older files with these names are set aside as `.NAME.old` before the first is renamed, the last of
    `paths` first, and put back if one cannot be renamed. A kill may thus leave some of the files missing,
    above all the last, but never new ones beside old ones.

    Raises:
        WriteError: if a file cannot be created, written or renamed.
    """
    temporary = {path: path.with_name(f".{path.name}.{secrets.token_hex(4)}.part") for path in paths}
    unwanted: list[Path] = []  # removed at the end
    aside: list[Path] = []  # those of this call, not what a killed one left
    # one file alone is replaced in a single step
    old = {path: path.with_name(f".{path.name}.old") for path in paths} if len(paths) > 1 else {}
    try:
        with ExitStack() as stack:
            yield [stack.enter_context(_flushed(temporary[path], path)) for path in paths]
        for path in reversed(old):
            with naming(path):
                if path.exists():
                    path.replace(old[path])
                    aside.append(path)
        for path in paths:
            with naming(path):
                temporary[path].replace(path)
                unwanted.append(path)
        unwanted = list(old.values())
        aside.clear()
        for path in paths:
            with naming(path):
                flush(path.parent)
    finally:
        for path in (*temporary.values(), *unwanted):
            with suppress(OSError):  # what stopped the writing may stop this too, and is what matters
                path.unlink()
        try:
            for path in reversed(aside):
                old[path].replace(path)
        except OSError as error:
            kept = ", ".join(str(old[path]) for path in aside if old[path].exists())
            raise WriteError(
                f"{path} cannot be written: {error.strerror}; what was there is in {kept}"
            ) from error


@contextmanager
def _flushed(temporary: Path, path: Path) -> Iterator[BinaryIO]:
    """Open a new file that will be renamed to `path`, and flush it to the disk at the end."""
    with naming(path):
        file = temporary.open("xb")
    try:
        yield file
        with naming(path):
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.filename is None and error.errno in _OF_WRITING:  # of the block's `file.write`
            raise WriteError(f"{path} cannot be written: {error.strerror}") from error
        raise
    finally:
        with naming(path):  # closing flushes the buffer, which may not fit on the disk
            file.close()


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
    with naming(path):
        handle = os.open(path, os.O_RDONLY)
    try:
        if not _lock(handle, wait=not work):
            raise ExistsError(f"{path}: another process is {work}")
        yield
    finally:
        os.close(handle)


@contextmanager
def folder_lock(folder: Path, work: str) -> Iterator[None]:
    """Lock a folder, made if it is missing, during the block; the lock ends with the process at the latest.

    The lock is that of the system on the file `.lock` in the folder, which says who holds it and is removed
    at the end; one that a killed process left there locks nothing. Where the file system has no such locks,
    the block runs without one. A folder that was made here and is empty at the end is removed.

    Args:
        folder: path.
        work: what the process that holds the lock is doing, such as "training this run".

    Raises:
        ExistsError: another process holds the lock; the message says which, where and since when.
        WriteError: the folder or the file in it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise WriteError(f"{folder}: is a file; choose a directory")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
        path = folder / LOCK
        with naming(path):
            handle = _open_and_lock(path, work)
        try:
            with naming(path):
                os.ftruncate(handle, 0)
                since = time.strftime("%Y-%m-%d %H:%M:%S")
                os.write(handle, f"process {os.getpid()} on {platform.node()} since {since}".encode())
            yield
        finally:
            try:
                with suppress(OSError):  # left there, it locks nothing
                    path.unlink()
            finally:
                os.close(handle)
    finally:
        for empty in made:
            with suppress(OSError):  # it is not empty: something was done
                empty.rmdir()


def lock_holder(folder: Path) -> str | None:
    """Which process holds the lock of a folder, see `folder_lock`; None where none does, or none can be told.

    The lock is tried for an instant, and never kept.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        if _lock(handle, wait=False, shared=True):
            return None
        return os.read(handle, 200).decode(errors="replace") or "it does not say which"
    finally:
        os.close(handle)


def _open_and_lock(path: Path, work: str) -> int:
    """Open and lock the file that has this name: the process that held it before may just remove it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _lock(handle, wait=False):
                holder = os.read(handle, 200).decode(errors="replace") or "it does not say which"
                raise ExistsError(f"{path.parent}: another process is {work} ({holder})")
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, *, wait: bool, shared: bool = False) -> bool:
    """Lock an open file or folder; return False where another process holds the lock."""
    try:
        import fcntl

        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(handle, kind | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # a system, or a file system, without locks
        pass
    return True
