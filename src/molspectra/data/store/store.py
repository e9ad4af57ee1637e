"""The dataset store: molecules, spectra and labels in an Arrow file, or in several, read through memory maps.

The map is shared with torch and between processes without a copy; a batch is gathered from it and belongs to
its reader. A file must not be changed in place while it is open: `write_store` never does, it makes a new one
and renames it. A store of several files is a folder with a manifest, see `molspectra.data.store.shards`.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from molspectra.chem.molecule import Molecule
from molspectra.data.batch import Batch
from molspectra.data.coordinates import InternalBatch
from molspectra.data.output import frame_of
from molspectra.data.store.mapped import Location, Ragged, Scalars, runs_of
from molspectra.data.store.schema import Metadata, Quantity
from molspectra.data.store.shards import ShardedFile, StoreFile, naming_store
from molspectra.data.store.writer import Candidate, Row, Written, write_store
from molspectra.errors import (
    DamagedError,
    InputError,
    MismatchError,
    NotFoundError,
    hint,
)
from molspectra.spectra.broadening import broaden
from molspectra.spectra.modality import modality as known_modality
from molspectra.spectra.plausible import LARGEST, check_spectrum, reaches_axis
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Broadening",
    "Candidate",
    "Metadata",
    "Quantity",
    "Row",
    "Store",
    "Written",
    "write_store",
]


@dataclass(frozen=True)
class Broadening:
    """How the lines of one modality become a spectrum.

    Attributes:
        shape: "lorentzian" or "gaussian"; None takes the modality's default.
        fwhm: full width at half maximum in the axis unit, None for the modality's own.
        scale: factor on the positions (a frequency scale factor).
    """

    shape: str | None = None
    fwhm: float | None = None
    scale: float = 1.0


class InternalSource(Protocol):
    """Internal coordinates of the rows of a store; pickled with the store, so it should pickle as a path."""

    def batch(self, rows: Tensor, ptr: Tensor) -> InternalBatch:
        """Return the coordinates of rows [B], for a batch with the atom offsets `ptr` [B + 1]."""


class Store:
    """An open store: n rows, each a structure with its known spectra and labels.

    Opening maps the file and checks every offset in it, so that a damaged file is refused and never read out
    of bounds; `verify` checks the values themselves. The shards of a folder are opened, and refused, when a
    row of theirs is first needed. A pickle holds only the path: each process maps the file itself.

    Attributes:
        path: absolute path of the file or folder.
        metadata: description of the columns.
        hash: SHA-256 of the content, as recorded by its writer.
    """

    def __init__(self, path: Path | str) -> None:
        """Open a store.

        Raises:
            InputError: if the file is missing, damaged, or not a store of a known version.
        """
        self.path = Path(path).absolute()
        with self._naming_file():
            # unlike `Path.is_dir` it is False for a name that is too long, which StoreFile reports
            self._file = ShardedFile(self.path) if os.path.isdir(self.path) else StoreFile(self.path)
        self.metadata = self._file.metadata
        self.hash = self._file.hash
        self._columns = self._file.columns
        self._numbers = self._ragged("numbers")
        self._internal: InternalSource | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._file)

    def __repr__(self) -> str:
        """Return path, number of rows and modalities."""
        spectra = ", ".join(self.metadata.modalities) or "no spectra"
        return f"Store({str(self.path)!r}, {len(self)} rows, {spectra})"

    @overload
    def __getitem__(self, row: int) -> Row: ...
    @overload
    def __getitem__(self, row: slice) -> list[Row]: ...
    def __getitem__(self, row: int | slice) -> Row | list[Row]:
        """Return a row as `row` does, a negative number counting from the end, or the rows of a slice.

        Raises:
            IndexError: if there is no such row.
        """
        if isinstance(row, slice):
            return [self.row(index) for index in range(*row.indices(len(self)))]
        index = operator.index(row)
        return self.row(index + len(self) if -len(self) <= index < 0 else index)

    def __iter__(self) -> Iterator[Row]:
        """Yield all rows, one by one."""
        return map(self.row, range(len(self)))

    def to_pandas(self) -> Any:
        """Return a pandas frame with what there is of every row, without structures and spectra.

        Its columns are `identity`, `name`, `smiles`, `charge`, `atoms` (their number), the properties (NaN
        where a row has none) and, by modality, `has_ir` and so on. `frame.attrs` has the units and levels.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        with self._naming_file():
            texts = {name: self._file.texts(name) for name in ("identity", "name", "smiles")}
        values = {name: self.column(name) for name in self.metadata.properties}
        present = {f"has_{name}": self.has(name) for name in self.metadata.modalities}
        charges = np.asarray(self._scalars("charge").take(self._all_rows()))
        table = pa.table({**texts, "charge": charges, "atoms": self.atom_counts, **values, **present})
        frame = frame_of(table)
        quantities = self.metadata.properties.items()
        frame.attrs["units"] = {name: quantity.unit for name, quantity in quantities}
        frame.attrs["levels"] = {name: quantity.level for name, quantity in quantities}
        return frame

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as the path and the hash, never the data."""
        return _reopened, (str(self.path), self.hash, self._internal)

    def with_internal_source(self, internal: InternalSource) -> Store:
        """Return this store opened again, with internal coordinates in its batches."""
        other = Store(self.path)
        other._internal = internal
        return other

    @property
    def identities(self) -> list[str]:
        """Split key of every row, read anew at each call (about a second for 3.4 million rows)."""
        with self._naming_file():
            return [text or "" for text in self._file.texts("identity")]

    @property
    def smiles(self) -> list[str | None]:
        """SMILES of every row, None where it has none; read anew at each call."""
        with self._naming_file():
            return self._file.texts("smiles")

    @property
    def geometry_ids(self) -> npt.NDArray[np.int64]:
        """`Molecule.geometry_id` of every row's stored structure, [n]."""
        return np.asarray(self._scalars("geometry_id").take(self._all_rows()))

    @property
    def atom_counts(self) -> npt.NDArray[np.int64]:
        """Number of atoms of every row, [n]."""
        return np.asarray(self._file.all_counts(self._numbers))

    def has(self, name: str) -> npt.NDArray[np.bool_]:
        """Return which rows have a spectrum of that modality, a value of that property, or forces, [n] bool.

        Raises:
            InputError: if the store has no such column.
        """
        spectrum = name in self.metadata.modalities
        column = self._spectrum_column(name) if spectrum else self._target_column(name)
        return np.asarray(column.valid.take(self._all_rows()))

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """Return a scalar property of all rows, [n] float64 in the metadata's unit, NaN where a row has none.

        Raises:
            InputError: if the store has no such property.
        """
        column = self._target_column(name)
        if not isinstance(column, Scalars):
            raise NotFoundError(f"{self.path}: {name!r} is not a scalar property")
        return np.asarray(_values_or_nan(column, self._all_rows()))

    def molecule(self, row: int) -> Molecule:
        """Return one structure.

        Raises:
            IndexError: if there is no such row.
            InputError: if the file is damaged there.
        """
        location = self._file.locate(self._checked_rows([row]))
        runs = runs_of(self._numbers.counts(location))
        with self._naming_file(f", row {row}"):
            return Molecule(
                self._numbers.take(location, runs).numpy(),
                self._ragged("positions").take(location, runs).double().numpy(),
                smiles=self._file.text("smiles", row),
                charge=int(self._scalars("charge").take(location)),
                name=self._file.text("name", row),
            )

    def spectrum(self, row: int, modality: str) -> LineSpectrum | SampledSpectrum | None:
        """Return one stored spectrum, neither broadened nor resampled; None where the row has none.

        Raises:
            IndexError: if there is no such row.
            InputError: if the store has no such modality, or the file is damaged there.
        """
        column = self._spectrum_column(modality)
        location = self._file.locate(self._checked_rows([row]))
        if not bool(column.valid.take(location)):
            return None
        runs = runs_of(column.counts(location))
        values = column.take(location, runs).double().numpy()
        with self._naming_file(f", row {row}"):
            if modality in self.metadata.samples:
                return SampledSpectrum(modality, values, self.metadata.samples[modality])
            intensity = self._ragged(f"{modality}_intensity").take(location, runs).double().numpy()
            return LineSpectrum(modality, values, intensity, self.metadata.lines[modality])

    def unusable_spectra(self, rows: npt.NDArray[np.int64], modality: str) -> dict[int, str]:
        """Return why spectra cannot be right, by the index in `rows` [B]; rows without one are left out.

        Stores are written without such spectra; one that was made otherwise may have them.

        Raises:
            InputError: if the store has no such modality, or the file is damaged in these rows.
        """
        column = self._spectrum_column(modality)
        location = self._file.locate(self._checked_rows(rows))
        counts = runs_of(column.counts(location))
        values = column.take(location, counts)
        if modality in self.metadata.lines:
            on_axis = torch.from_numpy(reaches_axis(values.numpy(), known_modality(modality)))
            values = self._ragged(f"{modality}_intensity").take(location, counts) * on_axis
        values = values.float()
        # totals of each row; what they do not clear is looked at again by its own rules
        highest = torch.zeros(len(rows)).scatter_reduce(0, counts.owner, values, "amax")
        lowest = torch.zeros(len(rows)).scatter_reduce(0, counts.owner, values, "amin")
        usable = (highest > 0) & (highest <= LARGEST) & (lowest >= 0)
        found: dict[int, str] = {}
        for index in torch.nonzero(column.valid.take(location) & ~usable).flatten().tolist():
            try:
                spectrum = self.spectrum(int(rows[index]), modality)
                assert spectrum is not None
                check_spectrum(spectrum)
            except InputError as error:
                found[index] = str(error)
        return found

    def row(self, row: int) -> Row:
        """Return one structure with its spectra and labels, as `write_store` accepts it.

        Raises:
            IndexError: if there is no such row.
            InputError: if the file is damaged there.
        """
        spectra = {name: self.spectrum(row, name) for name in self.metadata.modalities}
        with self._naming_file(f", row {row}"):
            identity = self._file.text("identity", row)
        batch = self.batch([row], targets=self.metadata.targets)
        forces = batch.targets.pop("forces").numpy() if self.metadata.forces else None
        values = {name: float(value) for name, value in batch.targets.items()}
        return Row(
            self.molecule(row),
            {name: spectrum for name, spectrum in spectra.items() if spectrum is not None},
            {name: value for name, value in values.items() if not np.isnan(value)},
            None if forces is None or np.isnan(forces).any() else forces,
            identity,
        )

    def batch(
        self,
        rows: Sequence[int] | npt.NDArray[np.int64] | Tensor,
        *,
        modalities: Sequence[str] = (),
        targets: Sequence[str] = (),
        dtype: torch.dtype = torch.float32,
        broadening: Mapping[str, Broadening] | None = None,
    ) -> Batch:
        """Return the batch of the given rows, in their order; a row may occur more than once.

        Args:
            rows: B row numbers.
            modalities: spectra to include; lines are broadened here. A row without one has zeros and
                `Batch.present` False.
            targets: properties, and "forces". A row without one has NaN.
            dtype: of the positions.
            broadening: by modality, for those stored as lines; the default is a Lorentzian of the modality's
                own width.

        Raises:
            IndexError: if a row does not exist.
            InputError: if the store has no such modality or target, or the file is damaged in these rows.
        """
        index = self._checked_rows(rows)
        location = self._file.locate(index)
        runs = runs_of(self._numbers.counts(location))
        numbers = self._numbers.take(location, runs)
        positions = self._ragged("positions").take(location, runs)
        self._check_atoms(index, runs.owner, numbers, positions)
        spectra, present = {}, {}
        for name in modalities:
            chosen = (broadening or {}).get(name, Broadening())
            spectra[name], present[name] = self._spectra(name, location, chosen)
        labels = {}
        for name in targets:
            column = self._target_column(name)
            if isinstance(column, Scalars):
                labels[name] = _values_or_nan(column, location)
            else:
                forces = torch.full_like(positions, torch.nan, dtype=torch.float32)
                has_forces = column.valid.take(location)[runs.owner]
                forces[has_forces] = column.take(location, runs_of(column.counts(location)))
                labels[name] = forces
        return Batch(
            numbers=numbers.long(),
            positions=positions.to(dtype),
            ptr=runs.ptr,
            molecule=runs.owner,
            row=index,
            geometry_id=self._scalars("geometry_id").take(location),
            spectra=spectra,
            present=present,
            targets=labels,
            internal=None if self._internal is None else self._internal.batch(index, runs.ptr),
        )

    def verify(self) -> None:
        """Read everything and compare it with the hash that its writer recorded.

        Raises:
            DamagedError: if any value has changed; the message names the file and the rows.
        """
        with self._naming_file():
            self._file.verify()

    def record_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows as Arrow record batches, one after the other, as they lie in the file or files.

        Raises:
            InputError: if a file is missing or damaged.
        """
        for index, start in enumerate(self._file.starts[:-1]):
            self._file.locate(start[None])
            yield self._file.chunks[index]

    def _spectra(self, name: str, location: Location, broadening: Broadening) -> tuple[Tensor, Tensor]:
        """Return the spectra [B, points] of one modality, and whether each row has one, [B] bool."""
        column, kind = self._spectrum_column(name), known_modality(name)
        present = column.valid.take(location)
        if name in self.metadata.samples:
            if bool(present.all()):
                return column.take_equal(location, kind.points).float(), present
            spectra = torch.zeros(len(present), kind.points)
            measured = Location(location.chunk[present], location.local[present])
            spectra[present] = column.take_equal(measured, kind.points).float()
            return spectra, present
        runs = runs_of(column.counts(location))
        position = column.take(location, runs)
        intensity = self._ragged(f"{name}_intensity").take(location, runs)
        spectra = broaden(
            position,
            intensity,
            runs.ptr,
            kind,
            shape=broadening.shape,
            fwhm=broadening.fwhm,
            scale=broadening.scale,
        )
        return spectra, present

    def _check_atoms(self, rows: Tensor, owner: Tensor, numbers: Tensor, positions: Tensor) -> None:
        """Raise for an unknown element or a position that is not finite, before it reaches a model.

        Args:
            rows: [B] row numbers.
            owner: [N] index 0..B-1 of each atom's row.
            numbers: [N] atomic numbers.
            positions: [N, 3].
        """
        valid = (numbers >= 1) & (numbers <= 118) & positions.isfinite().all(1)
        if not bool(valid.all()):
            row = int(rows[owner[~valid][0]])
            with self._naming_file(f", row {row}"):
                raise DamagedError("an atom is damaged")

    def _checked_rows(self, rows: Sequence[int] | npt.NDArray[np.int64] | Tensor) -> Tensor:
        """Return row numbers as int64 [B]; IndexError if there are none or one does not exist."""
        index = torch.as_tensor(rows)
        if index.ndim != 1 or not len(index) or index.dtype not in (torch.int64, torch.int32):
            raise IndexError("rows must be a list of at least one row number")
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= len(self):
            raise IndexError(f"rows {low} to {high} of a store with {len(self)} rows")
        return index.long()

    def _all_rows(self) -> Location:
        return self._file.locate(torch.arange(len(self)))

    def _ragged(self, name: str) -> Ragged:
        column = self._columns[name]
        assert isinstance(column, Ragged)
        return column

    def _scalars(self, name: str) -> Scalars:
        column = self._columns[name]
        assert isinstance(column, Scalars)
        return column

    def _spectrum_column(self, name: str) -> Ragged:
        if name not in self.metadata.modalities:
            known_modality(name)
            available = ", ".join(self.metadata.modalities) or "none"
            raise NotFoundError(f"{self.path} has no {name} spectra; it has: {available}")
        return self._ragged(name if name in self.metadata.samples else f"{name}_position")

    def _target_column(self, name: str) -> Scalars | Ragged:
        if name not in self.metadata.targets:
            near = hint(name, self.metadata.targets, label="it has")
            raise NotFoundError(f"{self.path} has no property {name!r}; {near}")
        return self._columns[name]

    @contextmanager
    def _naming_file(self, row: str = "") -> Iterator[None]:
        """Put the file, the row and advice into the message of an error about the content."""
        with naming_store(self.path, row):
            yield


def _values_or_nan(column: Scalars, location: Location) -> Tensor:
    """Return the numbers [B] of a property column, NaN where a row has none."""
    return torch.where(column.valid.take(location), column.take(location), torch.nan)


def _reopened(path: str, expected_hash: str, internal: InternalSource | None) -> Store:
    """Open a pickled store."""
    store = Store(path)
    if store.hash != expected_hash:
        raise MismatchError(f"{path} has changed since it was first opened; start the run again")
    store._internal = internal
    return store
