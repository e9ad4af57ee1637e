"""Users' own data from Parquet: SMILES or structures, numbers, spectra and forces as lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from molspectra.chem.molecule import Molecule
from molspectra.chem.smiles import from_smiles
from molspectra.data.store.schema import Metadata, Quantity
from molspectra.data.store.writer import Candidate, Row
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
    split_header,
    spoken,
)
from molspectra.datasets.own.structures import conformer_level
from molspectra.errors import InputError
from molspectra.spectra.modality import MODALITIES, modality
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

_BATCH = 256  # rows held at once
_TEXTS = ("smiles", "name", "identity")
_FIXED = ("numbers", "positions", "charge", "geometry_id", *_TEXTS)


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are.

    Attributes:
        fixed: columns of the structure that are there.
        lines: modalities with NAME_position and NAME_intensity, each with its level.
        samples: modalities with a list column NAME, each with its level.
        forces: column of the forces, None without.
    """

    fixed: frozenset[str]
    lines: Mapping[str, str]
    samples: Mapping[str, str]
    forces: str | None


def _open(raw: Path, options: Mapping[str, str]) -> Opened:
    """Check the columns of a Parquet file and which properties to take."""
    own = own_options(options, raw.name)
    with _file(raw) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    columns = _columns(raw, schema, own, options.get("spectra_level", ""))
    scalars = {
        field.name: _about(field, "unit") or split_header(field.name)[1]
        for field in schema
        if field.name not in _FIXED and (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
    }
    chosen = selection(scalars, own, str(raw))
    levels = {chosen.columns[key]: _about(schema.field(key), "level") for key in chosen.columns}
    quantities = {
        name: Quantity(each.unit, own.level or levels[name] or "") for name, each in chosen.quantities.items()
    }
    used = {*scalars, *columns.fixed, *columns.samples, columns.forces}
    used |= {f"{name}_{part}" for name in columns.lines for part in ("position", "intensity")}
    notes = chosen.notes(name for name in schema.names if name not in used)
    drawn = "positions" not in columns.fixed
    level = own.level or ("" if drawn else _about(schema.field("positions"), "level")) or ""
    facts = _facts(schema)
    metadata = Metadata(
        source=options.get("source", facts.get("source", own.source)),
        licence=options.get("licence", facts.get("licence", "")),
        level=conformer_level() if drawn else level,
        lines=columns.lines,
        samples=columns.samples,
        properties=quantities,
        forces=_force_quantity(raw, schema, columns, own),
        notes=notes,
    )
    candidates = partial(_candidates, raw, columns, chosen, own)
    return Opened(metadata, candidates, total=rows, notes=lambda: spoken(notes))


def _facts(schema: pa.Schema) -> dict[str, str]:
    """Source and licence, where the file was written by `molspectra export`."""
    try:
        facts = json.loads((schema.metadata or {}).get(b"molspectra", b"{}"))
        return {key: str(facts[key]) for key in ("source", "licence") if key in facts}
    except (ValueError, TypeError, RecursionError):
        return {}


@contextmanager
def _file(path: Path) -> Iterator[pq.ParquetFile]:
    """An open Parquet file; what the library complains of becomes one line.

    Raises:
        InputError: if the file is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file; --raw must be a .parquet file")
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: not a readable Parquet file ({reason})") from error


def _columns(raw: Path, schema: pa.Schema, own: OwnOptions, level: str) -> Columns:
    """Find out what the columns are.

    Raises:
        InputError: if there are no structures, a column is of a wrong type, or has no partner.
    """
    names = schema.names
    if len(set(names)) < len(names):
        raise InputError(f"{raw}: two columns have the same name")
    fixed = frozenset(name for name in _FIXED if name in names)
    if "smiles" not in fixed and not {"numbers", "positions"} <= fixed:
        has = ", ".join(names)[:200] or "none"
        raise InputError(f"{raw} has neither a column smiles nor numbers and positions; it has: {has}")
    if ("numbers" in fixed) != ("positions" in fixed):
        raise InputError(f"{raw}: the columns numbers and positions need each other")
    for name in fixed & set(_TEXTS):
        kind = schema.field(name).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise InputError(f"{raw}: the column {name!r} must be text, not {kind}")
    if "charge" in fixed and not pa.types.is_integer(schema.field("charge").type):
        raise InputError(f"{raw}: the column 'charge' must hold integers, not {schema.field('charge').type}")
    lines, samples = {}, {}
    for name in MODALITIES:
        pair = [each for each in (f"{name}_position", f"{name}_intensity") if each in names]
        if len(pair) == 1:
            raise InputError(
                f"{raw}: {pair[0]!r} has no partner; lines need {name}_position and {name}_intensity"
            )
        if pair:
            lines[name] = level or _about(schema.field(pair[0]), "level") or ""
        elif name in names:
            samples[name] = level or _about(schema.field(name), "level") or ""
    forces = own.forces or ("forces" if "forces" in names else None)
    if forces is not None and forces not in names:
        raise InputError(f"{raw} has no column {forces!r} (option forces)")
    wanted = {"numbers", "positions"} & fixed | set(samples) | ({forces} if forces else set())
    wanted |= {f"{name}_{part}" for name in lines for part in ("position", "intensity")}
    for name in wanted:
        kind = schema.field(name).type
        if not _is_list(kind):
            raise InputError(f"{raw}: the column {name!r} must hold lists, not {kind}")
    return Columns(fixed, lines, samples, forces)


def _about(field: pa.Field, key: str) -> str | None:
    """Unit or level that a column's own metadata tell; a pure number has the unit 1."""
    text = (field.metadata or {}).get(key.encode())
    if text is None:
        return None
    return str(text.decode("utf-8", "replace")) or ("1" if key == "unit" else None)


def _force_quantity(raw: Path, schema: pa.Schema, columns: Columns, own: OwnOptions) -> Quantity | None:
    if columns.forces is None:
        return None
    unit = _about(schema.field(columns.forces), "unit")
    if unit is None or "forces" in own.units:
        return force_quantity(own, str(raw), columns.forces)
    return Quantity(unit, own.level or _about(schema.field(columns.forces), "level") or "")


def _candidates(
    raw: Path, columns: Columns, chosen: Selection, own: OwnOptions, start: int
) -> Iterator[Candidate]:
    """Every row from number `start` on."""
    spectra = [f"{name}_{part}" for name in columns.lines for part in ("position", "intensity")]
    wanted = [*columns.fixed, *spectra, *columns.samples, *chosen.columns]
    wanted += [columns.forces] if columns.forces else []
    with _file(raw) as file:
        number = 0
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if number + rows <= start:
                number += rows
                continue
            for batch in file.iter_batches(_BATCH, row_groups=[group], columns=wanted):
                for record in range(batch.num_rows):
                    if number >= start:
                        cells = {name: batch.column(name)[record] for name in wanted}
                        name = str((cells["name"].as_py() if "name" in cells else "") or number)
                        build = partial(_row, cells, columns, chosen, own)
                        yield Candidate(
                            f"row {number}" + (f", {name!r}" if name != str(number) else ""), build
                        )
                    number += 1


def _row(cells: Mapping[str, pa.Scalar], columns: Columns, chosen: Selection, own: OwnOptions) -> Row:
    """The row of one record."""
    texts = {name: cells[name].as_py() or None for name in _TEXTS if name in cells}
    values = {}
    for key, name in chosen.columns.items():
        value = cells[key].as_py()
        if value is not None:
            values[name] = float(value)
    spectra: dict[str, Callable[[], Built]] = {}
    for kind in columns.lines:
        if cells[f"{kind}_position"].is_valid:
            spectra[kind] = partial(_lines, kind, cells, columns.lines[kind])
    for kind in columns.samples:
        if cells[kind].is_valid:
            spectra[kind] = partial(_samples, kind, cells, columns.samples[kind])
    forces = None
    if columns.forces and cells[columns.forces].is_valid:
        forces = _floats(cells[columns.forces], columns.forces)
        if forces.size % 3:
            raise InputError(f"{forces.size} components of forces are not three for each atom")
        forces = forces.reshape(-1, 3)
    molecule = partial(_molecule, cells, texts, own.scale)
    return row_of(Known(molecule, values, forces, texts.get("identity"), spectra))


def _molecule(cells: Mapping[str, pa.Scalar], texts: Mapping[str, str | None], scale: float) -> Molecule:
    name = texts.get("name")
    if "numbers" not in cells:
        return from_smiles(texts.get("smiles") or "", name)
    listed = cells["numbers"].values if cells["numbers"].is_valid else pa.array([], pa.int64())
    if len(listed) > MAX_ATOMS:
        raise InputError(f"a structure of {len(listed)} atoms; at most {MAX_ATOMS} are read")
    numbers = np.array(listed.to_pylist())
    positions = _floats(cells["positions"], "positions")
    if positions.size != 3 * len(numbers):
        raise InputError(f"{len(numbers)} atoms but {positions.size} coordinates")
    charge = cells["charge"].as_py() if "charge" in cells else 0
    xyz = positions.reshape(-1, 3) * scale
    return Molecule(numbers, xyz, texts.get("smiles"), charge or 0, name)


def _floats(cell: pa.Scalar, name: str) -> npt.NDArray[np.float64]:
    """All numbers of a list of numbers or of lists, one after the other.

    Raises:
        InputError: if one is missing, or they are no numbers.
    """
    values: Any = cell.values if cell.is_valid else None
    while values is not None and _is_list(values.type) and not values.null_count:
        values = values.flatten()
    if values is None or values.null_count:
        raise InputError(f"{name}: a number is missing")
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise InputError(f"{name} holds {values.type}, not numbers")
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float64)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _lines(kind: str, cells: Mapping[str, pa.Scalar], level: str) -> Built:
    position, intensity = (
        _floats(cells[f"{kind}_{part}"], f"{kind}_{part}") for part in ("position", "intensity")
    )
    if position.shape != intensity.shape:
        raise InputError(f"{len(position)} positions but {len(intensity)} intensities")
    order = np.argsort(position, kind="stable")
    return Built(LineSpectrum(kind, position[order], intensity[order], level))


def _samples(kind: str, cells: Mapping[str, pa.Scalar], level: str) -> Built:
    values = _floats(cells[kind], kind)
    if len(values) != modality(kind).points:
        axis = modality(kind)
        reach = f"{axis.start:g} to {axis.stop:g} {axis.unit}"
        raise InputError(f"{len(values)} samples; the {kind} axis has {axis.points} ({reach})")
    return Built(SampledSpectrum(kind, values, level))


PARQUET = OwnImporter(
    "parquet",
    "own data: a Parquet file",
    "one .parquet file with a column smiles, or numbers and positions; also what `molspectra export` writes",
    {**OPTIONS, **POSITIONS, **FORCES, "spectra_level": "level of theory of the spectra"},
    _open,
)
"""Importer `parquet`."""
