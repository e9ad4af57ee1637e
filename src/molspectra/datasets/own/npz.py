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
from molspectra.data.store.schema import Metadata
from molspectra.data.store.writer import Candidate, Row
from molspectra.datasets.formats.npy_stream import Column, chunks, names, opened
from molspectra.datasets.importer import Opened
from molspectra.datasets.own.shared import (
    FORCES,
    MAX_ATOMS,
    OPTIONS,
    POSITIONS,
    Built,
    Known,
    OwnImporter,
    OwnOptions,
    Selection,
    force_quantity,
    own_options,
    row_of,
    selection,
    spoken,
)
from molspectra.errors import InputError
from molspectra.spectra.modality import MODALITIES, modality
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

LINES = {
    "n_modes": ("wavenumber", {"ir": "ir", "raman": "raman"}),
    "n_states": ("excitation", {"uv_vis": "oscillator_strength"}),
}
"""Key of the counts -> key of the positions (cm⁻¹, eV), and by modality the key of the intensities."""

_ALIASES = {"numbers": "z", "positions": "pos"}
_TEXTS = ("name", "identity", "smiles")
_WHOLE = ("n_atoms", "z", "charge", "gdb_idx")
_MAX_WORDS = 1 << 24  # bytes of names or units
_STRUCTURE = ("pos", *_WHOLE, *_TEXTS, "props", "prop_names", "prop_units")


