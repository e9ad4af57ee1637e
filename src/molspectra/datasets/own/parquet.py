"""Users' own data from Parquet: SMILES or structures, numbers, spectra and forces as lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from molspectra.chem.molecule import Molecule
from molspectra.chem.sanity import check_size
from molspectra.chem.smiles import from_smiles
from molspectra.data.store.schema import SPLIT, Metadata, Quantity
from molspectra.data.store.writer import Candidate, Row
from molspectra.datasets.importer import Importer, Opened
from molspectra.datasets.own import shared
from molspectra.datasets.own.structures import conformer_level
from molspectra.errors import FormatError, InputError, NotFoundError, ValueRangeError, hint
from molspectra.spectra.modality import MODALITIES
from molspectra.spectra.spectrum import SampledSpectrum

_BATCH = 256  # rows held at once
_TEXTS = ("smiles", "name", "identity")
_FIXED = ("numbers", "positions", "charge", "geometry_id", *_TEXTS)


@dataclass(frozen=True)
class Columns:
    """Roles of the columns of a table.

    Attributes:
        fixed: columns of structure and texts that the table has.
        lines: level of theory by modality, of those with columns NAME_position and NAME_intensity.
        samples: level of theory by modality, of those with a list column NAME.
        forces: column of the forces, None without.
        split: column of the parts of a split, None without.
    """

    fixed: frozenset[str]
    lines: Mapping[str, str]
    samples: Mapping[str, str]
    forces: str | None
    split: str | None = None

    def lists(self) -> list[str]:
        """Return the names of the columns that must hold lists."""
        names = [f"{name}_{part}" for name in self.lines for part in ("position", "intensity")]
        names += [name for name in ("numbers", "positions") if name in self.fixed]
        return [*names, *self.samples, *([self.forces] if self.forces else [])]


def _open(raw: Path, options: Mapping[str, str]) -> Opened:
    """Check the columns of a Parquet file and choose the properties."""
    own = shared.own_options(options, raw.name)
    with _file(raw) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    columns = _columns(raw, schema, own, options.get("spectra_level", ""))
    scalars = {
        field.name: _about(field, "unit") or shared.split_header(field.name)[1]
        for field in schema
        if field.name not in (*_FIXED, own.split)
        and (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
    }
    selected = shared.select_properties(scalars, own, str(raw))
    quantities = {
        name: replace(selected.quantities[name], level=own.level or _about(schema.field(key), "level") or "")
        for key, name in selected.columns.items()
        if _about(schema.field(key), "level") != SPLIT.level
    }
    quantities |= {name: SPLIT for name in selected.quantities if name not in quantities}
    if columns.split is not None:
        if shared.column_name(columns.split) in quantities:
            raise FormatError(
                f"{raw}: a property has the name of the split, {own.split!r}; rename one of them"
            )
        quantities[shared.column_name(columns.split)] = SPLIT
    used = {*scalars, *columns.fixed, *columns.lists(), columns.split}
    notes = selected.notes(name for name in schema.names if name not in used)
    if "positions" in columns.fixed:
        level = own.level or _about(schema.field("positions"), "level") or ""
    else:
        level = conformer_level()
    facts = _facts(schema)
    metadata = Metadata(
        source=options.get("source", facts.get("source", own.source)),
        licence=options.get("licence", facts.get("licence", "")),
        level=level,
        lines=columns.lines,
        samples=columns.samples,
        properties=quantities,
        forces=_force_quantity(raw, schema, columns, own),
        notes=notes,
    )
    candidates = partial(_candidates, raw, columns, selected, own)
    return Opened(metadata, candidates, total=rows, notes=shared.as_remarks(notes))


def _facts(schema: pa.Schema) -> dict[str, str]:
    """Return source and licence from the metadata of a file that `molspectra export` wrote."""
    try:
        facts = json.loads((schema.metadata or {}).get(b"molspectra", b"{}"))
        return {key: str(facts[key]) for key in ("source", "licence") if key in facts}
    except (ValueError, TypeError, RecursionError):
        return {}


@contextmanager
def _file(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; errors of the library in the block become one line."""
    if not path.is_file():
        raise NotFoundError(f"{path} is no file; --raw must be a .parquet file")
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:120]
        raise FormatError(f"{path}: not a readable Parquet file ({reason})") from error


