"""Arrays of an `.npz` file read row by row, in order, so that no array is ever held as a whole.

Pickled objects are not read. Nothing is allocated by the sizes that a file states: rows are decompressed as
they are asked for.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from molspectra.errors import DamagedError, FormatError, NotFoundError, ValueRangeError

_CHUNK = 1 << 20  # bytes skipped at once
_MAX_ROW = 1 << 26  # bytes of one row
_MAX_WHOLE = 1 << 30  # bytes of an array that is read at once
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_READ_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


class Column:
    """One array of an archive, read from its first row on.

    Args:
        archive: the open archive.
        path: of the archive, for messages.
        name: key of the array.
        whole: read an array in Fortran order, whose rows cannot be read one by one, into memory; up to 1 GiB.

    Attributes:
        name: key of the array.
        rows: number of rows, as its header states.
        shape: shape of one row.
        dtype: type of the numbers or texts.

    Raises:
        FormatError: if it is no array, holds pickled objects or records, or is in Fortran order (`whole`).
        DamagedError: if it cannot be read, or ends before its last row; also of `take` and `skip`.
        ValueRangeError: if its sizes are impossible or a row takes more than 64 MiB.
    """

    def __init__(self, archive: zipfile.ZipFile, path: Path, name: str, whole: bool = False) -> None:
        """Open the member `name.npy` and read its header."""
        self.name, self._path = name, path
        with self._readable():
            self._file: IO[bytes] = archive.open(f"{name}.npy")
            version = np.lib.format.read_magic(self._file)
            if version not in _HEADERS:
                raise FormatError(f"{path}: array {name!r} is of npy version {version}, which is not read")
            shape, fortran, self.dtype = _HEADERS[version](self._file)
        if self.dtype.hasobject:
            advice = "save it as an array of numbers or of text (dtype 'U')"
            raise FormatError(
                f"{path}: array {name!r} holds pickled Python objects, which are not read; {advice}"
            )
        if self.dtype.kind not in "biufUS":
            raise FormatError(f"{path}: array {name!r} is of type {self.dtype}, not of numbers or text")
        if not shape:
            raise FormatError(f"{path}: array {name!r} is a single value, not a list with one row per record")
        if min(shape) < 0:
            raise ValueRangeError(f"{path}: array {name!r} states a negative size")
        self.rows, self.shape = int(shape[0]), tuple(int(size) for size in shape[1:])
        if fortran and len(shape) > 1:
            if not whole or self.dtype.itemsize * prod(shape) > _MAX_WHOLE:
                raise FormatError(
                    f"{path}: array {name!r} is in Fortran order; save np.ascontiguousarray of it"
                )
            whole_array = np.frombuffer(self._read(self.dtype.itemsize * prod(shape)), self.dtype)
            self._file = io.BytesIO(whole_array.reshape(shape, order="F").tobytes())  # in rows
        self._bytes = self.dtype.itemsize * prod(self.shape)
        if not 0 < self._bytes <= _MAX_ROW:
            raise ValueRangeError(f"{path}: one row of array {name!r} takes {self._bytes} bytes")

    def take(self, rows: int) -> npt.NDArray[Any]:
        """Return the next rows [rows, ...]."""
        return np.frombuffer(self._read(rows * self._bytes), self.dtype).reshape(rows, *self.shape)

    def skip(self, rows: int) -> None:
        """Skip the next rows."""
        remaining = rows * self._bytes
        while remaining:
            remaining -= len(self._read(min(remaining, _CHUNK)))

    def _read(self, size: int) -> bytes:
        with self._readable():
            data = self._file.read(size)
        if len(data) < size:
            raise DamagedError(f"{self._path}: array {self.name!r} ends before its {self.rows} rows do")
        return data

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except _READ_ERRORS as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise DamagedError(f"{self._path}: array {self.name!r} cannot be read ({reason})") from error


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an `.npz` archive.

    Raises:
        NotFoundError: if the file is missing or is a directory.
        FormatError: if it is no such archive.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))  # ours to close, whatever members are still open
            archive = stack.enter_context(zipfile.ZipFile(file))
        except FileNotFoundError as error:
            raise NotFoundError(f"{path}: no such file") from error
        except IsADirectoryError as error:
            raise NotFoundError(f"{path} is a directory; name the .npz file in it") from error
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise FormatError(f"{path}: not an .npz file ({error})") from error
        yield archive


def names(archive: zipfile.ZipFile, path: Path) -> list[str]:
    """Return the keys of the arrays of an archive.

    Raises:
        FormatError: if it holds something else than arrays, or a key twice.
    """
    members = archive.namelist()
    for member in members:
        if not member.endswith(".npy"):
            raise FormatError(f"{path}: {member[:60]!r} is not a numpy array; is this an .npz file?")
    if len(set(members)) < len(members):
        raise FormatError(f"{path}: an array occurs twice")
    return [member[:-4] for member in members]


def chunks(column: Column, rows: int = 65_536) -> Iterator[npt.NDArray[Any]]:
    """Yield all rows of a column in arrays [≤ rows, ...]."""
    for start in range(0, column.rows, rows):
        yield column.take(min(rows, column.rows - start))
