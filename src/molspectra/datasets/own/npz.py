"""Users' own molecules from an `.npz` file of concatenated arrays, read row by row."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.chem.sanity import MAX_ATOMS, check_size
from molspectra.data.store.schema import Metadata
from molspectra.data.store.writer import Candidate, Row
from molspectra.datasets.formats.npy_stream import Column, chunks, names, opened
from molspectra.datasets.importer import Importer, Opened
from molspectra.datasets.own import shared
from molspectra.errors import FormatError, MismatchError, NotFoundError, UnitError, ValueRangeError
from molspectra.spectra.modality import MODALITIES, modality
from molspectra.spectra.spectrum import SampledSpectrum

LINES = {
    "n_modes": ("wavenumber", {"ir": "ir", "raman": "raman"}),
    "n_states": ("excitation", {"uv_vis": "oscillator_strength"}),
}
"""Key of the counts -> key of the positions (cm⁻¹, eV), and by modality the key of the intensities."""

_ALIASES = {"numbers": "z", "positions": "pos"}
_TEXTS = ("name", "identity", "smiles")
_SCALARS = ("n_atoms", "z", "charge", "gdb_idx")
_INTEGERS = ("n_atoms", "z", "charge", *LINES)
_MAX_LINES = 1000 * MAX_ATOMS
_MAX_WORDS = 1 << 24  # bytes of names or units
_FIXED = (*_SCALARS, "pos", *_TEXTS, "props", "prop_names", "prop_units")


@dataclass(frozen=True)
class Layout:
    """Roles of the arrays of an archive.

    Attributes:
        path: of the archive.
        keys: name in the documented layout -> name in the archive.
        rows: number of molecules.
        lines: keys of `LINES` that the archive has.
        samples: modalities with an array `NAME_samples`.
        columns: one-dimensional numeric arrays with one value per molecule.
        forces: key of the forces, None without.
        others: arrays that have no role.
        table: names of the columns of `props`.
    """

    path: Path
    keys: Mapping[str, str]
    rows: int
    lines: tuple[str, ...]
    samples: tuple[str, ...]
    columns: tuple[str, ...]
    forces: str | None
    others: tuple[str, ...] = ()
    table: tuple[str, ...] = ()

    def intensities(self, counts: str) -> dict[str, str]:
        """Return the intensity arrays that a key of `LINES` divides, by modality."""
        return {modality: key for modality, key in LINES[counts][1].items() if key in self.keys}

    def divided(self) -> dict[str, list[str]]:
        """Return the concatenated arrays by the key of the counts that divide them into molecules."""
        parts = {"n_atoms": ["z", "pos", *([self.forces] if self.forces else [])]}
        return parts | {key: [LINES[key][0], *self.intensities(key).values()] for key in self.lines}


def _open(raw: Path, options: Mapping[str, str]) -> Opened:
    """Check the layout of the archive and choose the properties."""
    own = shared.own_options(options, raw.name)
    level = options.get("spectra_level", "")
    with opened(raw) as archive:
        layout = _layout(archive, raw, own)
        _check_counts(archive, layout)
        table = _table(archive, layout)
    layout = replace(layout, table=tuple(table))
    selected = shared.select_properties(dict.fromkeys(layout.columns) | table, own, str(raw))
    notes = selected.notes(layout.others)
    metadata = Metadata(
        source=own.source,
        licence=own.licence,
        level=own.level,
        lines={modality: level for counts in layout.lines for modality in layout.intensities(counts)},
        samples=dict.fromkeys(layout.samples, level),
        properties=selected.quantities,
        forces=shared.force_quantity(own, str(raw)),
        notes=notes,
    )
    candidates = partial(_candidates, layout, selected, own, level)
    return Opened(metadata, candidates, total=layout.rows, notes=shared.as_remarks(notes))


NPZ = Importer(
    "npz",
    "own data: an .npz file",
    "one .npz file with the arrays n_atoms, z, pos and whatever else is known (docs: Your own data)",
    shared.ARRAYS,
    _open,
)
"""Importer `npz`."""


def _layout(archive: zipfile.ZipFile, path: Path, own: shared.OwnOptions) -> Layout:
    """Recognise the arrays by their names, and check their types and shapes."""
    in_archive = names(archive, path)
    listing = ", ".join(in_archive[:20]) or "nothing"
    keys = {_ALIASES.get(name, name): name for name in in_archive if _ALIASES.get(name) not in in_archive}
    missing = [name for name in ("n_atoms", "z", "pos") if name not in keys]
    if missing:
        hint = "; this looks like a trajectory, see the dataset md17" if {"R", "E"} <= set(in_archive) else ""
        raise NotFoundError(f"{path} has no array {', '.join(missing)}; it has: {listing}{hint}")
    shared.check_charge_name(keys, str(path))
    headers = {key: Column(archive, path, name) for key, name in keys.items()}
    rows = headers["n_atoms"].rows
    samples = tuple(name for name in MODALITIES if f"{name}_samples" in keys)
    lines = tuple(key for key in LINES if key in keys)
    forces = own.forces
    if forces is not None and forces not in keys:
        raise NotFoundError(f"{path} has no array {forces!r} (option forces); it has: {listing}")

    # the arrays of the documented layout
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys((*_SCALARS, *_TEXTS, *lines), ())
    shapes |= {"pos": (3,)} | ({forces: (3,)} if forces else {})
    shapes |= {f"{name}_samples": (modality(name).points,) for name in samples}
    for key, shape in shapes.items():
        if key not in headers:
            continue
        header = headers[key]
        if header.shape != shape:
            raise FormatError(f"{path}: array {keys[key]!r} has rows of shape {header.shape}, not {shape}")
        if key not in ("z", "pos", forces) and header.rows != rows:
            raise FormatError(f"{path}: array {keys[key]!r} has {header.rows} rows for {rows} molecules")
        kinds = "US" if key in _TEXTS else "iu" if key in _INTEGERS else "fiu"
        if key != "gdb_idx" and header.dtype.kind not in kinds:
            raise FormatError(f"{path}: array {keys[key]!r} must not be of type {header.dtype}")

    # all other arrays are properties or have no role
    used = {*_FIXED, *lines, forces}
    used |= {f"{name}_{part}" for name in samples for part in ("samples", "axis")}
    used |= {key for counts in lines for key in (LINES[counts][0], *LINES[counts][1].values())}
    columns = tuple(
        key
        for key, header in headers.items()
        if key not in used and header.rows == rows and header.shape == () and header.dtype.kind in "fiu"
    )
    others = tuple(keys[key] for key in keys if key not in used and key not in columns)
    return Layout(path, keys, rows, lines, samples, columns, forces, others)


def _check_counts(archive: zipfile.ZipFile, layout: Layout) -> None:
    """Refuse counts that do not add up to the lengths of the arrays that they divide."""
    for key in layout.lines:
        position, intensities = LINES[key]
        if position not in layout.keys or not layout.intensities(key):
            raise NotFoundError(
                f"{layout.path}: {key!r} needs {position!r} and one of {', '.join(intensities.values())}"
            )
    for key, parts in layout.divided().items():
        total = 0
        for counts in chunks(_column(archive, layout, key)):
            if counts.size and int(counts.min()) < 0:
                raise ValueRangeError(f"{layout.path}: {key!r} has a negative count")
            total += int(counts.astype(np.float64).sum())  # exact below 2^53, and no larger file exists
        for part in parts:
            rows = _column(archive, layout, part).rows
            if rows != total:
                raise MismatchError(
                    f"{layout.path}: {key!r} adds up to {total}, but {layout.keys[part]!r} has {rows} rows"
                )
    for name in layout.samples:
        _check_axis(archive, layout, name)


def _check_axis(archive: zipfile.ZipFile, layout: Layout, name: str) -> None:
    """Check that samples are on the axis of their modality."""
    kind = modality(name)
    if f"{name}_axis" not in layout.keys:
        raise UnitError(f"{layout.path}: {name}_samples needs {name}_axis [{kind.points}] in {kind.unit}")
    column = _column(archive, layout, f"{name}_axis")
    same = column.rows == kind.points and column.shape == () and column.dtype.kind in "fiu"
    if not same or not np.allclose(column.take(column.rows), kind.axis(), rtol=0, atol=1e-3 * kind.step):
        axis = f"{kind.start:g} to {kind.stop:g} {kind.unit} in steps of {kind.step:g}"
        raise UnitError(f"{layout.path}: {name}_axis is not {axis}; resample the spectra first")


def _table(archive: zipfile.ZipFile, layout: Layout) -> dict[str, str | None]:
    """Return units, or None, by the names of the columns of `props`."""
    if "props" not in layout.keys:
        return {}
    props = _column(archive, layout, "props")
    if "prop_names" not in layout.keys:
        raise NotFoundError(f"{layout.path}: 'props' needs 'prop_names', one per column")
    words = _words(archive, layout, "prop_names")
    if props.shape != (len(words),) or props.rows != layout.rows or props.dtype.kind not in "fiu":
        raise FormatError(
            f"{layout.path}: 'props' must be numbers of shape ({layout.rows}, {len(words)}) by 'prop_names'"
        )
    if len(set(words) | set(layout.columns)) < len(words) + len(layout.columns):
        raise FormatError(f"{layout.path}: a property is named twice in 'prop_names' and the other arrays")
    if "prop_units" not in layout.keys:
        return dict.fromkeys(words)
    units = _words(archive, layout, "prop_units")
    if len(units) != len(words):
        raise FormatError(f"{layout.path}: {len(words)} 'prop_names' but {len(units)} 'prop_units'")
    return dict(zip(words, (unit or None for unit in units), strict=True))


def _words(archive: zipfile.ZipFile, layout: Layout, key: str) -> list[str]:
    column = _column(archive, layout, key)
    if column.dtype.kind not in "US" or column.shape or column.rows * column.dtype.itemsize > _MAX_WORDS:
        raise FormatError(f"{layout.path}: {key!r} must be a list of texts")
    return [_text(word) for word in column.take(column.rows)]


def _text(value: Any) -> str:
    """Return a text of an array, which holds characters or bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _column(archive: zipfile.ZipFile, layout: Layout, key: str) -> Column:
    if key not in layout.keys:
        raise NotFoundError(f"{layout.path} has no array {key!r}")
    return Column(archive, layout.path, layout.keys[key])


