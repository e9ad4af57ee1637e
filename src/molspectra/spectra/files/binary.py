"""Read numbers and text from the binary files of instruments, only inside their bounds."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from molspectra.chem.records import check_readable
from molspectra.errors import DamagedError, FormatError, ValueRangeError
from molspectra.spectra.files.text import MAX_BYTES

MAX_SPECTRA = 1000
"""A file with more spectra is a map or a series, and refused."""


@dataclass(frozen=True)
class Bytes:
    """Content of a binary file.

    Attributes:
        data: the bytes.
        order: byte order of the numbers, "<" or ">".
    """

    data: bytes
    order: str = "<"

    def numbers(self, form: str, offset: int) -> tuple[int | float, ...]:
        """Return the numbers of a `struct` format at an offset.

        Raises:
            DamagedError: they do not lie inside the file.
        """
        self._check(offset, struct.calcsize(self.order + form))
        return struct.unpack_from(self.order + form, self.data, offset)

    def integer(self, form: str, offset: int) -> int:
        """Return the integer at an offset, see `numbers`."""
        return int(self.numbers(form, offset)[0])

    def array(self, form: str, offset: int, count: int) -> npt.NDArray[np.float64]:
        """Return `count` numbers of a format of numpy, such as f4, as float64.

        Raises:
            DamagedError: they do not lie inside the file.
            ValueRangeError: fewer than 2 numbers.
        """
        if count < 2:
            raise ValueRangeError(f"it has {count} points, and a spectrum at least 2")
        kind = np.dtype(self.order + form)
        self._check(offset, count * kind.itemsize)
        return np.frombuffer(self.data, kind, count, offset).astype(np.float64)

    def part(self, offset: int, size: int) -> Bytes:
        """Return a part of the content.

        Raises:
            DamagedError: it does not lie inside the file.
        """
        self._check(offset, size)
        return Bytes(self.data[offset : offset + size], self.order)

    def text(self, offset: int, size: int) -> str:
        """Return the printable characters (Latin-1) of a field up to its first NUL, on one line."""
        self._check(offset, size)
        return plain(self.data[offset : offset + size].partition(b"\0")[0].decode("latin-1"))

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > len(self.data):
            raise DamagedError(
                f"damaged or cut short: it has {len(self.data)} bytes, and {offset + size} are needed"
            )


def plain(text: str) -> str:
    """Return the printable characters of a text, on one line."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def read_bytes(path: Path) -> Bytes:
    """Return the content of a file of at most `MAX_BYTES`.

    Raises:
        InputError: the file is missing or too large.
    """
    check_readable(path)
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path} is larger than {MAX_BYTES >> 20} MiB; that is no spectrum")
    return Bytes(data)


def check_count(count: int) -> None:
    """Refuse a number of spectra in one file.

    Raises:
        FormatError: it is not 1 to `MAX_SPECTRA`.
    """
    if not 1 <= count <= MAX_SPECTRA:
        raise FormatError(
            f"it holds {count} spectra, and 1 to {MAX_SPECTRA} are read; "
            "export the wanted spectrum of a map or series alone"
        )
