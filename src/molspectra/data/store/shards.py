"""The files of a store: one Arrow file, or a folder of them (shards) with a manifest.

`manifest.json` holds the format, the metadata, the content hash of the whole store and, for each shard, the
name of its file, the rows of each of its record batches and its own content hash. Every shard is a store by
itself. The hash of the whole is that of the same rows in one file, since a content hash does not depend on
where record batches end.

A shard is mapped and checked when one of its rows is first needed, so that opening reads the manifest alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from molspectra.data.atomic import atomic_file, naming
from molspectra.data.neighbours import offsets_of
from molspectra.data.store.mapped import (
    ADDRESSES,
    Location,
    MappedFile,
    Ragged,
    RecordBatches,
    empty_columns,
    open_columns,
)
from molspectra.data.store.schema import HASH_KEY, Metadata, Quantity, metadata_of, schema_of
from molspectra.data.store.writer import ContentHash
from molspectra.errors import (
    DamagedError,
    FormatError,
    InputError,
    NewerFormatError,
    NotFoundError,
    check_format,
)

FORMAT = 1
"""Version of the manifest; a reader refuses any other."""

MANIFEST = "manifest.json"
"""Name of the manifest in the folder of a store; what has it is a store."""

SHARD = re.compile(r"\d{5,}\.arrow")
"""Names of shards; a manifest cannot name a file elsewhere."""

MAX_ROWS = 1 << 40
"""A manifest that names a record batch of so many rows is damaged."""

_NONSENSE = (AttributeError, OverflowError, RecursionError, InputError)

RAW = (".npz", ".csv", ".sdf", ".xyz", ".extxyz", ".parquet", ".log", ".out")
"""Suffixes of files that stores are made of."""


def is_store(path: Path) -> bool:
    """Whether a path seems to be that of a store, by its suffix or by the manifest in the folder."""
    return path.suffix.lower() == ".arrow" or os.path.isfile(path / MANIFEST)


@contextmanager
def naming_store(path: Path, row: str = "") -> Iterator[None]:
    """Put the file, the row and advice into the message of an error about the content of a store.

    A value that a molecule or spectrum refuses was valid when it was written, so it is damage too. An error
    that names a shard of the store already is left as it is.
    """
    try:
        yield
    except NotFoundError:
        raise
    except NewerFormatError as error:
        raise error.with_context(path) from error
    except InputError as error:
        if str(error).startswith(str(path)):
            raise
        kind = FormatError if isinstance(error, FormatError) else DamagedError
        advice = "make the store again or fetch a new copy"
        if path.suffix.lower() in RAW:
            advice = "a store is made of such a file by `molspectra prepare`"
        raise kind(f"{path}{row}: not a readable store: {error}; {advice}") from error


@dataclass(frozen=True)
class Shard:
    """A shard as the manifest names it.

    Attributes:
        file: name in the folder.
        rows: of each record batch.
        hash: SHA-256 of the content, equal to `Store.hash` of the file alone.
    """

    file: str
    rows: tuple[int, ...]
    hash: str


@dataclass(frozen=True)
class Manifest:
    """What the manifest of a folder holds.

    Attributes:
        metadata: description of the columns, the same in all shards.
        hash: SHA-256 of the content of all shards, one after the other.
        shards: in the order of their rows, at least one.
    """

    metadata: Metadata
    hash: str
    shards: tuple[Shard, ...]

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder.

        Raises:
            NotFoundError: if the folder has none.
            FormatError: if it is of another version.
            DamagedError: if it cannot be read.
        """
        try:
            found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            check_format("no readable store", found["format"], FORMAT)
            about = found["metadata"]
            properties = {name: Quantity(**quantity) for name, quantity in about["properties"].items()}
            forces = about["forces"] and Quantity(**about["forces"])
            given = Metadata(**{**about, "properties": properties, "forces": forces})
            metadata = metadata_of(schema_of(given))  # which checks the types of its values
            shards = tuple(
                Shard(str(one["file"]), tuple(map(int, one["rows"])), str(one["hash"]))
                for one in found["shards"]
            )
            rows = [count for shard in shards for count in shard.rows]
            if not (
                0 < min(rows) <= max(rows) < MAX_ROWS
                and all(one.rows and SHARD.fullmatch(one.file) for one in shards)
            ):
                raise ValueError("impossible rows or names of files")
            return cls(metadata, str(found["hash"]), shards)
        except FileNotFoundError:
            raise NotFoundError(f"{folder / MANIFEST}: no such file, so the folder is no store") from None
        except FormatError:
            raise
        except (OSError, LookupError, ValueError, TypeError, *_NONSENSE) as error:
            raise DamagedError(f"{MANIFEST} is damaged") from error

    def write(self, folder: Path) -> None:
        """Write it into a folder, in place of an older one.

        Raises:
            WriteError: if it cannot be written; the older one is there still, or the new one is complete.
        """
        path = folder / MANIFEST
        with atomic_file(path) as file, naming(path):
            file.write(json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False, indent=1).encode())


