"""The answers of a search, as a table for the screen and for files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from molspectra.data.atomic import atomic_file, naming
from molspectra.errors import InputError

SUFFIXES = (".csv", ".parquet", ".json")
"""Forms of a file of answers."""

_WIDEST = 44  # characters of a cell on the screen


@dataclass(frozen=True, eq=False)
class Hits:
    """Ranked answers of a search.

    Attributes:
        table: one row per answer: rank, name, smiles, formula, mass (Da), charge, score, confidence,
            identity, row (of its best entry in the library) and, of several ways, the score of each.
        ways: weight of each way to score.
        candidates: different molecules that passed the filters and could be compared.
        library: different molecules in the library.
        remarks: what was done to the spectra and what was left out.
    """

    table: pa.Table
    ways: dict[str, float]
    candidates: int
    library: int
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of answers."""
        return len(self.table)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the answers as dictionaries, best first."""
        yield from self.table.to_pylist()

    def to_pandas(self) -> Any:
        """The table as a pandas frame, where pandas is installed."""
        return self.table.to_pandas()

    def text(self) -> str:
        """The table in aligned columns, for a terminal."""
        shown = ["rank", "score", "confidence", "formula", "mass", "name", "smiles"]
        shown[2:2] = [name for name in self.ways if len(self.ways) > 1]
        rows = [shown, *([_cell(name, hit[name]) for name in shown] for hit in self)]
        wide = [max(len(row[place]) for row in rows) for place in range(len(shown))]
        lines = ["  ".join(map(str.ljust, row, wide)).rstrip() for row in rows]
        return "\n".join(lines)

    def write(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write the table as CSV, Parquet or JSON, by the suffix; the file appears complete or not at all.

        Raises:
            InputError: another suffix, the file exists, or it cannot be written.
        """
        path = Path(path)
        check_out(path, overwrite)
        with atomic_file(path) as file, naming(path):
            if path.suffix == ".csv":
                from pyarrow import csv

                csv.write_csv(self.table, file)
            elif path.suffix == ".parquet":
                from pyarrow import parquet

                parquet.write_table(self.table, file)
            else:
                values = {
                    "ways": self.ways,
                    "candidates": self.candidates,
                    "library": self.library,
                    "remarks": self.remarks,
                    "hits": list(self),
                }
                file.write(json.dumps(values, ensure_ascii=False, indent=1).encode())


def check_out(path: Path, overwrite: bool) -> None:
    """Refuse a file that answers cannot be written to, before anything is computed.

    Raises:
        InputError: another suffix than `SUFFIXES`, no such folder, or the file exists.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: answers are written as {', '.join(SUFFIXES)}")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; choose another name or give --overwrite")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the directory {path.parent} does not exist")


def _cell(name: str, value: Any) -> str:
    """A value as text without anything that a terminal would obey."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if name in ("mass", "score") else f"{value:.3f}"
    text = "".join(each if each.isprintable() else "?" for each in str(value))
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
