"""One segment of an index: a folder with a table of molecules (Arrow) and arrays (npy).

| file | content |
|---|---|
| `molecules.arrow` | identity, SMILES, name, formula, charge, exact mass, elements, atoms and coordinates |
| `structure.npy` | [n, D] embeddings of structures |
| `learned-MODALITY.npy` | [n, D] embeddings of each spectrum alone; zeros where a molecule has none |
| `network1-ir.npy` | [n, 96] float16 vectors of infrared spectra; missing in an index made before them |
| `samples-MODALITY.npy` | [n, P] float16 stored spectra of length 1; zeros where a molecule has none |
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from molspectra.data.atomic import naming
from molspectra.data.output import vectors_in, vectors_of
from molspectra.errors import DamagedError, NotFoundError
from molspectra.search import network
from molspectra.search.filters import element_bits
from molspectra.search.manifest import Manifest
from molspectra.search.sources import Block
from molspectra.search.vectors import SearchModel, coarse, stored_points, unit
from molspectra.spectra.modality import modality

TABLE = "molecules.arrow"
SCHEMA = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("smiles", pa.string()),
        pa.field("name", pa.string()),
        pa.field("formula", pa.string(), nullable=False),
        pa.field("charge", pa.int32(), nullable=False),
        pa.field("mass", pa.float64(), nullable=False),
        pa.field("elements_low", pa.uint64(), nullable=False),
        pa.field("elements_high", pa.uint64(), nullable=False),
        pa.field("numbers", pa.list_(pa.uint8()), nullable=False),
        pa.field("positions", pa.list_(pa.float32()), nullable=False),
    ]
)

_BLOCKS_PER_WRITE = 64  # of the table

Arrays = dict[str, npt.NDArray[np.floating]]


@dataclass(frozen=True, eq=False)
class Segment:
    """An open segment: its table [n] and its arrays by name, memory-mapped."""

    table: pa.Table
    arrays: Arrays

    def __len__(self) -> int:
        """Return the number of entries n."""
        return len(self.table)


class _ArrayFile:
    """A `.npy` file that is written in blocks of rows; the header gets their number at the end."""

    def __init__(self, file: BinaryIO, width: int, dtype: str) -> None:
        self.file, self.width, self.dtype, self.rows = file, width, np.dtype(dtype), 0
        self._header()
        self.start = file.tell()

    def _header(self) -> None:
        header: dict[str, Any] = {
            "shape": (self.rows, self.width),
            "fortran_order": False,
            "descr": np.lib.format.dtype_to_descr(self.dtype),
        }
        np.lib.format.write_array_header_1_0(self.file, header)

    def append(self, block: npt.NDArray[np.floating]) -> None:
        assert block.shape[1] == self.width
        self.file.write(np.ascontiguousarray(block, self.dtype).tobytes())
        self.rows += len(block)

    def close(self) -> None:
        self.file.seek(0)
        self._header()
        assert self.file.tell() == self.start  # numpy leaves room for a longer first axis
        self.file.flush()
        os.fsync(self.file.fileno())


@dataclass(frozen=True, eq=False)
class Part:
    """What a segment holds of one block.

    Attributes:
        records: its rows [B] of the table.
        arrays: its rows [B, D] or [B, P] of the arrays, by name.
        sums: by modality [P + 1], the sum of the stored points of its spectra before scaling, and their
            number.
        modalities: of its spectra, those that are not kept too.
    """

    records: pa.RecordBatch
    arrays: Arrays
    sums: dict[str, npt.NDArray[np.float64]]
    modalities: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of molecules B."""
        return len(self.records)

    def table(self) -> pa.Table:
        """The part as a table, which another process can write to a file."""
        about = {"sums": {name: total.tolist() for name, total in self.sums.items()}}
        columns = dict(zip(SCHEMA.names, self.records.columns, strict=True))
        columns |= {name: vectors_of(values) for name, values in self.arrays.items()}
        return pa.table(columns).replace_schema_metadata(
            {"part": json.dumps(about | {"modalities": self.modalities})}
        )