@dataclass(frozen=True)
class Layout:
    """Which arrays an archive holds.

    Attributes:
        path: of the archive.
        keys: name in the documented layout -> name in the archive.
        rows: number of molecules.
        lines: keys of `LINES` that are there.
        samples: modalities with an array `NAME_samples`.
        columns: one-dimensional numeric arrays with one value per molecule.
        forces: key of the forces, None without.
        others: arrays that are nothing of this.
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


def _open(raw: Path, options: Mapping[str, str]) -> Opened:
    """Check the layout of the archive and which properties to take."""
    own = own_options(options, raw.name)
    level = options.get("spectra_level", "")
    with opened(raw) as archive:
        layout = _layout(archive, raw, own)
        _check_counts(archive, layout)
        table = _table(archive, layout)
    layout = replace(layout, table=tuple(table))
    chosen = selection(dict.fromkeys(layout.columns) | table, own, str(raw))
    notes = chosen.notes(layout.others)
    metadata = Metadata(
        source=own.source,
        licence=own.licence,
        level=own.level,
        lines=dict.fromkeys(_line_modalities(layout), level),
        samples=dict.fromkeys(layout.samples, level),
        properties=chosen.quantities,
        forces=force_quantity(own, str(raw)),
        notes=notes,
    )
    candidates = partial(_candidates, layout, chosen, own, level)
    return Opened(metadata, candidates, total=layout.rows, notes=lambda: spoken(notes))


NPZ = OwnImporter(
    "npz",
    "own data: an .npz file",
    "one .npz file with the arrays n_atoms, z, pos and whatever else is known (docs: Your own data)",
    {**OPTIONS, **POSITIONS, **FORCES, "spectra_level": "level of theory of the spectra"},
    _open,
)
"""Importer `npz`."""


def _layout(archive: zipfile.ZipFile, path: Path, own: OwnOptions) -> Layout:
    """Find out which arrays there are, and refuse what does not fit together."""
    found = names(archive, path)
    keys = {_ALIASES.get(name, name): name for name in found if _ALIASES.get(name) not in found}
    missing = [name for name in ("n_atoms", "z", "pos") if name not in keys]
    if missing:
        hint = "; this looks like a trajectory, see the dataset md17" if {"R", "E"} <= set(found) else ""
        has = ", ".join(found[:20]) or "nothing"
        raise InputError(f"{path} has no array {', '.join(missing)}; it has: {has}{hint}")
    headers = {key: Column(archive, path, name) for key, name in keys.items()}
    rows = headers["n_atoms"].rows
    samples = tuple(name for name in MODALITIES if f"{name}_samples" in keys)
    lines = tuple(key for key in LINES if key in keys)
    forces = own.forces
    if forces is not None and forces not in keys:
        raise InputError(f"{path} has no array {forces!r} (option forces); it has: {', '.join(found[:20])}")
    shapes: dict[str, tuple[int, ...]] = {"n_atoms": (), "z": (), "pos": (3,), "charge": (), "gdb_idx": ()}
    shapes |= dict.fromkeys(_TEXTS, ())
    shapes |= {f"{name}_samples": (modality(name).points,) for name in samples}
    shapes |= dict.fromkeys(lines, ()) | ({forces: (3,)} if forces else {})
    for key, shape in shapes.items():
        if key not in headers:
            continue
        if headers[key].shape != shape:
            raise InputError(
                f"{path}: array {keys[key]!r} has rows of shape {headers[key].shape}, not {shape}"
            )
        if key not in ("z", "pos", forces) and headers[key].rows != rows:
            raise InputError(f"{path}: array {keys[key]!r} has {headers[key].rows} rows for {rows} molecules")
        wanted = (
            "US"
            if key in _TEXTS
            else ("iu" if key in {"n_atoms", "z", "charge", "gdb_idx", *lines} else "fiu")
        )
        if key != "gdb_idx" and headers[key].dtype.kind not in wanted:
            raise InputError(f"{path}: array {keys[key]!r} must not be of type {headers[key].dtype}")
    used = {
        *_STRUCTURE,
        *lines,
        forces,
        *(f"{name}_{part}" for name in samples for part in ("samples", "axis")),
    }
    used |= {word for key in lines for word in (LINES[key][0], *LINES[key][1].values())}
    columns = tuple(
        key
        for key, each in headers.items()
        if key not in used and each.rows == rows and each.shape == () and each.dtype.kind in "fiu"
    )
    others = tuple(keys[key] for key in keys if key not in used and key not in columns)
    return Layout(path, keys, rows, lines, samples, columns, forces, others)


def _line_modalities(layout: Layout) -> list[str]:
    intensities = {name: key for counts in layout.lines for name, key in LINES[counts][1].items()}
    return [name for name, key in intensities.items() if key in layout.keys]


def _check_counts(archive: zipfile.ZipFile, layout: Layout) -> None:
    """Refuse counts that do not add up to the arrays that they divide."""
    divided = {"n_atoms": ["z", "pos", *([layout.forces] if layout.forces else [])]}
    for key in layout.lines:
        position, intensities = LINES[key]
        divided[key] = [position, *(each for each in intensities.values() if each in layout.keys)]
        if len(divided[key]) < 2 or position not in layout.keys:
            raise InputError(
                f"{layout.path}: {key!r} needs {position!r} and one of {', '.join(intensities.values())}"
            )
    for key, parts in divided.items():
        total = 0
        for counts in chunks(_column(archive, layout, key)):
            if counts.size and int(counts.min()) < 0:
                raise InputError(f"{layout.path}: {key!r} has a negative count")
            total += int(counts.astype(np.float64).sum())  # exact below 2^53, and no larger file exists
        for part in parts:
            column = _column(archive, layout, part)
            if column.rows != total:
                name = layout.keys[part]
                raise InputError(
                    f"{layout.path}: {key!r} adds up to {total}, but {name!r} has {column.rows} rows"
                )
    for name in layout.samples:
        _check_axis(archive, layout, name)


def _check_axis(archive: zipfile.ZipFile, layout: Layout, name: str) -> None:
    """Refuse samples on another axis than that of their modality."""
    kind = modality(name)
    if f"{name}_axis" not in layout.keys:
        raise InputError(f"{layout.path}: {name}_samples needs {name}_axis [{kind.points}] in {kind.unit}")
    column = _column(archive, layout, f"{name}_axis")
    same = column.rows == kind.points and column.shape == () and column.dtype.kind in "fiu"
    if not same or not np.allclose(column.take(column.rows), kind.axis(), rtol=0, atol=1e-3 * kind.step):
        axis = f"{kind.start:g} to {kind.stop:g} {kind.unit} in steps of {kind.step:g}"
        raise InputError(f"{layout.path}: {name}_axis is not {axis}; resample the spectra first")


def _table(archive: zipfile.ZipFile, layout: Layout) -> dict[str, str | None]:
    """Names and units of the columns of `props`."""
    if "props" not in layout.keys:
        return {}
    props = _column(archive, layout, "props")
    if "prop_names" not in layout.keys:
        raise InputError(f"{layout.path}: 'props' needs 'prop_names', one per column")
    words = _words(archive, layout, "prop_names")
    if props.shape != (len(words),) or props.rows != layout.rows or props.dtype.kind not in "fiu":
        raise InputError(
            f"{layout.path}: 'props' must be numbers of shape ({layout.rows}, {len(words)}) by 'prop_names'"
        )
    if len(set(words) | set(layout.columns)) < len(words) + len(layout.columns):
        raise InputError(f"{layout.path}: a property is named twice in 'prop_names' and the other arrays")
    if "prop_units" not in layout.keys:
        return dict.fromkeys(words)
    units = _words(archive, layout, "prop_units")
    if len(units) != len(words):
        raise InputError(f"{layout.path}: {len(words)} 'prop_names' but {len(units)} 'prop_units'")
    return dict(zip(words, (unit or None for unit in units), strict=True))


def _words(archive: zipfile.ZipFile, layout: Layout, key: str) -> list[str]:
    column = _column(archive, layout, key)
    if column.dtype.kind not in "US" or column.shape or column.rows * column.dtype.itemsize > _MAX_WORDS:
        raise InputError(f"{layout.path}: {key!r} must be a list of texts")
    return [_text(word) for word in column.take(column.rows)]


def _text(value: Any) -> str:
    """A text of an array, whether kept as characters or as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _column(archive: zipfile.ZipFile, layout: Layout, key: str) -> Column:
    if key not in layout.keys:
        raise InputError(f"{layout.path} has no array {key!r}")
    return Column(archive, layout.path, layout.keys[key])


