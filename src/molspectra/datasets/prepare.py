"""Preparation of a store from the raw files of a dataset, in bounded memory and resumable parts."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from molspectra._version import __version__
from molspectra.chem.readers import check_on_error
from molspectra.chem.sanity import SEEM_IN_BOHR, bohr_suspected
from molspectra.data.atomic import atomic_file, naming
from molspectra.data.store.writer import Record, Row, record_of, write_records
from molspectra.datasets.importer import Candidate, Excluded, Importer, Opened, checked_options
from molspectra.datasets.parts import Parts, locked_folder, parts_folder
from molspectra.datasets.registry import importer as importer_of
from molspectra.datasets.report import BESIDE, NAMED, Report, Tally, count, kind_of
from molspectra.errors import (
    ExistsError,
    FormatError,
    InputError,
    MolspectraError,
    NotFoundError,
    SettingError,
    UnitError,
    ValueRangeError,
    WriteError,
)

PART_RECORDS = 50_000
"""Records per part; an interrupted run repeats fewer than this."""

FIRST = 100
"""Number of first structures; if most of them seem to be in bohr, the whole dataset is refused."""

LEFT_OUT = "spectrum left out"
"""In the reasons of rows that lost a spectrum."""


def prepare(
    name: str | Importer,
    raw: Path | str,
    out: Path | str,
    *,
    options: Mapping[str, Any] | None = None,
    on_error: str = "skip",
    overwrite: bool = False,
    limit: int | None = None,
    show: bool = True,
    part_records: int = PART_RECORDS,
    shard_rows: int | None = None,
) -> Report:
    """Make a store of a published dataset.

    Finished parts lie in `OUT.parts` until the store is complete; the same call continues after them and
    gives the same bytes as one that was never interrupted. The store appears complete or not at all. Memory
    is bounded by one record batch, plus 16 bytes per row.

    Args:
        name: name of the dataset, see `molspectra.datasets.registry.NAMES`, or an importer.
        raw: the file or folder that holds the published files.
        out: the store to write; `OUT.report.json` and `OUT.report.txt` are written beside it.
        options: options of the importer.
        on_error: "skip" names bad records and spectra in the report and leaves them out; "raise" stops at
            the first.
        overwrite: replace an existing store.
        limit: largest number of records to read, None for all.
        show: whether to show progress on standard error.
        part_records: records per part.
        shard_rows: make the store a folder of shards with at most so many rows, see
            `molspectra.data.store.shards`; each is a part, and none is written twice. None for one file.

    Raises:
        InputError: if the raw files or the options are wrong, the store exists, an unfinished preparation
            with other settings is in the way, no row is left, all spectra were left out, or `on_error`
            is "raise" and a record is bad.
    """
    importer = importer_of(name) if isinstance(name, str) else name
    raw, out = Path(raw), Path(out)
    chosen = checked_options(importer, options or {})
    _check_call(out, on_error, overwrite, limit, shard_rows)
    part_records = part_records if shard_rows is None else shard_rows
    if not raw.exists():
        raise NotFoundError(f"{raw}: no such file or folder; --raw must be {importer.files}")
    opened = importer.open(raw, chosen)
    command = [f"molspectra prepare {importer.name}", *(f"--option {key}={chosen[key]}" for key in chosen)]
    notes = {**opened.metadata.notes, "prepared": " ".join(command)}
    opened = replace(opened, metadata=replace(opened.metadata, notes=notes))
    settings = {
        "dataset": importer.name,
        "options": chosen,
        "on_error": on_error,
        "limit": limit,
        "part_records": part_records,
        "raw files": _fingerprint(raw, out),
        "program": __version__,
        "description": repr(opened.metadata),
    }
    with locked_folder(out):
        parts = Parts(out, settings)
        resumed = len(parts.tallies)
        total = opened.total if limit is None or opened.total is None else min(limit, opened.total)
        try:
            with _progress(importer.title, total, show) as advance:
                for part in _Reader(opened, parts, on_error, advance).parts(limit, part_records):
                    parts.finish(part)
        finally:
            if not parts.tallies:  # there is nothing to continue from
                parts.remove()
        if not parts.sum().rows:
            first = next(parts.rejected(), None)
            if parts.tallies:
                parts.remove()
            raise _nothing_left(raw, importer, parts.sum(), first)
        left_out = parts.sum().left_out
        if left_out and not parts.sum().spectra:
            reason = _first_left_out(parts.rejected())
            parts.remove()
            raise ValueRangeError(f"{raw}: all {sum(left_out.values())} spectra were left out; {reason}")
        report = _join(importer, opened, parts, out, chosen, limit, resumed, shards=shard_rows is not None)
        report.write(parts.rejected())
        # last, so that what fails before can be repeated without overwriting
        parts.publish(out, shards=shard_rows is not None)
    return report


def _join(
    importer: Importer,
    opened: Opened,
    parts: Parts,
    out: Path,
    options: Mapping[str, str],
    limit: int | None,
    resumed: int,
    *,
    shards: bool,
) -> Report:
    """Join the parts and return the report of the store that they make."""
    began, cpu = time.monotonic(), time.process_time()
    written, same = (parts.as_shards if shards else parts.join)(opened.metadata)
    tally = parts.sum()
    tally.seconds += time.monotonic() - began
    tally.cpu_seconds += time.process_time() - cpu
    units = {"positions": "Å"} | {name: value.unit for name, value in opened.metadata.properties.items()}
    if opened.metadata.forces:
        units["forces"] = opened.metadata.forces.unit
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Report(
        name=importer.name,
        title=importer.title,
        out=str(out),
        hash=written.hash,
        options=options,
        limit=limit,
        tally=tally,
        same_identity=same,
        by_geometry=written.by_geometry,
        total=opened.total,
        expected=opened.expected,
        documented=opened.excluded,
        units=units,
        remarks=opened.notes,
        resumed=resumed,
        peak_mebibytes=peak / (1 << 20 if sys.platform == "darwin" else 1 << 10),
        named=tuple(json.loads(line) for line in islice(parts.rejected(), NAMED)),
    )


class _Reader:
    """Reads candidates and writes them part by part."""

    def __init__(self, opened: Opened, parts: Parts, on_error: str, advance: Callable[[int], None]) -> None:
        self._opened, self._parts, self._on_error, self._advance = opened, parts, on_error, advance
        self._geometry_ids = parts.geometry_ids()
        self._done = sum(tally.records for tally in parts.tallies)
        self._in_bohr: list[bool] | None = [] if not self._done else None

    def parts(self, limit: int | None, size: int) -> Iterator[Tally]:
        """Write all missing parts and yield the tally of each."""
        finished = self._parts.tallies
        if finished and finished[-1].records < size:
            return  # a short part is the last
        candidates = self._opened.candidates(self._done)
        if limit is not None:
            candidates = islice(candidates, max(0, limit - self._done))
        while True:
            began, cpu = time.monotonic(), time.process_time()
            tally = self._write(islice(candidates, size))
            tally.seconds, tally.cpu_seconds = time.monotonic() - began, time.process_time() - cpu
            if tally.records:
                yield tally
            if tally.records < size:
                return

    def _write(self, candidates: Iterator[Candidate]) -> Tally:
        """Write one part: its store, unless no row is left, and the list of its rejections."""
        part, tally, ids = len(self._parts.tallies), Tally(), set[int]()
        listing = self._parts.rejections(part)
        with atomic_file(listing) as file:
            records = self._records(candidates, tally, ids, file)
            first = next(records, None)
            if first is not None:
                store = self._parts.store(part)
                tally.rows = write_records(store, chain([first], records), self._opened.metadata).rows
        if not listing.stat().st_size:
            listing.unlink()
        self._check_first()
        new_ids = np.fromiter(ids, np.int64, len(ids))
        self._geometry_ids = np.sort(np.concatenate([self._geometry_ids, new_ids]))
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


def _first_left_out(lines: Iterator[str]) -> str:
    """Return name and reason of the first spectrum that was left out, from the lines of the rejections."""
    named = (json.loads(line) for line in lines)
    return next(f"{one['name']}: {one['reason']}" for one in named if LEFT_OUT in one["reason"])


def _check_call(out: Path, on_error: str, overwrite: bool, limit: int | None, shard_rows: int | None) -> None:
    check_on_error(on_error)
    if limit is not None and limit < 1:
        raise SettingError(f"the limit must be at least 1 record, not {limit}")
    if shard_rows is not None and shard_rows < 1:
        raise SettingError(f"a shard has at least 1 row, not {shard_rows}")
    if shard_rows is not None and out.exists():
        raise ExistsError(f"{out} exists already; a store in shards overwrites nothing, so remove it first")
    if out.is_dir():
        raise ExistsError(f"{out} exists already and is a folder; choose a name for the store")
    if out.exists() and not overwrite:
        parts = parts_folder(out)
        advice = "choose another name or allow to overwrite it (--overwrite)"
        if parts.is_dir():
            advice = f"--overwrite replaces it by the one of which {parts} holds parts"
        raise ExistsError(f"{out} exists already; {advice}")
    if out.exists():
        with naming(out), out.open("rb") as file:
            is_store = file.read(6) == b"ARROW1"
        if not is_store:
            raise ExistsError(f"{out} is not a store, so it is not overwritten; choose another name")
    if not out.parent.is_dir():
        raise WriteError(f"{out}: the directory {out.parent} does not exist")


def _nothing_left(raw: Path, importer: Importer, tally: Tally, first: str | None) -> FormatError:
    """Return the error of a dataset without a good record; `first` is the line of the first rejection."""
    reasons = "; ".join(f"{number} × {kind}" for kind, number in list(tally.rejected.items())[:3])
    if tally.records == 1 and first is not None:
        named = json.loads(first)
        reasons = f"{named['name']}: {named['reason']}"
    why = f"none of {tally.records} records is good: {reasons}" if tally.records else "there are no records"
    return FormatError(f"{raw}: nothing to write, {why}; --raw must be {importer.files}")


def _fingerprint(raw: Path, out: Path) -> str:
    """Return a text that changes with the names, sizes and times of the raw files; the content is not read.

    Files of the output are excluded, in case they lie in the same folder, and what a killed process left.
    """
    entries = [raw] if raw.is_file() else sorted(raw.iterdir())
    if raw.is_dir() and raw.samefile(out.parent):
        outputs = {out.name, parts_folder(out).name, *(out.name + suffix for suffix in BESIDE)}
        entries = [entry for entry in entries if entry.name not in outputs and not entry.match(".*.part")]
    digest, size = hashlib.sha256(), 0
    for entry in entries:
        stat = entry.stat() if entry.exists() else entry.lstat()  # a link that leads nowhere
        digest.update(repr((entry.name, stat.st_size, stat.st_mtime_ns)).encode(errors="replace"))
        size += stat.st_size
    return f"{len(entries)} entries, {size} bytes, {digest.hexdigest()[:16]}"


@contextmanager
def _progress(title: str, total: int | None, show: bool) -> Iterator[Callable[[int], None]]:
    """Show the number of records: a bar on a terminal, else a line per 50,000; nothing unless `show`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not show:
        yield lambda done: None
    elif not console.is_terminal:

        def line(done: int) -> None:
            if done % PART_RECORDS == 0 or done == total:
                of = f" of {total:,}" if total else ""
                console.print(f"{title}: {done:,}{of} records", highlight=False, markup=False)

        yield line
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(title, total=total)

            def advance(done: int) -> None:
                if done % 256 == 0 or done == total:
                    bar.update(task, completed=done)

            yield advance