def part_in(table: pa.Table) -> Part:
    """The part whose table this is."""
    about = json.loads(table.schema.metadata[b"part"])
    columns = [table[name].combine_chunks() for name in SCHEMA.names]
    return Part(
        pa.RecordBatch.from_arrays(columns, schema=SCHEMA),
        {name: vectors_in(table[name]) for name in table.column_names if name not in SCHEMA.names},
        {name: np.array(total, np.float64) for name, total in about["sums"].items()},
        tuple(about["modalities"]),
    )


def part_of(block: Block, model: SearchModel, modalities: Iterable[str]) -> Part:
    """The part of a block, with spectra of some modalities; absent ones are zeros."""
    sums = {}
    for name in modalities:
        if name in block.spectra:
            spectra = block.spectra[name]
            total = coarse(spectra, modality(name)).sum(0, dtype=np.float64)
            sums[name] = np.append(total, float(spectra.any(1).sum()))
    return Part(_records(block), arrays_of(block, model, modalities), sums, tuple(block.spectra))


def arrays_of(block: Block, model: SearchModel, modalities: Iterable[str]) -> Arrays:
    """Arrays [B, D] or [B, P] of a block by name, with spectra of some modalities; absent ones are zeros."""
    arrays: Arrays = {"structure": model.structures(block.molecules)}
    for name in modalities:
        kind = modality(name)
        spectra = block.spectra.get(name)
        if spectra is None:
            spectra = np.zeros((len(block), kind.points), np.float32)
        present = spectra.any(1)
        arrays[f"samples-{name}"] = unit(coarse(spectra, kind))
        if name == network.MODALITY:
            arrays[network.ARRAY] = network.vectors(arrays[f"samples-{name}"])
        if name in model.modalities:
            learned = np.zeros((len(block), model.width), np.float32)
            if present.any():
                learned[present] = model.spectra({name: spectra[present]})
            arrays[f"learned-{name}"] = learned
    return arrays


def widths(model_width: int, model_modalities: Iterable[str], modalities: Iterable[str]) -> dict[str, int]:
    """Width of every array of a segment by name."""
    sizes = {"structure": model_width}
    for name in modalities:
        sizes[f"samples-{name}"] = stored_points(modality(name))
        if name == network.MODALITY:
            sizes[network.ARRAY] = network.WIDTH
        if name in model_modalities:
            sizes[f"learned-{name}"] = model_width
    return sizes


def dtype_of(array: str, vectors: str) -> str:
    """Type of an array by its name, where embeddings are stored as `vectors`, "float32" or "float16"."""
    is_embedding = array == "structure" or array.startswith("learned-")
    return "<f4" if is_embedding and vectors == "float32" else "<f2"


def write_segment(
    folder: Path, parts: Iterable[Part], model: SearchModel, modalities: tuple[str, ...], vectors: str
) -> tuple[int, dict[str, str], dict[str, npt.NDArray[np.float64]]]:
    """Write a segment into a new folder, flushed to the disk.

    Args:
        folder: to make.
        parts: of the segment, one for each block of molecules.
        model: made the embeddings.
        modalities: of the spectra to keep; absent ones are zeros.
        vectors: type of the embeddings, "float32" or "float16".

    Returns:
        Number of rows; SHA-256 of every file by name; and by modality [P + 1], the sum of the stored points
        of all spectra before scaling, and the number of spectra.

    Raises:
        InputError: no molecules, a bad record, or the disk is full.
    """
    sizes = widths(model.width, model.modalities, modalities)
    sums = {name: np.zeros(stored_points(modality(name)) + 1) for name in modalities}
    with naming(folder):
        folder.mkdir()
    rows = 0
    with naming(folder), ExitStack() as stack:
        files = {
            name: _ArrayFile(
                stack.enter_context((folder / f"{name}.npy").open("wb")), width, dtype_of(name, vectors)
            )
            for name, width in sizes.items()
        }
        sink = stack.enter_context((folder / TABLE).open("wb"))
        with pa.ipc.new_file(sink, SCHEMA) as writer:
            pending: list[pa.RecordBatch] = []
            for part in parts:
                pending.append(part.records)
                if len(pending) == _BLOCKS_PER_WRITE:
                    _write_pending(writer, pending)
                for name, values in part.arrays.items():
                    files[name].append(values)
                for name, total in part.sums.items():
                    sums[name] += total
                rows += len(part)
            _write_pending(writer, pending)
        for file in files.values():
            file.close()
        sink.flush()
        os.fsync(sink.fileno())
    if not rows:
        raise NotFoundError("there are no molecules to index")
    return rows, {path.name: file_hash(path) for path in sorted(folder.iterdir())}, sums


