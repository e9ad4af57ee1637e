"""Simulations as JSON records, and the append-only journal file of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from molspectra.chem.molecule import Molecule
from molspectra.errors import ExistsError, FormatError, InputError, WriteError, check_format
from molspectra.simulation.api import Property, Simulation
from molspectra.spectra.spectrum import LineSpectrum
from molspectra.workers.shares import GrowingLines

FORMAT = 1
"""Of the lines of a journal; a line without the key "format" has format 1, one of another format names it."""


@dataclass(frozen=True)
class Record:
    """Outcome of the simulation of one molecule.

    Attributes:
        key: identity and level of theory, see `key_of`.
        identity: identity of the start structure.
        smiles: SMILES of the input, if it had one.
        name: name of the input, if it had one.
        seconds: wall time.
        simulation: the result, or None when it failed.
        error: reason of the failure in one line, or None.
    """

    key: str
    identity: str
    smiles: str | None
    name: str | None
    seconds: float
    simulation: Simulation | None = None
    error: str | None = None

    @property
    def label(self) -> str:
        """Name of the molecule in messages."""
        return self.name or self.smiles or self.identity


def key_of(molecule: Molecule, levels: dict[str, str], by_geometry: bool = True) -> str:
    """Return the key of a calculation: identity, charge, levels of theory and by default the start geometry.

    Stereoisomers and conformers share an identity; `by_geometry=False` computes only the first of them.
    """
    geometry = f"/{molecule.geometry_id & 0xFFFFFFFFFFFFFFFF:016x}" if by_geometry else ""
    theory = "; ".join(f"{name}={levels[name]}" for name in sorted(levels))
    return f"{molecule.identity}{geometry}/{molecule.charge:+d}/{theory}"


def to_json(record: Record) -> str:
    """Return the record as one line of JSON; floats are written so that they read back exactly."""
    fields: dict[str, Any] = {
        "key": record.key,
        "identity": record.identity,
        "smiles": record.smiles,
        "name": record.name,
        "seconds": round(record.seconds, 3),
    }
    simulation = record.simulation
    if simulation is None:
        fields["error"] = record.error
    else:
        molecule = simulation.molecule
        fields |= {
            "numbers": molecule.numbers.tolist(),
            "positions": molecule.positions.tolist(),
            "charge": molecule.charge,
            "levels": simulation.levels,
            "lines": {
                name: {"position": line.position.tolist(), "intensity": line.intensity.tolist()}
                for name, line in simulation.lines.items()
            },
            "properties": {name: [p.value, p.unit, p.level] for name, p in simulation.properties.items()},
        }
    return json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def from_json(line: str | bytes) -> Record:
    """Return the record of a line that `to_json` wrote.

    Raises:
        InputError: the line is not a record.
    """
    try:
        fields = json.loads(line if isinstance(line, str) else line.decode())  # strictly UTF-8
        check_format("not a readable simulation record", fields.get("format", FORMAT), FORMAT)
        record = Record(*(fields[name] for name in ("key", "identity", "smiles", "name", "seconds")))
        if "error" in fields:
            return replace(record, error=str(fields["error"]))
        molecule = Molecule(
            np.array(fields["numbers"], dtype=np.int64),
            np.array(fields["positions"], dtype=np.float64),
            smiles=fields["smiles"],
            charge=fields["charge"],
            name=fields["name"],
        )
        levels = fields["levels"]
        lines = {
            name: LineSpectrum(name, np.array(line["position"]), np.array(line["intensity"]), levels[name])
            for name, line in fields["lines"].items()
        }
        properties = {name: Property(*values) for name, values in fields["properties"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise FormatError(f"not a simulation record ({type(error).__name__}: {error})") from None
    return replace(record, simulation=Simulation(molecule, lines, properties, levels))


def read_journal(path: str | Path) -> Iterator[Record]:
    """Yield the records of a journal in file order; an incomplete last line (an interruption) is ignored.

    Raises:
        InputError: the file cannot be read, or a line other than the last is not a record.
    """
    for _, record in _read_lines(Path(path)):
        yield record


def _read_lines(path: Path) -> Iterator[tuple[int, Record]]:
    """Yield byte offset and record of every complete line."""
    try:
        with open(path, "rb") as file:
            offset = 0
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                try:
                    yield offset, from_json(line)
                except InputError as error:
                    raise error.with_context(f"{path}, line {number}") from None
                offset += len(line)
    except OSError as error:
        raise InputError(f"cannot read the journal {path}: {error.strerror}") from None


def records_at(path: Path, offsets: Iterable[int]) -> Iterator[Record]:
    """Yield the records at these byte offsets of a journal, in the given order.

    Raises:
        InputError: the file cannot be read or holds no record there.
    """
    try:
        with open(path, "rb") as file:
            for offset in offsets:
                file.seek(offset)
                yield from_json(file.readline())
    except OSError as error:
        raise InputError(f"cannot read the journal {path}: {error}") from None
    except InputError as error:
        raise error.with_context(path) from None


class GrowingJournal:
    """Reader of a journal that another process writes.

    Args:
        path: the file, which may not exist yet.
    """

    def __init__(self, path: Path):
        self._path, self._lines = path, GrowingLines(path)

    def new_records(self) -> list[Record]:
        """Return the records that are complete now and have not been returned before.

        Raises:
            InputError: the file cannot be read, or a line is not a record.
        """
        lines = self._lines.new_lines()
        try:
            return list(map(from_json, lines))
        except InputError as error:
            raise error.with_context(self._path) from None


class Journal:
    """Append-only file of records; `append` returns once its record is on the disk.

    Attributes:
        path: the file.
        offsets: byte offset of the newest record of each key, for `records_at`.
        failed: keys whose newest record is a failure.

    Args:
        path: file, created with its folders if missing; an incomplete last line is removed.

    Raises:
        InputError: the file cannot be opened, is not a journal, or is being written by another process.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.offsets: dict[str, int] = {}
        self.failed: set[str] = set()
        with _writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab+")  # noqa: SIM115 - closed by close()
        try:
            _lock(self._file, self.path)
            for offset, record in _read_lines(self.path):
                self._index(offset, record)
            with _writing(self.path):
                self._cut_incomplete_line()
        except InputError:
            self._file.close()
            raise

    def _index(self, offset: int, record: Record) -> None:
        self.offsets[record.key] = offset
        if record.error is None:
            self.failed.discard(record.key)
        else:
            self.failed.add(record.key)

    def _cut_incomplete_line(self) -> None:
        """Truncate after the last newline."""
        last = max(self.offsets.values(), default=0)
        self._file.seek(last)
        end = last + len(self._file.readline() if self.offsets else b"")
        if end < self._file.seek(0, os.SEEK_END):
            self._file.truncate(end)

    def append(self, record: Record) -> None:
        """Write one record and force it to the disk.

        Raises:
            WriteError: it cannot be written; what is there of it is cut off when the journal is opened again.
        """
        with _writing(self.path):
            offset = self._file.seek(0, os.SEEK_END)
            self._file.write(to_json(record).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self._index(offset, record)

    def close(self) -> None:
        """Close the file."""
        with _writing(self.path):  # closing writes what could not be written before
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Name the journal in an error of the operating system."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"cannot write the journal {path}: {error.strerror}") from None


def _lock(file: IO[bytes], path: Path) -> None:
    """Lock the journal; raise if another process has it open (on systems with flock)."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ExistsError(
            f"another process is writing the journal {path}; wait for it or choose another"
        ) from None