def _candidates(
    layout: Layout, selected: shared.Selection, own: shared.OwnOptions, level: str, start: int
) -> Iterator[Candidate]:
    """Yield the molecules from number `start` on."""
    with opened(layout.path) as archive:
        reader = _Reader(archive, layout)
        for number in range(layout.rows):
            if number < start:
                reader.skip()
                continue
            arrays = reader.take()
            name = reader.name(arrays, number)
            build = partial(_row, arrays, name, layout, selected, own, level)
            yield Candidate(f"record {number} ({name})", build)


Arrays = dict[str, npt.NDArray[Any]]


class _Reader:
    """Reads all arrays in step, molecule by molecule."""

    def __init__(self, archive: zipfile.ZipFile, layout: Layout) -> None:
        singles = ["props", "charge", "gdb_idx", *_TEXTS, *layout.columns]
        singles += [f"{name}_samples" for name in layout.samples]
        self._singles = {key: _column(archive, layout, key) for key in singles if key in layout.keys}
        self._counts = {key: _column(archive, layout, key) for key in layout.divided()}
        self._ragged = {
            key: {part: _column(archive, layout, part) for part in parts}
            for key, parts in layout.divided().items()
        }

    def take(self) -> Arrays:
        """Return the arrays of the next molecule without those that are too long, which are skipped."""
        arrays = {key: column.take(1)[0] for key, column in self._singles.items()}
        for key, column in self._counts.items():
            arrays[key] = column.take(1)[0]
            count = int(arrays[key])
            for part, values in self._ragged[key].items():
                if count > (MAX_ATOMS if key == "n_atoms" else _MAX_LINES):
                    values.skip(count)
                else:
                    arrays[part] = values.take(count)
        return arrays

    def skip(self) -> None:
        """Skip the next molecule."""
        for column in self._singles.values():
            column.skip(1)
        for key, column in self._counts.items():
            count = int(column.take(1)[0])
            for values in self._ragged[key].values():
                values.skip(count)

    @staticmethod
    def name(arrays: Arrays, number: int) -> str:
        """Return `name`, else gdb_ and `gdb_idx`, else the number of the molecule in the file."""
        if "name" in arrays:
            return _text(arrays["name"])
        return f"gdb_{arrays['gdb_idx']}" if "gdb_idx" in arrays else str(number)


