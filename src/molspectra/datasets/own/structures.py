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
from molspectra.data.store.schema import Metadata
from molspectra.data.store.writer import Candidate, Row
from molspectra.datasets.importer import Opened
from molspectra.datasets.own.shared import (
    FORCES,
    MAX_ATOMS,
    OPTIONS,
    POSITIONS,
    Known,
    OwnImporter,
    OwnOptions,
    Selection,
    force_quantity,
    is_missing,
    is_number,
    number,
    own_options,
    row_of,
    selection,
    split_header,
    spoken,
)
from molspectra.datasets.own.spectra import OPTIONS as SPECTRA
from molspectra.datasets.own.spectra import Folder, folder
from molspectra.errors import InputError

Entries = Callable[[Path], Iterator[Entry]]


@dataclass
class Scan:
    """What a first pass over a file finds.

    Attributes:
        records: number of records.
        numeric: how often each field holds a number.
        filled: how often each field is filled.
        names: how often each name occurs.
    """

    records: int = 0
    numeric: Counter[str] = field(default_factory=Counter)
    filled: Counter[str] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)

    def columns(self) -> dict[str, str | None]:
        """Fields that are numbers at least half of the times that they are filled, with stated units."""
        found = [key for key, count in self.filled.items() if 2 * self.numeric[key] >= count]
        return {key: split_header(key)[1] for key in found}

    def texts(self) -> list[str]:
        """Fields that hold no numbers."""
        return [key for key, count in self.filled.items() if 2 * self.numeric[key] < count]


def scan(path: Path, entries: Entries, names: bool) -> Scan:
    """Pass over a file without building structures; `names` asks for the names too (one text per record).

    Raises:
        InputError: if the file cannot be read, or holds nothing.
    """
    check_readable(path)
    found = Scan()
    for entry in entries(path):
        found.records += 1
        if names and entry.name:
            found.names[entry.name] += 1
        try:
            fields = entry.fields()
        except InputError:
            continue  # it comes again, and is named, when the record is read
        for key, text in fields.items():
            if not is_missing(text):
                found.filled[key] += 1
                found.numeric[key] += is_number(text)
    if not found.records:
        raise InputError(f"{path} holds no molecules")
    return found


def _open(entries: Entries, smiles: bool, raw: Path, options: Mapping[str, str]) -> Opened:
    """Open a file of records with fields."""
    own = own_options(options, raw.name)
    measured = folder(options)
    first = scan(raw, entries, measured.path is not None)
    chosen = selection(first.columns(), own, str(raw))
    columns = chosen.notes(first.texts(), "text")
    metadata = Metadata(
        source=own.source,
        licence=own.licence,
        level=conformer_level() if smiles else own.level,
        samples=measured.samples(),
        properties=chosen.quantities,
        forces=force_quantity(own, str(raw)),
        notes={**columns, **measured.fingerprint()},
    )
    candidates = partial(_candidates, raw, entries, chosen, own, measured)
    notes = {**spoken(columns), **measured.notes(first.names)}
    return Opened(metadata, candidates, first.records, notes=lambda: notes)


def conformer_level() -> str:
    """How the structures of SMILES were made."""
    from rdkit import rdBase

    return f"one conformer from the SMILES: RDKit {rdBase.rdkitVersion}, ETKDGv3 with seed 0, MMFF94 or UFF"


def _candidates(
    raw: Path, entries: Entries, chosen: Selection, own: OwnOptions, measured: Folder, start: int
) -> Iterator[Candidate]:
    """Every record from number `start` on."""
    for entry in islice(entries(raw), start, None):
        label = (
            entry.where if not entry.name or entry.name in entry.where else f"{entry.where}, {entry.name!r}"
        )
        yield Candidate(label, partial(_row, entry, chosen, own, measured))


def _row(entry: Entry, chosen: Selection, own: OwnOptions, measured: Folder) -> Row:
    """The row of one record."""
    fields = entry.fields()
    values = {}
    for key, name in chosen.columns.items():
        try:
            value = number(fields.get(key, ""))
        except InputError as error:
            raise InputError(f"{key}: {error}") from error
        if value is not None:
            values[name] = value
    forces = None
    if own.forces is not None:
        if entry.vectors is None:
            raise InputError("records of this format have no forces")
        forces = entry.vectors(own.forces)
    spectra = measured.spectra(entry.name)
    return row_of(Known(partial(_molecule, entry, own.scale), values, forces, None, spectra))


def _molecule(entry: Entry, scale: float) -> Molecule:
    molecule = entry.molecule()
    if len(molecule) > MAX_ATOMS:
        raise InputError(f"a structure of {len(molecule)} atoms; at most {MAX_ATOMS} are read")
    return molecule if scale == 1.0 else molecule.with_positions(np.asarray(molecule.positions) * scale)


SDF = OwnImporter(
    "sdf",
    "own data: an SDF file",
    "one .sdf file with 3D structures; numeric data fields become properties",
    {**OPTIONS, **POSITIONS, **SPECTRA},
    partial(_open, sdf_entries, False),
)
"""Importer `sdf`."""

EXTXYZ = OwnImporter(
    "extxyz",
    "own data: an extended XYZ file",
    "one .extxyz or .xyz file; numeric entries of the comments become properties",
    {**OPTIONS, **POSITIONS, **FORCES, **SPECTRA},
    partial(_open, xyz_entries, False),
)
"""Importer `extxyz`."""

CSV = OwnImporter(
    "csv",
    "own data: a CSV table of SMILES",
    "one .csv file with a header and a column smiles; numeric columns become properties",
    {**OPTIONS, **SPECTRA},
    partial(_open, csv_entries, True),
)
"""Importer `csv`."""
