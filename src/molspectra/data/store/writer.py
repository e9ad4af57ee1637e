"""Writing of stores, row by row in constant memory; the file is complete or absent, never partial."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from molspectra.chem.identity import GEOMETRY_PATTERN
from molspectra.chem.molecule import Molecule, geometry_id_of
from molspectra.chem.readers import Rejection, check_on_error
from molspectra.chem.sanity import check_angstrom
from molspectra.data.atomic import atomic_file, naming
from molspectra.data.store.schema import HASH_KEY, Metadata, schema_of
from molspectra.errors import (
    ExistsError,
    FormatError,
    InputError,
    MismatchError,
    MolspectraError,
    ValueRangeError,
)
from molspectra.spectra.plausible import check_spectrum
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

CHUNK_ROWS = 65_536
CHUNK_BYTES = 32 << 20
"""A record batch ends at this many rows or bytes, whichever comes first, which bounds the writer's memory."""

Record = dict[str, object]
"""A row's value for each column; None or absent where it has none."""


@dataclass(frozen=True, eq=False, repr=False)
class Row:
    """One structure of a store with its spectra and labels.

    Attributes:
        molecule: the structure.
        spectra: by modality, in the form (lines or samples) that the store's metadata names.
        properties: by name, in the metadata's units; unknown values are absent.
        forces: [N, 3] in the metadata's unit, or None.
        identity: split key; None takes the molecule's own.
        left_out: reason, by modality, why a spectrum of the source cannot be used; the row is written without
            it.
        changes: descriptions of what was altered from the source, in the same words for all such rows.
    """

    molecule: Molecule
    spectra: Mapping[str, LineSpectrum | SampledSpectrum] = field(default_factory=dict)
    properties: Mapping[str, float] = field(default_factory=dict)
    forces: npt.NDArray[np.floating] | None = None
    identity: str | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    changes: Collection[str] = ()

    def __repr__(self) -> str:
        """Return a short description for people."""
        values = [f"{name} {value:.6g}" for name, value in self.properties.items()]
        forces = [] if self.forces is None else ["forces"]
        return f"Row({', '.join([repr(self.molecule), *self.spectra, *values, *forces])})"

    def with_usable_spectra(self) -> Row:
        """Return the row without the spectra that cannot be right, their reasons in `left_out`."""
        reasons: dict[str, str] = {}
        for name, spectrum in self.spectra.items():
            try:
                check_spectrum(spectrum)
            except InputError as error:
                reasons[name] = str(error)
        if not reasons:
            return self
        usable = {name: spectrum for name, spectrum in self.spectra.items() if name not in reasons}
        return replace(self, spectra=usable, left_out={**self.left_out, **reasons})


@dataclass(frozen=True)
class Candidate:
    """A row still to be built, so that a failure to build it falls under the same `on_error` policy.

    Attributes:
        name: of the row in messages.
        make: builds the row; a MolspectraError that it raises is the reason for the rejection.
    """

    name: str
    make: Callable[[], Row]

    def row_in_angstrom(self) -> Row:
        """Build the row, and refuse a structure that seems to be in bohr."""
        row = self.make()
        check_angstrom(row.molecule.numbers, row.molecule.positions)
        return row


@dataclass(frozen=True)
class Written:
    """Result of `write_store`.

    Attributes:
        rows: number of rows in the file.
        hash: SHA-256 of their content, equal to `Store.hash`.
        rejected: the rejected rows, each with its reason.
        by_geometry: rows whose identity is a hash of their geometry, because no bonds could be perceived.
    """

    rows: int
    hash: str
    rejected: tuple[Rejection, ...]
    by_geometry: int


def write_store(
    path: Path | str,
    rows: Iterable[Row | Candidate],
    metadata: Metadata,
    *,
    on_error: str = "raise",
    overwrite: bool = False,
    chunk_rows: int = CHUNK_ROWS,
) -> Written:
    """Write rows into a new store, in constant memory.

    The file is written under a temporary name, flushed to the disk and renamed, so that `path` is always
    either as before or the complete new store. The same rows and metadata give the same bytes.

    Args:
        path: of the store, by custom with the suffix ".arrow".
        rows: any iterable of rows or candidates; it is read once.
        metadata: description of the columns.
        on_error: "raise" stops at the first row that does not fit; "skip" rejects it and lists it in the
            result.
        overwrite: replace an existing file.
        chunk_rows: rows per record batch.

    Raises:
        InputError: if the file exists or cannot be written, a row does not fit and `on_error` is "raise",
            or no row is left.
    """
    path = Path(path)
    check_on_error(on_error)
    if path.exists() and not overwrite:
        raise ExistsError(f"{path} exists already; choose another name or remove it")
    rejected: list[Rejection] = []
    written = write_records(path, accepted(path, rows, metadata, on_error, rejected), metadata, chunk_rows)
    return replace(written, rejected=tuple(rejected))