def _write_pending(writer: pa.RecordBatchWriter, pending: list[pa.RecordBatch]) -> None:
    """Write small batches as one, since a table of many chunks is slow to use."""
    if pending:
        writer.write_table(pa.Table.from_batches(pending).combine_chunks())
        pending.clear()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _records(block: Block) -> pa.RecordBatch:
    from molspectra.simulation.vibrations import exact_mass

    molecules = block.molecules
    bits = [element_bits(molecule.numbers.tolist()) for molecule in molecules]
    columns = {
        "identity": block.identities,
        "smiles": [molecule.smiles for molecule in molecules],
        "name": [molecule.name for molecule in molecules],
        "formula": [molecule.formula for molecule in molecules],
        "charge": [molecule.charge for molecule in molecules],
        "mass": [exact_mass(molecule.numbers, molecule.charge) for molecule in molecules],
        "elements_low": [low for low, _ in bits],
        "elements_high": [high for _, high in bits],
        "numbers": [molecule.numbers.astype(np.uint8) for molecule in molecules],
        "positions": [molecule.positions.ravel().astype(np.float32) for molecule in molecules],
    }
    return pa.record_batch(columns, schema=SCHEMA)


def open_segment(folder: Path, rows: int, sizes: Mapping[str, int], vectors: str) -> Segment:
    """Map a segment into memory.

    Args:
        folder: the segment.
        rows: number of its molecules.
        sizes: width of every array by name, see `widths`.
        vectors: type of the embeddings, "float32" or "float16".

    Raises:
        DamagedError: a file is missing, cut short, or of another form.
    """
    path = folder / TABLE
    try:
        memory = pa.memory_map(str(path)).read_buffer()
        table = pa.ipc.open_file(pa.BufferReader(memory)).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, MemoryError, OverflowError) as error:
        raise DamagedError(f"{path}: damaged ({' '.join(str(error).split())[:100]})") from error
    has_gaps = table.schema == SCHEMA and any(
        table[column.name].null_count for column in SCHEMA if not column.nullable
    )
    if table.schema != SCHEMA or len(table) != rows or has_gaps:
        raise DamagedError(f"{path}: damaged (not the {rows} molecules that were written)")
    return Segment(table, {name: _open_array(folder, name, rows, sizes[name], vectors) for name in sizes})


def open_segments(path: Path, manifest: Manifest) -> list[Segment]:
    """Map the segments of an index, see `open_segment`."""
    sizes = widths(manifest.model.width, manifest.model.modalities, manifest.modalities)
    segments = []
    for entry in manifest.segments:
        # an index of before has no vectors of the network, or those of another
        present = {
            name: size
            for name, size in sizes.items()
            if name != network.ARRAY or f"{name}.npy" in entry.files
        }
        segments.append(open_segment(path / entry.name, entry.rows, present, manifest.vectors))
    return segments


def _open_array(folder: Path, name: str, rows: int, width: int, vectors: str) -> npt.NDArray[np.floating]:
    path = folder / f"{name}.npy"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise DamagedError(f"{path}: damaged ({' '.join(str(error).split())[:100]})") from error
    if not isinstance(array, np.ndarray) or array.shape != (rows, width):
        raise DamagedError(f"{path}: damaged (not {rows} rows of {width} numbers)")
    if array.dtype != np.dtype(dtype_of(name, vectors)) or not array.flags.c_contiguous:
        raise DamagedError(f"{path}: damaged (numbers of another type)")
    return array
