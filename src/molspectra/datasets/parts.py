"""Finished parts of a store under preparation, in a folder beside it; an interrupted run continues from them.

Part k holds the records k·size … (k+1)·size − 1: a complete store `0000k.arrow` (absent where no row is
left), its rejections `0000k.rejected.jsonl`, and its tally `0000k.json`, which is written last and marks the
part as finished. Where a store in shards is asked for, the stores of the parts become its shards.

Workers write parts in folders of their own below `workers`, with the same names; moved from there, the tally
is called `0000k.unchecked.json` until it is known that the part repeats no row of an earlier one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from molspectra.data.atomic import atomic_file, exclusive_lock, flush, naming
from molspectra.data.store.schema import Metadata, schema_of
from molspectra.data.store.writer import ContentHash, Written, identified_by_geometry, write_batches
from molspectra.datasets.report import Tally
from molspectra.errors import DamagedError, MismatchError

_SETTINGS = "prepare.json"


def parts_folder(out: Path) -> Path:
    """Return the folder of the parts of a store."""
    return out.with_name(out.name + ".parts")


@contextmanager
def locked_folder(out: Path) -> Iterator[None]:
    """Make the folder of the parts and lock it against other processes."""
    folder = parts_folder(out)
    with naming(folder):
        folder.mkdir(exist_ok=True)
    with exclusive_lock(folder, "preparing this store"):
        yield


class PartFiles:
    """Names of the files of parts in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def store(self, part: int) -> Path:
        """Return the path of the store of a part."""
        return self.folder / f"{part:05}.arrow"

    def rejections(self, part: int) -> Path:
        """Return the path of the named rejections of a part."""
        return self.folder / f"{part:05}.rejected.jsonl"

    def mark(self, part: int, tally: Tally) -> None:
        """Mark a part as finished."""
        _write_json(self._tally(part), asdict(tally))

    def _tally(self, part: int) -> Path:
        return self.folder / f"{part:05}.json"


