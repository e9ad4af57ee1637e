"""Cache of compiled kernels on disk, keyed by a hash of their sources.

Numba's own cache looks at the time stamp of one file and at a kernel's constants. A kernel here is made of
functions of several files, for many numbers of channels; so every variant has its own file, named by a hash
of its sources and constants and of the types it is compiled for. Two processes that write at once write the
same.

Numba unpickles the files, so whoever writes to them runs code in this process. Only a directory is used, for
reading too, that belongs to the user and that nobody else can write to or replace. Where there is none, every
process compiles for itself.
"""

import hashlib
import inspect
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import IO, Any

import numba
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    IndexDataCacheFile,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)

log = logging.getLogger(__name__)


def cached(function: Any) -> Any:
    """Decorator of kernels: compiled on first use by numba, run without the interpreter's lock, cached."""
    dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
    try:
        dispatcher._cache = _KernelCache(function)
    except RuntimeError:  # neither the package's directory nor the user's can be used
        _warn_once(
            "every process compiles its kernels anew: no cache folder belongs to this user and, with all "
            "folders above it, can be written to by nobody else"
        )
    return dispatcher


def is_private(path: Path) -> bool:
    """Whether a file or directory is this user's, and nobody else but root can change or replace it.

    Args:
        path: absolute and without symbolic links. Directories above it may be others' to write to only where
            their sticky bit keeps them from replacing what is not theirs, as in /tmp.
    """
    if not hasattr(os, "getuid"):  # modes tell nothing there
        return False
    try:
        own, *above = (place.lstat() for place in (path, *path.parents))
    except OSError:
        return False
    user, others_write = os.getuid(), stat.S_IWGRP | stat.S_IWOTH
    return (
        own.st_uid == user
        and not stat.S_ISLNK(own.st_mode)
        and not own.st_mode & others_write
        and all(
            one.st_uid in (0, user) and (not one.st_mode & others_write or one.st_mode & stat.S_ISVTX)
            for one in above
        )
    )


@cache
def _warn_once(message: str) -> None:
    log.warning(message)


class _Private:
    """Of numba's locators: a directory that is not private is passed over, a new one is made private."""

    _cache_path: str

    def ensure_cache_path(self) -> None:
        path = Path(os.path.realpath(self._cache_path))  # so that no link is followed again later
        for place in (*reversed(path.parents), path):
            if not place.exists():
                place.mkdir(mode=0o700, exist_ok=True)  # whatever the process's mask allows others
        if not is_private(path):
            raise PermissionError(f"{path} is not this user's alone")
        self._cache_path = str(path)
        super().ensure_cache_path()  # type: ignore[misc]


class _UserProvided(_Private, UserProvidedCacheLocator):
    pass


class _InTree(_Private, InTreeCacheLocator):
    pass


class _UserWide(_Private, UserWideCacheLocator):
    pass


class _Impl(CompileResultCacheImpl):
    _locator_classes = [_UserProvided, _InTree, _UserWide]  # noqa: RUF012 - numba's attribute


class _KernelCache(FunctionCache):
    _impl_class = _Impl

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        if not is_private(Path(self._cache_path)):  # a variable of numba may have chosen another locator
            raise RuntimeError(f"{self._cache_path} is not this user's alone")
        stamp = hashlib.sha256("\n".join(_parts(function, set())).encode()).hexdigest()
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}-{stamp[:20]}"
        self._cache_file = _Files(self._cache_path, name, stamp)

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        return signature, codegen.magic_tuple()

    def save_overload(self, signature: Any, data: Any) -> None:
        """Write a compiled kernel to disk, or continue without where the disk is full."""
        with suppress(OSError):
            super().save_overload(signature, data)


class _PrivateFiles(IndexDataCacheFile):
    """An index and its data, read only where nobody else can have written them."""

    def _load_index(self) -> Any:
        return super()._load_index() if is_private(Path(self._index_path)) else {}

    def _load_data(self, name: str) -> Any:
        if not is_private(Path(self._data_path(name))):
            raise PermissionError(f"{name} is not this user's alone")  # taken for missing
        return super()._load_data(name)

    @contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[IO[bytes]]:
        with super()._open_for_write(filepath) as file:
            os.chmod(file.fileno(), 0o600)
            yield file


class _Files:
    """One pair of files per type: numba's single pair would mix up kernels that two processes add at once."""

    def __init__(self, *names: str) -> None:
        self._path, self._name, self._stamp = names

    def _of(self, key: Any) -> Any:
        types = hashlib.sha256(repr(key).encode()).hexdigest()
        return _PrivateFiles(self._path, f"{self._name}-{types[:12]}", self._stamp)

    def load(self, key: Any) -> Any:
        return self._of(key).load(key)

    def save(self, key: Any, data: Any) -> None:
        self._of(key).save(key, data)


def _parts(value: Any, seen: set[int]) -> Iterator[str]:
    """Hashes of a function's source file and constants, and of the functions that it calls."""
    function = getattr(value, "py_func", value)  # of numba's dispatchers
    function = getattr(function, "_defn", function)  # of its intrinsics
    if not isinstance(function, FunctionType):
        yield repr(value)
        return
    if id(function) in seen:
        return
    seen.add(id(function))
    yield f"{function.__module__}.{function.__qualname__} {_hash(inspect.getfile(function))}"
    for cell in function.__closure__ or ():
        yield from _parts(cell.cell_contents, seen)
    for name in function.__code__.co_names:
        used = function.__globals__.get(name)
        if hasattr(used, "py_func") or hasattr(used, "_defn"):
            yield from _parts(used, seen)
        elif isinstance(used, int | float):
            yield f"{name} {used!r}"


@cache
def _hash(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
