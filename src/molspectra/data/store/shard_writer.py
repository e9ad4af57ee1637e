"""Writing of stores in shards, and adding to them; shards that are there are never touched again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa

from molspectra.chem.readers import Rejection, check_on_error
from molspectra.data.atomic import LOCK, folder_lock
from molspectra.data.store.schema import Metadata, schema_of
from molspectra.data.store.shards import SHARD, Manifest, Shard, ShardedFile, naming_store
from molspectra.data.store.writer import (
    CHUNK_ROWS,
    Candidate,
    ContentHash,
    Record,
    Row,
    Written,
    accepted,
    chunked,
    record_batch,
    write_batches,
)
from molspectra.errors import ExistsError, MismatchError, SettingError

SHARD_ROWS = 100_000
"""Rows of a shard, unless told otherwise."""


def write_shards(
    path: Path | str,
    rows: Iterable[Row | Candidate],
    metadata: Metadata,
    *,
    append: bool = False,
    shard_rows: int = SHARD_ROWS,
    on_error: str = "raise",
    chunk_rows: int = CHUNK_ROWS,
) -> Written:
    """Write rows into a new folder of shards, or add them to one, in constant memory.

    The manifest is written last, in one step: killed at any moment, the folder is the store that it was
    before (none, if it is new), and what was left in it is replaced by the next call. Whoever has the store
    open goes on with the rows that it had. To add rows, those that are there are read once, since the content
    hash runs over all.

    Args:
        path: of the folder.
        rows: any iterable of rows or candidates; it is read once.
        metadata: description of the columns.
        append: add to the store, which must be there and have the same metadata.
        shard_rows: largest number of rows of a shard.
        on_error: as in `write_store`.
        chunk_rows: rows per record batch.

    Returns:
        Summary of the whole store, except for `rejected` and `by_geometry`, which are of the given rows.

    Raises:
        InputError: if the folder exists (with `append`: is missing, damaged or of other metadata), another
            process is writing to it, it cannot be written, a row does not fit and `on_error` is "raise", or
            no row is left.
    """
    path = Path(path)
    check_on_error(on_error)
    if shard_rows < 1:
        raise SettingError(f"a shard has at least 1 row, not {shard_rows}")
    rejected: list[Rejection] = []
    records = accepted(path, rows, metadata, on_error, rejected)
    groups = _groups(records, schema_of(metadata), shard_rows, chunk_rows)
    return replace(add_shards(path, groups, metadata, append=append), rejected=tuple(rejected))


def _groups(
    records: Iterator[Record], schema: pa.Schema, shard_rows: int, chunk_rows: int
) -> Iterator[Iterator[pa.RecordBatch]]:
    """Yield the record batches of each shard, to be consumed before the next is asked for."""
    for first in records:
        group = chain([first], islice(records, shard_rows - 1))
        yield (record_batch(chunk, schema) for chunk in chunked(group, chunk_rows))


def add_shards(
    path: Path, groups: Iterable[Iterable[pa.RecordBatch]], metadata: Metadata, *, append: bool = False
) -> Written:
    """Write one shard of each group of record batches, as `write_shards` does with rows.

    Raises:
        InputError: as in `write_shards`.
    """
    if append:
        with naming_store(path):
            found = Manifest.read(path)  # before the lock makes a folder
        if not schema_of(found.metadata).equals(schema_of(metadata), check_metadata=True):
            raise MismatchError(f"{path}: the rows to be added have other columns, levels, source or notes")
    schema = schema_of(metadata)
    content, shards, by_geometry = ContentHash(schema), list[Shard](), 0
    with folder_lock(path, "writing this store"):
        if append:
            with naming_store(path):
                shards.extend(_continued(path, content))
        elif not all(map(_is_left_over, path.iterdir())):
            raise ExistsError(f"{path} exists already; choose another name or remove it")
        for orphan in path.glob(".*.part"):  # left by a process that was killed while writing
            orphan.unlink(missing_ok=True)
        number = int(Path(shards[-1].file).stem) + 1 if shards else 0
        added: list[Path] = []
        try:
            for group in groups:
                added.append(path / f"{number + len(added):05}.arrow")
                lengths: list[int] = []
                written = write_batches(added[-1], _counted(group, lengths, content), schema)
                shards.append(Shard(added[-1].name, tuple(lengths), written.hash))
                by_geometry += written.by_geometry
        except BaseException:
            for shard in added:
                shard.unlink(missing_ok=True)
            raise
        Manifest(metadata, content.digest, tuple(shards)).write(path)
    return Written(sum(sum(shard.rows) for shard in shards), content.digest, (), by_geometry)


def _counted(
    batches: Iterable[pa.RecordBatch], lengths: list[int], content: ContentHash
) -> Iterator[pa.RecordBatch]:
    """Yield record batches, append their lengths, and add them to the hash of the whole store."""
    for batch in batches:
        lengths.append(batch.num_rows)
        content.update(batch)
        yield batch


def _continued(path: Path, content: ContentHash) -> tuple[Shard, ...]:
    """Return the shards that are there, after adding their rows to the running hash."""
    manifest, file = Manifest.read(path), ShardedFile(path)
    file.locate(file.starts[:-1])
    if [content.update(chunk) for chunk in file.chunks][-1] != file.hash:
        file.verify()
    return manifest.shards


def _is_left_over(path: Path) -> bool:
    """Whether a process that was killed before it wrote a manifest may have left a file."""
    return path.name == LOCK or path.suffix == ".part" or SHARD.fullmatch(path.name) is not None