def write_records(
    path: Path, records: Iterable[Record], metadata: Metadata, chunk_rows: int = CHUNK_ROWS
) -> Written:
    """Write records into a new store; an existing file is replaced.

    Raises:
        InputError: if the file cannot be written, or there are no records.
    """
    schema = schema_of(metadata)
    batches = (record_batch(chunk, schema) for chunk in chunked(records, chunk_rows))
    return write_batches(path, batches, schema)


def write_batches(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Written:
    """Write record batches of a store's schema into a new store; an existing file is replaced.

    Raises:
        InputError: if the file cannot be written, or there are no rows.
    """
    content, rows, by_geometry, digest = ContentHash(schema), 0, 0, ""
    with atomic_file(path) as file:
        writer = pa.ipc.new_file(file, schema)
        for batch in batches:
            digest = content.update(batch)
            with naming(path):
                writer.write_batch(batch, custom_metadata={HASH_KEY: digest})
            rows += batch.num_rows
            by_geometry += identified_by_geometry(batch)
        with naming(path):
            writer.close()
        if not rows:
            raise FormatError(f"{path}: no rows to write")
    return Written(rows, digest, (), by_geometry)


def identified_by_geometry(batch: pa.RecordBatch) -> int:
    """Return the number of rows whose identity is a hash of their geometry."""
    hashed = pc.match_substring_regex(batch.column("identity"), f"^{GEOMETRY_PATTERN.pattern}$")
    return int(pc.sum(hashed).as_py())


def accepted(
    path: Path, rows: Iterable[Row | Candidate], metadata: Metadata, on_error: str, rejected: list[Rejection]
) -> Iterator[Record]:
    """Yield the record of each row that fits; append the others to `rejected`."""
    accepted = 0
    for number, row in enumerate(rows):
        try:
            record = record_of(row if isinstance(row, Row) else row.make(), metadata)
        except MolspectraError as error:
            if isinstance(row, Candidate):
                name = row.name
            else:
                name = row.molecule.name or row.identity or row.molecule.identity
            if on_error == "raise":
                kind = type(error) if isinstance(error, InputError) else InputError
                raise kind(f"{path}, row {number} ({name}): {error}") from error
            rejected.append(Rejection(str(path), f"row {number} ({name})", str(error)))
        else:
            accepted += 1
            yield record
    if not accepted:
        raise FormatError(f"{path}: no rows to write, {len(rejected)} rejected")


def record_of(row: Row, metadata: Metadata) -> Record:
    """Return the row's value for each column of the schema, None where it has none.

    Raises:
        InputError: if the row does not fit the metadata or a number does not fit its column.
    """
    molecule = row.molecule
    dtype = np.dtype(metadata.position_dtype)
    positions = _cast(molecule.positions, dtype, "a coordinate")
    record: Record = {
        "identity": _encoded(row.identity or molecule.identity),
        "smiles": _encoded(molecule.smiles),
        "name": _encoded(molecule.name),
        "charge": molecule.charge,
        # of the stored coordinates, so that it can be computed again from the file
        "geometry_id": geometry_id_of(molecule.numbers, positions),
        "numbers": molecule.numbers.astype(np.uint8),
        "positions": positions,
    }
    for name, value in row.properties.items():
        if name not in metadata.properties:
            raise MismatchError(f"the store's metadata names no property {name!r}")
        if not np.isfinite(value):
            raise ValueRangeError(f"property {name!r} is {value}; leave it out if it is not known")
        record[name] = float(value)
    if row.forces is not None:
        if metadata.forces is None or np.shape(row.forces) != (len(molecule), 3):
            shape = np.shape(row.forces)
            raise MismatchError(f"forces {shape} do not fit {len(molecule)} atoms or the store's metadata")
        record["forces"] = _cast(row.forces, np.dtype(np.float32), "a force")
    for name, spectrum in row.spectra.items():
        record |= _spectrum_columns(name, spectrum, metadata)
    return record


def _spectrum_columns(
    name: str, spectrum: LineSpectrum | SampledSpectrum, metadata: Metadata
) -> dict[str, npt.NDArray[np.floating]]:
    """Return the columns of one spectrum after checking its form and level against the metadata."""
    lines = isinstance(spectrum, LineSpectrum)
    declared = metadata.lines if lines else metadata.samples
    if name != spectrum.modality or name not in declared:
        form = "lines" if lines else "samples"
        raise MismatchError(f"the store's metadata names no {spectrum.modality} spectra as {form}")
    level = spectrum.level if isinstance(spectrum, LineSpectrum) else spectrum.source
    if level and declared[name] and level != declared[name]:
        raise MismatchError(f"{name} spectrum of level {level!r} in a store of level {declared[name]!r}")
    if isinstance(spectrum, SampledSpectrum):
        samples = _cast(spectrum.values, np.dtype(metadata.sample_dtype), f"a {name} sample")
        if spectrum.values.any() and not samples.any():
            raise ValueRangeError(f"the {name} samples are too small for {samples.dtype}; scale them")
        return {name: samples}
    single = np.dtype(np.float32)
    return {
        f"{name}_position": _cast(spectrum.position, single, f"a {name} line position"),
        f"{name}_intensity": _cast(spectrum.intensity, single, f"a {name} line intensity"),
    }


def _encoded(text: str | None) -> bytes | None:
    """Return a text as UTF-8; raise for lone surrogates, which stem from a file read in a wrong encoding."""
    try:
        return None if text is None else text.encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"{text!r} is not a text that can be stored") from error


