"""A store's file as flat tensors over its memory map, safe to index.

Arrow keeps a column in pieces, one per record batch. Here the whole file is viewed as one tensor per dtype,
and each piece of a column is an offset into that tensor, so that rows of any record batches are collected by
one vectorised gather. Every offset that a gather uses is checked once, when the file is opened.

Several files at once are viewed in the same way, as one tensor over all addresses of the process
(`ADDRESSES`), of which only what lies inside a checked buffer is ever read.

The messages of errors do not name the file; `Store` and `InternalFile` add its path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from molspectra.data.neighbours import offsets_of
from molspectra.data.store.schema import Metadata
from molspectra.errors import DamagedError, FormatError, NotFoundError
from molspectra.spectra.modality import modality

_MAGIC = b"ARROW1"
_PAGE = 4096

ADDRESSES = pa.foreign_buffer(_PAGE, (1 << 48) - _PAGE)
"""All addresses at which a file can be mapped: what columns of several files are offsets into."""

_DLPACK_TYPES = {
    torch.uint8: pa.uint8(),
    torch.int16: pa.int16(),
    torch.int32: pa.int32(),
    torch.int64: pa.int64(),
    torch.float16: pa.float16(),
    torch.float32: pa.float32(),
    torch.float64: pa.float64(),
}
_TORCH_TYPES = {arrow: dtype for dtype, arrow in _DLPACK_TYPES.items()}


@dataclass(frozen=True)
class Location:
    """Where B rows lie: the record batch of each and the row inside it, both int64 [B]."""

    chunk: Tensor
    local: Tensor


@dataclass(frozen=True)
class Runs:
    """B runs of any length, one after the other, with M elements in all.

    Attributes:
        ptr: [B + 1] offsets of the runs.
        owner: [M] index of each element's run.
        inner: [M] index of each element within its run.
    """

    ptr: Tensor
    owner: Tensor
    inner: Tensor


def runs_of(counts: Tensor) -> Runs:
    """Return runs with `counts` [B] elements."""
    ptr = offsets_of(counts)
    owner = torch.repeat_interleave(counts)
    return Runs(ptr, owner, torch.arange(owner.shape[0]) - ptr[owner])


@dataclass(frozen=True)
class Scalars:
    """A column with one number per row.

    Attributes:
        view: the file in the column's dtype.
        base: [chunks] offset in `view` of the numbers of each record batch.
        valid: which rows have one.
    """

    view: Tensor
    base: Tensor
    valid: Validity

    def take(self, location: Location) -> Tensor:
        """Return the numbers [B] of rows, an arbitrary one for a row that has none."""
        return self.view[self.base[location.chunk] + location.local]


@dataclass(frozen=True)
class Ragged:
    """A column with any number of values per row, each a number or a vector of `width` numbers.

    Attributes:
        view: the file in the values' dtype: [n], or overlapping rows [n, width] of vectors.
        width: numbers per value.
        words: the file as int64, which holds the row offsets.
        offsets: [chunks] offset in `words` of the row offsets of each record batch.
        base: [chunks] offset in `view` of its values.
        valid: which rows have values at all; the others have a count of 0.
    """

    view: Tensor
    width: int
    words: Tensor
    offsets: Tensor
    base: Tensor
    valid: Validity

    def counts(self, location: Location) -> Tensor:
        """Return how many values rows have, [B] int64."""
        index = self.offsets[location.chunk] + location.local
        return self.words[index + 1] - self.words[index]

    def take(self, location: Location, runs: Runs) -> Tensor:
        """Return the concatenated values of rows, [M] or [M, width]; `runs` are those of their counts."""
        begin = self.words[self.offsets[location.chunk] + location.local]
        first = self.base[location.chunk] + self.width * begin
        return self.view[first[runs.owner] + self.width * runs.inner]

    def take_equal(self, location: Location, length: int) -> Tensor:
        """Return the values of rows that all have `length` numbers, [B, length]."""
        begin = self.words[self.offsets[location.chunk] + location.local]
        windows = self.view.as_strided((len(self.view) - length + 1, length), (1, 1))
        return windows[self.base[location.chunk] + begin]


@dataclass(frozen=True)
class Validity:
    """Which rows of a column have a value: one bit per row, or none at all where all have.

    Attributes:
        bytes: the file as uint8.
        base: [chunks] offset in `bytes` of the bits of each record batch; where all rows are valid, ~k of the
            offset k of the file, a negative number.
    """

    bytes: Tensor
    base: Tensor

    def take(self, location: Location) -> Tensor:
        """Return whether rows have a value, [B] bool."""
        base = self.base[location.chunk]
        # where there are no bits, some of the file's own bytes are read instead and not used
        bits = self.bytes[torch.where(base < 0, ~base, base) + (location.local >> 3)] >> (location.local & 7)
        return (base < 0) | (bits & 1).bool()


class RecordBatches:
    """Rows in record batches, each a range of the rows.

    Attributes:
        schema: of all of them.
        starts: [chunks + 1] first row of each, and the number of rows.
        chunks: the record batches; those of files that are opened when needed, once `locate` was asked.
    """

    schema: pa.Schema
    starts: Tensor
    chunks: list[pa.RecordBatch]

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.starts[-1])

    def locate(self, rows: Tensor) -> Location:
        """Return where rows [B] lie; they must be in range."""
        chunk = torch.searchsorted(self.starts, rows, right=True) - 1
        return Location(chunk, rows - self.starts[chunk])

    def all_counts(self, column: Ragged) -> Tensor:
        """Return the number of values of every row, [rows] int64."""
        self.locate(self.starts[:-1])
        spans = zip(self.starts.diff() + 1, column.offsets, strict=True)
        return torch.cat([column.words[start:][:n].diff() for n, start in spans])

    def texts(self, name: str) -> list[str | None]:
        """Return a whole column of texts."""
        self.locate(self.starts[:-1])
        return [text for chunk in self.chunks for text in _decoded(chunk.column(name))]

    def text(self, name: str, row: int) -> str | None:
        """Return the text of one row, None where it has none."""
        location = self.locate(torch.tensor([row]))
        return _decoded(self.chunks[int(location.chunk)].column(name).slice(int(location.local), 1))[0]


class MappedFile(RecordBatches):
    """An Arrow file under a memory map: its record batches, and its columns as gathers over the file."""

    def __init__(self, path: Path, space: pa.Buffer | None = None) -> None:
        """Map the file and check its structure; the columns are checked as they are looked up.

        Args:
            path: of the file.
            space: what the columns are offsets into, `ADDRESSES` for a file among others; None for the file.

        Raises:
            NotFoundError: if there is no such file; only this message names the path.
            FormatError: if it is not an Arrow file.
            DamagedError: if it is cut short or cannot be read.
        """
        try:
            if not path.is_file():
                raise NotFoundError(f"{path}: no such file")
            with path.open("rb") as file:
                head = file.read(8)
            if head[:6] != _MAGIC:
                raise FormatError("not an Arrow file")
            self._memory = pa.memory_map(str(path)).read_buffer()
            if self._memory.size < 32 or self._memory.slice(self._memory.size - 6).to_pybytes() != _MAGIC:
                raise DamagedError("the file is cut short")
            self._space = self._memory if space is None else space
            self._reader = pa.ipc.open_file(pa.BufferReader(self._memory))
            self.schema = self._reader.schema
            self.chunks = [self._reader.get_batch(index) for index in range(self._reader.num_record_batches)]
            for chunk in self.chunks:
                chunk.validate()  # lengths against buffers; offsets are checked with the columns
        except (pa.ArrowException, OSError, MemoryError, OverflowError) as error:
            raise DamagedError(_one_line(error)) from error
        lengths = torch.tensor([chunk.num_rows for chunk in self.chunks], dtype=torch.int64)
        if not self.chunks or int(lengths.min()) < 1:
            raise DamagedError("a record batch has no rows")
        self.starts = offsets_of(lengths)
        self._views: dict[torch.dtype, Tensor] = {}

    def custom_metadata(self) -> Iterator[dict[bytes, bytes]]:
        """Yield the metadata of each record batch."""
        for index in range(len(self.chunks)):
            try:
                yield dict(self._reader.get_batch_with_custom_metadata(index)[1] or {})
            except (pa.ArrowException, OSError, MemoryError) as error:
                raise DamagedError(_one_line(error)) from error

    def scalars(self, name: str) -> Scalars:
        """Return a column of one number per row."""
        arrays = self._column(name)
        dtype = _TORCH_TYPES[arrays[0].type]
        base = [self._offset(array.buffers()[1], len(array), dtype) for array in arrays]
        return Scalars(self._view(dtype), torch.tensor(base), self._validity(arrays))

    def ragged(self, name: str) -> Ragged:
        """Return a column of lists or texts, after checking that its offsets ascend and stay in range."""
        arrays = self._column(name)
        text = pa.types.is_large_string(arrays[0].type)
        dtype, width = _values(arrays[0].type)
        valid = self._validity(arrays)
        offsets, base = [], []
        for chunk, array in enumerate(arrays):
            start = self._offset(array.buffers()[1], len(array) + 1, torch.int64)
            data, length = _text_values(array) if text else _list_values(array, width)
            row_offsets = self._view(torch.int64)[start : start + len(array) + 1]
            counts = row_offsets.diff()
            if int(row_offsets[0]) < 0 or int(counts.min()) < 0 or int(row_offsets[-1]) * width > length:
                raise DamagedError(f"the offsets of column {name!r} leave its values")
            if valid.base[chunk] >= 0:
                rows = torch.arange(len(array))
                if bool(counts[~valid.take(Location(torch.full_like(rows, chunk), rows))].any()):
                    raise DamagedError(f"column {name!r} has values in rows without any")
            offsets.append(start)
            base.append(self._offset(data, length, dtype))
        view = _vectors(self._view(dtype), width)
        return Ragged(view, width, self._view(torch.int64), torch.tensor(offsets), torch.tensor(base), valid)

    def _column(self, name: str) -> list[pa.Array]:
        arrays = [chunk.column(name) for chunk in self.chunks]
        for chunk, array in zip(self.chunks, arrays, strict=True):
            if len(array) != chunk.num_rows or array.offset != 0:
                raise DamagedError(f"column {name!r} has another length than its record batch")
        return arrays

    def _validity(self, arrays: list[pa.Array]) -> Validity:
        base = []
        for array in arrays:
            bitmap, length = array.buffers()[0], -(-len(array) // 8)
            bits = self._memory.slice(0, length) if bitmap is None else bitmap
            offset = self._offset(bits, length, torch.uint8)
            base.append(~offset if bitmap is None else offset)
        return Validity(self._view(torch.uint8), torch.tensor(base))

    def _offset(self, buffer: pa.Buffer | None, length: int, dtype: torch.dtype) -> int:
        """Return the offset of a buffer in the view of its dtype; it must lie inside the file."""
        if length == 0:
            return 0
        if buffer is None:
            raise DamagedError("a buffer is missing")
        start = int(buffer.address - self._memory.address)
        # A compressed or foreign-endian buffer has been copied out of the map, so that it fails here too.
        if start < 0 or length * dtype.itemsize > min(buffer.size, self._memory.size - start):
            raise DamagedError("a buffer is compressed or lies outside the file")
        if start % dtype.itemsize:
            raise DamagedError("a buffer is not aligned")
        return (start + int(self._memory.address - self._space.address)) // dtype.itemsize

    def _view(self, dtype: torch.dtype) -> Tensor:
        if dtype not in self._views:
            self._views[dtype] = _view(self._space, dtype)
        return self._views[dtype]


def empty_columns(schema: pa.Schema, chunks: int) -> dict[str, Scalars | Ragged]:
    """Return the columns of files among `ADDRESSES` before any is open; their offsets are filled in later."""
    columns: dict[str, Scalars | Ragged] = {}
    for field in schema:
        dtype, width = _values(field.type)
        view = _vectors(_view(ADDRESSES, dtype), width)
        base, valid = (torch.zeros(chunks, dtype=torch.int64) for _ in range(2))
        validity = Validity(_view(ADDRESSES, torch.uint8), valid)
        if _is_ragged(field.type):
            words = _view(ADDRESSES, torch.int64)
            columns[field.name] = Ragged(view, width, words, torch.zeros_like(base), base, validity)
        else:
            columns[field.name] = Scalars(view, base, validity)
    return columns


def _view(memory: pa.Buffer, dtype: torch.dtype) -> Tensor:
    """Return a whole buffer as one tensor without a copy; nobody may write to it."""
    length = memory.size // dtype.itemsize
    return from_dlpack(pa.Array.from_buffers(_DLPACK_TYPES[dtype], length, [None, memory]))


def _vectors(view: Tensor, width: int) -> Tensor:
    """Return a view [n] as overlapping vectors [n - width + 1, width]; as it is where the width is 1."""
    return view.as_strided((max(len(view) - width + 1, 0), width), (1, 1)) if width > 1 else view


def _is_ragged(column: pa.DataType) -> bool:
    return bool(pa.types.is_large_list(column) or pa.types.is_large_string(column))


def _values(column: pa.DataType) -> tuple[torch.dtype, int]:
    """Return the type of a column's numbers, and how many make up a value."""
    if pa.types.is_large_string(column):
        return torch.uint8, 1
    value = column.value_type if pa.types.is_large_list(column) else column
    if pa.types.is_fixed_size_list(value):
        return _TORCH_TYPES[value.value_type], value.list_size
    return _TORCH_TYPES[value], 1


