"""The CSV tables that evaluations leave beside `evaluation.json`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from molspectra.data.atomic import atomic_file
from molspectra.errors import FormatError


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV table atomically.

    Raises:
        InputError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


@contextmanager
def read_table(path: Path, kind: str) -> Iterator[list[dict[str, str]]]:
    """Read the rows of a CSV table of a `kind`, named in messages; the cells are converted in the block.

    Raises:
        FormatError: the file is missing or damaged, or a cell is missing or not of its type.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            yield list(csv.DictReader(file))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise FormatError(f"{path}: not a table of {kind} ({error}); evaluate the run again") from error