def _columns(raw: Path, schema: pa.Schema, own: shared.OwnOptions, level: str) -> Columns:
    """Recognise the columns by their names, and check their types."""
    names = schema.names
    if len(set(names)) < len(names):
        raise FormatError(f"{raw}: two columns have the same name")
    fixed = frozenset(name for name in _FIXED if name in names)
    if "smiles" not in fixed and not {"numbers", "positions"} <= fixed:
        has = ", ".join(names)[:200] or "none"
        raise FormatError(f"{raw} has neither a column smiles nor numbers and positions; it has: {has}")
    if ("numbers" in fixed) != ("positions" in fixed):
        raise FormatError(f"{raw}: the columns numbers and positions need each other")
    if "numbers" in fixed:
        shared.check_charge_name(names, str(raw))
    for name in fixed & set(_TEXTS):
        kind = schema.field(name).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise FormatError(f"{raw}: the column {name!r} must be text, not {kind}")
    if "charge" in fixed and not pa.types.is_integer(schema.field("charge").type):
        raise FormatError(f"{raw}: the column 'charge' must hold integers, not {schema.field('charge').type}")
    lines, samples = {}, {}
    for name in MODALITIES:
        pair = [column for column in (f"{name}_position", f"{name}_intensity") if column in names]
        if len(pair) == 1:
            raise FormatError(
                f"{raw}: {pair[0]!r} has no partner; lines need {name}_position and {name}_intensity"
            )
        if pair:
            lines[name] = level or _about(schema.field(pair[0]), "level") or ""
        elif name in names:
            samples[name] = level or _about(schema.field(name), "level") or ""
    forces = own.forces or ("forces" if "forces" in names else None)
    if forces is not None and forces not in names:
        raise NotFoundError(f"{raw} has no column {forces!r} (option forces)")
    if own.split is not None:
        _check_split(raw, schema, own.split)
    columns = Columns(fixed, lines, samples, forces, own.split)
    for name in columns.lists():
        kind = schema.field(name).type
        if not _is_list(kind):
            raise FormatError(f"{raw}: the column {name!r} must hold lists, not {kind}")
    return columns


def _check_split(raw: Path, schema: pa.Schema, name: str) -> None:
    """Refuse a column of parts that is missing, is not text, or holds another word."""
    if name not in schema.names:
        near = hint(name, schema.names, label="it has")
        raise NotFoundError(f"{raw} has no column {name!r} (option split); {near}")
    kind = schema.field(name).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise FormatError(f"{raw}: the column {name!r} (option split) must be text, not {kind}")
    with _file(raw) as file:
        texts = (text for batch in file.iter_batches(columns=[name]) for text in batch.column(0).to_pylist())
        for row, text in enumerate(texts):
            try:
                shared.part_of(text or "")
            except InputError as error:
                raise error.with_context(f"{raw}, row {row}: {name}") from error


def _about(field: pa.Field, key: str) -> str | None:
    """Return unit or level from a column's own metadata; a pure number has the unit 1."""
    text = (field.metadata or {}).get(key.encode())
    if text is None:
        return None
    return str(text.decode("utf-8", "replace")) or ("1" if key == "unit" else None)


def _force_quantity(
    raw: Path, schema: pa.Schema, columns: Columns, own: shared.OwnOptions
) -> Quantity | None:
    if columns.forces is None:
        return None
    unit = _about(schema.field(columns.forces), "unit")
    if unit is None or "forces" in own.units:
        return shared.force_quantity(own, str(raw), columns.forces)
    return Quantity(unit, own.level or _about(schema.field(columns.forces), "level") or "")