def _decoded(texts: pa.Array) -> list[str | None]:
    try:
        return list(texts.to_pylist())
    except UnicodeDecodeError as error:
        raise DamagedError("a text is not UTF-8") from error


def _one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _list_values(lists: pa.Array, width: int) -> tuple[pa.Buffer | None, int]:
    """Return the buffer behind the values of a list column and how many numbers it should hold."""
    child = lists.values
    flat = child.values if width > 1 else child
    # `null_count` would read a bitmap whose bounds are unchecked, so refuse any bitmap instead.
    if child.buffers()[0] is not None or flat.buffers()[0] is not None or child.offset or flat.offset:
        raise DamagedError("a list has missing values")
    if len(flat) < width * len(child):
        raise DamagedError("a list of vectors is incomplete")
    return flat.buffers()[1], len(flat)


def _text_values(texts: pa.Array) -> tuple[pa.Buffer | None, int]:
    """Return the buffer behind a column of texts and its length in bytes."""
    data = texts.buffers()[2]
    return data, 0 if data is None else data.size


def open_columns(file: MappedFile, metadata: Metadata) -> dict[str, Scalars | Ragged]:
    """Return every column of a store after checking its offsets and lengths.

    Raises:
        DamagedError: if offsets leave the file, a column that must be complete has gaps, or lengths disagree.
    """
    lists: dict[str, Ragged] = {}
    scalars: dict[str, Scalars] = {}
    for field in file.schema:
        if _is_ragged(field.type):
            lists[field.name] = file.ragged(field.name)
        else:
            scalars[field.name] = file.scalars(field.name)
    columns: dict[str, Scalars | Ragged] = {**lists, **scalars}
    for field in file.schema:
        if not field.nullable and int(columns[field.name].valid.base.max()) >= 0:
            raise DamagedError(f"column {field.name!r} has gaps")
    _check_lengths(file, metadata, lists)
    return columns


def _check_lengths(file: MappedFile, metadata: Metadata, lists: dict[str, Ragged]) -> None:
    """Raise if columns that describe the same atoms, lines or axes differ in length."""
    atoms = file.all_counts(lists["numbers"])
    if int(atoms.min()) < 1 or not torch.equal(atoms, file.all_counts(lists["positions"])):
        raise DamagedError("a molecule has no atoms, or not one position for each")
    expected = {"forces": atoms} if metadata.forces else {}
    expected |= {name: torch.full_like(atoms, modality(name).points) for name in metadata.samples}
    for name, counts in expected.items():
        valid = lists[name].valid.take(file.locate(torch.arange(len(file))))
        if not torch.equal(file.all_counts(lists[name]), counts * valid):
            raise DamagedError(f"column {name!r} has rows of a wrong length")
    for name in metadata.lines:
        positions, intensities = lists[f"{name}_position"], lists[f"{name}_intensity"]
        if not torch.equal(file.all_counts(positions), file.all_counts(intensities)):
            raise DamagedError(f"a {name} line has no intensity or no position")
