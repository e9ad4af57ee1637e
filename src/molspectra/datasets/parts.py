"""Finished parts of a store under preparation: a folder beside it that an interrupted run continues from.

Part k holds the records k·size … (k+1)·size − 1: a complete store `0000k.arrow` (absent where no row is
left), its rejections `0000k.rejected.jsonl`, and last of all its tally `0000k.json`, with which it counts as
finished.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from molspectra.data.atomic import atomic_file, exclusive_lock, naming
from molspectra.data.store.schema import Metadata, schema_of
from molspectra.data.store.writer import Written, write_batches
from molspectra.datasets.report import Tally
from molspectra.errors import InputError

_SETTINGS = "prepare.json"


def parts_folder(out: Path) -> Path:
    """Where the parts of a store lie."""
    return out.with_name(out.name + ".parts")


@contextmanager
def locked_folder(out: Path) -> Iterator[None]:
    """Make the folder of the parts and keep other processes from it.

    Raises:
        InputError: if another process prepares the same store, or the folder cannot be made.
    """
    folder = parts_folder(out)
    with naming(folder):
        folder.mkdir(exist_ok=True)
    with exclusive_lock(folder, "preparing this store"):
        yield


class Parts:
    """The folder `STORE.parts` of one preparation."""

    def __init__(self, out: Path, settings: Mapping[str, object]) -> None:
        """Begin in a folder that holds nothing, or take up the parts that are there.

        Args:
            out: the store that the parts are for.
            settings: what decides the content of the parts.

        Raises:
            InputError: if the folder belongs to a preparation with other settings, or cannot be written.
        """
        self.folder = parts_folder(out)
        self._check(json.loads(json.dumps(settings)))
        for orphan in self.folder.glob(".*.part"):  # left by a process that was killed while writing
            orphan.unlink(missing_ok=True)
        self.tallies = list(self._finished())

    def store(self, part: int) -> Path:
        """Where the store of a part lies."""
        return self.folder / f"{part:05}.arrow"

    def rejections(self, part: int) -> Path:
        """Where the named rejections of a part lie."""
        return self.folder / f"{part:05}.rejected.jsonl"

    def finish(self, tally: Tally) -> None:
        """Count the next part as finished."""
        _write_json(self._tally(len(self.tallies)), tally.as_dict())
        self.tallies.append(tally)

    def sum(self) -> Tally:
        """Counts of all finished parts together."""
        total = Tally()
        for tally in self.tallies:
            total.add(tally)
        return total

    def stores(self) -> list[Path]:
        """Stores of the finished parts that have rows."""
        return [self.store(part) for part, tally in enumerate(self.tallies) if tally.rows]

    def geometry_ids(self) -> npt.NDArray[np.int64]:
        """Geometry ids of all rows of the finished parts, sorted; 8 bytes per row."""
        ids = [batch.column("geometry_id").to_numpy() for batch in _batches(self.stores())]
        return np.sort(np.concatenate(ids)) if ids else np.empty(0, np.int64)

    def join(self, out: Path, metadata: Metadata) -> tuple[Written, int]:
        """Write the final store from the record batches of the parts, one after the other.

        Returns:
            What was written, and how many rows have the identity of an earlier row.

        Raises:
            InputError: if the store cannot be written, or a part is not what was written.
        """
        hashes: list[npt.NDArray[np.int64]] = []

        def watched() -> Iterator[pa.RecordBatch]:
            for batch in _batches(self.stores()):
                hashes.append(np.array([hash(key) for key in batch.column("identity").to_pylist()], np.int64))
                yield batch

        written = write_batches(out, watched(), schema_of(metadata))
        distinct = len(np.unique(np.concatenate(hashes)))
        return written, written.rows - distinct

    def rejected(self) -> Iterator[str]:
        """Lines of the named rejections of all parts."""
        for part in range(len(self.tallies)):
            if self.rejections(part).is_file():
                with self.rejections(part).open(encoding="utf-8") as lines:
                    yield from lines

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)

    def remove_if_unfinished(self) -> None:
        """Remove the folder if no part is finished, so that nothing would be gained by keeping it."""
        if not self.tallies:
            self.remove()

    def _tally(self, part: int) -> Path:
        return self.folder / f"{part:05}.json"

    def _check(self, settings: Any) -> None:
        path = self.folder / _SETTINGS
        if not path.is_file() or not self._tally(0).is_file():  # nothing that would have to fit
            _write_json(path, settings)
            return
        before = _read_json(path)
        for key in settings:
            if before.get(key) != settings[key]:
                raise InputError(
                    f"{self.folder} holds an unfinished preparation with {key} = {_short(before.get(key))}, "
                    f"now {_short(settings[key])}; repeat it as it was begun, or remove that folder"
                )

    def _finished(self) -> Iterator[Tally]:
        part = 0
        while self._tally(part).is_file():
            try:
                tally = Tally(**_read_json(self._tally(part)))
            except TypeError as error:
                raise InputError(f"{self._tally(part)} is damaged; remove {self.folder}") from error
            if tally.rows and not self.store(part).is_file():
                raise InputError(f"{self.store(part)} is missing; remove {self.folder} and start again")
            yield tally
            part += 1


def _batches(stores: list[Path]) -> Iterator[pa.RecordBatch]:
    """Record batches of stores, read one after the other."""
    for path in stores:
        try:
            with pa.OSFile(str(path)) as source:  # not mapped: mapped pages would count as memory
                file = pa.ipc.open_file(source)
                for index in range(file.num_record_batches):
                    yield file.get_batch(index)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} is damaged; remove {path.parent} and start again") from error


def _write_json(path: Path, content: object) -> None:
    with atomic_file(path) as file, naming(path):
        file.write(json.dumps(content, ensure_ascii=False, indent=1).encode())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged; remove {path.parent} and start again") from error
    return content if isinstance(content, dict) else {}


def _short(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)[:100]
