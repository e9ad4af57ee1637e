"""Cache of compiled kernels on disk, keyed by a hash of their sources.

Numba's own cache looks at the time stamp of one file and at a kernel's constants. A kernel here is made of
functions of several files, for many numbers of channels; so every variant has its own file, named by a hash
of its sources and constants and of the types it is compiled for. Two processes that write at once write the
same. Where nothing can be written, every process compiles for itself.
"""

import hashlib
import inspect
import logging
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

log = logging.getLogger(__name__)


def cached(function: Any) -> Any:
    """Decorator of kernels: compiled on first use by numba, run without the interpreter's lock, cached."""
    dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
    try:
        dispatcher._cache = _KernelCache(function)
    except RuntimeError:  # neither the package's directory nor the user's can be written to
        _warn_once("every process compiles its kernels anew; set NUMBA_CACHE_DIR to a folder to keep them in")
    return dispatcher


@cache
def _warn_once(message: str) -> None:
    log.warning(message)


class _KernelCache(FunctionCache):
    def __init__(self, function: Any) -> None:
        super().__init__(function)
        stamp = hashlib.sha256("\n".join(_parts(function, set())).encode()).hexdigest()
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}-{stamp[:20]}"
        self._cache_file = _Files(self._cache_path, name, stamp)

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        return signature, codegen.magic_tuple()

    def save_overload(self, signature: Any, data: Any) -> None:
        """Write a compiled kernel to disk, or continue without where the disk is full."""
        with suppress(OSError):
            super().save_overload(signature, data)


class _Files:
    """One pair of files per type: numba's single pair would mix up kernels that two processes add at once."""

    def __init__(self, *names: str) -> None:
        self._path, self._name, self._stamp = names

    def _of(self, key: Any) -> Any:
        types = hashlib.sha256(repr(key).encode()).hexdigest()
        return IndexDataCacheFile(self._path, f"{self._name}-{types[:12]}", self._stamp)

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
