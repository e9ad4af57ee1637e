"""Preparation of a store from the raw files of a dataset, in bounded memory and resumable parts."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from molspectra._version import __version__
from molspectra.chem.readers import check_on_error
from molspectra.data.atomic import naming
from molspectra.datasets.importer import Importer, Opened, checked_options
from molspectra.datasets.on_workers import Job, write_on_workers
from molspectra.datasets.parts import Parts, locked_folder, parts_folder
from molspectra.datasets.reader import LEFT_OUT, Reader, open_raw
from molspectra.datasets.registry import importer as importer_of
from molspectra.datasets.report import BESIDE, NAMED, Report, Tally
from molspectra.errors import (
    ExistsError,
    FormatError,
    InputError,
    NotFoundError,
    SettingError,
    ValueRangeError,
    WriteError,
)
from molspectra.workers.executors import Executor

PART_RECORDS = 50_000
"""Records per part; an interrupted run repeats fewer than this."""


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
    executor: Executor | None = None,
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
        executor: write the parts on its workers, which must see the raw files and the folder of `out`.

    Raises:
        InputError: if the raw files or the options are wrong, the store exists, an unfinished preparation
            with other settings is in the way, no row is left, all spectra were left out, or `on_error`
            is "raise" and a record is bad.
        LostProcessError: the workers do not start, or a part ends each worker that writes it.
    """
    importer = importer_of(name) if isinstance(name, str) else name
    raw, out = Path(raw), Path(out)
    chosen = checked_options(importer, options or {})
    _check_call(out, on_error, overwrite, limit, shard_rows)
    part_records = part_records if shard_rows is None else shard_rows
    if not raw.exists():
        raise NotFoundError(f"{raw}: no such file or folder; --raw must be {importer.files}")
    opened = open_raw(importer, raw, chosen)
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
        resumed = len(parts.tallies) + len(parts.unchecked)
        total = opened.total if limit is None or opened.total is None else min(limit, opened.total)
        try:
            if executor is not None:
                job = Job(str(Path.cwd()), name, raw, chosen, on_error, limit, part_records)
                with _progress(f"{importer.title}, {executor.workers} workers", total, show) as advance:
                    write_on_workers(executor, job, parts, opened.total, advance)
            with _progress(importer.title, total, show) as advance:
                reader = Reader(opened, parts, on_error, limit, part_records, advance)
                _write_rest(reader, parts, limit, part_records, advance)
        except BaseException as error:
            parts.take_over()
            # as on one machine, nothing stays of a dataset that is refused in its first part
            refused = isinstance(error, InputError) and not resumed and 0 not in parts.unchecked
            if not parts.tallies and (refused or not parts.unchecked):  # there is nothing to continue from
                parts.remove()
            raise
        if not parts.sum().rows:
            first = next(parts.rejected(), None)
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


def _write_rest(
    reader: Reader, parts: Parts, limit: int | None, size: int, advance: Callable[[int], None]
) -> None:
    """Finish the parts in order: take those of workers that repeat no earlier row, write all others."""
    reader.learn([parts.geometry_ids(part) for part in range(len(parts.tallies))])
    while not parts.tallies or parts.tallies[-1].records == size:  # a short part is the last
        part = len(parts.tallies)
        if limit is not None and part * size >= limit:
            return
        if part in parts.unchecked:
            ids = parts.geometry_ids(part)
            if not reader.knows_any(ids):
                parts.adopt()
                reader.learn([ids])
                advance(part * size + parts.tallies[-1].records)
                continue
            parts.drop(part)
        tally = reader.write(part)
        if not tally.records:
            return
        parts.finish(tally)


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
    shown = 0
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not show:
        yield lambda done: None
    elif not console.is_terminal:

        def line(done: int) -> None:
            nonlocal shown
            if done // PART_RECORDS > shown // PART_RECORDS or done == total:
                shown = done
                of = f" of {total:,}" if total else ""
                console.print(f"{title}: {done:,}{of} records", highlight=False, markup=False)

        yield line
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(title, total=total)

            def advance(done: int) -> None:
                nonlocal shown
                if done >= shown + 256 or done == total:
                    shown = done
                    bar.update(task, completed=done)

            yield advance
