"""Reader of the records of a dataset, which are checked and written part by part."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from molspectra.chem.sanity import SEEM_IN_BOHR, bohr_suspected
from molspectra.data.atomic import atomic_file
from molspectra.data.store.writer import Record, Row, record_of, write_records
from molspectra.datasets.importer import Candidate, Excluded, Importer, Opened
from molspectra.datasets.parts import PartFiles
from molspectra.datasets.report import Tally, count, kind_of
from molspectra.errors import InputError, MolspectraError, UnitError, ValueRangeError

FIRST = 100
"""Number of first structures; if most of them seem to be in bohr, the whole dataset is refused."""

LEFT_OUT = "spectrum left out"
"""In the reasons of rows that lost a spectrum."""


def open_raw(importer: Importer, raw: Path, options: Mapping[str, str]) -> Opened:
    """Open the raw files; the notes of the metadata say how they are prepared."""
    opened = importer.open(raw, options)
    command = [f"molspectra prepare {importer.name}", *(f"--option {key}={options[key]}" for key in options)]
    notes = {**opened.metadata.notes, "prepared": " ".join(command)}
    return replace(opened, metadata=replace(opened.metadata, notes=notes))


class Reader:
    """Reads candidates and writes them part by part; records with a known geometry are left out.

    Args:
        opened: the raw files.
        files: of the parts.
        on_error: see `prepare`.
        limit: largest number of records to read, None for all.
        size: records per part.
        advance: told the number of records that precede the next one.
    """

    def __init__(
        self,
        opened: Opened,
        files: PartFiles,
        on_error: str,
        limit: int | None,
        size: int,
        advance: Callable[[int], None],
    ) -> None:
        self._opened, self._files, self._on_error, self._advance = opened, files, on_error, advance
        self._limit, self._size = limit, size
        self._geometry_ids = np.empty(0, np.int64)
        self._candidates: Iterator[Candidate] | None = None
        self._done = 0
        self._in_bohr: list[bool] | None = None

    def learn(self, ids: Sequence[npt.NDArray[np.int64]]) -> None:
        """Know the geometry ids of other rows; 8 bytes per row."""
        self._geometry_ids = np.sort(np.concatenate([self._geometry_ids, *ids]))

    def knows_any(self, ids: npt.NDArray[np.int64]) -> bool:
        """Return whether a geometry id is known."""
        return bool(np.isin(ids, self._geometry_ids).any())

    def write(self, part: int) -> Tally:
        """Write a part: its store, unless no row is left, and the list of its rejections.

        Returns:
            Its counts; fewer records than a part has say that the raw files, or the limit, end in it.
        """
        began, cpu = time.monotonic(), time.process_time()
        start, tally, ids = part * self._size, Tally(), set[int]()
        if self._candidates is None or self._done != start:
            self._candidates, self._done = self._opened.candidates(start), start
        self._in_bohr = None if part else []
        stop = self._size if self._limit is None else max(0, min(self._size, self._limit - start))
        with atomic_file(self._files.rejections(part)) as file:
            records = self._records(islice(self._candidates, stop), tally, ids, file)
            first = next(records, None)
            if first is not None:
                store = self._files.store(part)
                tally.rows = write_records(store, chain([first], records), self._opened.metadata).rows
        self._check_first()
        self.learn([np.fromiter(ids, np.int64, len(ids))])
        tally.seconds, tally.cpu_seconds = time.monotonic() - began, time.process_time() - cpu
        return tally

    def _records(
        self, candidates: Iterator[Candidate], tally: Tally, ids: set[int], listing: BinaryIO
    ) -> Iterator[Record]:
        """Yield the records of the valid candidates; count and name the others."""
        for candidate in candidates:
            number, reason = self._done, None
            tally.records += 1
            self._done += 1
            self._advance(self._done)
            try:
                row = candidate.make().with_usable_spectra()
                record = record_of(row, self._opened.metadata)
                self._check_row(row)
                if row.left_out and self._on_error == "raise":
                    modality, why = next(iter(row.left_out.items()))
                    raise ValueRangeError(f"{modality} spectrum: {why}")
                if self._repeated(record, ids):
                    tally.repeated += 1
                    reason = "the same elements and coordinates as an earlier record"
            except Excluded as error:
                count(tally.excluded, str(error))
                continue
            except MolspectraError as error:
                if self._on_error == "raise":
                    where = f"record {number} ({candidate.name})"
                    if isinstance(error, InputError):
                        raise error.with_context(where) from error
                    raise InputError(f"{where}: {error}") from error
                reason = str(error)
                count(tally.rejected, kind_of(reason))
            if len(self._in_bohr or ()) == FIRST:
                self._check_first()
            if reason is not None:
                _name(listing, number, candidate.name, reason)
                continue
            for change in row.changes:
                count(tally.changes, change)
            for modality, why in row.left_out.items():
                count(tally.left_out, kind_of(f"{modality}: {why}"))
                _name(listing, number, candidate.name, f"{modality} {LEFT_OUT}: {why}")
            tally.spectra += len(row.spectra)
            yield record

    def _check_row(self, row: Row) -> None:
        """Refuse a structure that seems to be in bohr."""
        suspected = bohr_suspected(row.molecule.numbers, row.molecule.positions)
        if self._in_bohr is not None and suspected is not None:
            self._in_bohr.append(suspected)
        if suspected:
            raise UnitError(SEEM_IN_BOHR)

    def _check_first(self) -> None:
        """Refuse a dataset that begins with structures in bohr."""
        first, self._in_bohr = self._in_bohr or [], None
        if 2 * sum(first) > len(first):
            raise UnitError(
                f"{sum(first)} of the first {len(first)} structures seem to be in bohr; coordinates must be "
                "in Å (1 bohr = 0.529177 Å)"
            )

    def _repeated(self, record: Record, ids: set[int]) -> bool:
        """Return whether an earlier row has this geometry, and add it to the ids of this part."""
        geometry = record["geometry_id"]
        assert isinstance(geometry, int)
        index = int(np.searchsorted(self._geometry_ids, geometry))
        if geometry in ids or geometry in self._geometry_ids[index : index + 1]:
            return True
        ids.add(geometry)
        return False


def _name(listing: BinaryIO, record: int, name: str, reason: str) -> None:
    line = json.dumps({"record": record, "name": name, "reason": reason}, ensure_ascii=False)
    listing.write(line.encode(errors="replace") + b"\n")