def _row(
    arrays: Arrays, name: str, layout: Layout, selected: shared.Selection, own: shared.OwnOptions, level: str
) -> Row:
    """Return the row of one molecule."""
    check_size(int(arrays["n_atoms"]))
    values = {stored: float(arrays[key]) for key, stored in selected.columns.items() if key in layout.columns}
    if "props" in arrays:
        cells = zip(layout.table, arrays["props"].tolist(), strict=True)
        values |= {selected.columns[key]: float(value) for key, value in cells if key in selected.columns}
    spectra: dict[str, Callable[[], shared.ParsedSpectrum]] = {}
    for counts in layout.lines:
        position = arrays.get(LINES[counts][0])
        for kind, key in layout.intensities(counts).items():
            if position is not None:
                spectra[kind] = partial(shared.lines_from_arrays, kind, position, arrays[key], level)
    for kind in layout.samples:
        spectra[kind] = partial(_samples, kind, arrays[f"{kind}_samples"], level)
    texts = {key: _text(arrays[key]) or None for key in ("smiles", "identity") if key in arrays}
    charge = int(arrays["charge"]) if "charge" in arrays else 0
    positions = arrays["pos"].astype(np.float64) * own.scale
    molecule = partial(Molecule, arrays["z"].astype(np.int64), positions, texts.get("smiles"), charge, name)
    forces = arrays[own.forces].astype(np.float64) if own.forces else None
    return shared.row_of(shared.ParsedRecord(molecule, values, forces, texts.get("identity"), spectra))


def _samples(kind: str, values: npt.NDArray[Any], level: str) -> shared.ParsedSpectrum:
    return shared.ParsedSpectrum(SampledSpectrum(kind, values, level))
