"""A hash of what a store holds, whatever the size of its record batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class ContentHash:
    """A running SHA-256 over the schema and, column by column, the gaps, lengths and values of all rows.

    It goes by content: rows written in larger or smaller record batches give the same hash, and so does any
    version of the Arrow library.
    """

    def __init__(self, schema: pa.Schema) -> None:
        """Begin with no rows."""
        names = [f"{each.name}:{each.type}:{sorted((each.metadata or {}).items())}" for each in schema]
        self._schema = repr((names, sorted((schema.metadata or {}).items()))).encode()
        self._parts: list[hashlib._Hash] = []

    def update(self, batch: pa.RecordBatch) -> str:
        """Take in the next rows and return the hash of all rows so far, as 64 hexadecimal digits."""
        leaves = [leaf for column in batch.columns for leaf in _leaves(column)]
        if not self._parts:
            self._parts = [hashlib.sha256() for _ in leaves]
        for part, leaf in zip(self._parts, leaves, strict=True):
            part.update(leaf.tobytes())
        return hashlib.sha256(self._schema + b"".join(part.digest() for part in self._parts)).hexdigest()


def _leaves(array: pa.Array) -> Iterator[npt.NDArray[np.generic]]:
    """Yield the plain arrays that make up a column without nested nulls: gaps, lengths, values."""
    yield array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_large_string(array.type):
        offsets = _offsets(array)
        yield np.diff(offsets)
        data = array.buffers()[2]
        whole = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        yield whole[offsets[0] : offsets[-1]]
    elif pa.types.is_large_list(array.type):
        offsets = _offsets(array)
        yield np.diff(offsets)
        values = array.values.slice(offsets[0], offsets[-1] - offsets[0])
        yield (values.flatten() if pa.types.is_fixed_size_list(values.type) else values).to_numpy()
    else:
        yield array.fill_null(0).to_numpy()


def _offsets(array: pa.Array) -> npt.NDArray[np.int64]:
    """Return the offsets [n + 1] of a column that is not a slice of another."""
    return np.frombuffer(array.buffers()[1], np.int64, len(array) + 1)
