"""The structures of QM9S: the pickled list `qm9s.pt`, or a folder of one CSV file per molecule."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from molspectra.data.inert import Record, StoredTensor
from molspectra.data.pickled import stream_pickled
from molspectra.errors import InputError

_CLASSES = ("torch_geometric.",)
_MAX_FILE = 4 << 20


@dataclass(frozen=True)
class Structure:
    """One molecule of QM9S.

    Attributes:
        number: 1-based index in QM9.
        smiles: as the dataset has it, or None.
        numbers: atomic numbers [N].
        positions: [N, 3] Å.
    """

    number: int
    smiles: str | None
    numbers: npt.NDArray[np.int64]
    positions: npt.NDArray[np.float64]


class Structures(Protocol):
    """Structures in the order of the rows of the tables."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, entry: int) -> Structure:
        """One of them.

        Raises:
            InputError: if it is damaged or incomplete.
        """

    def numbers(self) -> npt.NDArray[np.int64]:
        """QM9's number of every entry [len]; 0 where it is not known without reading it."""


class PickledStructures:
    """The entries of `qm9s.pt`; of each, only names and places of tensors are held in memory.

    Raises:
        InputError: if it is damaged, or holds anything but records of molecules.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: list[tuple[int, str | None, Any, Any]] = []
        for entry, item in enumerate(stream_pickled(path, _CLASSES)):
            fields = record_fields(item)
            if fields is None:
                raise InputError(f"{path}: entry {entry} is no record of a molecule")
            smiles = fields.get("smile", fields.get("smiles"))
            try:
                number = int(_single(fields["number"]))
                found = (number, smiles if isinstance(smiles, str) else None, fields["z"], fields["pos"])
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"{path}: entry {entry} lacks number, z or pos") from error
            self._entries.append(found)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._entries)

    def __getitem__(self, entry: int) -> Structure:
        """One of them, read from the file.

        Raises:
            InputError: if it is damaged.
        """
        number, smiles, numbers, positions = self._entries[entry]
        try:
            return Structure(
                number,
                smiles,
                _array(numbers).astype(np.int64).reshape(-1),
                _array(positions).astype(np.float64),
            )
        except (TypeError, ValueError) as error:
            raise InputError(
                f"entry {entry} has no atomic numbers or coordinates that can be read"
            ) from error

    def numbers(self) -> npt.NDArray[np.int64]:
        """QM9's number of every entry."""
        return np.array([entry[0] for entry in self._entries], dtype=np.int64)


class FolderStructures:
    """The folder `qm9s_csv` of files `000001.csv` …; file k + 1 belongs to row k.

    Each is a table with a header and an index column: the first row has QM9S's number, QM9's number, SMILES
    and the number of atoms N; rows 10 to 9 + N have atomic number, x, y, z (Å).

    Raises:
        InputError: if the first file is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = sum(each.suffix == ".csv" and each.stem.isdigit() for each in folder.iterdir())
        if not (folder / "000001.csv").is_file():
            raise InputError(f"{folder}: has no 000001.csv")

    def __len__(self) -> int:
        """How many there are."""
        return self._count

    def __getitem__(self, entry: int) -> Structure:
        """One of them, read from its file.

        Raises:
            InputError: if the file is missing or of another layout.
        """
        name = f"{entry + 1:06d}.csv"
        path = self._folder / name
        if not path.is_file() or path.stat().st_size > _MAX_FILE:
            raise InputError(f"{name} is missing or no file of one molecule")
        try:
            rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
            own, number, smiles, count = rows[1][1:5]
            atoms = rows[11 : 11 + round(float(count))]
            numbers = np.array([round(float(row[1])) for row in atoms], dtype=np.int64)
            positions = np.array([[float(cell) for cell in row[2:5]] for row in atoms])
            if len(atoms) != round(float(count)) or round(float(own)) != entry + 1:
                raise InputError(f"{name} belongs to molecule {own}, or is cut short")
            return Structure(round(float(number)), smiles.strip() or None, numbers, positions)
        except (ValueError, IndexError, csv.Error, OverflowError) as error:
            raise InputError(f"{name} does not have the layout of QM9S") from error

    def numbers(self) -> npt.NDArray[np.int64]:
        """Zeros: QM9's numbers stand in the files."""
        return np.zeros(self._count, dtype=np.int64)


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
    return value.array() if isinstance(value, StoredTensor) else np.asarray(value)


def _single(value: object) -> Any:
    """Return the only number of a tensor, or the number itself."""
    return value.array().item() if isinstance(value, StoredTensor) else value