def _candidates(
    layout: Layout, chosen: Selection, own: OwnOptions, level: str, start: int
) -> Iterator[Candidate]:
    """Every molecule from number `start` on."""
    with opened(layout.path) as archive:
        reader = _Reader(archive, layout, own)
        for number in range(layout.rows):
            if number < start:
                reader.skip()
                continue
            arrays = reader.take()
            name = reader.name(arrays, number)
            yield Candidate(
                f"record {number} ({name})", partial(_row, arrays, name, layout, chosen, own, level)
            )


Arrays = dict[str, npt.NDArray[Any]]


class _Reader:
    """Takes the rows of one molecule after the other from all arrays."""

    def __init__(self, archive: zipfile.ZipFile, layout: Layout, own: OwnOptions) -> None:
        singles = ["props", "charge", "gdb_idx", *_TEXTS, *layout.columns]
        singles += [f"{name}_samples" for name in layout.samples]
        self._singles = {key: _column(archive, layout, key) for key in singles if key in layout.keys}
        self._counts: dict[str, Column] = {}
        self._ragged: dict[str, dict[str, Column]] = {}
        for key in ("n_atoms", *layout.lines):
            parts = ["z", "pos", *([own.forces] if own.forces else [])]
            if key in LINES:
                parts = [LINES[key][0], *(part for part in LINES[key][1].values() if part in layout.keys)]
            self._counts[key] = _column(archive, layout, key)
            self._ragged[key] = {part: _column(archive, layout, part) for part in parts}

    def take(self) -> Arrays:
        """The arrays of the next molecule; those of a structure that is too large are passed over."""
        arrays = {key: column.take(1)[0] for key, column in self._singles.items()}
        for key, column in self._counts.items():
            arrays[key] = column.take(1)[0]
            count = int(arrays[key])
            for part, values in self._ragged[key].items():
                if count > (MAX_ATOMS if key == "n_atoms" else 1000 * MAX_ATOMS):
                    values.skip(count)
                else:
                    arrays[part] = values.take(count)
        return arrays

    def skip(self) -> None:
        """Pass over the next molecule."""
        for column in self._singles.values():
            column.skip(1)
        for key, column in self._counts.items():
            count = int(column.take(1)[0])
            for values in self._ragged[key].values():
                values.skip(count)

    @staticmethod
    def name(arrays: Arrays, number: int) -> str:
        """Name of a molecule: `name`, else gdb_ and `gdb_idx`, else its number in the file."""
        if "name" in arrays:
            return _text(arrays["name"])
        return f"gdb_{arrays['gdb_idx']}" if "gdb_idx" in arrays else str(number)


def _row(arrays: Arrays, name: str, layout: Layout, chosen: Selection, own: OwnOptions, level: str) -> Row:
    """The row of one molecule."""
    if "z" not in arrays:
        raise InputError(f"a structure of {arrays['n_atoms']} atoms; at most {MAX_ATOMS} are read")
    values = {stored: float(arrays[key]) for key, stored in chosen.columns.items() if key in layout.columns}
    if "props" in arrays:
        row = zip(layout.table, arrays["props"].tolist(), strict=True)
        values |= {chosen.columns[key]: float(value) for key, value in row if key in chosen.columns}
    spectra: dict[str, Callable[[], Built]] = {}
    for counts in layout.lines:
        position, intensities = LINES[counts]
        for kind, key in intensities.items():
            if key in arrays and position in arrays:
                spectra[kind] = partial(_lines, kind, arrays[position], arrays[key], level)
    for kind in layout.samples:
        spectra[kind] = partial(_samples, kind, arrays[f"{kind}_samples"], level)
    texts = {key: _text(arrays[key]) or None for key in ("smiles", "identity") if key in arrays}
    charge = int(arrays["charge"]) if "charge" in arrays else 0
    positions = arrays["pos"].astype(np.float64) * own.scale
    molecule = partial(Molecule, arrays["z"].astype(np.int64), positions, texts.get("smiles"), charge, name)
    forces = arrays[own.forces].astype(np.float64) if own.forces else None
    return row_of(Known(molecule, values, forces, texts.get("identity"), spectra))


def _samples(kind: str, values: npt.NDArray[Any], level: str) -> Built:
    return Built(SampledSpectrum(kind, values, level))


def _lines(kind: str, position: npt.NDArray[Any], intensity: npt.NDArray[Any], level: str) -> Built:
    """Lines in ascending order."""
    order = np.argsort(position, kind="stable")
    where, height = position[order].astype(np.float64), intensity[order].astype(np.float64)
    return Built(LineSpectrum(kind, where, height, level))
