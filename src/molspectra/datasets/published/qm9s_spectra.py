"""The tables of QM9S, one spectrum per line: all of them as a stream, or single rows by bisection."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from molspectra.errors import DamagedError, FormatError, NotFoundError, UnitError
from molspectra.spectra.modality import Modality

_BUFFER = 4 << 20  # bytes read at once
_MAX_HEADER = 1 << 20
_NUMBER = 24  # bytes that hold a row number and its comma
_TOLERANCE = 1e-6  # steps of the axis that a point may be off

Samples = npt.NDArray[np.float32]


class SpectrumTable:
    """One CSV file: a header `,500.0,501.0,...` that is the axis, then `0,…`, `1,…` with the samples.

    Attributes:
        path: the file.
        kind: the modality, whose axis the header must have.
        rows: number of rows, as the last one says.

    Raises:
        InputError: if the file is missing, empty or cut short, or has another axis.
    """

    def __init__(self, path: Path, kind: Modality) -> None:
        self.path, self.kind = path, kind
        try:
            with path.open("rb") as file:
                header = file.readline(_MAX_HEADER)
        except OSError as error:
            raise NotFoundError(f"{path}: cannot be read ({error.strerror or error})") from error
        _check_axis(path, kind, header)
        self._body = len(header)
        with self._mapped() as content:
            end = len(content)
            while content[end - 1] in b"\r\n":
                end -= 1
            earliest = max(self._body, end - _MAX_HEADER)  # a row is not longer than this
            last = content[max(content.rfind(b"\n", earliest, end) + 1, earliest) : end]
        number = _row_number(last)
        if number is None or last.count(b",") != kind.points:
            raise DamagedError(f"{path}: its last row is not complete; the download may be cut short")
        self.rows = number + 1

    def spectra(self, start: int = 0) -> Iterator[Samples | FormatError]:
        """Yield the samples [points] of each row from `start` on; for a row that cannot be read, the reason.

        The lines before `start` are read too, but not parsed. Parsing line by line is twice as fast as
        `pyarrow.csv.open_csv`, which builds 3,500 columns per block, and a damaged cell spoils its row only.

        Raises:
            DamagedError: if a row has another number than its position.
        """
        with self.path.open("rb", buffering=_BUFFER) as file:
            file.seek(self._body)
            lines = iter(lambda: file.readline(_MAX_HEADER), b"")
            for row, line in zip(range(self.rows), lines, strict=False):
                if _row_number(line) != row:
                    raise DamagedError(
                        f"{self.path}: row {row} is numbered {line[:_NUMBER]!r}: rows are missing"
                    )
                if row >= start:
                    yield self._parse(line)

    def spectrum(self, row: int) -> Samples | FormatError:
        """Look up one row, as `spectra` yields it, by bisection: row numbers ascend.

        Raises:
            DamagedError: if there is no such row.
        """
        with self._mapped() as content:
            low, high = self._body, len(content)  # the row begins in [low, high)
            while low < high:
                begin = max(content.rfind(b"\n", low, (low + high) // 2) + 1, low)
                end = content.find(b"\n", begin)
                end = len(content) if end < 0 else end
                number = _row_number(content[begin : begin + _NUMBER])
                if number == row:
                    return self._parse(content[begin:end])
                if number is None or number > row:
                    high = begin
                else:
                    low = end + 1
        raise DamagedError(f"{self.path}: row {row} is missing")

    def _parse(self, line: bytes) -> Samples | FormatError:
        """Parse the samples of one line, or say what is wrong with them."""
        cells = pc.split_pattern(pa.array([line.rstrip(b"\r\n")]), b",").values[1:]
        if len(cells) != self.kind.points:
            return FormatError(f"{len(cells)} samples instead of {self.kind.points}")
        try:
            samples: Samples = cells.cast(pa.string()).cast(pa.float32()).to_numpy()
        except pa.ArrowInvalid:
            return FormatError("a sample that is no number")
        return samples

    @contextmanager
    def _mapped(self) -> Iterator[mmap.mmap]:
        """Map the file for a moment, so that its pages do not add up in the memory of the process."""
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


def _row_number(line: bytes) -> int | None:
    """Return the row number that a line begins with."""
    cell = line[:_NUMBER].partition(b",")[0]
    return int(cell) if cell.isdigit() else None


def _check_axis(path: Path, kind: Modality, header: bytes) -> None:
    """Refuse another axis than the modality's: its samples would have to be shifted or resampled."""
    first, *cells = header.removeprefix(b"\xef\xbb\xbf").strip().split(b",")
    try:
        values = np.array([float(cell.strip(b'" ')) for cell in cells])
        if first.strip(b'"') or len(values) < 2:
            raise ValueError
    except ValueError as error:
        raise FormatError(f"{path}: its first line must be an empty cell and then the axis") from error
    axis = kind.axis()
    if len(values) != len(axis) or not np.abs(values - axis).max() <= _TOLERANCE * kind.step:
        raise UnitError(
            f"{path}: its axis is {_axis_text(values)} {kind.unit}, that of {kind.name} spectra is "
            f"{_axis_text(axis)} {kind.unit}; spectra are not resampled, fetch the published file"
        )


def _axis_text(axis: npt.NDArray[np.float64]) -> str:
    return f"{axis[0]:g} to {axis[-1]:g} in {len(axis)} points"
