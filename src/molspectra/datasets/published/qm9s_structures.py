"""The structures of QM9S: the pickled list `qm9s.pt`, or one CSV file per molecule."""

from __future__ import annotations

import csv
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.datasets.formats.pickled import Record, as_array, is_dense, load_pickled
from molspectra.errors import DamagedError, FormatError, MismatchError, NotFoundError

_CLASSES = ("torch_geometric.", "numpy.", "_codecs.")  # other objects in an entry stay inert
_MAX_FILE = 4 << 20
_NUMBERED = re.compile(r"(?:.*/)?(\d{1,9})\.csv")


@dataclass(frozen=True)
class Structure:
    """One molecule of QM9S.

    Attributes:
        number: 1-based index in QM9.
        smiles: SMILES of the dataset, or None.
        numbers: atomic numbers [N].
        positions: [N, 3] Å.
    """

    number: int
    smiles: str | None
    numbers: npt.NDArray[np.int64]
    positions: npt.NDArray[np.float64]


class PickledStructures:
    """The entries of `qm9s.pt`; of each, number, SMILES and two views of the mapped file are kept.

    The whole list is in memory while it is read, 4 GB for the published one; `TableStructures` need little.

    Raises:
        InputError: if it is damaged, or holds anything but records of molecules.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: list[tuple[int, str | None, Any, Any]] = []
        items = load_pickled(path, _CLASSES)
        if not isinstance(items, list):
            raise FormatError(f"{path}: holds no list")
        for entry, item in enumerate(items):
            fields = record_fields(item)
            if fields is None:
                raise FormatError(f"{path}: entry {entry} is no record of a molecule")
            smiles = fields.get("smile", fields.get("smiles"))
            try:
                number = fields["number"]
                number = int(as_array(number).item() if is_dense(number) else number)
                numbers, positions = fields["z"], fields["pos"]
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise FormatError(f"{path}: entry {entry} lacks number, z or pos") from error
            self._entries.append((number, smiles if isinstance(smiles, str) else None, numbers, positions))

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, entry: int) -> Structure:
        """Read one structure."""
        number, smiles, numbers, positions = self._entries[entry]
        try:
            return Structure(
                number,
                smiles,
                _array(numbers).astype(np.int64).reshape(-1),
                _array(positions).astype(np.float64),
            )
        except (TypeError, ValueError, OverflowError, MemoryError) as error:
            raise FormatError(
                f"entry {entry} has no atomic numbers or coordinates that can be read"
            ) from error

    def numbers(self) -> npt.NDArray[np.int64]:
        """Return QM9's number of every entry [entries]."""
        return np.array([entry[0] for entry in self._entries], dtype=np.int64)


class TableStructures:
    """The files `000001.csv` … of `qm9s_csv`, in a folder or zip archive; file k + 1 belongs to row k.

    Each is a table with a header and an index column: the first row has QM9S's number, QM9's number, SMILES
    and the number of atoms N; rows 10 to 9 + N have atomic number, x, y, z (Å).

    Raises:
        InputError: if the first file is missing, or the archive is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._zip = _opened_zip(path) if path.is_file() else None
        names = self._zip.namelist() if self._zip else [file.name for file in path.iterdir()]
        self._names = {int(match[1]): name for name in names if (match := _NUMBERED.fullmatch(name))}
        self._path = path
        if 1 not in self._names:
            raise NotFoundError(f"{path}: has no 000001.csv")

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, entry: int) -> Structure:
        """Read one structure."""
        name = f"{entry + 1:06d}.csv"
        try:
            lines = self._content(entry + 1).decode().splitlines()
            index, number, smiles, count = next(csv.reader(lines[1:2]), [])[1:5]
            atoms = list(csv.reader(lines[11 : 11 + round(float(count))]))  # derivatives follow
            numbers = np.array([round(float(row[1])) for row in atoms], dtype=np.int64)
            positions = np.array([[float(cell) for cell in row[2:5]] for row in atoms])
            if len(atoms) != round(float(count)) or round(float(index)) != entry + 1:
                raise MismatchError(f"{name} belongs to molecule {index}, or is cut short")
            return Structure(round(float(number)), smiles.strip() or None, numbers, positions)
        except KeyError as error:
            raise NotFoundError(f"{name} is missing") from error
        except (ValueError, IndexError, csv.Error, OverflowError) as error:
            raise FormatError(f"{name} does not have the layout of QM9S") from error
        except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
            raise DamagedError(f"{name} cannot be read ({error})") from error

    def numbers(self) -> npt.NDArray[np.int64]:
        """Return zeros [entries]: QM9's numbers are in the files."""
        return np.zeros(len(self), dtype=np.int64)

    def _content(self, number: int) -> bytes:
        name = self._names[number]
        if self._zip is None:
            with (self._path / name).open("rb") as file:
                content = file.read(_MAX_FILE + 1)
        else:
            with self._zip.open(name) as member:
                content = member.read(_MAX_FILE + 1)
        if len(content) > _MAX_FILE:
            raise ValueError
        return content


Structures = PickledStructures | TableStructures
"""Structures in the order of the rows of the tables."""


def _opened_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise DamagedError(f"{path}: not a zip archive, or cut short ({error})") from error


def record_fields(item: object) -> dict[Any, Any] | None:
    """Return the attributes of a pickled graph, of new and of old versions of the graph library.

    New ones keep them in `_store._mapping`, old ones as attributes of the object itself.
    """
    if isinstance(item, dict):
        return item
    if not isinstance(item, Record) or not isinstance(item.state, dict):
        return None
    store = item.state.get("_store")
    if isinstance(store, Record) and isinstance(store.state, dict):
        mapping = store.state.get("_mapping")
        return mapping if isinstance(mapping, dict) else None
    return item.state


def _array(value: object) -> npt.NDArray[Any]:
    return np.asarray(value) if isinstance(value, list | tuple) else as_array(value)
