"""The answers of a search, as a table for the terminal and for files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from molspectra.data.atomic import atomic_file
from molspectra.data.output import free_path, write_table

DECIMALS = 6
"""Of numbers in CSV files."""

SUFFIXES = (".csv", ".parquet", ".json")
"""Files that answers can be written to."""

NOTEBOOK = 20
"""Answers that a notebook shows."""

_MAX_WIDTH = 44  # characters of a cell in the terminal


@dataclass(frozen=True, eq=False)
class Hits:
    """Ranked answers of a search, or of one search for each of several samples.

    Attributes:
        table: one row per answer: rank, name, smiles, formula, mass (Da), charge, score, confidence,
            group, identity, row (of its best entry in the library) and, of several ways, the score of each;
            of several samples, `sample` comes first. Answers of the same group are about as probable: each
            has at least half the confidence of the first of them. Confidence and group are null where nothing
            supports them.
        ways: weight of each way to score.
        candidates: number of different molecules that passed the filters and could be compared; of several
            samples, the largest of these numbers.
        library: number of different molecules in the library.
        remarks: conversions of the spectra, and entries that were left out.
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

    def _repr_html_(self) -> str:
        """The first answers with drawn structures, for notebooks."""
        from molspectra.reporting.drawing import Pictures
        from molspectra.search.answers import answers_table

        return answers_table(Pictures(), self.table, NOTEBOOK)

    def to_pandas(self) -> Any:
        """The table as a pandas frame, where pandas is installed."""
        return self.table.to_pandas()

    @property
    def shown(self) -> list[str]:
        """Columns of the table that are shown in a terminal."""
        several = [name for name in self.ways if len(self.ways) > 1]
        told = ("rank_before",) if "rank_before" in self.table.column_names else ("confidence", "group")
        return ["rank", "score", *several, *told, "formula", "mass", "name", "smiles"]

    def text(self, top: int | None = None) -> str:
        """The table, or the first answers of each sample, in aligned columns for a terminal."""
        shown = [name for name in ("sample",) if name in self.table.column_names] + self.shown
        answers = [answer for answer in self if top is None or answer["rank"] <= top]
        rows = [shown, *([_cell(name, answer[name]) for name in shown] for answer in answers)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def write(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write the table as CSV, Parquet or JSON, by the suffix; the file appears complete or not at all.

        Numbers of a CSV file have at most `DECIMALS`.

        Raises:
            InputError: another suffix, the file exists, or it cannot be written.
        """
        path = free_path(path, SUFFIXES, overwrite=overwrite)
        if path.suffix.lower() != ".json":
            write_table(self.table, path, decimals=DECIMALS)
            return
        content = {
            "ways": self.ways,
            "candidates": self.candidates,
            "library": self.library,
            "remarks": self.remarks,
            "hits": list(self),
        }
        with atomic_file(path) as file:
            file.write(json.dumps(content, ensure_ascii=False, indent=1).encode())


AnyHits = TypeVar("AnyHits", bound=Hits)


def of_samples(hits: Mapping[str, AnyHits]) -> AnyHits:
    """The answers of several samples, by name, as one table; a remark on all of them is kept once."""
    parts = list(hits.values())
    tables = [
        each.table.add_column(0, "sample", pa.array([name] * len(each), pa.string()))
        for name, each in hits.items()
    ]
    shared = [remark for remark in parts[0].remarks if all(remark in each.remarks for each in parts)]
    own = [
        f"{name}: {remark}" for name, each in hits.items() for remark in each.remarks if remark not in shared
    ]
    return replace(
        parts[0],
        table=pa.concat_tables(tables),
        candidates=max(each.candidates for each in parts),
        remarks=(*shared, *own),
    )


def _cell(name: str, value: Any) -> str:
    """A value as text, without characters that control a terminal."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if name in ("mass", "score") else f"{value:.3f}"
    text = "".join(char if char.isprintable() else "?" for char in str(value))
    return text if len(text) <= _MAX_WIDTH else f"{text[: _MAX_WIDTH - 1]}…"
