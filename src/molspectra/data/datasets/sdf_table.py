"""An SDF file of structures and a CSV table of their labels, joined record by record."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from molspectra.data.datasets.archives import open_text
from molspectra.errors import InputError

_INDEX = re.compile(r"(?:gdb9?_)?(\d+)")


class Joined(NamedTuple):
    """One structure with its labels.

    Attributes:
        number: of the record, from 0.
        index: in GDB-9, which the table gives.
        block: MOL block with its line ends.
        words: cells of the table's row.
    """

    number: int
    index: int
    block: str
    words: list[str]


def header(raw: Path, table: str) -> list[str]:
    """Return the cells of a table's first line.

    Raises:
        InputError: if there is no such table in the folder or archive.
    """
    with open_text(raw, table) as text:
        return next(csv.reader([text.readline()]), [])


def records(raw: Path, structures: str, table: str) -> Iterator[Joined]:
    """Yield all structures with their labels, in file order.

    Args:
        raw: folder or archive that holds both files.
        structures: name of the SDF file; its titles, where they hold an index, must be those of the table.
        table: name of the CSV file with a header; its first column is the index, "7" or "gdb_7".

    Raises:
        InputError: if one file is missing, damaged or shorter than the other, or they do not belong together.
    """
    with ExitStack() as stack:
        sdf = stack.enter_context(open_text(raw, structures))
        rows = csv.reader(stack.enter_context(open_text(raw, table)))
        next(rows, None)
        number = -1
        for number, block in enumerate(blocks(sdf)):
            words = next(rows, None)
            if words is None:
                raise InputError(f"{raw}: {table} ends after {number} rows, but {structures} goes on")
            index = index_of(words[0]) if words else None
            if index is None:
                raise InputError(f"{raw}: row {number + 1} of {table} does not begin with an index")
            title = index_of(block.partition("\n")[0])
            if title not in (None, index):
                raise InputError(
                    f"{raw}: record {number + 1} of {structures} is molecule {title}, that of {table} is "
                    f"molecule {index}; the files do not belong together"
                )
            yield Joined(number, index, block, words)
        if next(rows, None):
            raise InputError(f"{raw}: {structures} ends after {number + 1} records, but {table} goes on")


def blocks(lines: Iterable[str]) -> Iterator[str]:
    """Yield the MOL blocks of an SDF file, without the data behind `M  END`."""
    block: list[str] = []
    ended = False
    for line in lines:
        if line.startswith("$$$$"):
            yield "".join(block)
            block, ended = [], False
        elif not ended:
            block.append(line)
            ended = line.startswith("M  END")
    if any(line.strip() for line in block):
        yield "".join(block)


def index_of(text: str) -> int | None:
    """The index in "7" or "gdb_7", None where there is none."""
    found = _INDEX.fullmatch(text.strip())
    return int(found[1]) if found else None
