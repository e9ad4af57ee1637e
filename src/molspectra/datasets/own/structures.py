"""Users' own structures: SDF with data fields, extended XYZ with comment entries, CSV with SMILES."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from molspectra.chem.molecule import Molecule
from molspectra.chem.records import Entry, check_readable
from molspectra.chem.sdf import sdf_entries
from molspectra.chem.smiles import csv_entries
from molspectra.chem.xyz import xyz_entries
from molspectra.data.store.schema import SPLIT, Metadata
from molspectra.data.store.writer import Candidate, Row
from molspectra.datasets.importer import Importer, Opened
from molspectra.datasets.own import shared
from molspectra.datasets.own.spectra import OPTIONS as SPECTRA
from molspectra.datasets.own.spectra import Folder, folder
from molspectra.errors import FormatError, InputError, NotFoundError, hint

Entries = Callable[[Path], Iterator[Entry]]


@dataclass
class Scan:
    """Counts of a first pass over a file.

    Attributes:
        records: number of records.
        numeric: records whose field holds a number, by field.
        filled: records whose field holds anything, by field.
        names: records by name.
    """

    records: int = 0
    numeric: Counter[str] = field(default_factory=Counter)
    filled: Counter[str] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)

    def columns(self) -> dict[str, str | None]:
        """Return the unit in the header, or None, of fields that are numbers in half of the records."""
        numeric = [key for key, count in self.filled.items() if 2 * self.numeric[key] >= count]
        return {key: shared.split_header(key)[1] for key in numeric}

    def texts(self) -> list[str]:
        """Return the other fields."""
        return [key for key, count in self.filled.items() if 2 * self.numeric[key] < count]


def scan(path: Path, entries: Entries, names: bool, split: str | None = None) -> Scan:
    """Read a file without building structures; `names` counts the names too (one text per record).

    Args:
        path: of the file.
        entries: reads it.
        names: count them.
        split: field with the parts of a split, which is checked and not counted.

    Raises:
        InputError: if the file cannot be read, or holds no records, no such field or another word in it.
    """
    check_readable(path)
    counts, has_split = Scan(), False
    for entry in entries(path):
        counts.records += 1
        if names and entry.name:
            counts.names[entry.name] += 1
        try:
            fields = entry.fields()
        except InputError:
            continue  # rejected by name when the record is read again
        if split in fields:
            try:
                has_split |= shared.part_of(fields.pop(split)) is not None
            except InputError as error:
                raise error.with_context(f"{path}, {entry.where}: {split}") from error
        for key, text in fields.items():
            if not shared.is_missing(text):
                counts.filled[key] += 1
                counts.numeric[key] += shared.is_number(text)
    if not counts.records:
        raise FormatError(f"{path} holds no molecules")
    if split is not None and not has_split:
        near = hint(split, list(counts.filled), label="it has")
        raise NotFoundError(f"{path} names no parts in a column {split!r} (option split); {near}")
    return counts


def _open(entries: Entries, smiles: bool, raw: Path, options: Mapping[str, str]) -> Opened:
    """Open a file of records with fields."""
    own = shared.own_options(options, raw.name)
    measured = folder(options)
    counts = scan(raw, entries, names=measured.path is not None, split=own.split)
    selected = shared.select_properties(counts.columns(), own, str(raw))
    columns = selected.notes(counts.texts(), "text")
    split = {} if own.split is None else {shared.column_name(own.split): SPLIT}
    if split.keys() & selected.quantities.keys():
        raise FormatError(f"{raw}: a property has the name of the split, {own.split!r}; rename one of them")
    metadata = Metadata(
        source=own.source,
        licence=own.licence,
        level=conformer_level() if smiles else own.level,
        samples=measured.samples(),
        properties={**selected.quantities, **split},
        forces=shared.force_quantity(own, str(raw)),
        notes={**columns, **measured.fingerprint()},
    )
    candidates = partial(_candidates, raw, entries, selected, own, measured)
    notes = {**shared.as_remarks(columns), **measured.notes(counts.names)}
    return Opened(metadata, candidates, counts.records, notes=notes)


def conformer_level() -> str:
    """Describe how structures are made from SMILES."""
    from rdkit import rdBase

    return f"one conformer from the SMILES: RDKit {rdBase.rdkitVersion}, ETKDGv3 with seed 0, MMFF94 or UFF"


def _candidates(
    raw: Path,
    entries: Entries,
    selected: shared.Selection,
    own: shared.OwnOptions,
    measured: Folder,
    start: int,
) -> Iterator[Candidate]:
    """Yield the records from number `start` on."""
    for entry in islice(entries(raw), start, None):
        named = entry.name and entry.name not in entry.where
        label = f"{entry.where}, {entry.name!r}" if named else entry.where
        yield Candidate(label, partial(_row, entry, selected, own, measured))


def _row(entry: Entry, selected: shared.Selection, own: shared.OwnOptions, measured: Folder) -> Row:
    """Return the row of one record."""
    fields = entry.fields()
    values = {}
    for key, name in selected.columns.items():
        try:
            value = shared.number(fields.get(key, ""))
        except InputError as error:
            raise error.with_context(key) from error
        if value is not None:
            values[name] = value
    if own.split is not None and (part := shared.part_of(fields.get(own.split, ""))) is not None:
        values[shared.column_name(own.split)] = part
    forces = None
    if own.forces is not None:
        if entry.vectors is None:
            raise NotFoundError("records of this format have no forces")
        forces = entry.vectors(own.forces)
    spectra = measured.spectra(entry.name)
    return shared.row_of(
        shared.ParsedRecord(partial(_molecule, entry, own.scale), values, forces, None, spectra)
    )


def _molecule(entry: Entry, scale: float) -> Molecule:
    molecule = entry.structure()  # `prepare` checks its unit, with those of the first records
    return molecule if scale == 1.0 else molecule.with_positions(np.asarray(molecule.positions) * scale)


SDF = Importer(
    "sdf",
    "own data: an SDF file",
    "one .sdf file with 3D structures; numeric data fields become properties",
    {**shared.OPTIONS, **shared.POSITIONS, **shared.IN_SPLIT, **SPECTRA},
    partial(_open, sdf_entries, False),
)
"""Importer `sdf`."""

EXTXYZ = Importer(
    "extxyz",
    "own data: an extended XYZ file",
    "one .extxyz or .xyz file; numeric entries of the comments become properties",
    {**shared.OPTIONS, **shared.POSITIONS, **shared.FORCES, **shared.IN_SPLIT, **SPECTRA},
    partial(_open, xyz_entries, False),
)
"""Importer `extxyz`."""

CSV = Importer(
    "csv",
    "own data: a CSV table of SMILES",
    "one .csv file with a header and a column smiles; numeric columns become properties",
    {**shared.OPTIONS, **shared.IN_SPLIT, **SPECTRA},
    partial(_open, csv_entries, True),
)
"""Importer `csv`."""
