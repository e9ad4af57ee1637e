"""Parts of a preparation written by the workers of an executor, none of which knows the rows of others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

from molspectra.datasets.importer import Importer
from molspectra.datasets.parts import PartFiles, Parts
from molspectra.datasets.reader import Reader, open_raw
from molspectra.datasets.registry import importer as importer_of
from molspectra.datasets.report import Tally
from molspectra.errors import LostProcessError, SettingError
from molspectra.workers.executors import Executor
from molspectra.workers.shares import share_out

STEP = 256
"""Records after which a worker shows its progress."""


@dataclass(frozen=True)
class Job:
    """What a worker must know to write parts.

    Attributes:
        directory: working directory, to which `raw` and paths in the options are relative.
        importer: name of the dataset, or an importer that can be pickled.
        raw: the raw files.
        options: of the importer.
        on_error: see `prepare`.
        limit: see `prepare`.
        size: records per part.
    """

    directory: str
    importer: str | Importer
    raw: Path
    options: Mapping[str, str]
    on_error: str
    limit: int | None
    size: int

    def write(self, parts: Sequence[str], folder: Path) -> None:
        """Write parts in a new folder, in a process of their own; those behind the end have no records."""
        os.chdir(self.directory)
        importer = importer_of(self.importer) if isinstance(self.importer, str) else self.importer
        opened = open_raw(importer, self.raw, self.options)
        folder.mkdir()
        files, part, end = PartFiles(folder), 0, float("inf")

        def advance(done: int) -> None:
            if (done - part * self.size) % STEP == 0:
                with _progress_of(folder, part).open("ab") as file:
                    file.write(b".")

        reader = Reader(opened, files, self.on_error, self.limit, self.size, advance)
        for part in map(int, parts):
            tally = Tally() if part > end else reader.write(part)
            if tally.records < self.size:
                end = min(end, part)
            files.mark(part, tally)


def write_on_workers(
    executor: Executor, job: Job, parts: Parts, total: int | None, advance: Callable[[int], None]
) -> None:
    """Write all parts that are missing; they are unchecked afterwards.

    Args:
        executor: the workers.
        job: what they do.
        parts: the folder.
        total: number of records expected, None where unknown; the true one shows when a part is short.
        advance: told the number of records read so far, by all workers.

    Raises:
        SettingError: the importer cannot be pickled.
        LostProcessError: see `prepare`.
        MolspectraError: see `prepare`.
    """
    try:
        ForkingPickler.dumps(job)
    except Exception as error:  # what pickling raises depends on the object
        raise SettingError(
            f"the importer cannot be sent to workers: {error}; use the executor local"
        ) from error
    known = {**dict(enumerate(parts.tallies)), **parts.unchecked}
    read = {part: tally.records for part, tally in known.items()}
    ends = [part + 1 for part, tally in known.items() if tally.records < job.size]
    if job.limit is not None:
        ends.append(-(-job.limit // job.size))

    def collect(folder: Path) -> Iterator[str]:
        for file in folder.glob("*.progress"):
            read[int(file.stem)] = STEP * file.stat().st_size
        for part, tally in parts.take(folder):
            _progress_of(folder, part).unlink(missing_ok=True)
            read[part] = tally.records
            if tally.records < job.size:
                ends.append(part + 1)
            yield str(part)
        advance(sum(read.values()))

    def give_up(part: str, reason: str) -> None:
        first = int(part) * job.size
        raise LostProcessError(
            f"{job.raw}: records {first} to {first + job.size - 1} cannot be read: {reason}; "
            "the same command tries it again"
        )

    stop = 2 * executor.workers if total is None else total // job.size + 1
    while todo := [part for part in range(min([stop, *ends])) if part not in read]:
        share_out(
            executor,
            parts.workers,
            map(str, todo),
            lambda keys, path: (job.write, (keys, path)),
            collect,
            give_up,
        )
        stop *= 2


def _progress_of(folder: Path, part: int) -> Path:
    """File of one byte for each step that a worker has done in a part."""
    return folder / f"{part:05}.progress"
