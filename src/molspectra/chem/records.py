"""What the file readers share: records that are built one by one, and text files opened with clear errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.errors import InputError


class Record(NamedTuple):
    """One molecule of a file, not yet parsed.

    Attributes:
        where: its place for people, such as "line 4" or "frame 2 (line 13)".
        build: parses it; raises InputError where it is bad.
    """

    where: str
    build: Callable[[], Molecule]


class Entry(NamedTuple):
    """One molecule of a file and what the file says of it, none of it parsed yet.

    Attributes:
        where: its place for people.
        name: what the file calls it, None where it does not.
        molecule: builds the structure.
        fields: values by key, as texts; raises InputError where they are ambiguous.
        vectors: builds an array [N, 3] of the atoms by its key; raises InputError where there is none.
    """

    where: str
    name: str | None
    molecule: Callable[[], Molecule]
    fields: Callable[[], dict[str, str]] = dict
    vectors: Callable[[str], npt.NDArray[np.float64]] | None = None


def failing(where: str, reason: str) -> Record:
    """A record that is known to be bad."""

    def build() -> Molecule:
        raise InputError(reason)

    return Record(where, build)


def check_readable(path: Path) -> None:
    """Refuse a path that is missing, no file, empty or unreadable.

    Raises:
        InputError: with the reason.
    """
    try:
        if path.is_dir():
            raise InputError(f"{path} is a directory, not a file of molecules")
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path} is empty")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def text_lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 text file without their ends.

    Raises:
        InputError: the file is not text, or not UTF-8.
    """
    number = 0
    advice = "unpack or convert it first"
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if "\0" in line:
                    raise InputError(f"{path}, line {number}: not a text file; {advice}")
                yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, after line {number}: not UTF-8 text; {advice}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