class StoreFile(MappedFile):
    """A store in one file.

    Attributes:
        metadata: description of the columns.
        columns: by name, checked.
        hash: SHA-256 of the content, as recorded by its writer.
    """

    def __init__(self, path: Path, *, shard: bool = False) -> None:
        """Map the file and check its structure, as a shard among others or alone.

        Raises:
            InputError: if it is missing, damaged, or not a store of a known version.
        """
        super().__init__(path, ADDRESSES if shard else None)
        self.metadata = metadata_of(self.schema)
        self.columns = open_columns(self, self.metadata)
        hashes = [attached.get(HASH_KEY, b"") for attached in self.custom_metadata()]
        self._hashes = [digest.decode("ascii", "replace") for digest in hashes]
        self.hash = self._hashes[-1]

    def verify(self) -> None:
        """Compare the content with the recorded hash.

        Raises:
            DamagedError: naming the rows of the first record batch that is not what was written.
        """
        content = ContentHash(self.schema)
        for chunk, expected, start in zip(self.chunks, self._hashes, self.starts.tolist(), strict=False):
            if content.update(chunk) != expected:
                last = start + chunk.num_rows - 1
                raise DamagedError(f"rows {start} to {last} are not what was written")


class ShardedFile(RecordBatches):
    """A store in a folder of shards, each mapped when one of its rows is first located.

    Attributes:
        metadata: description of the columns.
        columns: by name; their offsets in shards that are not open yet are filled in by `locate`.
        hash: SHA-256 of the content, as recorded in the manifest.
    """

    def __init__(self, folder: Path) -> None:
        """Read the manifest.

        Raises:
            InputError: if there is none, it is damaged, or of another version.
        """
        manifest = Manifest.read(folder)
        self._folder, self._shards = folder, manifest.shards
        self.metadata, self.hash = manifest.metadata, manifest.hash
        self.schema = schema_of(manifest.metadata)
        chunks = [len(shard.rows) for shard in self._shards]
        self._first = list(accumulate(chunks, initial=0))
        self._shard_of = torch.repeat_interleave(torch.tensor(chunks))
        self.starts = offsets_of(torch.tensor([rows for shard in self._shards for rows in shard.rows]))
        self.chunks = [None] * self._first[-1]
        self.columns = empty_columns(self.schema, self._first[-1])
        self._files: list[StoreFile | None] = [None] * len(self._shards)
        self._closed = len(self._shards)
        self._lock = Lock()  # of threads: the columns must not point into a map that another one has replaced

    def locate(self, rows: Tensor) -> Location:
        """Return where rows [B] lie, after opening their shards.

        Raises:
            InputError: if a shard is missing, damaged, or not the one that the manifest names.
        """
        location = super().locate(rows)
        if self._closed:
            for shard in self._shard_of[location.chunk].unique().tolist():
                self._open(shard)
        return location

    def verify(self) -> None:
        """Compare the content with the recorded hash; if it differs, find the shard by its own hash.

        Raises:
            DamagedError: naming the shard and the rows in it.
        """
        self.locate(self.starts[:-1])
        content = ContentHash(self.schema)
        if [content.update(chunk) for chunk in self.chunks][-1] == self.hash:
            return
        for shard, file in zip(self._shards, self._files, strict=True):
            assert file is not None
            with naming_store(self._folder / shard.file):
                file.verify()
        raise DamagedError(f"the hash in {MANIFEST} is not that of the shards")

    def _open(self, index: int) -> None:
        """Open a shard, unless it is open, and fill in where its columns lie."""
        with self._lock:
            if self._files[index] is not None:
                return
            shard = self._shards[index]
            path = self._folder / shard.file
            with naming_store(path):
                file = StoreFile(path, shard=True)
                lengths = tuple(file.starts.diff().tolist())
                same = file.schema.equals(self.schema, check_metadata=True)
                if not same or lengths != shard.rows or file.hash != shard.hash:
                    raise DamagedError(f"it is not the shard that {MANIFEST} names")
            own = slice(self._first[index], self._first[index + 1])
            for name, column in self.columns.items():
                opened = file.columns[name]
                column.base[own] = opened.base
                column.valid.base[own] = opened.valid.base
                if isinstance(column, Ragged) and isinstance(opened, Ragged):
                    column.offsets[own] = opened.offsets
            self.chunks[own] = file.chunks
            self._files[index] = file
            self._closed -= 1
