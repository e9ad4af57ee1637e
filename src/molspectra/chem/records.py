"""Common parts of the file readers: entries parsed on demand, and text files opened with clear errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.chem.sanity import check_angstrom
from molspectra.errors import FormatError, NotFoundError


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


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file without their line ends.

    Raises:
        FormatError: if the file is not text, or not UTF-8.
    """
    number = 0
    advice = "unpack or convert it first"
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if "\0" in line:
                    raise FormatError(f"{path}, line {number}: not a text file; {advice}")
                yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}, after line {number}: not UTF-8 text; {advice}") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