def _cast(values: npt.ArrayLike, dtype: np.dtype[np.floating], label: str) -> npt.NDArray[np.floating]:
    """Return values in a narrower dtype; raise if one is not finite or overflows."""
    with np.errstate(over="ignore"):
        result = np.asarray(values).astype(dtype)
    if not np.isfinite(result).all():
        raise ValueRangeError(f"{label} is not a finite {dtype.name} number")
    return result


def chunked(records: Iterable[Record], chunk_rows: int) -> Iterator[list[Record]]:
    """Group records into record batches of bounded length and size."""
    chunk: list[Record] = []
    size = 0
    for record in records:
        chunk.append(record)
        size += sum(value.nbytes for value in record.values() if isinstance(value, np.ndarray))
        if len(chunk) >= chunk_rows or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def record_batch(records: list[Record], schema: pa.Schema) -> pa.RecordBatch:
    """Return one record batch of a schema; a column absent from a record is null in its row."""
    columns = []
    for column in schema:
        values = [record.get(column.name) for record in records]
        convert = _lists if pa.types.is_large_list(column.type) else pa.array
        columns.append(convert(values, column.type))
    return pa.record_batch(columns, schema=schema)


def _lists(values: list[object], dtype: pa.DataType) -> pa.Array:
    """Return a list column from one array per row; None gives a null row without values."""
    arrays = [value for value in values if isinstance(value, np.ndarray)]
    missing = np.array([value is None for value in values])
    lengths = np.zeros(len(values) + 1, np.int64)
    lengths[1:][~missing] = [len(array) for array in arrays]
    child = dtype.value_type
    vectors = pa.types.is_fixed_size_list(child)
    number = child.value_type if vectors else child
    joined = np.concatenate(arrays).reshape(-1) if arrays else np.empty(0, number.to_pandas_dtype())
    flat = pa.array(joined, number)
    inner = pa.FixedSizeListArray.from_arrays(flat, type=child) if vectors else flat
    mask = pa.array(missing) if missing.any() else None
    return pa.LargeListArray.from_arrays(pa.array(np.cumsum(lengths)), inner, type=dtype, mask=mask)


class ContentHash:
    """A running SHA-256 over the schema and, column by column, the nulls, lengths and values of all rows.

    It does not depend on the size of the record batches or the version of the Arrow library. `digest` is that
    of the rows so far.
    """

    def __init__(self, schema: pa.Schema) -> None:
        """Begin with no rows."""
        columns = [f"{field.name}:{field.type}:{sorted((field.metadata or {}).items())}" for field in schema]
        self._schema = repr((columns, sorted((schema.metadata or {}).items()))).encode()
        self._parts: list[hashlib._Hash] = []
        self.digest = ""

    def update(self, batch: pa.RecordBatch) -> str:
        """Add the next rows and return the hash of all rows so far, as 64 hexadecimal digits."""
        leaves = [leaf for column in batch.columns for leaf in _leaves(column)]
        if not self._parts:
            self._parts = [hashlib.sha256() for _ in leaves]
        for part, leaf in zip(self._parts, leaves, strict=True):
            part.update(leaf.tobytes())
        self.digest = hashlib.sha256(
            self._schema + b"".join(part.digest() for part in self._parts)
        ).hexdigest()
        return self.digest


def _leaves(array: pa.Array) -> Iterator[npt.NDArray[np.generic]]:
    """Yield the plain arrays of a column without nested nulls: validity, lengths, values."""
    yield array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_large_string(array.type):
        offsets = _offsets(array)
        yield np.diff(offsets)
        data = array.buffers()[2]
        characters = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        yield characters[offsets[0] : offsets[-1]]
    elif pa.types.is_large_list(array.type):
        offsets = _offsets(array)
        yield np.diff(offsets)
        values = array.values.slice(offsets[0], offsets[-1] - offsets[0])
        yield (values.flatten() if pa.types.is_fixed_size_list(values.type) else values).to_numpy()
    else:
        yield array.fill_null(0).to_numpy()


def _offsets(array: pa.Array) -> npt.NDArray[np.int64]:
    """Return the row offsets [n + 1] of a column that is not a slice of another."""
    return np.frombuffer(array.buffers()[1], np.int64, len(array) + 1)