class Parts(PartFiles):
    """The folder `STORE.parts` of one preparation.

    Attributes:
        tallies: counts of the finished parts, from part 0 on.
        unchecked: counts of parts that workers wrote and that may repeat rows of earlier ones.
    """

    def __init__(self, out: Path, settings: Mapping[str, object]) -> None:
        """Begin in an empty folder, or continue with the parts in it.

        Args:
            out: path of the store.
            settings: all settings that decide the content of the parts.
        """
        super().__init__(parts_folder(out))
        self.unchecked = {
            int(path.name.partition(".")[0]): _read_tally(path)
            for path in self.folder.glob("*.unchecked.json")
        }
        self.take_over()
        self._check(json.loads(json.dumps(settings)))
        for orphan in self.folder.glob(".*.part"):  # left by a process that was killed while writing
            orphan.unlink(missing_ok=True)
        self.tallies = list(self._finished())

    def finish(self, tally: Tally) -> None:
        """Mark the next part as finished."""
        self.mark(len(self.tallies), tally)
        self.tallies.append(tally)

    @property
    def workers(self) -> Path:
        """Folder of the folders of the workers."""
        return self.folder / "workers"

    def take(self, folder: Path) -> Iterator[tuple[int, Tally]]:
        """Take the parts that a worker has finished from its folder; yield the number and the counts of each.

        Parts without records, which lie behind the end of the raw files, are not kept.
        """
        theirs = PartFiles(folder)
        for mark in sorted(folder.glob("*.json")):
            part, tally = int(mark.stem), _read_tally(mark)
            with naming(self.folder):
                if tally.records:
                    for file, its in (
                        (self.store(part), theirs.store(part)),
                        (self.rejections(part), theirs.rejections(part)),
                    ):
                        # not there if there are no rows, or a run was killed when it had moved it
                        if its.is_file():
                            its.replace(file)
                    flush(self.folder)
                    mark.replace(self._unchecked(part))
                    self.unchecked[part] = tally
                else:
                    mark.unlink()
            yield part, tally

    def take_over(self) -> None:
        """Take what workers have finished and remove their folders, without which they end."""
        for folder in self.workers.glob("*-*"):
            for _ in self.take(folder):
                pass
        if self.workers.is_dir():
            with naming(self.workers):
                shutil.rmtree(self.workers)

    def adopt(self) -> None:
        """Make the next part, which is unchecked, a finished one."""
        part = len(self.tallies)
        with naming(self.folder):
            self._unchecked(part).replace(self._tally(part))
        self.tallies.append(self.unchecked.pop(part))

    def drop(self, part: int) -> None:
        """Forget an unchecked part."""
        with naming(self.folder):
            self._unchecked(part).unlink()
        del self.unchecked[part]

    @property
    def joined(self) -> Path:
        """Path of the joined store until it gets its name."""
        return self.folder / "joined.arrow"

    def sum(self) -> Tally:
        """Return the summed counts of all finished parts."""
        total = Tally()
        for tally in self.tallies:
            total.add(tally)
        return total

    def geometry_ids(self, part: int) -> npt.NDArray[np.int64]:
        """Return the geometry ids [rows] of a part that is finished or unchecked."""
        rows = self.unchecked[part].rows if part in self.unchecked else self.tallies[part].rows
        ids = [batch.column("geometry_id").to_numpy() for batch in (self._batches_of(part) if rows else ())]
        return np.concatenate([np.empty(0, np.int64), *ids])

    def join(self, metadata: Metadata) -> tuple[Written, int]:
        """Write `joined`, the final store, from the record batches of the parts, one after the other.

        Returns:
            Summary of the store, and the number of rows that have the identity of an earlier row.

        Raises:
            InputError: if the store cannot be written, or a part is damaged.
        """
        hashes: list[npt.NDArray[np.int64]] = []
        batches = chain.from_iterable(map(self._batches_of, self._with_rows()))
        written = write_batches(self.joined, _identities(batches, hashes), schema_of(metadata))
        return written, written.rows - len(np.unique(np.concatenate(hashes)))

    def as_shards(self, metadata: Metadata) -> tuple[Written, int]:
        """Write the manifest that makes the folder a store, with the stores of the parts as its shards.

        Returns:
            As `join`.

        Raises:
            InputError: if the manifest cannot be written, or a part is damaged.
        """
        from molspectra.data.store.shards import Manifest, Shard  # with torch, which workers do not need

        hashes: list[npt.NDArray[np.int64]] = []
        schema = schema_of(metadata)
        whole, shards, by_geometry = ContentHash(schema), list[Shard](), 0
        for part in self._with_rows():
            own, lengths = ContentHash(schema), list[int]()
            for batch in _identities(self._batches_of(part), hashes):
                own.update(batch)
                whole.update(batch)
                lengths.append(batch.num_rows)
                by_geometry += identified_by_geometry(batch)
            shards.append(Shard(self.store(part).name, tuple(lengths), own.digest))
        Manifest(metadata, whole.digest, tuple(shards)).write(self.folder)
        written = Written(sum(sum(shard.rows) for shard in shards), whole.digest, (), by_geometry)
        return written, written.rows - len(np.unique(np.concatenate(hashes)))

    def publish(self, out: Path, *, shards: bool) -> None:
        """Give the store its name, in one step, and remove what else the folder holds.

        Args:
            out: path of the store.
            shards: whether `as_shards` made the folder the store, or `join` a file.

        Raises:
            WriteError: if it cannot be renamed.
        """
        with naming(out):
            (self.folder if shards else self.joined).replace(out)
            flush(out.parent)
        if not shards:
            self.remove()
            return
        from molspectra.data.store.shards import MANIFEST

        kept = {MANIFEST, *(self.store(part).name for part in self._with_rows())}
        with naming(out):
            for path in out.iterdir():
                if path.name not in kept:
                    path.unlink()

    def rejected(self) -> Iterator[str]:
        """Yield the lines of the named rejections of all parts."""
        for part in range(len(self.tallies)):
            if self.rejections(part).is_file():
                with self.rejections(part).open(encoding="utf-8") as lines:
                    yield from lines

    def remove(self) -> None:
        """Remove the folder, the marks of finished parts first: what is left of it never passes for whole."""
        for part in list(self.unchecked):
            self.drop(part)
        with naming(self.folder):
            for part in reversed(range(len(self.tallies))):
                self._tally(part).unlink()
            shutil.rmtree(self.folder)

    def _unchecked(self, part: int) -> Path:
        return self.folder / f"{part:05}.unchecked.json"

    def _check(self, settings: Any) -> None:
        path = self.folder / _SETTINGS
        if not path.is_file() or not (self._tally(0).is_file() or self.unchecked):  # no finished part
            _write_json(path, settings)
            return
        before = _read_json(path)
        for key in settings:
            if before.get(key) != settings[key]:
                was, now = (
                    json.dumps(values.get(key), ensure_ascii=False)[:100] for values in (before, settings)
                )
                raise MismatchError(
                    f"{self.folder} holds an unfinished preparation with {key} = {was}, now {now}; "
                    "repeat it as it was begun, or remove that folder"
                )

    def _finished(self) -> Iterator[Tally]:
        part = 0
        while self._tally(part).is_file():
            tally = _read_tally(self._tally(part))
            if tally.rows and not self.store(part).is_file():
                raise DamagedError(f"{self.store(part)} is missing; remove {self.folder} and start again")
            yield tally
            part += 1

    def _with_rows(self) -> list[int]:
        """Return the finished parts that have a store."""
        return [part for part, tally in enumerate(self.tallies) if tally.rows]

    def _batches_of(self, part: int) -> Iterator[pa.RecordBatch]:
        """Yield the record batches of a finished part."""
        path = self.store(part)
        try:
            with pa.OSFile(str(path)) as source:  # not mapped: mapped pages would count as memory
                file = pa.ipc.open_file(source)
                for index in range(file.num_record_batches):
                    yield file.get_batch(index)
        except (pa.ArrowException, OSError) as error:
            raise DamagedError(f"{path} is damaged; remove {path.parent} and start again") from error


def _identities(
    batches: Iterable[pa.RecordBatch], hashes: list[npt.NDArray[np.int64]]
) -> Iterator[pa.RecordBatch]:
    """Yield record batches, and append the hashes of their identities."""
    for batch in batches:
        hashes.append(np.array([hash(key) for key in batch.column("identity").to_pylist()], np.int64))
        yield batch


def _read_tally(path: Path) -> Tally:
    try:
        return Tally(**_read_json(path))
    except TypeError as error:
        raise DamagedError(f"{path} is damaged; remove {path.parent}") from error


def _write_json(path: Path, content: object) -> None:
    with atomic_file(path) as file, naming(path):
        file.write(json.dumps(content, ensure_ascii=False, indent=1).encode())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} is damaged; remove {path.parent} and start again") from error
    return content if isinstance(content, dict) else {}
