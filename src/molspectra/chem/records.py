"""Common parts of the file readers: entries parsed on demand, and text files opened with clear errors."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.chem.sanity import check_angstrom
from molspectra.errors import FormatError, NotFoundError

MAX_LINE = 1 << 24
"""Longest line of a text file, bytes; a longer one is refused before it is in memory."""


class Entry(NamedTuple):
    """One molecule of a file with its further data, not yet parsed.

    Attributes:
        where: its position for messages, such as "line 4" or "frame 2 (line 13)".
        name: its name in the file, None without one.
        structure: parses the structure, with coordinates as they are written; raises an InputError if it is
            invalid.
        fields: parses the other values, texts by key; raises an InputError if they are ambiguous.
        vectors: parses the array [N, 3] of a key; raises an InputError if there is none.
    """

    where: str
    name: str | None
    structure: Callable[[], Molecule]
    fields: Callable[[], dict[str, str]] = dict
    vectors: Callable[[str], npt.NDArray[np.float64]] | None = None

    def molecule(self) -> Molecule:
        """Return the structure of an entry whose coordinates are in Å.

        Raises:
            InputError: if it is invalid, or seems to be in bohr.
        """
        molecule = self.structure()
        check_angstrom(molecule.numbers, molecule.positions)
        return molecule


def check_readable(path: Path) -> None:
    """Check that a path is a file that is readable and not empty.

    Raises:
        NotFoundError: if there is no such file.
        FormatError: if it is a directory, empty or unreadable.
    """
    try:
        if path.is_dir():
            raise FormatError(f"{path} is a directory, not a file")
        with path.open("rb") as file:
            if not file.read(1):
                raise FormatError(f"{path} is empty")
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error


class _ShortLines(io.BufferedIOBase):
    """The bytes of another stream, as long as none of its lines is longer than `MAX_LINE`."""

    def __init__(self, stream: IO[bytes], name: object) -> None:
        self._stream, self.name, self._line = stream, str(name), 0

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1, /) -> bytes:
        data: bytes = self._stream.read1(size)  # type: ignore[attr-defined]
        self._line = len(data) - data.rfind(b"\n") - 1 + (self._line if b"\n" not in data else 0)
        if self._line > MAX_LINE:
            raise FormatError(f"{self.name}: a line of more than {MAX_LINE >> 20} MiB; that is no text file")
        return data

    def close(self) -> None:
        self._stream.close()
        super().close()


def short_lines(
    stream: IO[bytes], name: object, encoding: str = "utf-8", errors: str = "strict"
) -> io.TextIOWrapper:
    """Return a stream of bytes as text, which raises before a line of more than `MAX_LINE` is in memory.

    Args:
        stream: buffered, of a file or a member of an archive; closed with the text.
        name: of the file, for the message.
        encoding: of the text.
        errors: what to do with other bytes.
    """
    return io.TextIOWrapper(_ShortLines(stream, name), encoding=encoding, errors=errors)


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file without their line ends.

    Raises:
        FormatError: if the file is not text, not UTF-8, or has a line of more than `MAX_LINE`.
    """
    number = 0
    advice = "unpack or convert it first"
    try:
        with short_lines(path.open("rb"), path, "utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if "\0" in line:
                    raise FormatError(f"{path}, line {number}: not a text file; {advice}")
                yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}, after line {number}: not UTF-8 text; {advice}") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
