"""A file of structures and a table of their labels, joined record by record."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TextIO, TypeVar

from molspectra.errors import DamagedError, FormatError, MismatchError

_INDEX = re.compile(r"(?:gdb\d*[_ ])?(\d{1,18})")

_READ = 1 << 20  # characters of the SDF read at once
_MAX_RECORD = 1 << 20

T = TypeVar("T")


@dataclass(frozen=True)
class Joined(Generic[T]):
    """One structure with its labels.

    Attributes:
        index: in GDB-9, from the table.
        structure: from the file of structures.
        words: cells of the table's row, the index first.
        repeated: whether an earlier record has the same index.
    """

    index: int
    structure: T
    words: list[str]
    repeated: bool = False


def table_rows(raw: Path, table: str, lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield the cells of each row of a CSV file.

    Raises:
        FormatError: if a line cannot be parsed.
    """
    rows = csv.reader(lines)
    try:
        yield from rows
    except csv.Error as error:
        raise FormatError(f"{raw}: line {rows.line_num} of {table} is no row of a table ({error})") from error


def join(
    raw: Path,
    structures: str,
    indexed: Iterable[tuple[int | None, T]],
    table: str,
    rows: Iterator[list[str]],
) -> Iterator[Joined[T]]:
    """Yield structures with the rows of a table, whose first cell is the index, "7" or "gdb_7".

    Args:
        raw: folder or archive of both, for messages.
        structures: name of the file of structures, for messages.
        indexed: the structures, each with its index where that is known.
        table: name of the table, for messages.
        rows: of the table.

    Raises:
        DamagedError: if one is shorter than the other.
        FormatError: if a row of the table has no index.
        MismatchError: if they do not belong together.
    """
    number = -1
    seen = set[int]()
    for number, (given, structure) in enumerate(indexed):
        words = next(rows, None)
        if words is None:
            raise DamagedError(f"{raw}: {table} ends after {number} rows, but {structures} goes on")
        index = index_of(words[0]) if words else None
        if index is None:
            raise FormatError(f"{raw}: row {number + 1} of {table} does not begin with an index")
        if given not in (None, index):
            raise MismatchError(
                f"{raw}: record {number + 1} of {structures} is molecule {given}, that of {table} is "
                f"molecule {index}; the files do not belong together"
            )
        yield Joined(index, structure, words, index in seen)
        seen.add(index)
    if next(rows, None):
        raise DamagedError(f"{raw}: {structures} ends after {number + 1} records, but {table} goes on")


def blocks(file: TextIO, where: str) -> Iterator[tuple[int | None, str]]:
    """Yield the records of an SDF file without the final line `$$$$`, each with the index in its title.

    Raises:
        FormatError: if a record has more than 1 MiB; `where` names the file in the message.
    """
    rest = ""
    while text := file.read(_READ):
        *whole, rest = (rest + text).split("$$$$\n")
        for block in whole:
            yield index_of(block.partition("\n")[0]), block
        if len(rest) > _MAX_RECORD + _READ:
            raise FormatError(f"{where}: no line $$$$ within {_MAX_RECORD >> 20} MiB; this is not an SDF")
    if rest.strip() not in ("", "$$$$"):
        yield index_of(rest.partition("\n")[0]), rest


def index_of(text: str) -> int | None:
    """Return the index in "7" or "gdb_7", None where there is none."""
    match = _INDEX.fullmatch(text.strip())
    return int(match[1]) if match else None