def _candidates(
    raw: Path, columns: Columns, selected: shared.Selection, own: shared.OwnOptions, start: int
) -> Iterator[Candidate]:
    """Yield the rows from number `start` on."""
    split = [] if columns.split is None else [columns.split]
    keys = list(dict.fromkeys([*columns.fixed, *columns.lists(), *selected.columns, *split]))
    with _file(raw) as file:
        number = 0
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if number + rows <= start:
                number += rows
                continue
            for batch in file.iter_batches(_BATCH, row_groups=[group], columns=keys):
                for index in range(max(0, start - number), batch.num_rows):
                    cells = {key: batch.column(key)[index] for key in keys}
                    label = f"row {number + index}"
                    if "name" in cells and cells["name"].as_py():
                        label += f", {cells['name'].as_py()!r}"
                    yield Candidate(label, partial(_row, cells, columns, selected, own))
                number += batch.num_rows


def _row(
    cells: Mapping[str, pa.Scalar], columns: Columns, selected: shared.Selection, own: shared.OwnOptions
) -> Row:
    """Return the row of one record."""
    texts = {name: cells[name].as_py() or None for name in _TEXTS if name in cells}
    values = {
        name: float(cells[key].as_py()) for key, name in selected.columns.items() if cells[key].is_valid
    }
    if columns.split is not None:
        part = shared.part_of(cells[columns.split].as_py() or "")
        values |= {} if part is None else {shared.column_name(columns.split): part}
    spectra: dict[str, Callable[[], shared.ParsedSpectrum]] = {}
    for modality, level in columns.lines.items():
        if cells[f"{modality}_position"].is_valid:
            spectra[modality] = partial(_lines, modality, cells, level)
    for modality, level in columns.samples.items():
        if cells[modality].is_valid:
            spectra[modality] = partial(_samples, modality, cells, level)
    forces = None
    if columns.forces and cells[columns.forces].is_valid:
        forces = _floats(cells, columns.forces)
        if forces.size % 3:
            raise ValueRangeError(f"{forces.size} components of forces are not three for each atom")
        forces = forces.reshape(-1, 3)
    molecule = partial(_molecule, cells, texts, own.scale)
    return shared.row_of(shared.ParsedRecord(molecule, values, forces, texts.get("identity"), spectra))


def _molecule(cells: Mapping[str, pa.Scalar], texts: Mapping[str, str | None], scale: float) -> Molecule:
    name = texts.get("name")
    if "numbers" not in cells:
        return from_smiles(texts.get("smiles") or "", name)
    atoms = cells["numbers"].values if cells["numbers"].is_valid else pa.array([], pa.int64())
    check_size(len(atoms))
    numbers = np.array(atoms.to_pylist())
    positions = _floats(cells, "positions")
    if positions.size != 3 * len(numbers):
        raise ValueRangeError(f"{len(numbers)} atoms but {positions.size} coordinates")
    charge = cells["charge"].as_py() if "charge" in cells else 0
    xyz = positions.reshape(-1, 3) * scale
    return Molecule(numbers, xyz, texts.get("smiles"), charge or 0, name)


def _floats(cells: Mapping[str, pa.Scalar], name: str) -> npt.NDArray[np.float64]:
    """Flatten a list of numbers, or of lists of numbers."""
    cell = cells[name]
    values: Any = cell.values if cell.is_valid else None
    while values is not None and _is_list(values.type) and not values.null_count:
        values = values.flatten()
    if values is None or values.null_count:
        raise FormatError(f"{name}: a number is missing")
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise FormatError(f"{name} holds {values.type}, not numbers")
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float64)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _lines(modality: str, cells: Mapping[str, pa.Scalar], level: str) -> shared.ParsedSpectrum:
    position, intensity = _floats(cells, f"{modality}_position"), _floats(cells, f"{modality}_intensity")
    return shared.lines_from_arrays(modality, position, intensity, level)


def _samples(modality: str, cells: Mapping[str, pa.Scalar], level: str) -> shared.ParsedSpectrum:
    return shared.ParsedSpectrum(SampledSpectrum(modality, _floats(cells, modality), level))


PARQUET = Importer(
    "parquet",
    "own data: a Parquet file",
    "one .parquet file with a column smiles, or numbers and positions; also what `molspectra export` writes",
    {**shared.ARRAYS, **shared.IN_SPLIT},
    _open,
)
"""Importer `parquet`."""
